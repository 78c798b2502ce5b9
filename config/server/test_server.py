"""The service as it really runs: gunicorn, its worker processes, and connections to them."""

import http.client
import io
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

from django.conf import settings
from django.contrib.auth.models import User

from accounts.authentication import issue_token
from config.testing.cases import PASSWORD, ConcurrentTestCase
from config.testing.service import running_service
from messageservice.models import Mailbox, Message

NOT_FOUND = {"detail": "Not found."}
TOO_LARGE = {"detail": "The body is larger than 1 MiB."}
MEBIBYTE = 2**20


class ServiceTestCase(ConcurrentTestCase):
    """One running service for all tests of the class."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        folder = cls.enterClassContext(tempfile.TemporaryDirectory())
        cls.service = cls.enterClassContext(running_service(Path(folder)))

    def setUp(self):
        super().setUp()
        self.log_folder = self.service.log_folder
        for log in self.log_folder.iterdir():
            log.unlink()

    def connect(self, service=None):
        """A connection that says so when the server drops it, instead of making another in silence."""
        connection = http.client.HTTPConnection(urlsplit((service or self.service).url).netloc, timeout=20)
        self.addCleanup(connection.close)
        connection.connect()
        return connection

    def exchange(self, connection, method, path, body=None, **options):
        """Status, JSON and headers of the answer; the connection is read to the end of it."""
        connection.request(method, path, body, **options)
        response = connection.getresponse()
        content = response.read()
        return response.status, json.loads(content) if content else None, response.headers

    def registration(self, username):
        return json.dumps({"username": username, "password": PASSWORD}).encode()

    def answer_to(self, raw):
        """Status, JSON and headers of the one answer after which the server hangs up."""
        connection = self.connect()
        connection.sock.sendall(raw)
        answer = b"".join(iter(lambda: connection.sock.recv(65_536), b""))
        connection.close()  # or the server would wait for it
        head, _, body = answer.partition(b"\r\n\r\n")
        status_line, _, fields = head.partition(b"\r\n")
        headers = http.client.parse_headers(io.BytesIO(fields + b"\r\n\r\n"))
        self.assertEqual(headers["Content-Length"], str(len(body)), answer)
        return int(status_line.split()[1]), json.loads(body), headers


class BrokenRequestTests(ServiceTestCase):
    HEAD = b"POST /api/auth/register HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"

    def test_what_is_no_http_is_refused_in_json(self):
        many = b"".join(b"X-%d: x\r\n" % number for number in range(200))
        cases = (
            (b"nonsense\r\n\r\n", 400),
            (b"GET\r\n\r\n", 400),
            (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: localhost\r\nno colon here\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Nul: \x00\r\n\r\n", 400),
            (b"GET /" + b"x" * 9_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 414),
            (b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"x" * 9_000 + b"\r\n\r\n", 431),
            (b"GET / HTTP/1.1\r\nHost: localhost\r\n" + many + b"\r\n", 431),
            (self.HEAD + b"Content-Length: x\r\n\r\n", 400),
            (self.HEAD + b"Content-Length: -1\r\n\r\n", 400),
            (self.HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400),
            (self.HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}", 400),
            (self.HEAD + b"Transfer-Encoding: nonsense\r\n\r\n", 501),
            (self.HEAD + b"Content-Length: 2\r\nExpect: nonsense\r\n\r\n{}", 417),
        )

        for raw, expected in cases:
            with self.subTest(raw=raw[:80]):
                status, refusal, headers = self.answer_to(raw)

                self.assertEqual((status, [*refusal]), (expected, ["detail"]))
                self.assertEqual(headers["Content-Type"], "application/json")
                self.assertEqual(headers["Cache-Control"], "no-store")
                line = self.log_lines("requests")[-1]
                self.assertEqual((line["request_id"], line["status"]), (headers["X-Request-ID"], expected))
                self.assertEqual(line["address"], "127.0.0.1")
        self.assertEqual(len(self.log_lines("requests")), len(cases))
        self.assertEqual(self.log_lines("debug"), [])

    def test_a_refusal_keeps_the_id_that_the_client_proposes(self):
        named = b"Host: localhost\r\nX-Request-ID: mine\r\n"
        cases = (
            b"GET / HTTP/1.1\r\n" + named + b"no colon here\r\n\r\n",
            b"GET / HTTP/1.1\r\n" + named + b"X-Long: " + b"x" * 9_000 + b"\r\n\r\n",
            b"POST / HTTP/1.1\r\n" + named + b"Content-Length: x\r\n\r\n",
            b"POST / HTTP/1.1\r\n" + named + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        )

        for raw in cases:
            with self.subTest(raw=raw[:120]):
                _, _, headers = self.answer_to(raw)

                self.assertEqual(headers["X-Request-ID"], "mine")
                self.assertEqual(self.log_lines("requests")[-1]["request_id"], "mine")
        insane = b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: mine yours\r\nno colon here\r\n\r\n"
        self.assertRegex(self.answer_to(insane)[2]["X-Request-ID"], "^[0-9a-f]{32}$")

    def test_broken_chunk_is_refused_once(self):
        for chunks in (b"zz\r\n{}\r\n0\r\n\r\n", b"2\r\n{}xx\r\n0\r\n\r\n", b"-2\r\n{}\r\n0\r\n\r\n"):
            with self.subTest(chunks=chunks):
                status, refusal, headers = self.answer_to(self.HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)

                self.assertEqual((status, [*refusal]), (400, ["detail"]))
                self.assertIn("X-Request-ID", headers)
        self.assertEqual(self.log_lines("debug"), [])

    def test_half_a_body_is_refused_and_stores_nothing(self):
        body = self.registration("dave")
        sized = self.HEAD + b"Content-Length: %d\r\n\r\n" % (len(body) + 1) + body
        chunked = self.HEAD + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(body) + body + b"\r\n"

        for raw in (sized, chunked):
            with self.subTest(raw=raw[-60:]):
                connection = self.connect()
                connection.sock.sendall(raw)
                connection.sock.shutdown(socket.SHUT_WR)
                answer = b"".join(iter(lambda sock=connection.sock: sock.recv(65_536), b""))
                connection.close()

                self.assertRegex(answer, rb"\A(HTTP/1.1 400 |\Z)")  # who hung up may get no answer
                self.assertFalse(User.objects.filter(username="dave").exists())

    def test_media_type_with_an_encoded_parameter(self):
        status, _, _ = self.exchange(
            self.connect(),
            "POST",
            "/api/auth/register",
            b"{}",
            headers={"Content-Type": "application/json; x*=nonsense''%41"},
        )

        self.assertIn(status, (400, 415))
        self.assertEqual(self.log_lines("debug"), [])


class BodyTests(ServiceTestCase):
    def test_chunked_body_is_read(self):
        for number, size in enumerate((1, 7, 1_000)):
            body = self.registration(f"dave{number}")
            chunks = (body[start : start + size] for start in range(0, len(body), size))

            with self.subTest(size=size):
                status, answer, _ = self.exchange(
                    self.connect(),
                    "POST",
                    "/api/auth/register",
                    chunks,
                    headers={"Transfer-Encoding": "chunked", "Content-Type": "application/json"},
                    encode_chunked=True,
                )

                self.assertEqual((status, answer["user"]["username"]), (201, f"dave{number}"))

    def test_chunked_body_of_exactly_the_limit_is_read(self):
        body = self.registration("dave").ljust(MEBIBYTE)

        status, _, _ = self.exchange(
            self.connect(), "POST", "/api/auth/register", iter([body]), headers={"Content-Type": "application/json"}
        )

        self.assertEqual(status, 201)

    def test_connection_goes_on_after_a_refused_body(self):
        for size, path, chunked in itertools.product(
            (MEBIBYTE + 1, MEBIBYTE * 3 // 2), ("/api/message", "/api/auth/register", "/api/nothing"), (False, True)
        ):
            with self.subTest(size=size, path=path, chunked=chunked):
                connection, body = self.connect(), b"x" * size

                status, refusal, _ = self.exchange(connection, "POST", path, iter([body]) if chunked else body)
                following = [self.exchange(connection, "GET", "/healthz")[:2] for _ in range(2)]

                self.assertEqual((status, refusal), (413, TOO_LARGE))
                self.assertEqual(following, [(200, {"status": "ok"})] * 2)

    def test_body_far_too_large_is_never_read_as_a_request(self):
        smuggled = b"GET /api/smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
        body = smuggled * (4 * MEBIBYTE // len(smuggled))

        for chunked in (False, True):
            with self.subTest(chunked=chunked):
                try:
                    answer = self.exchange(self.connect(), "POST", "/api/message", iter([body]) if chunked else body)[:2]
                except ConnectionError:  # the server may hang up on who goes on sending
                    answer = 413, TOO_LARGE

                self.assertEqual(answer, (413, TOO_LARGE))
                self.assertEqual(self.exchange(self.connect(), "GET", "/healthz")[0], 200)
        self.assertNotIn("/api/smuggled", [line["path"] for line in self.log_lines("requests")])

    def test_connection_goes_on_after_a_refused_request_with_a_body(self):
        connection = self.connect()

        for number in range(3):
            with self.subTest(number=number):
                self.assertEqual(self.exchange(connection, "POST", "/api/message", b"x" * MEBIBYTE)[0], 401)
                self.assertEqual(self.exchange(connection, "POST", "/api/nothing", b"x" * 1_000)[:2], (404, NOT_FOUND))
                self.assertEqual(self.exchange(connection, "GET", "/healthz")[0], 200)

    def test_client_that_asks_before_it_sends(self):
        connection, body = self.connect(), self.registration("dave")
        connection.sock.sendall(
            b"POST /api/auth/register HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body)
        )

        permission = connection.sock.recv(1_000)
        connection.sock.sendall(body)
        answer = connection.sock.recv(1_000)

        self.assertEqual(permission, b"HTTP/1.1 100 Continue\r\n\r\n")
        self.assertEqual(answer.split(b"\r\n")[0], b"HTTP/1.1 201 Created")


class SlowClientTests(ServiceTestCase):
    MANY = 40  # more than all workers have threads

    def assert_others_are_served(self):
        self.assertEqual(self.exchange(self.connect(), "GET", "/readyz")[0], 200)

    def request(self):
        body = json.dumps({"receiver": "bob", "content": "hi"}).encode()
        _, token = issue_token(self.alice)
        head = "POST /api/message HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        return f"{head}Authorization: Token {token}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body

    def test_requests_that_come_in_pieces_keep_nobody_waiting(self):
        request = self.request()
        for name, cut in {"in the line": 7, "in the head": 60, "in the body": len(request) - 3}.items():
            with self.subTest(name):
                before = Message.objects.count()
                slow = [self.connect() for _ in range(self.MANY)]
                for connection in slow:
                    connection.sock.sendall(request[:cut])

                self.assert_others_are_served()

                self.assertEqual(Message.objects.count(), before)
                for connection in slow:
                    connection.sock.sendall(request[cut:])
                answers = [connection.sock.recv(100).split(b"\r\n")[0] for connection in slow]
                self.assertEqual(answers, [b"HTTP/1.1 201 Created"] * self.MANY)
                self.assertEqual(Message.objects.count(), before + self.MANY)

    def test_answers_that_nobody_takes_keep_nobody_waiting(self):
        for number in range(100):
            Message.objects.create(
                sender=self.alice, receiver=self.bob, content="x" * 10_000, sender_place=number, receiver_place=number
            )
        Mailbox.objects.create(user=self.bob, total=99)
        _, token = issue_token(self.bob)
        page = f"GET /api/message?page_size=100 HTTP/1.1\r\nHost: localhost\r\nAuthorization: Token {token}\r\n\r\n"
        slow = [self.connect() for _ in range(self.MANY)]

        for connection in slow:
            connection.sock.sendall(page.encode() * 20)  # some 20 MB, more than the system keeps for a connection
        self.wait_until_no_more_is_answered()

        self.assert_others_are_served()

        self.assertTrue(slow[0].sock.recv(100).startswith(b"HTTP/1.1 200 OK"))

    def wait_until_no_more_is_answered(self):
        """The system then holds all that it does for clients who read nothing."""
        answered, before = 0, -1
        while answered != before:
            time.sleep(0.5)
            answered, before = len(self.log_lines("requests")), answered

    def test_connections_on_which_nothing_comes_keep_nobody_waiting(self):
        for _ in range(self.MANY):
            self.connect()

        self.assert_others_are_served()


class AnswerTests(ServiceTestCase):
    def test_head_has_the_headers_of_get_and_no_body(self):
        connection = self.connect()
        _, token = issue_token(self.alice)
        headers = {"Authorization": f"Token {token}"}

        for path in ("/healthz", "/api/message", "/static/admin/css/base.css"):
            with self.subTest(path=path):
                connection.request("GET", path, headers=headers)
                get = connection.getresponse()
                get.read()
                connection.request("HEAD", path, headers=headers)
                head = connection.getresponse()

                self.assertEqual((head.status, head.read()), (200, b""))
                self.assertEqual(head.headers["Content-Length"], get.headers["Content-Length"])

    def test_answer_without_content_leaves_the_connection_good(self):
        connection = self.connect()
        _, token = issue_token(self.alice)

        status, answer, _ = self.exchange(
            connection, "POST", "/api/auth/logout", headers={"Authorization": f"Token {token}"}
        )

        self.assertEqual((status, answer), (204, None))
        self.assertEqual(self.exchange(connection, "GET", "/healthz")[0], 200)

    def test_request_id_and_path_come_through_the_server(self):
        self.exchange(self.connect(), "GET", "/api/a%0Ab%00%22?c=d", headers={"X-Request-ID": "the-id"})

        [line] = self.log_lines("requests")
        self.assertEqual(
            (line["request_id"], line["path"], line["status"], line["address"]),
            ("the-id", '/api/a\nb\x00"', 404, "127.0.0.1"),
        )

    def test_foreign_host_is_refused(self):
        status, refusal, headers = self.exchange(self.connect(), "GET", "/api/message", headers={"Host": "evil.example"})

        self.assertEqual((status, [*refusal]), (400, ["detail"]))
        self.assertIn("X-Request-ID", headers)

    def test_admin_leads_to_its_log_in_and_has_its_files(self):
        connection = self.connect()
        expected = (
            ("/admin", 302, "/admin/"),
            ("/admin/", 302, "/admin/login/?next=/admin/"),
            ("/admin/login/", 200, None),
            ("/static/admin/css/base.css", 200, None),
        )

        for path, status, location in expected:
            with self.subTest(path=path):
                connection.request("GET", path)
                response = connection.getresponse()
                content = response.read()

                self.assertEqual((response.status, response.headers["Location"]), (status, location))
                self.assertEqual(bool(content), status == 200)
                self.assertIn("X-Request-ID", response.headers)
        self.assertEqual(response.headers["Content-Type"], 'text/css; charset="utf-8"')
        self.assertEqual([line["path"] for line in self.log_lines("requests")], [path for path, *_ in expected])


class ProcessTests(ServiceTestCase):
    def test_busy_port_stops_a_second_one_with_a_line_that_names_it(self):
        port = str(urlsplit(self.service.url).port)

        second = subprocess.run(
            [sys.executable, "-m", "gunicorn", "--config", "python:config.server.gunicorn"],
            cwd=settings.BASE_DIR,
            env={**os.environ, "LOG_DIR": str(self.log_folder), "PORT": port},
            capture_output=True,
            text=True,
            timeout=60,
        )

        self.assertNotEqual(second.returncode, 0)
        self.assertRegex(second.stderr, r"\APORT: [^\n]+\n\Z")
        self.assertIn(port, second.stderr)
        self.assertEqual(self.service.request("GET", "/healthz")[0], 200)

    def test_stops_cleanly_once_the_request_in_hand_is_answered(self):
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        _, token = issue_token(self.alice)
        body = json.dumps({"receiver": "bob", "content": "hi"}).encode()
        head = (
            f"POST /api/message HTTP/1.1\r\nHost: localhost\r\nAuthorization: Token {token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )

        # One worker alone: another might still be starting, and gunicorn waits for one that SIGTERM meets then.
        with running_service(folder, WEB_CONCURRENCY="1") as service:
            connection = self.connect(service)
            self.exchange(connection, "GET", "/healthz")  # the connection has its worker
            connection.sock.sendall(head.encode() + body[:5])
            service.process.send_signal(signal.SIGTERM)
            connection.sock.sendall(body[5:])
            answer = b"".join(iter(lambda: connection.sock.recv(65_536), b""))
            connection.close()
            service.process.wait(timeout=30)

        self.assertEqual(answer.split(b"\r\n")[0], b"HTTP/1.1 201 Created")
        self.assertEqual(Message.objects.get().content, "hi")
        self.assertEqual(service.process.returncode, 0)
