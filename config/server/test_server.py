"""The service as it really runs: the server, its worker processes, and connections to them."""

import http.client
import io
import itertools
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from django.conf import settings
from django.contrib.auth.models import User
from django.db import transaction

from accounts.authentication import issue_token
from config.testing.cases import PASSWORD, ConcurrentTestCase
from config.testing.http_client import free_port
from config.testing.service import Service, run_service
from messageservice.models import Mailbox, Message

JSON = {"Content-Type": "application/json"}
NOT_FOUND = {"detail": "Not found."}
TOO_LARGE = {"detail": "The body is larger than 1 MiB."}
BUSY = {"detail": "The service is busy. Try again in a moment."}
INCOMPLETE = {"detail": "The body is incomplete."}
MEBIBYTE = 2**20
ORIGIN = "https://app.example"
REGISTER = b"POST /api/auth/register HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


class ServiceTestCase(ConcurrentTestCase):
    """One running service for all tests of the class."""

    environment = {}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        folder = cls.enterClassContext(tempfile.TemporaryDirectory())
        cls.service = cls.enterClassContext(run_service(Path(folder), **cls.environment))

    def setUp(self):
        super().setUp()
        self.log_folder = self.service.log_folder
        for log in self.log_folder.iterdir():
            log.unlink()

    def connect(self, service=None):
        """A connection that reports an error when the server closes it, instead of silently opening another one."""
        connection = http.client.HTTPConnection(urlsplit((service or self.service).url).netloc, timeout=20)
        self.addCleanup(connection.close)
        connection.connect()
        return connection

    def exchange(self, connection, method, path, body=None, **options):
        """Status, JSON and headers of the response."""
        connection.request(method, path, body, **options)
        response = connection.getresponse()
        content = response.read()
        return response.status, json.loads(content) if content else None, response.headers

    def registration(self, username):
        return json.dumps({"username": username, "password": PASSWORD}).encode()

    def response_to(self, raw, *, is_all=False):
        """Status, JSON and headers of the one response to these bytes, after which the server closes the connection."""
        connection = self.connect()
        connection.sock.sendall(raw)
        if is_all:
            connection.sock.shutdown(socket.SHUT_WR)
        response = b"".join(iter(lambda: connection.sock.recv(65_536), b""))
        head, _, body = response.partition(b"\r\n\r\n")
        status_line, _, fields = head.partition(b"\r\n")
        headers = http.client.parse_headers(io.BytesIO(fields + b"\r\n\r\n"))
        return int(status_line.split()[1]), json.loads(body) if body else None, headers

    def assert_refused_by_the_application(self, response, status, expected):
        """With its line in requests.log, its request id, and the headers that let a browser's page read it."""
        found_status, body, headers = response
        self.assertEqual((found_status, body), (status, expected))
        self.assertEqual(headers["Content-Type"], "application/json")
        self.assertEqual(headers["Access-Control-Allow-Origin"], ORIGIN)
        line = next(line for line in self.log_lines("requests") if line["request_id"] == headers["X-Request-ID"])
        self.assertEqual(line["status"], status)


class BodyTests(ServiceTestCase):
    environment = {"CORS_ALLOWED_ORIGINS": ORIGIN}

    def test_chunked_body_is_read(self):
        for number, size in enumerate((1, 7, 1_000)):
            body = self.registration(f"dave{number}")
            chunks = (body[start : start + size] for start in range(0, len(body), size))

            with self.subTest(size=size):
                headers = {"Transfer-Encoding": "chunked", **JSON}
                status, answer, _ = self.exchange(
                    self.connect(), "POST", "/api/auth/register", chunks, headers=headers, encode_chunked=True
                )

                self.assertEqual((status, answer["user"]["username"]), (201, f"dave{number}"))

    def test_body_of_exactly_the_limit_is_read(self):
        for username, chunked in (("dave", False), ("erin", True)):
            body = self.registration(username).ljust(MEBIBYTE)

            with self.subTest(chunked=chunked):
                status, _, _ = self.exchange(
                    self.connect(), "POST", "/api/auth/register", iter([body]) if chunked else body, headers=JSON
                )

                self.assertEqual(status, 201)

    def test_too_large_a_body_is_refused_on_every_path(self):
        for size, path, chunked in itertools.product(
            (MEBIBYTE + 1, MEBIBYTE * 3 // 2), ("/api/message", "/api/auth/register", "/api/nothing"), (False, True)
        ):
            with self.subTest(size=size, path=path, chunked=chunked):
                connection, body = self.connect(), b"x" * size

                response = self.exchange(
                    connection, "POST", path, iter([body]) if chunked else body, headers={"Origin": ORIGIN}
                )

                self.assert_refused_by_the_application(response, 413, TOO_LARGE)
                self.assertEqual(response[2]["Connection"], "close")

    def test_too_large_a_body_is_not_waited_for(self):
        response = self.response_to(REGISTER + f"Origin: {ORIGIN}\r\nContent-Length: 1000000000\r\n\r\n{{".encode())

        self.assert_refused_by_the_application(response, 413, TOO_LARGE)

    def test_too_large_a_body_is_never_read_as_a_request(self):
        smuggled = b"GET /api/smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
        body = smuggled * (4 * MEBIBYTE // len(smuggled))

        for chunked in (False, True):
            with self.subTest(chunked=chunked):
                try:
                    answer = self.exchange(self.connect(), "POST", "/api/message", iter([body]) if chunked else body)[:2]
                except ConnectionError:  # the server may close the connection of a client that goes on sending
                    answer = 413, TOO_LARGE

                self.assertEqual(answer, (413, TOO_LARGE))
                self.assertEqual(self.exchange(self.connect(), "GET", "/healthz")[0], 200)
        self.assertNotIn("/api/smuggled", [line["path"] for line in self.log_lines("requests")])

    def test_incomplete_body_is_refused_and_stores_nothing(self):
        body, origin = self.registration("dave"), f"Origin: {ORIGIN}\r\n".encode()
        sized = REGISTER + origin + b"Content-Length: %d\r\n\r\n" % (len(body) + 1) + body
        chunked = REGISTER + origin + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(body) + body + b"\r\n"
        nothing = REGISTER + origin + b"Transfer-Encoding: chunked\r\n\r\n"

        for raw in (sized, chunked, nothing):
            with self.subTest(raw=raw[-60:]):
                response = self.response_to(raw, is_all=True)

                self.assert_refused_by_the_application(response, 400, INCOMPLETE)
                self.assertFalse(User.objects.filter(username="dave").exists())

    def test_broken_chunk_is_refused_once(self):
        for chunks in (b"zz\r\n{}\r\n0\r\n\r\n", b"2\r\n{}xx\r\n0\r\n\r\n", b"-2\r\n{}\r\n0\r\n\r\n"):
            with self.subTest(chunks=chunks):
                response = self.response_to(REGISTER + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)

                self.assertEqual(response[:2], (400, INCOMPLETE))
        self.assertEqual(self.log_lines("debug"), [])

    def test_bytes_that_are_not_http(self):
        for raw in (
            b"nonsense\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
            REGISTER + b"no colon\r\n\r\n",
        ):
            with self.subTest(raw=raw[:30]):
                self.assertEqual(self.response_to(raw)[:2], (400, None))
        self.assertEqual(self.exchange(self.connect(), "GET", "/healthz")[0], 200)

    def test_connection_goes_on_after_a_refused_request_with_a_body(self):
        connection = self.connect()

        for number in range(3):
            with self.subTest(number=number):
                self.assertEqual(self.exchange(connection, "POST", "/api/message", b"x" * MEBIBYTE)[0], 401)
                self.assertEqual(self.exchange(connection, "POST", "/api/nothing", b"x" * 1_000)[:2], (404, NOT_FOUND))
                self.assertEqual(self.exchange(connection, "GET", "/healthz")[0], 200)

    def test_client_that_asks_before_it_sends(self):
        connection, body = self.connect(), self.registration("dave")
        connection.sock.sendall(REGISTER + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body))

        permission = connection.sock.recv(1_000)
        connection.sock.sendall(body)
        response = connection.sock.recv(1_000)

        self.assertEqual(permission, b"HTTP/1.1 100 Continue\r\n\r\n")
        self.assertEqual(response.split(b"\r\n")[0], b"HTTP/1.1 201 Created")

    def test_charset_that_is_not_utf_8_is_ignored(self):
        for number, charset in enumerate(("hex", "rot13", "idna", "undefined", "nonsense", "utf-16")):
            headers = {"Content-Type": f"application/json; charset={charset}"}
            register = self.connect(), "POST", "/api/auth/register"

            with self.subTest(charset=charset):
                status, answer, _ = self.exchange(*register, self.registration(f"dave{number}"), headers=headers)
                refused = self.exchange(self.connect(), "POST", "/api/auth/register?a=%41", b"{}", headers=headers)

                self.assertEqual((status, answer["user"]["username"]), (201, f"dave{number}"))
                self.assertEqual(refused[:2], (400, {"a": ["Unknown parameter."]}))

    def test_media_type_with_an_encoded_parameter(self):
        for encoding in ("utf-8", "hex", "idna", "nonsense"):
            headers = {"Content-Type": f"application/json; x*={encoding}''%41"}

            with self.subTest(encoding=encoding):
                status, _, _ = self.exchange(self.connect(), "POST", "/api/auth/register", b"{}", headers=headers)

                self.assertEqual(status, 400)
        self.assertEqual(self.log_lines("debug"), [])

    def test_form_with_a_boundary_is_read(self):
        body = b'--x\r\nContent-Disposition: form-data; name="username"\r\n\r\ndave\r\n--x--\r\n'
        headers = {"Content-Type": "multipart/form-data; charset=hex; boundary=x"}

        status, answer, _ = self.exchange(self.connect(), "POST", "/api/auth/register", body, headers=headers)

        self.assertEqual((status, answer), (400, {"password": ["This field is required."]}))


class MemoryTests(ServiceTestCase):
    """A worker has 40 MiB for large bodies and responses, however slow its clients are."""

    environment = {"WEB_CONCURRENCY": "1", "CORS_ALLOWED_ORIGINS": ORIGIN}

    def assert_refused_while_many_clients_are_slow(self, slow_request, exchange_large, exchange_small):
        """`slow_request` is sent by clients that do no more, until `exchange_large` is refused."""
        slow = []
        while (refused := exchange_large())[0] != 503:
            self.assertLess(len(slow), 80)
            slow.append(self.connect())
            slow[-1].sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # the system does not read for the client
            slow[-1].sock.sendall(slow_request)

        self.assert_refused_by_the_application(refused, 503, BUSY)
        self.assertEqual(refused[2]["Retry-After"], "1")
        self.assertIn(exchange_small()[0], (200, 201))
        for connection in slow:
            connection.close()
        deadline = time.monotonic() + 20
        while exchange_large()[0] == 503:
            self.assertLess(time.monotonic(), deadline)

    def test_large_bodies_that_do_not_fit_are_refused(self):
        def register(body):
            return self.exchange(self.connect(), "POST", "/api/auth/register", body, headers={"Origin": ORIGIN, **JSON})

        self.assert_refused_while_many_clients_are_slow(
            REGISTER + b"Content-Length: %d\r\n\r\n{" % MEBIBYTE,
            lambda: register(b"{}".ljust(MEBIBYTE)),
            lambda: register(self.registration("dave")),
        )

    def test_large_responses_that_do_not_fit_are_refused(self):
        for number in range(100):
            Message.objects.create(
                sender=self.alice,
                receiver=self.bob,
                content="\x01" * 10_000,  # six bytes each: a page is larger than the system's buffer for a connection
                sender_place=number,
                receiver_place=number,
            )
        Mailbox.objects.create(user=self.bob, total=99)
        _, token = issue_token(self.bob)

        def page(size):
            return self.exchange(
                self.connect(),
                "GET",
                f"/api/message?page_size={size}",
                headers={"Authorization": f"Token {token}", "Origin": ORIGIN},
            )

        self.assert_refused_while_many_clients_are_slow(
            f"GET /api/message?page_size=100 HTTP/1.1\r\nHost: localhost\r\nAuthorization: Token {token}\r\n\r\n".encode(),
            lambda: page(100),
            lambda: page(1),
        )


class HashingTests(ServiceTestCase):
    environment = {"WEB_CONCURRENCY": "1", "CORS_ALLOWED_ORIGINS": ORIGIN}

    def test_requests_that_hash_have_a_thread_of_their_own_and_twenty_places_to_wait(self):
        body = self.registration("dave")
        request = REGISTER + f"Origin: {ORIGIN}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
        _, token = issue_token(self.alice)
        clients = [self.connect() for _ in range(25)]

        with transaction.atomic():
            User.objects.create(username="dave")  # the first of them waits for the end of this transaction
            for client in clients:
                client.sock.sendall(request)
            refused = []
            while len(refused) < 4:
                readable, _, _ = select.select([client.sock for client in clients], [], [], 20)
                refused += [client for client in clients if client.sock in readable and client not in refused]
            others, _, _ = self.exchange(
                self.connect(), "GET", "/api/auth/user", headers={"Authorization": f"Token {token}"}
            )
            self.assertEqual(select.select([client.sock for client in clients if client not in refused], [], [], 0.2)[0], [])
        statuses = sorted(self.read(client)[0] for client in clients if client not in refused)

        self.assertEqual((len(refused), others, statuses), (4, 200, [400] * 21))
        for client in refused:
            response = self.read(client)
            self.assert_refused_by_the_application(response, 503, BUSY)
            self.assertEqual(response[2]["Retry-After"], "1")

    def read(self, connection):
        response = http.client.HTTPResponse(connection.sock, method="POST")
        response.begin()
        return response.status, json.loads(response.read()), response.headers


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

    def test_requests_sent_together_are_answered_in_order(self):
        connection = self.connect()
        heads = (f"GET {path} HTTP/1.1\r\nHost: localhost\r\n" for path in ("/healthz", "/api/nothing", "/healthz"))
        connection.sock.sendall(("\r\n".join(heads) + "Connection: close\r\n\r\n").encode())

        responses = b"".join(iter(lambda: connection.sock.recv(65_536), b""))

        self.assertEqual(re.findall(rb"HTTP/1.1 (\d+)", responses), [b"200", b"404", b"200"])

    def test_http_1_0_without_a_host(self):
        status, answer, _ = self.response_to(b"GET /healthz HTTP/1.0\r\n\r\n")

        self.assertEqual((status, answer), (200, {"status": "ok"}))

    def test_header_with_an_underscore_does_not_pass_for_another(self):
        connection = self.connect()

        named = self.exchange(connection, "GET", "/healthz", headers={"X-Request-ID": "mine"})[2]["X-Request-ID"]
        forged = self.exchange(connection, "GET", "/healthz", headers={"X_Request_ID": "mine"})[2]["X-Request-ID"]

        self.assertEqual(named, "mine")
        self.assertRegex(forged, "^[0-9a-f]{32}$")

    def test_repeated_header_counts_as_a_whole(self):
        raw = b"GET /healthz HTTP/1.0\r\nX-Request-ID: mine\r\nX-Request-ID: yours\r\n\r\n"

        self.assertRegex(self.response_to(raw)[2]["X-Request-ID"], "^[0-9a-f]{32}$")

    def test_path_that_is_not_utf_8(self):
        self.assertEqual(self.exchange(self.connect(), "GET", "/api/%FF%FE")[:2], (404, NOT_FOUND))


class ProcessTests(ServiceTestCase):
    def start_another(self, **environment):
        return subprocess.run(
            [sys.executable, "-m", "config.server"],
            cwd=settings.BASE_DIR,
            env={**self.service.environment, **environment},
            capture_output=True,
            text=True,
            timeout=60,
        )

    def separate_service(self, output=None, **environment):
        service = Service(Path(self.enterContext(tempfile.TemporaryDirectory())), output=output, **environment)
        service.start()
        self.addCleanup(service.kill)
        return service

    def workers(self, service):
        return Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children").read_text().split()

    def assert_ready_within_5_seconds(self, service):
        deadline = time.monotonic() + 5
        while True:
            try:
                if service.request("GET", "/readyz")[0] == 200:
                    return
            except OSError:
                self.assertLess(time.monotonic(), deadline)

    def test_used_port_prevents_the_start_with_a_line_that_names_its_processes(self):
        second = self.start_another()

        self.assertNotEqual(second.returncode, 0)
        self.assertRegex(second.stderr, r"\APORT: [^\n]+\n\Z")
        self.assertIn(str(self.service.port), second.stderr)
        for worker in self.workers(self.service):
            self.assertIn(f"process {worker}: ", second.stderr)
        self.assertEqual(self.service.request("GET", "/healthz")[0], 200)

    def test_workers_that_outlive_their_main_process_are_named_at_the_next_start(self):
        service = self.separate_service()
        [worker, *_] = self.workers(service)
        os.kill(service.process.pid, signal.SIGKILL)
        service.process.wait()

        second = self.start_another(PORT=str(service.port))

        self.assertNotEqual(second.returncode, 0)
        self.assertRegex(second.stderr, rf"\APORT: [^\n]+process {worker}: [^\n]+\n\Z")

    def test_killed_worker_is_replaced(self):
        service = self.separate_service(WEB_CONCURRENCY="1")
        [worker] = self.workers(service)

        os.kill(int(worker), signal.SIGKILL)

        self.assert_ready_within_5_seconds(service)
        self.assertNotEqual(self.workers(service), [worker])

    def test_service_ends_and_says_why_when_its_workers_keep_dying(self):
        output = self.enterContext(tempfile.TemporaryFile("w+"))
        service = self.separate_service(output, WEB_CONCURRENCY="1")
        while service.process.poll() is None:
            for worker in self.workers(service):
                os.kill(int(worker), signal.SIGKILL)
            time.sleep(0.1)

        self.assertNotEqual(service.process.returncode, 0)
        output.seek(0)
        self.assertEqual(output.read().splitlines()[-1], "Worker crash loop detected, exiting")

    def test_sigterm_lets_requests_in_flight_end(self):
        _, token = issue_token(self.alice)
        body = json.dumps({"receiver": "bob", "content": "hi"}).encode()
        head = (
            f"POST /api/message HTTP/1.1\r\nHost: localhost\r\nAuthorization: Token {token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n"
        )
        service = self.separate_service()
        connections = [self.connect(service) for _ in range(10)]
        for connection in connections:
            connection.sock.sendall(head.encode())
            self.assertEqual(connection.sock.recv(65_536), b"HTTP/1.1 100 Continue\r\n\r\n")  # it is in flight
            connection.sock.sendall(body[:5])
        service.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)

        for connection in connections:
            connection.sock.sendall(body[5:])
        answers = [b"".join(iter(lambda sock=connection.sock: sock.recv(65_536), b"")) for connection in connections]
        service.process.wait(timeout=30)

        self.assertEqual({answer.split(b"\r\n")[0] for answer in answers}, {b"HTTP/1.1 201 Created"})
        self.assertEqual(Message.objects.count(), 10)
        self.assertEqual(service.process.returncode, 0)

    def test_signals_that_interrupt_each_other_stop_the_service(self):
        for stop in (signal.SIGTERM, signal.SIGINT):
            with self.subTest(stop.name):
                service = self.separate_service(WEB_CONCURRENCY="1", METRICS=f"127.0.0.1:{free_port()}")

                for _ in range(500):
                    service.process.send_signal(stop)

                self.assertEqual(service.process.wait(timeout=30), 0)

    def test_sighups_that_interrupt_each_other_replace_the_workers(self):
        service = self.separate_service(WEB_CONCURRENCY="1")
        [worker] = self.workers(service)

        for _ in range(500):
            service.process.send_signal(signal.SIGHUP)

        deadline = time.monotonic() + 30
        while worker in self.workers(service):
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.1)
        self.assert_ready_within_5_seconds(service)


class BannerTests(ConcurrentTestCase):
    @contextmanager
    def started(self, **environment):
        """The service, and the lines that it printed at its start."""
        service = Service(self.log_folder, **environment)
        with subprocess.Popen(
            [sys.executable, "-m", "config.server"],
            cwd=settings.BASE_DIR,
            env=service.environment,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            lines = [process.stdout.readline().strip() for _ in range(5)]
            yield service, lines
            process.terminate()  # most often while its workers are starting
            terminated = time.monotonic()
            lines += process.stdout.read().splitlines()
            self.assertLess(time.monotonic() - terminated, 25)  # a worker that misses the signal is killed after 30
        self.assertEqual(process.returncode, 0)

    def test_docs_come_first_then_where_the_logs_are_and_how_to_stop(self):
        with self.started() as (service, lines):
            pass

        self.assertEqual([line.split()[0] for line in lines], ["Docs", "API", "Admin", "Logs", "Stop"])
        self.assertEqual(lines[0].split(), ["Docs", f"{service.url}/api/docs"])
        self.assertIn(str(service.log_folder), lines[3])

    def test_standard_output_has_nothing_but_log_lines_if_they_go_there(self):
        service = Service(self.log_folder, LOG_DIR="-", WEB_CONCURRENCY="1")
        with subprocess.Popen(
            [sys.executable, "-m", "config.server"],
            cwd=settings.BASE_DIR,
            env=service.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            banner = [process.stderr.readline().split()[0] for _ in range(5)]
            self.request_until_it_succeeds(service, "/healthz")
            worker = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
            os.kill(int(worker), signal.SIGKILL)
            reported = process.stderr.readline()
            self.request_until_it_succeeds(service, "/readyz")
            process.terminate()
            lines = [json.loads(line) for line in process.stdout]

        self.assertEqual(process.returncode, 0)
        self.assertEqual(banner, ["Docs", "API", "Admin", "Logs", "Stop"])
        self.assertEqual(reported, "Unexpected exit from worker-1\n")
        self.assertEqual(
            [(line["log"], line["path"]) for line in lines], [("requests", "/healthz"), ("requests", "/readyz")]
        )

    def request_until_it_succeeds(self, service, path):
        deadline = time.monotonic() + 30
        while True:
            try:
                return self.assertEqual(service.request("GET", path)[0], 200)
            except OSError:
                self.assertLess(time.monotonic(), deadline)
                time.sleep(0.1)

    def test_links_work_from_this_machine(self):
        for environment in (
            {"HOST": "0.0.0.0"},  # noqa: S104
            {"HOST": "127.0.0.1", "ALLOWED_HOSTS": "localhost"},
            {"HOST": "::", "ALLOWED_HOSTS": "[::1]"},
        ):
            with self.subTest(environment), self.started(**environment) as (_, lines):
                link = lines[0].split()[1]
                deadline = time.monotonic() + 20
                while True:
                    try:
                        with urllib.request.urlopen(link, timeout=20) as response:  # noqa: S310 - HTTP
                            self.assertEqual(response.status, 200)
                            break
                    except urllib.error.URLError as error:
                        self.assertNotIsInstance(error, urllib.error.HTTPError)
                        self.assertLess(time.monotonic(), deadline)

    def test_paths_are_printed_where_no_link_works(self):
        for environment, word in (
            ({"ALLOWED_HOSTS": "example.com"}, "ALLOWED_HOSTS"),
            ({"HTTPS": "on", "TRUSTED_PROXIES": "1"}, "HTTPS"),
        ):
            with self.subTest(environment), self.started(**environment) as (_, lines):
                pass

            self.assertEqual(lines[0].split(), ["Docs", "/api/docs"])
            self.assertIn(word, lines[-1])
            self.assertEqual(len(lines), 6)
