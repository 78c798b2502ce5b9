"""Errors, the headers and format of every response, health checks, and the test runner."""

import itertools
import subprocess
import sys
from unittest import mock, skipUnless

from django.conf import settings
from django.db import InterfaceError, OperationalError, connection, transaction
from django.http import HttpResponse
from django.test import override_settings
from django.urls import include, path
from rest_framework.response import Response
from rest_framework.views import APIView

from config.database.sql import execute
from config.log import record_event
from config.testing.cases import PASSWORD, ApiTestCase, ConcurrentTestCase, with_token
from config.testing.http_client import free_port
from config.urls import handler400, handler403, handler404  # noqa: F401 - this module is a URLconf, see below
from messageservice.models import Message

NOT_FOUND = {"detail": "Not found."}
WENT_WRONG = {"detail": "Something went wrong"}
UNAVAILABLE = {"detail": "The service is unavailable. Try again in a moment."}
TOO_LARGE = b"x" * (2**20 + 1)


def work():
    """Return the content of the views below. Tests replace it with a function that raises an error."""
    return "done"


class WorkView(APIView):
    """A view of Django REST framework."""

    def get(self, request):
        return Response(work())


def work_page(request):
    """A view of plain Django, such as the admin's."""
    return HttpResponse(work())


urlpatterns = [
    path("api/work", WorkView.as_view()),
    path("work", work_page),
    path("", include("config.urls")),
]


class UnknownPathTests(ApiTestCase):
    PATHS = ("/", "/nothing", "/api", "/api/", "/api/nothing", "/api/auth/login/", "/API/message", "//api/message")
    INVALID_PATHS = ("/%00", "/api/message%00", "/api/auth/%00login", "/api/%ff", "/%ED%A0%80", "/%0d%0aX-Forged:%20yes")

    def test_is_not_found_with_and_without_token_and_debug(self):
        clients = {"nobody": self.client, "alice": self.as_user(self.alice), "invalid token": with_token("0" * 64)}

        for (who, client), debug, url in itertools.product(clients.items(), (False, True), self.PATHS + self.INVALID_PATHS):
            with self.subTest(who=who, debug=debug, path=url), self.settings(DEBUG=debug):
                response = client.get(url)

                self.assertEqual((response.status_code, response.json()), (404, NOT_FOUND))

    def test_is_not_found_with_any_method(self):
        for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS", "NONSENSE"):
            with self.subTest(method=method):
                response = self.client.generic(method, "/api/nothing", b"{", content_type="application/nonsense")

                self.assertEqual((response.status_code, response.json()), (404, NOT_FOUND))

    def test_missing_static_file_is_not_found(self):
        response = self.client.get("/static/nothing.css")

        self.assertEqual((response.status_code, response.json()), (404, NOT_FOUND))


class WrongMethodTests(ApiTestCase):
    def test_is_rejected_with_the_allowed_methods(self):
        cases = (
            (self.client, "GET", "/api/auth/login", "POST, OPTIONS"),
            (self.client, "PUT", "/api/auth/register", "POST, OPTIONS"),
            (self.client, "NONSENSE", "/api/auth/register", "POST, OPTIONS"),
            (self.client, "POST", "/healthz", "GET, HEAD, OPTIONS"),
            (self.as_user(self.alice), "DELETE", "/api/message", "GET, POST, HEAD, OPTIONS"),
            (self.as_user(self.alice), "LIST", "/api/message?nonsense=1", "GET, POST, HEAD, OPTIONS"),
        )

        for client, method, url, allowed in cases:
            with self.subTest(method=method, path=url):
                response = client.generic(method, url)

                self.assertEqual(response.status_code, 405)
                self.assertEqual(response.json(), {"detail": f'Method "{method}" not allowed.'})
                self.assertEqual(response.headers["Allow"], allowed)


class OtherErrorTests(ApiTestCase):
    """Errors that Django and WhiteNoise respond with, without a body."""

    def test_a_wrong_method_is_rejected_in_json(self):
        for method, url, allowed in (
            ("POST", "/static/docs/page.js", "GET, HEAD"),
            ("TRACE", "/admin/login/", "GET, POST, PUT, HEAD, OPTIONS"),
        ):
            with self.subTest(method=method, path=url):
                response = self.client.generic(method, url)

                self.assertEqual((response.status_code, response.headers["Allow"]), (405, allowed))
                self.assertEqual(response.json(), {"detail": f'Method "{method}" not allowed.'})

    def test_a_range_beyond_a_static_file_is_rejected_in_json(self):
        response = self.client.get("/static/docs/page.js", headers={"range": "bytes=99999999-"})

        self.assertEqual(
            (response.status_code, response.json()), (416, {"detail": "The file does not have this range of bytes."})
        )
        self.assertRegex(response.headers["Content-Range"], r"^bytes \*/\d+$")


class DisallowedHostTests(ApiTestCase):
    ERROR = {"detail": "Host not allowed; add it to ALLOWED_HOSTS."}

    def test_is_rejected_on_every_path_with_and_without_debug(self):
        hosts = ("evil.example", "localhost.evil.example", "localhost:port", "a b", "[::1", "", "é")

        for host, debug, url in itertools.product(hosts, (False, True), ("/api/message", "/healthz/", "/api/nothing")):
            with self.subTest(host=host, debug=debug, path=url), self.settings(DEBUG=debug):
                response = self.client.get(url, headers={"host": host})

                self.assertEqual((response.status_code, response.json()), (400, self.ERROR))

    def test_is_rejected_in_json_if_https_is_required(self):
        with self.settings(SECURE_SSL_REDIRECT=True):
            response = self.client.get("/api/message", headers={"host": "evil.example"})

        self.assertEqual((response.status_code, response.json()), (400, self.ERROR))

    def test_is_logged(self):
        self.client.get("/api/message", headers={"host": "evil.example"})

        self.assertEqual([(line["path"], line["status"]) for line in self.log_lines("requests")], [("/api/message", 400)])


@override_settings(ROOT_URLCONF=__name__)
class FailingViewTestCase(ApiTestCase):
    def setUp(self):
        super().setUp()
        self.alice_client = self.as_user(self.alice)

    def get(self, url, error, **headers):
        """Send a request whose view raises the error."""
        with mock.patch(f"{__name__}.work", side_effect=error):
            return self.alice_client.get(url, headers=headers)


class UnexpectedErrorTests(FailingViewTestCase):
    def test_response_has_no_details(self):
        for url, debug in itertools.product(("/api/work", "/work"), (False, True)):
            with self.subTest(path=url, debug=debug), self.settings(DEBUG=debug):
                response = self.get(url, ZeroDivisionError("the inner reason"))

                self.assertEqual((response.status_code, response.json()), (500, WENT_WRONG))

    def test_logs_the_whole_traceback_at_level_debug(self):
        for url, user in (("/api/work", "alice"), ("/work", "-")):
            with self.subTest(path=url):
                self.get(f"{url}?a=b", ZeroDivisionError("the inner reason"), x_request_id="the-id")

                line = self.log_lines("debug")[-1]
                self.assertTime(line.pop("time"))
                self.assertRegex(
                    line.pop("traceback"), r"(?s)\ATraceback .*work\(\).*ZeroDivisionError: the inner reason\n\Z"
                )
                self.assertEqual(
                    line, {"level": "DEBUG", "request_id": "the-id", "method": "GET", "path": url, "user": user}
                )

    def test_is_logged_once(self):
        for url in ("/api/work", "/work"):
            self.get(url, ZeroDivisionError)

        self.assertEqual([line["path"] for line in self.log_lines("debug")], ["/api/work", "/work"])
        self.assertEqual([line["status"] for line in self.log_lines("requests")], [500, 500])

    def test_logs_the_cause_of_the_error(self):
        def fail_twice():
            try:
                raise KeyError("the cause")
            except KeyError as error:
                raise RuntimeError("the consequence") from error

        self.get("/api/work", fail_twice)

        traceback = self.log_lines("debug")[0]["traceback"]
        self.assertIn("KeyError: 'the cause'", traceback)
        self.assertIn("RuntimeError: the consequence", traceback)

    def test_response_that_cannot_be_rendered_is_500(self):
        with mock.patch(f"{__name__}.work", return_value=object()):
            response = self.alice_client.get("/api/work")

        self.assertEqual((response.status_code, response.json()), (500, WENT_WRONG))
        self.assertIn("is not JSON serializable", self.log_lines("debug")[0]["traceback"])

    def test_error_in_a_middleware_is_500(self):
        self.alice_client.raise_request_exception = False

        for debug in (False, True):
            with (
                self.subTest(debug=debug),
                self.settings(DEBUG=debug),
                mock.patch("django.middleware.security.SecurityMiddleware.process_request", side_effect=ValueError),
            ):
                response = self.alice_client.get("/api/work")

                self.assertEqual((response.status_code, response.json()), (500, WENT_WRONG))

    def test_row_that_violates_a_constraint_is_not_logged(self):
        for content in ("private words", "x\n\nThe above is private words", "x\n\nDuring handling private words"):

            def violate_a_constraint(content=content):
                with transaction.atomic():
                    Message.objects.create(
                        sender=self.alice, receiver=self.bob, content=content, sender_place=-1, receiver_place=1
                    )

            with self.subTest(content=content):
                response = self.get("/api/work", violate_a_constraint)

                self.assertEqual((response.status_code, response.json()), (500, WENT_WRONG))
                traceback = self.log_lines("debug")[-1]["traceback"]
                self.assertIn("IntegrityError: ", traceback)
                self.assertNotIn("private words", traceback)

    @skipUnless(connection.vendor == "postgresql", "SQLite's errors quote no parameters")
    def test_parameters_that_the_database_quotes_are_not_logged(self):
        content = "private words"

        def divide_by_zero():
            with transaction.atomic():
                execute("SET LOCAL log_parameter_max_length_on_error = -1")
                execute("SELECT %(content)s::text, 1 / %(zero)s", content=content, zero=0)

        response = self.get("/api/work", divide_by_zero)

        self.assertEqual((response.status_code, response.json()), (500, WENT_WRONG))
        traceback = self.log_lines("debug")[-1]["traceback"]
        self.assertIn("CONTEXT: ", traceback)
        self.assertNotIn(content, traceback)


class RepeatedErrorTests(FailingViewTestCase):
    def setUp(self):
        super().setUp()
        self.enterContext(mock.patch("config.log.TRACEBACK_INTERVAL", 60))
        self.enterContext(mock.patch.dict("config.log._tracebacks", clear=True))

    def test_repeats_are_counted_without_traceback(self):
        clock = self.enterContext(mock.patch("config.log.time.monotonic", return_value=1_000.0))

        for seconds in (0, 59.9, 59.9, 60, 61, 120):
            clock.return_value = 1_000.0 + seconds
            self.get("/api/work", ZeroDivisionError, x_request_id=f"at-{seconds}")

        lines = self.log_lines("debug")
        self.assertEqual([line["request_id"] for line in lines], ["at-0", "at-59.9", "at-59.9", "at-60", "at-61", "at-120"])
        self.assertEqual([line.get("repeats") for line in lines], [None, 1, 2, None, 1, None])
        self.assertEqual(["traceback" in line for line in lines], [True, False, False, True, False, True])
        self.assertTime(lines[1].pop("time"))
        self.assertEqual(
            lines[1],
            {
                "level": "DEBUG",
                "request_id": "at-59.9",
                "method": "GET",
                "path": "/api/work",
                "user": "alice",
                "error": "ZeroDivisionError",
                "repeats": 1,
            },
        )

    def test_errors_of_another_type_or_line_are_not_repeats(self):
        def fail_here():
            raise ZeroDivisionError

        def fail_there():
            raise ZeroDivisionError

        for error in (fail_here, fail_there, KeyError, ValueError):
            self.get("/api/work", error)

        self.assertEqual(["traceback" in line for line in self.log_lines("debug")], [True] * 4)

    def test_database_errors_are_repeats(self):
        for number in range(3):
            self.get("/api/work" if number else "/work", OperationalError("gone"))

        self.assertEqual([line.get("repeats") for line in self.log_lines("debug")], [None, 1, 2])


@override_settings(ROOT_URLCONF=__name__)
class DatabaseErrorTests(ApiTestCase):
    def test_is_503_with_retry_after_and_is_logged(self):
        client = self.as_user(self.alice)

        for url, error, debug in itertools.product(
            ("/api/work", "/work"), (OperationalError("gone"), InterfaceError("gone")), (False, True)
        ):
            with (
                self.subTest(path=url, error=error, debug=debug),
                self.settings(DEBUG=debug),
                mock.patch(f"{__name__}.work", side_effect=error),
            ):
                response = client.get(url)

                self.assertEqual((response.status_code, response.json()), (503, UNAVAILABLE))
                self.assertRegex(response.headers["Retry-After"], "^[1-9][0-9]*$")
                self.assertIn("Error: gone", self.log_lines("debug")[-1]["traceback"])


class DatabaseUnreachableTests(ConcurrentTestCase):
    """The connection settings name a file or a port that nothing uses."""

    def setUp(self):
        super().setUp()
        self.alice_client = self.as_user(self.alice)
        nowhere = {"NAME": "/nowhere/at/all"} if connection.vendor == "sqlite" else {"PORT": free_port()}
        connection.close()
        self.enterContext(mock.patch.dict(connection.settings_dict, nowhere))

    def test_healthz_does_not_use_it(self):
        response = self.client.get("/healthz")

        self.assertEqual((response.status_code, response.json()), (200, {"status": "ok"}))

    def test_every_request_that_needs_it_is_503(self):
        credentials = {"username": "dave", "password": PASSWORD}
        requests = (
            ("GET", "/readyz", None),
            ("GET", "/api/message", None),
            ("POST", "/api/message", {"receiver": "bob", "content": "private words"}),
            ("POST", "/api/auth/register", credentials),
            ("POST", "/api/auth/login", credentials),
        )

        for method, url, body in requests:
            with self.subTest(method=method, path=url):
                response = getattr(self.alice_client, method.lower())(url, body)

                self.assertEqual((response.status_code, response.json()), (503, UNAVAILABLE))
                self.assertIn("Retry-After", response.headers)
                line = self.log_lines("debug")[-1]
                self.assertEqual((line["method"], line["path"]), (method, url))
                self.assertNotIn("private words", line["traceback"])
        self.assertEqual(self.events(), [])


class ResponseTests(ApiTestCase):
    """What all responses have in common."""

    def responses(self):
        """Return responses by their status, or by the kind of request."""
        alice = self.as_user(self.alice)
        message = {"receiver": "bob", "content": "hi"}
        return {
            200: alice.get("/api/message"),
            201: alice.post("/api/message", message),
            400: alice.post("/api/message", {}),
            401: self.client.get("/api/message"),
            404: alice.get("/api/nothing"),
            405: alice.put("/api/message", message),
            413: self.client.generic("POST", "/api/auth/login", TOO_LARGE, content_type="application/json"),
            415: self.client.generic("POST", "/api/auth/login", b"<a/>", content_type="text/xml"),
            "host": self.client.get("/api/message", headers={"host": "evil.example"}),
            "health": self.client.get("/healthz"),
        }

    def test_has_the_common_headers(self):
        for name, response in self.responses().items():
            with self.subTest(response=name):
                self.assertEqual(response.status_code, {"host": 400, "health": 200}.get(name, name))
                self.assertEqual(response.headers["Content-Type"], "application/json")
                self.assertEqual(response.headers["Content-Length"], str(len(response.content)))
                self.assertEqual(response.headers["Cache-Control"], "no-store")
                self.assertEqual(response.headers["X-Content-Type-Options"], "nosniff")
                self.assertEqual(response.headers["X-Frame-Options"], "DENY")
                self.assertRegex(response.headers["X-Request-ID"], "^[A-Za-z0-9_.-]{1,64}$")

    def test_response_without_content_is_not_cached(self):
        response = self.as_user(self.alice).post("/api/auth/logout")

        self.assertEqual((response.status_code, response.content), (204, b""))
        self.assertEqual(response.headers["Cache-Control"], "no-store")

    def test_is_json_for_any_accept_header(self):
        client = self.as_user(self.alice)

        for accept in (
            "text/html",
            "application/xml",
            "*/*;q=0",
            "application/json;version=x",
            "gar bage",
            "",
            "a/b;c*=hex''%41",
        ):
            with self.subTest(accept=accept):
                response = client.get("/api/message", headers={"accept": accept})
                error = self.client.get("/api/message", headers={"accept": accept})

                self.assertEqual(response.json(), {"count": 0, "next": None, "previous": None, "results": []})
                self.assertEqual(error.json(), {"detail": "Authentication credentials were not provided."})

    def test_rejects_a_format_parameter(self):
        response = self.as_user(self.alice).get("/api/message?format=json")

        self.assertEqual(response.status_code, 400)
        self.assertEqual(response.json(), {"format": ["Unknown parameter."]})

    def test_head_is_get_without_the_body(self):
        client = self.as_user(self.alice)

        head, get = client.head("/api/message"), client.get("/api/message")

        self.assertEqual((head.status_code, head.content), (200, b""))
        self.assertEqual(head.headers["Content-Length"], str(len(get.content)))

    def test_options_returns_only_the_allowed_methods(self):
        for client, url, allowed in (
            (self.as_user(self.alice), "/api/message", "GET, POST, HEAD, OPTIONS"),
            (self.as_user(self.alice), "/api/message?page=1", "GET, POST, HEAD, OPTIONS"),
            (self.as_user(self.alice), "/api/block/nobody", "DELETE, OPTIONS"),
            (self.client, "/api/auth/login", "POST, OPTIONS"),
            (self.client, "/api/schema", "GET, HEAD, OPTIONS"),
            (self.client, "/api/docs", "GET, HEAD, OPTIONS"),
            (self.client, "/healthz", "GET, HEAD, OPTIONS"),
        ):
            with self.subTest(path=url):
                response = client.options(url)

                self.assertEqual(response.headers["Content-Length"], "0")
                self.assertNotIn("Content-Type", response.headers)

                self.assertEqual((response.status_code, response.content), (200, b""))
                self.assertEqual(response.headers["Allow"], allowed)

    def test_options_requires_a_token_if_the_endpoint_does(self):
        response = self.client.options("/api/message")

        self.assertEqual(response.status_code, 401)


@override_settings(ROOT_URLCONF=__name__)
class RequestIdTests(ApiTestCase):
    def test_well_formed_id_is_returned(self):
        for proposed in ("a", "0", "-", "A.b_c-9", "x" * 64):
            with self.subTest(proposed=proposed):
                response = self.client.get("/healthz", headers={"x-request-id": proposed})

                self.assertEqual(response.headers["X-Request-ID"], proposed)

    def test_malformed_id_is_replaced_by_a_new_id(self):
        seen = set()

        for proposed in ("", "x" * 65, "a b", " ", "a\nb", "a\n", "\n", "é", "a/b", '"', "a,b", "\x00"):
            with self.subTest(proposed=proposed):
                response = self.client.get("/healthz", headers={"x-request-id": proposed})

                new_id = response.headers["X-Request-ID"]
                self.assertRegex(new_id, r"\A[A-Za-z0-9_.-]{1,64}\Z")
                self.assertNotIn(new_id, {*seen, proposed})
                self.assertEqual(self.log_lines("requests")[-1]["request_id"], new_id)
                seen.add(new_id)

    def test_is_the_same_in_all_three_logs(self):
        def record_and_fail():
            record_event("Login", who="alice")
            raise ZeroDivisionError

        with mock.patch(f"{__name__}.work", side_effect=record_and_fail):
            response = self.as_user(self.alice).get("/api/work")
            self.client.get("/healthz")

        request_id = response.headers["X-Request-ID"]
        requests, activity, debug = (
            [line["request_id"] for line in self.log_lines(name)] for name in ("requests", "activity", "debug")
        )
        self.assertEqual((requests[0], activity, debug), (request_id, [request_id], [request_id]))
        self.assertNotEqual(requests[1], request_id)


class HealthTests(ApiTestCase):
    EXPECTED = {"/healthz": {"status": "ok"}, "/readyz": {"status": "ok", "writable": True}}

    def test_both_respond_without_a_token(self):
        clients = {"nobody": self.client, "alice": self.as_user(self.alice), "invalid token": with_token("0" * 64)}

        for (who, client), (url, expected) in itertools.product(clients.items(), self.EXPECTED.items()):
            with self.subTest(who=who, path=url):
                response = client.get(url)

                self.assertEqual((response.status_code, response.json()), (200, expected))

    def test_both_respond_for_any_host(self):
        hosts = ("10.42.8.201:8000", "evil.example", "localhost:port", "a b", "[::1", "[::1]:99999", "", "é")

        for host, (url, expected), https in itertools.product(hosts, self.EXPECTED.items(), (False, True)):
            with self.subTest(host=host, path=url, https=https), self.settings(SECURE_SSL_REDIRECT=https):
                response = self.client.get(url, headers={"host": host})

                self.assertEqual((response.status_code, response.json()), (200, expected))

    def test_readiness_is_503_without_the_database(self):
        with mock.patch("django.db.backends.utils.CursorWrapper.execute", side_effect=OperationalError("gone")):
            response = self.client.get("/readyz")

        self.assertEqual((response.status_code, response.json()), (503, UNAVAILABLE))
        self.assertIn("Retry-After", response.headers)


class TestRunnerTests(ApiTestCase):
    def test_fails_when_no_test_is_found(self):
        run = subprocess.run(
            [sys.executable, "manage.py", "test", "--tag", "nosuchtag"],
            cwd=settings.BASE_DIR,
            capture_output=True,
            text=True,
            timeout=60,
        )

        self.assertNotEqual(run.returncode, 0)
        self.assertIn("No test was found.", run.stderr)
