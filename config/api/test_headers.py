"""The security headers, which every response has."""

from collections.abc import Iterator, Mapping
from unittest import mock

from config.test_access import REQUESTS, RequestTestCase, roll_back
from config.testing.cases import AdminTestCase, ApiTestCase

NOTHING_ALLOWED = {"default-src": "'none'", "base-uri": "'none'", "frame-ancestors": "'none'"}
UNSAFE_SOURCES = r"unsafe|http|\*|blob"
A_YEAR = "max-age=31536000"


class HeaderAssertions:
    def assert_protected(self, headers: Mapping[str, str], *, kind: str = "data") -> None:
        """Assert that the security headers are set. `kind` is "data", "page", or "file" for a static file of a page."""
        self.assertEqual(headers["X-Content-Type-Options"], "nosniff")
        self.assertEqual(headers["X-Frame-Options"], "DENY")
        self.assertEqual(headers["Referrer-Policy"], "same-origin")
        self.assertEqual("no-store" in headers["Cache-Control"], kind != "file", headers["Cache-Control"])
        self.assertNotRegex(headers.get("Server", ""), "[0-9]")
        policy = dict(directive.split(maxsplit=1) for directive in headers["Content-Security-Policy"].split(";"))
        if kind == "page":
            self.assertLessEqual({"default-src", *NOTHING_ALLOWED}, {*policy})
            self.assertEqual((policy["base-uri"], policy["frame-ancestors"]), ("'none'", "'none'"))
            self.assertNotRegex(" ".join(policy.values()), UNSAFE_SOURCES)
        else:
            self.assertEqual(policy, NOTHING_ALLOWED)


class EveryEndpointTests(HeaderAssertions, RequestTestCase):
    def test_has_the_headers_with_and_without_a_token(self):
        for client in (self.as_user(self.alice), self.client):
            for request in REQUESTS:
                with self.subTest(request=request), roll_back():
                    response = self.send(client, request)

                    self.assert_protected(response.headers, kind="page" if request.path == "/api/docs" else "data")


class ErrorTests(HeaderAssertions, ApiTestCase):
    def errors(self) -> Iterator[tuple[int, object]]:
        """Yield responses with their status. Those with 500 and 503 of a running service are in config.test_secrets."""
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

    def test_errors_of_views_and_middleware_have_the_headers(self):
        for status, response in self.errors():
            with self.subTest(status):
                self.assertEqual(response.status_code, status)
                self.assert_protected(response.headers)

    def test_exception_in_a_middleware_has_the_headers(self):
        method = "django.middleware.security.SecurityMiddleware.process_request"
        with mock.patch(method, side_effect=ValueError):
            self.client.raise_request_exception = False
            response = self.client.get("/api/message")

        self.assertEqual(response.status_code, 500)
        self.assert_protected(response.headers)

    def test_redirect_to_https_has_the_headers(self):
        with self.settings(SECURE_SSL_REDIRECT=True):
            redirect = self.client.get("/api/message")
            other_host = self.client.get("/api/message", headers={"host": "evil.example"})

        self.assertEqual((redirect.status_code, other_host.status_code), (301, 400))
        self.assert_protected(redirect.headers)
        self.assert_protected(other_host.headers)


class PageTests(HeaderAssertions, AdminTestCase):
    def test_admin_pages_have_the_headers(self):
        user = f"/admin/auth/user/{self.alice.pk}/change/"
        for path in ("/admin/", "/admin/auth/user/", user, "/admin/messageservice/message/", "/admin/password_change/"):
            with self.subTest(path):
                response = self.admin.get(path)

                self.assertEqual(response.status_code, 200)
                self.assert_protected(response.headers, kind="page")
        self.assert_protected(self.client.get("/admin/login/").headers, kind="page")
        self.assert_protected(self.client.get("/admin/").headers)  # redirects to the login, without content

    def test_static_files_have_the_headers(self):
        for path in ("/static/docs/page.js", "/static/docs/icon.svg", "/static/admin/css/base.css"):
            with self.subTest(path):
                response = self.client.get(path)

                self.assertEqual(response.status_code, 200)
                self.assert_protected(response.headers, kind="file")
