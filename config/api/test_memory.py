"""A response is freed as soon as it is sent, without garbage collection."""

import gc
import io
import weakref

from accounts.authentication import issue_token
from config.testing.cases import ConcurrentTestCase
from config.wsgi import application
from messageservice.listings import CountedRow

CONTENT = "only in this test"  # rows of other tests may still be in memory


class MemoryTests(ConcurrentTestCase):
    def setUp(self):
        super().setUp()
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)

    def respond(self, path, token):
        """Return the response of the WSGI application. The test client would keep a reference to it."""
        environ = {
            "REQUEST_METHOD": "GET",
            "PATH_INFO": path,
            "HTTP_AUTHORIZATION": f"Token {token}",
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "80",
            "wsgi.input": io.BytesIO(),
            "wsgi.url_scheme": "http",
        }
        response = application(environ, lambda *_: None)
        response.close()
        return response

    def test_response_and_rows_of_a_list_are_freed(self):
        self.as_user(self.alice).post("/api/message", {"receiver": "bob", "content": CONTENT})
        _, token = issue_token(self.bob)
        gc.collect()

        for path in ("/api/message", "/api/auth/user", "/api/nothing"):
            with self.subTest(path=path):
                response = self.respond(path, token)
                status, freed = response.status_code, weakref.ref(response)

                del response

                self.assertEqual((status, freed()), (404 if path == "/api/nothing" else 200, None))
        self.assertEqual([row for row in gc.get_objects() if type(row) is CountedRow and row.content == CONTENT], [])
