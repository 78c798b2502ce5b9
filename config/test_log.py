"""The three logs: the fields of a line, what no line contains, and that no line is lost."""

import fcntl
import io
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from unittest import mock
from urllib.parse import quote

from django.conf import settings

from accounts.authentication import issue_token
from config.log import StandardOutputHandler, record_event
from config.testing.cases import LOGS, PASSWORD, ApiTestCase, ConcurrentTestCase
from config.testing.http_client import free_port, send_request
from config.testing.service import run_service, test_database_url

SPECIAL_CHARACTERS = 'a\nb\r"c\\\u2028\x85é'


class RequestLineTests(ApiTestCase):
    def test_has_exactly_these_fields(self):
        self.as_user(self.alice).get("/api/message", headers={"x-request-id": "the-id"})

        [line] = self.log_lines("requests")
        self.assertTime(line.pop("time"))
        self.assertGreater(line.pop("milliseconds"), 0)
        self.assertEqual(
            line,
            {
                "request_id": "the-id",
                "method": "GET",
                "path": "/api/message",
                "status": 200,
                "user": "alice",
                "address": "127.0.0.1",
            },
        )

    def test_every_request_has_one_line_with_its_status(self):
        alice = self.as_user(self.alice)
        credentials = {"username": "dave", "password": PASSWORD}

        alice.get("/api/message?page=1")
        alice.get("/api/message?token=abc")
        alice.put("/api/message")
        alice.post("/api/auth/logout")
        alice.get("/api/message")
        self.client.post("/api/auth/register", credentials)
        self.client.get("/api/nothing")
        self.client.generic("POST", "/healthz", b"x" * (2**20 + 1))

        self.assertEqual(
            [(line["method"], line["path"], line["status"], line["user"]) for line in self.log_lines("requests")],
            [
                ("GET", "/api/message", 200, "alice"),
                ("GET", "/api/message", 400, "alice"),
                ("PUT", "/api/message", 405, "alice"),
                ("POST", "/api/auth/logout", 204, "alice"),
                ("GET", "/api/message", 401, "-"),
                ("POST", "/api/auth/register", 201, "-"),
                ("GET", "/api/nothing", 404, "-"),
                ("POST", "/healthz", 413, "-"),
            ],
        )

    def test_query_string_is_not_logged(self):
        self.as_user(self.alice).get("/api/message/sent?receiver=secret&date=secret&other=secret")

        self.assertNotIn("secret", (self.log_folder / "requests.log").read_text())

    def test_user_of_a_request_is_not_logged_for_the_next_request(self):
        self.as_user(self.alice).get("/api/message")
        self.client.get("/healthz")

        self.assertEqual([line["user"] for line in self.log_lines("requests")], ["alice", "-"])


class ForgeryTests(ApiTestCase):
    def content(self, name):
        """Return the bytes of the log."""
        return (self.log_folder / f"{name}.log").read_bytes()

    def test_line_breaks_in_a_path_are_escaped(self):
        self.client.get(f"/api/{quote(SPECIAL_CHARACTERS)}")

        content = self.content("requests")
        self.assertTrue(content.isascii())
        self.assertEqual((content.count(b"\n"), content.count(b"\r")), (1, 0))
        self.assertEqual(json.loads(content)["path"], f"/api/{SPECIAL_CHARACTERS}")

    def test_line_breaks_in_a_username_are_escaped(self):
        self.client.post("/api/auth/login", {"username": SPECIAL_CHARACTERS, "password": "wrong"})

        content = self.content("activity")
        self.assertTrue(content.isascii())
        self.assertEqual((content.count(b"\n"), content.count(b"\r")), (1, 0))
        self.assertEqual(self.events(), [("Invalid Login", SPECIAL_CHARACTERS, "-")])

    def test_line_of_an_event_has_exactly_these_fields(self):
        self.as_user(self.alice).post("/api/block", {"blocked": "bob"}, headers={"x-request-id": "the-id"})

        [line] = self.log_lines("activity")
        self.assertTime(line.pop("time"))
        self.assertEqual(
            line,
            {"request_id": "the-id", "event": "Block User", "who": "alice", "whom": "bob", "address": "127.0.0.1"},
        )


class LineLengthTests(ApiTestCase):
    """The length of a line is limited, even if a client sends long values."""

    def test_name_is_cut(self):
        self.client.post("/api/auth/login", {"username": "a" * 150 + "b" * 10_000, "password": "wrong"})

        self.assertEqual(self.events(), [("Invalid Login", "a" * 150, "-")])

    def test_path_is_cut(self):
        self.client.get("/" + "a" * 999 + "b" * 7_000)

        self.assertEqual(self.log_lines("requests")[0]["path"], "/" + "a" * 999)

    def test_no_line_is_longer_than_the_limit(self):
        for text in ("\x01" * 8_000, "\U0001f40d" * 8_000):
            error = ValueError(text * 40)
            with self.settings(TRUSTED_PROXIES=1), mock.patch("accounts.views.LoginView.post", side_effect=error):
                headers = {"x-forwarded-for": quote(text), "x-request-id": "i" * 8_000}
                self.client.generic("M" * 8_000, f"/{quote(text)}", headers=headers)
                self.client.post("/api/auth/login", {}, headers=headers)
            self.client.post("/api/auth/login", {"username": text, "password": "wrong"}, headers=headers)
            record_event("Login", who=text, whom=text)

        for name, count, bound in (("requests", 6, 16_384), ("activity", 4, 16_384), ("debug", 2, 1_250_000)):
            lines = (self.log_folder / f"{name}.log").read_bytes().splitlines()
            self.assertEqual(len(lines), count, name)
            self.assertLess(max(map(len, lines)), bound, name)


class SecretTests(ApiTestCase):
    def test_no_log_contains_a_token_a_password_or_content(self):
        content, password, wrong = "the private words", "a quite long secret", "another long secret"
        registration = self.client.post("/api/auth/register", {"username": "dave", "password": password})
        login = self.client.post("/api/auth/login", {"username": "dave", "password": password})
        tokens = [response.json()["token"] for response in (registration, login)]
        dave = {"authorization": f"Token {tokens[1]}"}

        self.client.post("/api/auth/login", {"username": "dave", "password": wrong})
        for receiver in ("bob", "nobody"):
            self.client.post("/api/message", {"receiver": receiver, "content": content}, headers=dave)
        self.client.get(f"/api/message?token={tokens[1]}", headers=dave)
        with mock.patch("messageservice.views.send_message", side_effect=ZeroDivisionError):
            self.client.post("/api/message", {"receiver": "bob", "content": content}, headers=dave)
        with mock.patch("accounts.views.log_in", side_effect=ZeroDivisionError):
            self.client.post("/api/auth/login", {"username": "dave", "password": password})

        for name in LOGS:
            text = (self.log_folder / f"{name}.log").read_text()
            for secret in (content, password, wrong, *tokens):
                with self.subTest(log=name, secret=secret):
                    self.assertIn("dave", text)
                    self.assertNotIn(secret, text)


class AddressTests(ApiTestCase):
    def address(self, forwarded_for, trusted_proxies):
        """Return the address in requests.log for a request with this X-Forwarded-For header."""
        with self.settings(TRUSTED_PROXIES=trusted_proxies):
            self.client.get("/healthz", headers={"x-forwarded-for": forwarded_for}, REMOTE_ADDR="10.0.0.1")
        return self.log_lines("requests")[-1]["address"]

    def test_is_the_address_before_the_trusted_proxies(self):
        cases = (
            ("1.1.1.1", 0, "10.0.0.1"),
            ("1.1.1.1, 2.2.2.2", 0, "10.0.0.1"),
            ("1.1.1.1", 1, "1.1.1.1"),
            ("9.9.9.9, 1.1.1.1", 1, "1.1.1.1"),
            ("9.9.9.9,8.8.8.8 ,1.1.1.1", 1, "1.1.1.1"),
            ("1.1.1.1, 10.0.0.2", 2, "1.1.1.1"),
            ("9.9.9.9, 1.1.1.1, 10.0.0.2", 2, "1.1.1.1"),
            ("::1, 2001:db8::1", 1, "2001:db8::1"),
            ("", 0, "10.0.0.1"),
            ("", 1, "10.0.0.1"),
        )

        for forwarded_for, trusted_proxies, address in cases:
            with self.subTest(forwarded_for=forwarded_for, trusted_proxies=trusted_proxies):
                self.assertEqual(self.address(forwarded_for, trusted_proxies), address)

    def test_is_logged_with_events(self):
        with self.settings(TRUSTED_PROXIES=1):
            self.as_user(self.alice).post("/api/block", {"blocked": "bob"}, headers={"x-forwarded-for": "9.9.9.9, 1.1.1.1"})

        self.assertEqual([line["address"] for line in self.log_lines("activity")], ["1.1.1.1"])


def read_lines(files):
    """Return every line of the files, parsed as JSON. Fails if a line is not whole."""
    return [json.loads(line) for file in files for line in file.read_bytes().split(b"\n")[:-1]]


class AppendHandlerTests(ApiTestCase):
    WRITER = """
import logging, sys
from config.log import AppendHandler, StandardOutputHandler

writer, count, *file = sys.argv[1:]
handler = AppendHandler(*file) if file else StandardOutputHandler()
logger = logging.getLogger("writer")
logger.addHandler(handler)
sys.stdin.read()
for number in range(int(count)):
    logger.warning({"writer": writer, "number": number, "traceback": "é" * (number % 2_000)})
"""

    def test_processes_write_every_line_whole_while_files_are_rotated(self):
        file, writers, count = self.log_folder / "shared.log", 4, 2_000
        processes = [
            subprocess.Popen(  # noqa: S603 - runs the script above
                [sys.executable, "-c", self.WRITER, str(writer), str(count), str(file)],
                cwd=settings.BASE_DIR,
                stdin=subprocess.PIPE,
            )
            for writer in range(writers)
        ]

        for process in processes:
            process.stdin.close()  # all processes continue now
        rotations = 0
        while any(process.poll() is None for process in processes):
            if file.exists():
                file.rename(self.log_folder / f"shared.log.{rotations}")
                rotations += 1
            time.sleep(0.01)

        lines = read_lines(self.log_folder.glob("shared.log*"))
        self.assertGreater(rotations, 2)
        self.assertEqual([process.returncode for process in processes], [0] * writers)
        self.assertEqual(
            sorted((int(line["writer"]), line["number"]) for line in lines),
            [(writer, number) for writer in range(writers) for number in range(count)],
        )
        self.assertTrue(all(line["traceback"] == "é" * (line["number"] % 2_000) for line in lines))

    def test_only_owner_and_group_can_read_the_file(self):
        self.client.get("/healthz")

        self.assertEqual((self.log_folder / "requests.log").stat().st_mode & 0o137, 0)

    def test_request_succeeds_if_the_log_cannot_be_written(self):
        self.log_folder.joinpath("requests.log").mkdir()

        with mock.patch("sys.stderr", io.StringIO()) as console, mock.patch("config.log.REPORT_INTERVAL", 0):
            response = self.client.get("/healthz")

        self.assertEqual(response.status_code, 200)
        self.assertRegex(console.getvalue(), "^.*/requests.log: .*Is a directory.*\n$")

    def test_starts_a_new_line_after_the_incomplete_line_of_a_killed_process(self):
        file = self.log_folder / "requests.log"
        file.write_bytes(b'{"half": ')

        self.client.get("/healthz")

        half, line = file.read_bytes().splitlines()
        self.assertEqual((half, json.loads(line)["path"]), (b'{"half": ', "/healthz"))

    def test_waits_while_another_process_writes(self):
        """The other process may write half a line on a full disk, and then removes it."""
        file = self.log_folder / "requests.log"
        self.client.get("/first")

        with file.open("ab") as other, ThreadPoolExecutor(1) as thread:
            fcntl.flock(other, fcntl.LOCK_EX)
            size = other.tell()
            other.write(b'{"half": ')
            other.flush()
            request = thread.submit(self.client.get, "/second")
            with self.assertRaises(TimeoutError):
                request.result(timeout=0.5)
            other.truncate(size)
            fcntl.flock(other, fcntl.LOCK_UN)
            request.result(timeout=10)

        self.assertEqual([line["path"] for line in read_lines([file])], ["/first", "/second"])


class FullDiskTests(ApiTestCase):
    """A limit on the size of files, which two processes reach, simulates a full disk: half a line fits, then nothing."""

    WRITER = """
import logging, os, resource, sys
import config.log
from config.log import AppendHandler, StandardOutputHandler

config.log.REPORT_INTERVAL = 60  # seconds; a slow machine takes more than one
os.fork()  # as the server starts its worker processes
handler = AppendHandler(*sys.argv[1:]) if sys.argv[1:] else StandardOutputHandler()
logger = logging.getLogger("writer")
logger.addHandler(handler)
for limit in (5_000, 9_000, resource.RLIM_INFINITY):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    for number in range(100):
        logger.warning({"limit": limit, "number": number, "padding": "x" * 100})
"""

    def write(self, *file, output=None):
        """Write lines to the file, or to `output` as standard output. Return the content of standard error."""
        command = [sys.executable, "-c", self.WRITER, *map(str, file)]
        return subprocess.run(  # noqa: S603 - runs the script above
            command, cwd=settings.BASE_DIR, stdout=output, stderr=subprocess.PIPE, text=True, timeout=60
        ).stderr

    def test_loses_only_whole_lines(self):
        file = self.log_folder / "full.log"

        self.write(file)

        self.assert_only_whole_lines_are_lost(file)

    def test_standard_output_loses_only_whole_lines(self):
        for mode in ("w", "a"):
            file = self.log_folder / f"full-{mode}.log"
            with self.subTest(mode=mode), file.open(mode) as output:
                self.write(output=output)

                self.assert_only_whole_lines_are_lost(file)

    def assert_only_whole_lines_are_lost(self, file):
        """Assert that lines are lost, that all lines in the file are whole, and that no line is lost without a limit."""
        lines = read_lines([file])
        self.assertEqual(file.read_bytes()[-1:], b"\n")
        self.assertEqual(sorted(line["number"] for line in lines if line["limit"] == -1), sorted([*range(100)] * 2))
        self.assertLess(len(lines), 400)

    def test_reports_lost_lines_on_standard_error_once_per_interval(self):
        with open("/dev/full", "w") as output:
            self.assertEqual(self.write("/dev/full"), "/dev/full: [Errno 28] No space left on device\n")
            self.assertEqual(self.write(output=output), "standard output: [Errno 28] No space left on device\n")


class StandardOutputTests(ApiTestCase):
    """With LOG_DIR=- all logs go to one pipe. Its reader may be slow, stop reading, or close the pipe."""

    def setUp(self):
        super().setUp()
        self.reader, self.writer = os.pipe()
        self.addCleanup(lambda: [os.close(end) for end in (self.reader, self.writer) if end])
        fcntl.fcntl(self.writer, fcntl.F_SETPIPE_SZ, 2**20)
        os.set_blocking(self.reader, False)
        self.enterContext(mock.patch("config.log.STANDARD_OUTPUT", self.writer))
        self.enterContext(mock.patch("config.log._last_report", bytearray(8)))
        handler = StandardOutputHandler()
        for name in LOGS:
            self.enterContext(mock.patch.object(logging.getLogger(name), "handlers", [handler]))

    def read(self):
        """Return the bytes in the pipe."""
        with suppress(BlockingIOError):
            return os.read(self.reader, 2**20)
        return b""

    def test_lines_have_the_fields_of_the_files_and_the_name_of_the_log(self):
        with mock.patch("accounts.views.UserView.get", side_effect=ZeroDivisionError):
            self.as_user(self.alice).get("/api/auth/user", headers={"x-request-id": "one"})
        self.as_user(self.alice).post("/api/block", {"blocked": "bob"}, headers={"x-request-id": "two"})

        lines = [json.loads(line) for line in self.read().splitlines()]
        self.assertEqual(
            [(line["log"], line["request_id"]) for line in lines],
            [("debug", "one"), ("requests", "one"), ("activity", "two"), ("requests", "two")],
        )
        self.assertIn("ZeroDivisionError", lines[0]["traceback"])
        self.assertEqual(
            [[*line] for line in lines],
            [
                ["time", "log", "level", "request_id", "method", "path", "user", "traceback"],
                ["time", "log", "request_id", "method", "path", "user", "status", "milliseconds", "address"],
                ["time", "log", "request_id", "event", "who", "whom", "address"],
                ["time", "log", "request_id", "method", "path", "user", "status", "milliseconds", "address"],
            ],
        )

    def test_no_line_is_too_long_for_an_atomic_write_to_a_pipe(self):
        for text in ("a" * 8_000, '"' * 8_000, "\x01" * 8_000, "\U0001f40d" * 8_000):
            headers = {"x-forwarded-for": quote(text), "x-request-id": "i" * 64}
            with self.settings(TRUSTED_PROXIES=1), mock.patch("accounts.views.LoginView.post", side_effect=KeyError):
                self.client.generic("M" * 8_000, f"/{quote(text)}", headers=headers)
                self.client.post("/api/auth/login", {}, headers=headers)
            record_event("Login", who=text, whom=text)

            lines = self.read().splitlines(keepends=True)
            with self.subTest(text=text[:1]):
                self.assertLessEqual(max(map(len, lines)), 4_096)
                self.assertEqual([json.loads(line)["log"] for line in lines], ["requests", "debug", "requests", "activity"])

    def test_long_traceback_is_split_into_numbered_parts(self):
        for text in ("~", "é", "\U0001f40d"):
            with mock.patch("accounts.views.LoginView.post", side_effect=KeyError(text * 8_000)):
                self.client.post("/api/auth/login", {}, headers={"x-request-id": "the-id"})

            lines = self.read().splitlines(keepends=True)
            *parts, request = map(json.loads, lines)
            with self.subTest(text=text):
                self.assertLessEqual(max(map(len, lines)), 4_096)
                self.assertEqual(
                    [(line["request_id"], line["part"], line["parts"]) for line in parts],
                    [("the-id", number, len(parts)) for number in range(1, len(parts) + 1)],
                )
                self.assertEqual("".join(line["traceback"] for line in parts).count(text), 8_000)
                self.assertEqual(request["log"], "requests")

    def test_processes_write_every_line_whole_to_a_slow_reader(self):
        writers, count = 4, 500
        command = [sys.executable, "-c", AppendHandlerTests.WRITER]
        processes = [
            subprocess.Popen(  # noqa: S603 - runs the script above
                [*command, str(writer), str(count)], cwd=settings.BASE_DIR, stdin=subprocess.PIPE, stdout=self.writer
            )
            for writer in range(writers)
        ]

        for process in processes:
            process.stdin.close()  # all processes continue now
        output = b""
        while any(process.poll() is None for process in processes):
            output += self.read()
            time.sleep(0.01)
        lines = [json.loads(line) for line in (output + self.read()).splitlines()]

        self.assertEqual([process.returncode for process in processes], [0] * writers)
        found = {}
        for line in lines:
            found.setdefault((int(line["writer"]), line["number"]), []).append(line.get("traceback", ""))
        self.assertEqual(
            {key: "".join(parts) for key, parts in found.items()},
            {(writer, number): "é" * number for writer in range(writers) for number in range(count)},
        )

    def test_request_succeeds_while_the_pipe_is_full(self):
        """The first line waits for a second. The next lines are lost without a wait, until there is room again."""
        with mock.patch("sys.stderr", io.StringIO()) as console:
            fcntl.fcntl(self.writer, fcntl.F_SETPIPE_SZ, 4_096)
            os.write(self.writer, bytes(4_096))
            began = time.monotonic()
            statuses = [self.client.get("/healthz").status_code for _ in range(20)]
            seconds = time.monotonic() - began
            self.read()
            self.client.get("/readyz")

        self.assertEqual(statuses, [200] * 20)
        self.assertLess(seconds, 10)
        self.assertEqual({*console.getvalue().splitlines()}, {"standard output: nobody reads it"})
        self.assertEqual(json.loads(self.read())["path"], "/readyz")

    def test_request_succeeds_after_the_reader_closes_the_pipe(self):
        os.close(self.reader)
        self.reader = None

        with mock.patch("sys.stderr", io.StringIO()) as console:
            response = self.client.get("/healthz")

        self.assertEqual(response.status_code, 200)
        self.assertEqual(console.getvalue(), "standard output: [Errno 32] Broken pipe\n")

    def test_waits_while_another_process_writes(self):
        """The other process has found room for its line, and is about to write it."""
        script = "import fcntl, sys; fcntl.lockf(1, fcntl.LOCK_EX); print('', file=sys.stderr, flush=True); sys.stdin.read()"
        with (
            subprocess.Popen(  # noqa: S603 - runs the script above
                [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=self.writer, stderr=subprocess.PIPE
            ) as other,
            ThreadPoolExecutor(1) as thread,
        ):
            other.stderr.readline()
            request = thread.submit(self.client.get, "/healthz")
            with self.assertRaises(TimeoutError):
                request.result(timeout=0.5)
            other.stdin.close()

            self.assertEqual(request.result(timeout=10).status_code, 200)


class RunserverTests(ApiTestCase):
    def test_prints_one_line_per_request(self):
        port = str(free_port())
        console = self.log_folder / "console"
        with console.open("w") as file:
            server = subprocess.Popen(  # noqa: S603 - our own command
                [sys.executable, "manage.py", "runserver", "--noreload", "--nothreading", port],
                cwd=settings.BASE_DIR,
                env={**os.environ, "DATABASE_URL": test_database_url(), "LOG_DIR": str(self.log_folder)},
                stdout=subprocess.DEVNULL,
                stderr=file,
            )
        self.addCleanup(server.wait)
        self.addCleanup(server.kill)

        def printed_requests():
            """Return the lines about requests, without their time and size."""
            return [
                line.partition("] ")[2].rpartition(" ")[0] for line in console.read_text().splitlines() if "HTTP" in line
            ]

        def get(path, **headers):
            """Send a request until there is a line for it, as the server takes a moment to start."""
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline and path not in "".join(printed_requests()):
                with suppress(OSError):
                    send_request(f"http://127.0.0.1:{port}{path}", "GET", seconds=10, **headers)
                time.sleep(0.2)

        get("/healthz")
        get("/nothing")
        get("/api/message", Host="evil.example")

        self.assertEqual(
            [*dict.fromkeys(printed_requests())],
            ['"GET /healthz HTTP/1.1" 200', '"GET /nothing HTTP/1.1" 404', '"GET /api/message HTTP/1.1" 400'],
        )
        self.assertNotRegex(console.read_text(), "Not Found|Bad Request|HTTP_HOST")

    def test_prints_reloads(self):
        logger = logging.getLogger("django.utils.autoreload")

        self.assertTrue(logger.isEnabledFor(logging.INFO))
        self.assertTrue(logger.hasHandlers())


class WorkersTests(ConcurrentTestCase):
    def test_processes_write_every_line_whole_while_files_are_rotated(self):
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        _, token = issue_token(self.alice)
        statuses = []

        def request_many(thread):
            for number in range(25):
                path = f"/api/message/{thread}/{number}" if number % 2 else "/api/message"
                body = {"receiver": "bob", "content": "hi"}
                statuses.append(
                    service.request("GET" if number % 2 else "POST", path, None if number % 2 else body, token)[0]
                )

        def rotate():
            deadline = time.monotonic() + 60  # so that the test ends if the service does not respond
            for rotation in range(8):
                while len(statuses) < 20 * rotation and time.monotonic() < deadline:
                    time.sleep(0.001)
                for name in ("requests", "activity"):
                    if (folder / f"{name}.log").exists():
                        (folder / f"{name}.log").rename(folder / f"{name}.log.{rotation}")

        with run_service(folder) as service:
            self.in_parallel(rotate, *(lambda thread=thread: request_many(thread) for thread in range(8)))

        requests = [line for line in read_lines(folder.glob("requests.log*")) if line["path"] != "/readyz"]
        events = read_lines(folder.glob("activity.log*"))
        self.assertEqual(sorted(statuses), [201] * 104 + [404] * 96)
        self.assertEqual(sorted(line["status"] for line in requests), sorted(statuses))
        self.assertEqual(
            {line["path"] for line in requests},
            {"/api/message", *(f"/api/message/{thread}/{number}" for thread in range(8) for number in range(1, 25, 2))},
        )
        self.assertEqual(len({line["request_id"] for line in requests}), 200)
        self.assertEqual(
            sorted(line["request_id"] for line in events),
            sorted(line["request_id"] for line in requests if line["status"] == 201),
        )
        self.assertFalse((folder / "debug.log").exists())
