"""Cross-origin requests: preflight requests, and the headers that let the pages of an origin read responses."""

from django.test import override_settings

from blocking.models import Block
from config.environment import Limit
from config.testing.cases import PASSWORD, ApiTestCase, api_paths

ORIGIN = "https://app.example.org"
ALLOWED_HEADERS = {"authorization", "content-type", "idempotency-key", "x-request-id"}
EXPOSED_HEADERS = {"location", "retry-after", "x-request-id", "idempotency-replayed"}
METHODS_SERVED = {"GET", "POST", "DELETE"}


def header_items(value):
    """Return the items of a header whose value is a comma-separated list."""
    return {item.strip().lower() for item in value.split(",")}


class CorsTestCase(ApiTestCase):
    def preflight(self, path, origin=ORIGIN, method="POST", headers="authorization,content-type"):
        """Send the preflight request that a browser sends before the request."""
        return self.client.options(
            path,
            headers={
                "origin": origin,
                "access-control-request-method": method,
                "access-control-request-headers": headers,
            },
        )

    def assert_readable(self, response):
        """Assert that pages of ORIGIN can read the response and its headers."""
        self.assertEqual(response.headers["Access-Control-Allow-Origin"], ORIGIN)
        self.assertLessEqual(EXPOSED_HEADERS, header_items(response.headers["Access-Control-Expose-Headers"]))
        self.assertIn("origin", header_items(response.headers["Vary"]))
        self.assertNotIn("Access-Control-Allow-Credentials", response.headers)  # the API accepts no cookie

    def assert_not_readable(self, response):
        """Assert that the response allows no origin."""
        self.assertEqual([name for name in response.headers if name.lower().startswith("access-control-")], [])


@override_settings(CORS_ALLOWED_ORIGINS=[ORIGIN, "http://localhost:3000"])
class PreflightTests(CorsTestCase):
    def test_is_allowed_on_every_path_without_a_token(self):
        paths = list(api_paths())
        self.assertGreaterEqual(len(paths), 15)
        for path in (*paths, "/api/no-such-path"):
            with self.subTest(path), self.assertNumQueries(0):
                response = self.preflight(path)

                self.assertEqual(response.status_code, 200)
                self.assertEqual(response.content, b"")
                self.assert_readable(response)
                self.assertLessEqual(ALLOWED_HEADERS, header_items(response.headers["Access-Control-Allow-Headers"]))
                methods = response.headers["Access-Control-Allow-Methods"].split(", ")
                self.assertLessEqual(METHODS_SERVED, set(methods))
                self.assertIn("X-Request-ID", response.headers)

    def test_allows_each_listed_origin(self):
        response = self.preflight("/api/message", origin="http://localhost:3000")

        self.assertEqual(response.headers["Access-Control-Allow-Origin"], "http://localhost:3000")

    def test_allows_no_other_origin(self):
        similar = (
            "http://app.example.org",
            f"{ORIGIN}:8443",
            f"{ORIGIN}.example.com",
            "https://example.org",
            f"{ORIGIN}@a.org",
        )
        for origin in (*similar, "http://localhost", "http://localhost:30000", "null", "*", "[", ""):
            with self.subTest(origin):
                self.assert_not_readable(self.preflight("/api/message", origin))

    def test_allows_no_path_outside_the_api(self):
        for path in ("/healthz", "/readyz", "/admin/", "/admin/login/", "/static/admin/css/base.css"):
            with self.subTest(path):
                self.assert_not_readable(self.preflight(path, method="GET"))


@override_settings(CORS_ALLOWED_ORIGINS=[ORIGIN])
class ResponseTests(CorsTestCase):
    origin = {"origin": ORIGIN}

    def test_is_readable(self):
        client, message = self.as_user(self.alice), {"receiver": "bob", "content": "hello"}
        headers = self.origin | {"idempotency-key": "one", "x-request-id": "mine"}

        sent, retried = (client.post("/api/message", message, headers=headers) for _ in range(2))
        page = client.get("/api/message", headers=self.origin)

        self.assertEqual([response.status_code for response in (sent, retried, page)], [201, 201, 200])
        for response in (sent, retried, page):
            self.assert_readable(response)
        self.assertEqual(sent.headers["Location"], f"http://testserver/api/message/{sent.json()['id']}")
        self.assertEqual(sent.headers["X-Request-ID"], "mine")
        self.assertEqual(retried.headers["Idempotency-Replayed"], "true")

    def test_is_readable_without_content(self):
        Block.objects.create(blocker=self.alice, blocked=self.bob)

        response = self.as_user(self.alice).delete("/api/block/bob", headers=self.origin)

        self.assertEqual(response.status_code, 204)
        self.assert_readable(response)

    @override_settings(LIMIT_LOGIN=Limit(count=1, seconds=60))
    def test_errors_are_readable(self):
        Block.objects.create(blocker=self.bob, blocked=self.alice)
        alice, text = self.as_user(self.alice), "text/plain"
        wrong_credentials = {"username": "alice", "password": f"not {PASSWORD}"}
        errors = (
            (400, self.client.post, "/api/auth/login", wrong_credentials, {}),
            (400, self.client.post, "/api/auth/login", wrong_credentials, {"HTTP_HOST": "other.example.org"}),
            (401, self.client.get, "/api/message", None, {}),
            (403, alice.post, "/api/message", {"receiver": "bob", "content": "hello"}, {}),
            (404, alice.get, "/api/message/1", None, {}),
            (404, self.client.get, "/api/no-such-path", None, {}),
            (405, alice.put, "/api/block", {}, {}),
            (413, self.client.post, "/api/auth/login", {"username": "a" * 2**20, "password": PASSWORD}, {}),
            (415, self.client.post, "/api/auth/login", "hello", {"content_type": text}),
            (429, self.client.post, "/api/auth/login", wrong_credentials, {}),
        )
        for status, send, path, fields, extra in errors:
            with self.subTest(status, path=path):
                response = send(path, fields, headers=self.origin, **extra)

                self.assertEqual(response.status_code, status)
                self.assert_readable(response)
                self.assertIn("X-Request-ID", response.headers)
        self.assertIn("Retry-After", response.headers)

    def test_is_not_readable_from_other_origins(self):
        for origin in ("https://evil.example.org", "null"):
            for path, status in (("/api/message", 401), ("/api/schema", 200)):
                with self.subTest(origin, path=path):
                    response = self.client.get(path, headers={"origin": origin})

                    self.assertEqual(response.status_code, status)
                    self.assert_not_readable(response)
                    # So that no cache returns it to an allowed origin:
                    self.assertIn("origin", header_items(response.headers["Vary"]))

    def test_is_not_readable_outside_the_api(self):
        for path in ("/healthz", "/readyz", "/admin/", "/admin/login/", "/static/admin/css/base.css", "/api"):
            with self.subTest(path):
                self.assert_not_readable(self.client.get(path, headers=self.origin))


class NoOriginTests(CorsTestCase):
    @override_settings(CORS_ALLOWED_ORIGINS=[])
    def test_no_origin_is_allowed_by_default(self):
        for origin in (ORIGIN, "http://testserver", "http://localhost:8000", "null"):
            with self.subTest(origin):
                self.assert_not_readable(self.preflight("/api/message", origin))
                self.assert_not_readable(self.client.get("/api/schema", headers={"origin": origin}))
