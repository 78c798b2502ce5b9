from django.test import override_settings

from blocking.models import Block
from config.environment import Limit
from config.testing.cases import PASSWORD, ApiTestCase, api_paths

ORIGIN = "https://app.example.org"
ALLOWED_HEADERS = {"authorization", "content-type", "idempotency-key", "x-request-id"}
EXPOSED_HEADERS = {"location", "retry-after", "x-request-id", "idempotency-replayed"}
METHODS_SERVED = {"GET", "POST", "DELETE"}


def listed(value):
    return {item.strip().lower() for item in value.split(",")}


class CorsTestCase(ApiTestCase):
    def preflight(self, path, origin=ORIGIN, method="POST", headers="authorization,content-type"):
        return self.client.options(
            path,
            headers={
                "origin": origin,
                "access-control-request-method": method,
                "access-control-request-headers": headers,
            },
        )

    def assert_readable(self, response):
        self.assertEqual(response.headers["Access-Control-Allow-Origin"], ORIGIN)
        self.assertLessEqual(EXPOSED_HEADERS, listed(response.headers["Access-Control-Expose-Headers"]))
        self.assertIn("origin", listed(response.headers["Vary"]))
        self.assertNotIn("Access-Control-Allow-Credentials", response.headers)  # no cookie opens the API

    def assert_not_readable(self, response):
        self.assertEqual([name for name in response.headers if name.lower().startswith("access-control-")], [])


@override_settings(CORS_ALLOWED_ORIGINS=[ORIGIN, "http://localhost:3000"])
class PreflightTests(CorsTestCase):
    def test_is_answered_on_every_path_without_a_token(self):
        paths = list(api_paths())
        self.assertGreaterEqual(len(paths), 15)
        for path in (*paths, "/api/no-such-path"):
            with self.subTest(path), self.assertNumQueries(0):
                response = self.preflight(path)

                self.assertEqual(response.status_code, 200)
                self.assertEqual(response.content, b"")
                self.assert_readable(response)
                self.assertLessEqual(ALLOWED_HEADERS, listed(response.headers["Access-Control-Allow-Headers"]))
                methods = response.headers["Access-Control-Allow-Methods"].split(", ")
                self.assertLessEqual(METHODS_SERVED, set(methods))
                self.assertIn("X-Request-ID", response.headers)

    def test_is_answered_to_each_of_the_origins(self):
        response = self.preflight("/api/message", origin="http://localhost:3000")

        self.assertEqual(response.headers["Access-Control-Allow-Origin"], "http://localhost:3000")

    def test_allows_no_other_origin(self):
        alike = (
            "http://app.example.org",
            f"{ORIGIN}:8443",
            f"{ORIGIN}.example.com",
            "https://example.org",
            f"{ORIGIN}@a.org",
        )
        for origin in (*alike, "http://localhost", "http://localhost:30000", "null", "*", "[", ""):
            with self.subTest(origin):
                self.assert_not_readable(self.preflight("/api/message", origin))

    def test_allows_nothing_beside_the_api(self):
        for path in ("/healthz", "/readyz", "/admin/", "/admin/login/", "/static/admin/css/base.css"):
            with self.subTest(path):
                self.assert_not_readable(self.preflight(path, method="GET"))


@override_settings(CORS_ALLOWED_ORIGINS=[ORIGIN])
class AnswerTests(CorsTestCase):
    origin = {"origin": ORIGIN}

    def test_can_be_read(self):
        client, message = self.as_user(self.alice), {"receiver": "bob", "content": "hello"}
        headers = self.origin | {"idempotency-key": "one", "x-request-id": "mine"}

        sent, again = (client.post("/api/message", message, headers=headers) for _ in range(2))
        page = client.get("/api/message", headers=self.origin)

        self.assertEqual([response.status_code for response in (sent, again, page)], [201, 201, 200])
        for response in (sent, again, page):
            self.assert_readable(response)
        self.assertEqual(sent.headers["Location"], f"http://testserver/api/message/{sent.json()['id']}")
        self.assertEqual(sent.headers["X-Request-ID"], "mine")
        self.assertEqual(again.headers["Idempotency-Replayed"], "true")

    def test_can_be_read_without_content(self):
        Block.objects.create(blocker=self.alice, blocked=self.bob)

        response = self.as_user(self.alice).delete("/api/block/bob", headers=self.origin)

        self.assertEqual(response.status_code, 204)
        self.assert_readable(response)

    @override_settings(LIMIT_LOGIN=Limit(count=1, seconds=60))
    def test_can_be_read_when_they_refuse(self):
        Block.objects.create(blocker=self.bob, blocked=self.alice)
        alice, text = self.as_user(self.alice), "text/plain"
        wrong = {"username": "alice", "password": f"not {PASSWORD}"}
        refusals = (
            (400, self.client.post, "/api/auth/login", wrong, {}),
            (400, self.client.post, "/api/auth/login", wrong, {"HTTP_HOST": "foreign.example.org"}),
            (401, self.client.get, "/api/message", None, {}),
            (403, alice.post, "/api/message", {"receiver": "bob", "content": "hello"}, {}),
            (404, alice.get, "/api/message/1", None, {}),
            (404, self.client.get, "/api/no-such-path", None, {}),
            (405, alice.put, "/api/block", {}, {}),
            (413, self.client.post, "/api/auth/login", {"username": "a" * 2**20, "password": PASSWORD}, {}),
            (415, self.client.post, "/api/auth/login", "hello", {"content_type": text}),
            (429, self.client.post, "/api/auth/login", wrong, {}),
        )
        for status, call, path, fields, extra in refusals:
            with self.subTest(status, path=path):
                response = call(path, fields, headers=self.origin, **extra)

                self.assertEqual(response.status_code, status)
                self.assert_readable(response)
                self.assertIn("X-Request-ID", response.headers)
        self.assertIn("Retry-After", response.headers)

    def test_are_given_to_other_origins_without_a_word_of_leave(self):
        for origin in ("https://evil.example.org", "null"):
            for path, status in (("/api/message", 401), ("/api/schema", 200)):
                with self.subTest(origin, path=path):
                    response = self.client.get(path, headers={"origin": origin})

                    self.assertEqual(response.status_code, status)
                    self.assert_not_readable(response)
                    self.assertIn("origin", listed(response.headers["Vary"]))  # no cache gives it to an allowed one

    def test_cannot_be_read_beside_the_api(self):
        for path in ("/healthz", "/readyz", "/admin/", "/admin/login/", "/static/admin/css/base.css", "/api"):
            with self.subTest(path):
                self.assert_not_readable(self.client.get(path, headers=self.origin))


class NoOriginTests(CorsTestCase):
    @override_settings(CORS_ALLOWED_ORIGINS=[])
    def test_none_is_allowed_unless_set(self):
        for origin in (ORIGIN, "http://testserver", "http://localhost:8000", "null"):
            with self.subTest(origin):
                self.assert_not_readable(self.preflight("/api/message", origin))
                self.assert_not_readable(self.client.get("/api/schema", headers={"origin": origin}))
