"""The running service: the server, its worker processes, and connections to them."""

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
        """Return an open connection. It reports an error if the server closes it, instead of opening a new connection."""
        connection = http.client.HTTPConnection(urlsplit((service or self.service).url).netloc, timeout=20)
        self.addCleanup(connection.close)
        connection.connect()
        return connection

    def exchange(self, connection, method, path, body=None, **options):
        """Send a request, and return status, JSON and headers of the response."""
        connection.request(method, path, body, **options)
        response = connection.getresponse()
        content = response.read()
        return response.status, json.loads(content) if content else None, response.headers

    def registration(self, username):
        """Return the body of a request that registers the user."""
        return json.dumps({"username": username, "password": PASSWORD}).encode()

    def exchange_raw(self, raw, *, half_close=False):
        """Send the bytes, and return status, JSON and headers of the response. The server must then close the connection.

        With `half_close`, the client ends its side of the connection after the bytes.
        """
        connection = self.connect()
        connection.sock.sendall(raw)
        if half_close:
            connection.sock.shutdown(socket.SHUT_WR)
        response = b"".join(iter(lambda: connection.sock.recv(65_536), b""))
        head, _, body = response.partition(b"\r\n\r\n")
        status_line, _, fields = head.partition(b"\r\n")
        headers = http.client.parse_headers(io.BytesIO(fields + b"\r\n\r\n"))
        return int(status_line.split()[1]), json.loads(body) if body else None, headers

    def assert_application_error(self, response, status, expected):
        """Assert that the error has a request id and CORS headers, and a line in requests.log."""
        actual_status, body, headers = response
        self.assertEqual((actual_status, body), (status, expected))
        self.assertEqual(headers["Content-Type"], "application/json")
        self.assertEqual(headers["Access-Control-Allow-Origin"], ORIGIN)
        line = next(line for line in self.log_lines("requests") if line["request_id"] == headers["X-Request-ID"])
        self.assertEqual(line["status"], status)


class BodyTests(ServiceTestCase):
    environment = {"CORS_ALLOWED_ORIGINS": ORIGIN}

    def test_accepts_a_chunked_body(self):
        for number, size in enumerate((1, 7, 1_000)):
            body = self.registration(f"dave{number}")
            chunks = (body[start : start + size] for start in range(0, len(body), size))

            with self.subTest(size=size):
                headers = {"Transfer-Encoding": "chunked", **JSON}
                status, content, _ = self.exchange(
                    self.connect(), "POST", "/api/auth/register", chunks, headers=headers, encode_chunked=True
                )

                self.assertEqual((status, content["user"]["username"]), (201, f"dave{number}"))

    def test_accepts_a_body_of_exactly_1_mib(self):
        for username, chunked in (("dave", False), ("erin", True)):
            body = self.registration(username).ljust(MEBIBYTE)

            with self.subTest(chunked=chunked):
                status, _, _ = self.exchange(
                    self.connect(), "POST", "/api/auth/register", iter([body]) if chunked else body, headers=JSON
                )

                self.assertEqual(status, 201)

    def test_rejects_a_body_over_1_mib_on_every_path(self):
        for size, path, chunked in itertools.product(
            (MEBIBYTE + 1, MEBIBYTE * 3 // 2), ("/api/message", "/api/auth/register", "/api/nothing"), (False, True)
        ):
            with self.subTest(size=size, path=path, chunked=chunked):
                connection, body = self.connect(), b"x" * size

                response = self.exchange(
                    connection, "POST", path, iter([body]) if chunked else body, headers={"Origin": ORIGIN}
                )

                self.assert_application_error(response, 413, TOO_LARGE)
                self.assertEqual(response[2]["Connection"], "close")

    def test_rejects_a_body_over_1_mib_before_it_arrives(self):
        response = self.exchange_raw(REGISTER + f"Origin: {ORIGIN}\r\nContent-Length: 1000000000\r\n\r\n{{".encode())

        self.assert_application_error(response, 413, TOO_LARGE)

    def test_never_reads_a_body_over_1_mib_as_a_request(self):
        smuggled = b"GET /api/smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
        body = smuggled * (4 * MEBIBYTE // len(smuggled))

        for chunked in (False, True):
            with self.subTest(chunked=chunked):
                try:
                    response = self.exchange(self.connect(), "POST", "/api/message", iter([body]) if chunked else body)[:2]
                except ConnectionError:  # the server may close the connection of a client that continues to send
                    response = 413, TOO_LARGE

                self.assertEqual(response, (413, TOO_LARGE))
                self.assertEqual(self.exchange(self.connect(), "GET", "/healthz")[0], 200)
        self.assertNotIn("/api/smuggled", [line["path"] for line in self.log_lines("requests")])

    def test_rejects_an_incomplete_body_and_stores_nothing(self):
        body, origin = self.registration("dave"), f"Origin: {ORIGIN}\r\n".encode()
        sized = REGISTER + origin + b"Content-Length: %d\r\n\r\n" % (len(body) + 1) + body
        chunked = REGISTER + origin + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(body) + body + b"\r\n"
        nothing = REGISTER + origin + b"Transfer-Encoding: chunked\r\n\r\n"

        for raw in (sized, chunked, nothing):
            with self.subTest(raw=raw[-60:]):
                response = self.exchange_raw(raw, half_close=True)

                self.assert_application_error(response, 400, INCOMPLETE)
                self.assertFalse(User.objects.filter(username="dave").exists())

    def test_rejects_a_malformed_chunk_with_a_single_response(self):
        for chunks in (b"zz\r\n{}\r\n0\r\n\r\n", b"2\r\n{}xx\r\n0\r\n\r\n", b"-2\r\n{}\r\n0\r\n\r\n"):
            with self.subTest(chunks=chunks):
                response = self.exchange_raw(REGISTER + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)

                self.assertEqual(response[:2], (400, INCOMPLETE))
        self.assertEqual(self.log_lines("debug"), [])

    def test_rejects_bytes_that_are_not_http(self):
        for raw in (
            b"nonsense\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
            REGISTER + b"no colon\r\n\r\n",
        ):
            with self.subTest(raw=raw[:30]):
                self.assertEqual(self.exchange_raw(raw)[:2], (400, None))
        self.assertEqual(self.exchange(self.connect(), "GET", "/healthz")[0], 200)

    def test_connection_stays_open_after_a_rejected_request_with_a_body(self):
        connection = self.connect()

        for number in range(3):
            with self.subTest(number=number):
                self.assertEqual(self.exchange(connection, "POST", "/api/message", b"x" * MEBIBYTE)[0], 401)
                self.assertEqual(self.exchange(connection, "POST", "/api/nothing", b"x" * 1_000)[:2], (404, NOT_FOUND))
                self.assertEqual(self.exchange(connection, "GET", "/healthz")[0], 200)

    def test_sends_100_continue_to_a_client_that_expects_it(self):
        connection, body = self.connect(), self.registration("dave")
        connection.sock.sendall(REGISTER + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body))

        interim_response = connection.sock.recv(1_000)
        connection.sock.sendall(body)
        response = connection.sock.recv(1_000)

        self.assertEqual(interim_response, b"HTTP/1.1 100 Continue\r\n\r\n")
        self.assertEqual(response.split(b"\r\n")[0], b"HTTP/1.1 201 Created")

    def test_ignores_a_charset_that_is_not_utf_8(self):
        for number, charset in enumerate(("hex", "rot13", "idna", "undefined", "nonsense", "utf-16")):
            headers = {"Content-Type": f"application/json; charset={charset}"}
            register = self.connect(), "POST", "/api/auth/register"

            with self.subTest(charset=charset):
                status, content, _ = self.exchange(*register, self.registration(f"dave{number}"), headers=headers)
                rejected = self.exchange(self.connect(), "POST", "/api/auth/register?a=%41", b"{}", headers=headers)

                self.assertEqual((status, content["user"]["username"]), (201, f"dave{number}"))
                self.assertEqual(rejected[:2], (400, {"a": ["Unknown parameter."]}))

    def test_ignores_an_encoded_parameter_of_the_media_type(self):
        for encoding in ("utf-8", "hex", "idna", "nonsense"):
            headers = {"Content-Type": f"application/json; x*={encoding}''%41"}

            with self.subTest(encoding=encoding):
                status, _, _ = self.exchange(self.connect(), "POST", "/api/auth/register", b"{}", headers=headers)

                self.assertEqual(status, 400)
        self.assertEqual(self.log_lines("debug"), [])

    def test_ignores_a_charset_of_multipart(self):
        body = b'--x\r\nContent-Disposition: form-data; name="username"\r\n\r\ndave\r\n--x--\r\n'
        headers = {"Content-Type": "multipart/form-data; charset=hex; boundary=x"}

        status, content, _ = self.exchange(self.connect(), "POST", "/api/auth/register", body, headers=headers)

        self.assertEqual((status, content), (400, {"password": ["This field is required."]}))


class MemoryTests(ServiceTestCase):
    """A worker uses at most 40 MiB for large bodies and responses, even if its clients are slow."""

    environment = {"WEB_CONCURRENCY": "1", "CORS_ALLOWED_ORIGINS": ORIGIN}

    def assert_503_while_many_clients_are_slow(self, slow_request, exchange_large, exchange_small):
        """Assert that clients that only send `slow_request` make `exchange_large` a 503, but not `exchange_small`."""
        slow = []
        while (response := exchange_large())[0] != 503:
            self.assertLess(len(slow), 80)
            slow.append(self.connect())
            slow[-1].sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # the system buffers no more for the client
            slow[-1].sock.sendall(slow_request)

        self.assert_application_error(response, 503, BUSY)
        self.assertEqual(response[2]["Retry-After"], "1")
        self.assertIn(exchange_small()[0], (200, 201))
        for connection in slow:
            connection.close()
        deadline = time.monotonic() + 20
        while exchange_large()[0] == 503:
            self.assertLess(time.monotonic(), deadline)

    def test_large_bodies_over_the_memory_limit_are_503(self):
        def register(body):
            return self.exchange(self.connect(), "POST", "/api/auth/register", body, headers={"Origin": ORIGIN, **JSON})

        self.assert_503_while_many_clients_are_slow(
            REGISTER + b"Content-Length: %d\r\n\r\n{" % MEBIBYTE,
            lambda: register(b"{}".ljust(MEBIBYTE)),
            lambda: register(self.registration("dave")),
        )

    def test_large_responses_over_the_memory_limit_are_503(self):
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

        self.assert_503_while_many_clients_are_slow(
            f"GET /api/message?page_size=100 HTTP/1.1\r\nHost: localhost\r\nAuthorization: Token {token}\r\n\r\n".encode(),
            lambda: page(100),
            lambda: page(1),
        )


class HashingTests(ServiceTestCase):
    environment = {"WEB_CONCURRENCY": "1", "CORS_ALLOWED_ORIGINS": ORIGIN}

    def test_hashes_in_a_separate_thread_with_a_queue_of_twenty_requests(self):
        body = self.registration("dave")
        request = REGISTER + f"Origin: {ORIGIN}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
        _, token = issue_token(self.alice)
        clients = [self.connect() for _ in range(25)]

        with transaction.atomic():
            User.objects.create(username="dave")  # the first request waits for the end of this transaction
            for client in clients:
                client.sock.sendall(request)
            overloads = []
            while len(overloads) < 4:
                readable, _, _ = select.select([client.sock for client in clients], [], [], 20)
                overloads += [client for client in clients if client.sock in readable and client not in overloads]
            other_status, _, _ = self.exchange(
                self.connect(), "GET", "/api/auth/user", headers={"Authorization": f"Token {token}"}
            )
            self.assertEqual(
                select.select([client.sock for client in clients if client not in overloads], [], [], 0.2)[0], []
            )
        statuses = sorted(self.read(client)[0] for client in clients if client not in overloads)

        self.assertEqual((len(overloads), other_status, statuses), (4, 200, [400] * 21))
        for client in overloads:
            response = self.read(client)
            self.assert_application_error(response, 503, BUSY)
            self.assertEqual(response[2]["Retry-After"], "1")

    def read(self, connection):
        """Return status, JSON and headers of the next response to a POST request."""
        response = http.client.HTTPResponse(connection.sock, method="POST")
        response.begin()
        return response.status, json.loads(response.read()), response.headers


class SlowClientTests(ServiceTestCase):
    MANY = 40  # more than the threads of all workers

    def assert_others_are_served(self):
        """Assert that another client gets a response."""
        self.assertEqual(self.exchange(self.connect(), "GET", "/readyz")[0], 200)

    def request(self):
        """Return the bytes of a request that sends a message."""
        body = json.dumps({"receiver": "bob", "content": "hi"}).encode()
        _, token = issue_token(self.alice)
        head = "POST /api/message HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        return f"{head}Authorization: Token {token}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body

    def test_slow_requests_do_not_delay_other_clients(self):
        request = self.request()
        for name, cut in {"request line": 7, "headers": 60, "body": len(request) - 3}.items():
            with self.subTest(name):
                before = Message.objects.count()
                slow = [self.connect() for _ in range(self.MANY)]
                for connection in slow:
                    connection.sock.sendall(request[:cut])

                self.assert_others_are_served()

                self.assertEqual(Message.objects.count(), before)
                for connection in slow:
                    connection.sock.sendall(request[cut:])
                status_lines = [connection.sock.recv(100).split(b"\r\n")[0] for connection in slow]
                self.assertEqual(status_lines, [b"HTTP/1.1 201 Created"] * self.MANY)
                self.assertEqual(Message.objects.count(), before + self.MANY)

    def test_unread_responses_do_not_delay_other_clients(self):
        for number in range(100):
            Message.objects.create(
                sender=self.alice, receiver=self.bob, content="x" * 10_000, sender_place=number, receiver_place=number
            )
        Mailbox.objects.create(user=self.bob, total=99)
        _, token = issue_token(self.bob)
        page = f"GET /api/message?page_size=100 HTTP/1.1\r\nHost: localhost\r\nAuthorization: Token {token}\r\n\r\n"
        slow = [self.connect() for _ in range(self.MANY)]

        for connection in slow:
            connection.sock.sendall(page.encode() * 20)  # about 20 MB, more than the system buffers for a connection
        self.wait_until_buffers_are_full()

        self.assert_others_are_served()

        self.assertTrue(slow[0].sock.recv(100).startswith(b"HTTP/1.1 200 OK"))

    def wait_until_buffers_are_full(self):
        """Wait until no more requests are logged: clients read nothing, so the system cannot buffer more responses."""
        count, before = 0, -1
        while count != before:
            time.sleep(0.5)
            count, before = len(self.log_lines("requests")), count

    def test_idle_connections_do_not_delay_other_clients(self):
        for _ in range(self.MANY):
            self.connect()

        self.assert_others_are_served()


class ResponseTests(ServiceTestCase):
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

    def test_connection_stays_open_after_a_response_without_content(self):
        connection = self.connect()
        _, token = issue_token(self.alice)

        status, content, _ = self.exchange(
            connection, "POST", "/api/auth/logout", headers={"Authorization": f"Token {token}"}
        )

        self.assertEqual((status, content), (204, None))
        self.assertEqual(self.exchange(connection, "GET", "/healthz")[0], 200)

    def test_server_passes_on_request_id_and_path(self):
        self.exchange(self.connect(), "GET", "/api/a%0Ab%00%22?c=d", headers={"X-Request-ID": "the-id"})

        [line] = self.log_lines("requests")
        self.assertEqual(
            (line["request_id"], line["path"], line["status"], line["address"]),
            ("the-id", '/api/a\nb\x00"', 404, "127.0.0.1"),
        )

    def test_rejects_a_host_that_is_not_allowed(self):
        status, error, headers = self.exchange(self.connect(), "GET", "/api/message", headers={"Host": "evil.example"})

        self.assertEqual((status, [*error]), (400, ["detail"]))
        self.assertIn("X-Request-ID", headers)

    def test_admin_redirects_to_its_login_and_has_its_static_files(self):
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

    def test_pipelined_requests_get_responses_in_order(self):
        connection = self.connect()
        heads = (f"GET {path} HTTP/1.1\r\nHost: localhost\r\n" for path in ("/healthz", "/api/nothing", "/healthz"))
        connection.sock.sendall(("\r\n".join(heads) + "Connection: close\r\n\r\n").encode())

        responses = b"".join(iter(lambda: connection.sock.recv(65_536), b""))

        self.assertEqual(re.findall(rb"HTTP/1.1 (\d+)", responses), [b"200", b"404", b"200"])

    def test_accepts_http_1_0_without_a_host(self):
        status, content, _ = self.exchange_raw(b"GET /healthz HTTP/1.0\r\n\r\n")

        self.assertEqual((status, content), (200, {"status": "ok"}))

    def test_ignores_a_header_with_an_underscore(self):
        connection = self.connect()

        with_hyphen = self.exchange(connection, "GET", "/healthz", headers={"X-Request-ID": "mine"})[2]["X-Request-ID"]
        with_underscore = self.exchange(connection, "GET", "/healthz", headers={"X_Request_ID": "mine"})[2]["X-Request-ID"]

        self.assertEqual(with_hyphen, "mine")
        self.assertRegex(with_underscore, "^[0-9a-f]{32}$")

    def test_repeated_request_id_is_replaced_by_a_new_id(self):
        raw = b"GET /healthz HTTP/1.0\r\nX-Request-ID: mine\r\nX-Request-ID: yours\r\n\r\n"

        self.assertRegex(self.exchange_raw(raw)[2]["X-Request-ID"], "^[0-9a-f]{32}$")

    def test_path_that_is_not_utf_8_is_not_found(self):
        self.assertEqual(self.exchange(self.connect(), "GET", "/api/%FF%FE")[:2], (404, NOT_FOUND))


class ProcessTests(ServiceTestCase):
    def start_another(self, **environment):
        """Start another service with the settings of the first, wait for its end, and return its output."""
        return subprocess.run(
            [sys.executable, "-m", "config.server"],
            cwd=settings.BASE_DIR,
            env={**self.service.environment, **environment},
            capture_output=True,
            text=True,
            timeout=60,
        )

    def start_service(self, output=None, **environment):
        """Start a service of this test only."""
        service = Service(Path(self.enterContext(tempfile.TemporaryDirectory())), output=output, **environment)
        service.start()
        self.addCleanup(service.kill)
        return service

    def workers(self, service):
        """Return the ids of the worker processes."""
        return Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children").read_text().split()

    def assert_ready_within_5_seconds(self, service):
        deadline = time.monotonic() + 5
        while True:
            try:
                if service.request("GET", "/readyz")[0] == 200:
                    return
            except OSError:
                self.assertLess(time.monotonic(), deadline)

    def test_used_port_prevents_startup_with_a_line_that_names_its_processes(self):
        second = self.start_another()

        self.assertNotEqual(second.returncode, 0)
        self.assertRegex(second.stderr, r"\APORT: [^\n]+\n\Z")
        self.assertIn(str(self.service.port), second.stderr)
        for worker in self.workers(self.service):
            self.assertIn(f"process {worker}: ", second.stderr)
        self.assertEqual(self.service.request("GET", "/healthz")[0], 200)

    def test_startup_error_names_workers_that_outlive_their_main_process(self):
        service = self.start_service()
        [worker, *_] = self.workers(service)
        os.kill(service.process.pid, signal.SIGKILL)
        service.process.wait()

        second = self.start_another(PORT=str(service.port))

        self.assertNotEqual(second.returncode, 0)
        self.assertRegex(second.stderr, rf"\APORT: [^\n]+process {worker}: [^\n]+\n\Z")

    def test_killed_worker_is_replaced(self):
        service = self.start_service(WEB_CONCURRENCY="1")
        [worker] = self.workers(service)

        os.kill(int(worker), signal.SIGKILL)

        self.assert_ready_within_5_seconds(service)
        self.assertNotEqual(self.workers(service), [worker])

    def test_service_stops_with_an_error_if_its_workers_keep_crashing(self):
        output = self.enterContext(tempfile.TemporaryFile("w+"))
        service = self.start_service(output, WEB_CONCURRENCY="1")
        while service.process.poll() is None:
            for worker in self.workers(service):
                os.kill(int(worker), signal.SIGKILL)
            time.sleep(0.1)

        self.assertNotEqual(service.process.returncode, 0)
        output.seek(0)
        self.assertEqual(output.read().splitlines()[-1], "Worker crash loop detected, exiting")

    def test_sigterm_completes_requests_in_flight(self):
        _, token = issue_token(self.alice)
        body = json.dumps({"receiver": "bob", "content": "hi"}).encode()
        head = (
            f"POST /api/message HTTP/1.1\r\nHost: localhost\r\nAuthorization: Token {token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n"
        )
        service = self.start_service()
        connections = [self.connect(service) for _ in range(10)]
        for connection in connections:
            connection.sock.sendall(head.encode())
            self.assertEqual(connection.sock.recv(65_536), b"HTTP/1.1 100 Continue\r\n\r\n")  # the request is in flight
            connection.sock.sendall(body[:5])
        service.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)

        for connection in connections:
            connection.sock.sendall(body[5:])
        responses = [b"".join(iter(lambda sock=connection.sock: sock.recv(65_536), b"")) for connection in connections]
        service.process.wait(timeout=30)

        self.assertEqual({response.split(b"\r\n")[0] for response in responses}, {b"HTTP/1.1 201 Created"})
        self.assertEqual(Message.objects.count(), 10)
        self.assertEqual(service.process.returncode, 0)

    def test_signals_that_interrupt_each_other_stop_the_service(self):
        for stop in (signal.SIGTERM, signal.SIGINT):
            with self.subTest(stop.name):
                service = self.start_service(WEB_CONCURRENCY="1", METRICS=f"127.0.0.1:{free_port()}")

                for _ in range(500):
                    service.process.send_signal(stop)

                self.assertEqual(service.process.wait(timeout=30), 0)

    def test_sighups_that_interrupt_each_other_replace_the_workers(self):
        service = self.start_service(WEB_CONCURRENCY="1")
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
    def start_server(self, **environment):
        """Start the server, and yield its Service and the lines that it prints at its start."""
        service = Service(self.log_folder, **environment)
        with subprocess.Popen(
            [sys.executable, "-m", "config.server"],
            cwd=settings.BASE_DIR,
            env=service.environment,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            lines = [process.stdout.readline().strip() for _ in range(4)]
            yield service, lines
            process.terminate()  # usually while its workers are starting
            terminated = time.monotonic()
            lines += process.stdout.read().splitlines()
            self.assertLess(time.monotonic() - terminated, 25)  # a worker that misses the signal is killed after 30
        self.assertEqual(process.returncode, 0)

    def test_stops_while_many_workers_start(self):
        with self.start_server(WEB_CONCURRENCY="16"):
            pass

    def test_names_the_docs_first_then_the_logs_and_how_to_stop(self):
        with self.start_server() as (service, lines):
            pass

        self.assertEqual([line.split()[0] for line in lines], ["Docs", "Admin", "Logs", "Stop"])
        self.assertEqual(lines[0].split(), ["Docs", f"{service.url}/api/docs"])
        self.assertIn(str(service.log_folder), lines[2])

    def test_standard_output_has_only_log_lines_if_logs_are_written_to_it(self):
        service = Service(self.log_folder, LOG_DIR="-", WEB_CONCURRENCY="1")
        with subprocess.Popen(
            [sys.executable, "-m", "config.server"],
            cwd=settings.BASE_DIR,
            env=service.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            banner = [process.stderr.readline().split()[0] for _ in range(4)]
            self.request_until_it_succeeds(service, "/healthz")
            worker = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
            os.kill(int(worker), signal.SIGKILL)
            report = process.stderr.readline()
            self.request_until_it_succeeds(service, "/readyz")
            process.terminate()
            lines = [json.loads(line) for line in process.stdout]

        self.assertEqual(process.returncode, 0)
        self.assertEqual(banner, ["Docs", "Admin", "Logs", "Stop"])
        self.assertEqual(report, "Unexpected exit from worker-1\n")
        self.assertEqual(
            [(line["log"], line["path"]) for line in lines], [("requests", "/healthz"), ("requests", "/readyz")]
        )

    def request_until_it_succeeds(self, service, path):
        """Repeat the request while the server cannot be reached. Assert that it then succeeds."""
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
            {"HOST": "::", "ALLOWED_HOSTS": "127.0.0.1"},
            {"HOST": "127.0.0.2", "ALLOWED_HOSTS": "127.0.0.2"},
        ):
            with self.subTest(environment), self.start_server(**environment) as (_, lines):
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

    def test_prints_paths_if_links_do_not_work_from_this_machine(self):
        for environment, word in (
            ({"ALLOWED_HOSTS": "example.com"}, "ALLOWED_HOSTS"),
            ({"HTTPS": "on", "TRUSTED_PROXIES": "1"}, "HTTPS"),
        ):
            with self.subTest(environment), self.start_server(**environment) as (_, lines):
                pass

            self.assertEqual(lines[0].split(), ["Docs", "/api/docs"])
            self.assertIn(word, lines[-1])
            self.assertEqual(len(lines), 5)
