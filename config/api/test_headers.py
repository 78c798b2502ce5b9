"""The headers that tell a browser what it must not do with an answer: on every one, whoever gives it."""

from collections.abc import Iterator, Mapping
from unittest import mock

from config.test_access import CALLS, CallTestCase, undone
from config.testing.cases import AdminTestCase, ApiTestCase

NOTHING = {"default-src": "'none'", "base-uri": "'none'", "frame-ancestors": "'none'"}
ELSEWHERE_OR_INLINE = r"unsafe|http|\*|blob"
A_YEAR = "max-age=31536000"


class HeaderAssertions:
    def assert_protected(self, headers: Mapping[str, str], *, kind: str = "data") -> None:
        """`kind` is what the answer is: data, a page, or a file of a page."""
        self.assertEqual(headers["X-Content-Type-Options"], "nosniff")
        self.assertEqual(headers["X-Frame-Options"], "DENY")
        self.assertEqual(headers["Referrer-Policy"], "same-origin")
        self.assertEqual("no-store" in headers["Cache-Control"], kind != "file", headers["Cache-Control"])
        self.assertNotRegex(headers.get("Server", ""), "[0-9]")
        policy = dict(directive.split(maxsplit=1) for directive in headers["Content-Security-Policy"].split(";"))
        if kind == "page":
            self.assertLessEqual({"default-src", *NOTHING}, {*policy})
            self.assertEqual((policy["base-uri"], policy["frame-ancestors"]), ("'none'", "'none'"))
            self.assertNotRegex(" ".join(policy.values()), ELSEWHERE_OR_INLINE)
        else:
            self.assertEqual(policy, NOTHING)


class EveryCallTests(HeaderAssertions, CallTestCase):
    def test_with_and_without_a_token(self):
        for client in (self.as_user(self.alice), self.client):
            for call in CALLS:
                with self.subTest(call=call), undone():
                    response = self.make(client, call)

                    self.assert_protected(response.headers, kind="page" if call.path == "/api/docs" else "data")


class RefusalTests(HeaderAssertions, ApiTestCase):
    def refusals(self) -> Iterator[tuple[int, object]]:
        """Answers by their status; those with 500 and 503 of a running service are in config.test_secrets."""
        alice = self.as_user(self.alice)
        yield 400, alice.post("/api/message", {})
        yield 400, alice.get("/api/message?nonsense=1")
        yield 400, alice.get("/api/schema", headers={"host": "evil.example"})
        yield 404, alice.get("/api/nothing")
        yield 404, alice.get("/nothing")
        yield 404, alice.get("/static/nothing.js")
        yield 405, alice.put("/api/message", {})
        yield 405, alice.post("/api/docs")
        yield 413, alice.generic("POST", "/api/message", b"x" * (2**20 + 1))
        yield 415, alice.generic("POST", "/api/message", b"<a/>", content_type="text/xml")

    def test_of_a_view_or_before_it(self):
        for status, response in self.refusals():
            with self.subTest(status):
                self.assertEqual(response.status_code, status)
                self.assert_protected(response.headers)

    def test_of_an_exception_in_a_middleware(self):
        breaking = "django.middleware.security.SecurityMiddleware.process_request"
        with mock.patch(breaking, side_effect=ValueError):
            self.client.raise_request_exception = False
            response = self.client.get("/api/message")

        self.assertEqual(response.status_code, 500)
        self.assert_protected(response.headers)

    def test_of_a_redirect_to_https(self):
        with self.settings(SECURE_SSL_REDIRECT=True):
            redirect = self.client.get("/api/message")
            foreign = self.client.get("/api/message", headers={"host": "evil.example"})

        self.assertEqual((redirect.status_code, foreign.status_code), (301, 400))
        self.assert_protected(redirect.headers)
        self.assert_protected(foreign.headers)


class PageTests(HeaderAssertions, AdminTestCase):
    def test_of_the_admin(self):
        user = f"/admin/auth/user/{self.alice.pk}/change/"
        for path in ("/admin/", "/admin/auth/user/", user, "/admin/messageservice/message/", "/admin/password_change/"):
            with self.subTest(path):
                response = self.admin.get(path)

                self.assertEqual(response.status_code, 200)
                self.assert_protected(response.headers, kind="page")
        self.assert_protected(self.client.get("/admin/login/").headers, kind="page")
        self.assert_protected(self.client.get("/admin/").headers)  # which leads to the log-in and holds nothing

    def test_of_the_files_of_pages(self):
        for path in ("/static/docs/page.js", "/static/docs/icon.svg", "/static/admin/css/base.css"):
            with self.subTest(path):
                response = self.client.get(path)

                self.assertEqual(response.status_code, 200)
                self.assert_protected(response.headers, kind="file")
