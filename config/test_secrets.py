"""No secret leaves the service: not in a log, a response, its output, or its command lines."""

import http.client
import json
import os
import re
import secrets
import socket
import stat
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple
from unittest import skipUnless
from urllib.parse import urlencode, urlsplit

from django.conf import settings
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.test import Client, override_settings

from accounts.authentication import AuthToken
from config.api.test_headers import A_YEAR, HeaderAssertions
from config.environment import Limit
from config.testing.cases import LOGS, ApiTestCase, ConcurrentTestCase
from config.testing.service import run_service, test_database_url

OUTPUT = "output"  # what the service prints
PROCESSES = Path("/proc")
JSON, FORM = "application/json", "application/x-www-form-urlencoded"


class Answer(NamedTuple):
    who: str
    path: str
    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def shown(self) -> str:
        """The response without the token or cookie that it exists to give."""
        text = self.text
        if self.path in ("/api/auth/register", "/api/auth/login") and self.status < 300:
            text = text.replace(json.loads(text)["token"], "")
        return "\n".join([*(f"{name}: {value}" for name, value in self.headers.items() if name != "Set-Cookie"), text])


def secret(name: str) -> str:
    return f"{name}-{secrets.token_hex(12)}"


def url_with(password: str) -> str:
    """The tests' database; where its URL holds no password, the server trusts its clients and does not mind this one."""
    url = test_database_url()
    parts = urlsplit(url)
    if connection.vendor == "sqlite" or parts.password:
        return url
    return parts._replace(netloc=f"{parts.username}:{password}@{parts.netloc.rpartition('@')[2]}").geturl()


@contextmanager
def mailboxes_out_of_reach() -> Iterator[None]:
    """Who asks for a mailbox is told that the database does not answer."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            with transaction.atomic():
                cursor.execute("LOCK TABLE messageservice_mailbox IN ACCESS EXCLUSIVE MODE")
                yield
        else:
            cursor.execute("ALTER TABLE messageservice_mailbox RENAME TO messageservice_away")
            try:
                yield
            finally:
                cursor.execute("ALTER TABLE messageservice_away RENAME TO messageservice_mailbox")


@contextmanager
def no_content_twice() -> Iterator[None]:
    """Who sends the same content again meets an error that nobody foresaw, and that on PostgreSQL quotes it."""
    with connection.cursor() as cursor:
        cursor.execute("CREATE UNIQUE INDEX no_content_twice ON messageservice_message (content)")
        try:
            yield
        finally:
            cursor.execute("DROP INDEX no_content_twice")


class SecretsMixin(HeaderAssertions):
    """dave and erin exchange messages; frank must not read them, and an operator must not see a token or a hash."""

    signing_key = settings.SECRET_KEY
    database_password = None

    def setUp(self):
        super().setUp()
        self.answers: list[Answer] = []
        self.email = f"{secret('email')}@example.org"
        self.passwords = {name: secret("password") for name in ("dave", "new", "erin", "frank", "operator", "wrong")}
        self.passwords["of digits"] = f"{secrets.randbelow(10**24):024}"
        self.contents = {name: secret("content") for name in ("first", "twice", "away", "refused")}
        self.given: list[str] = []  # tokens and the key of the operator's session
        self.token: dict[str, str] = {}

    def request(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, Mapping[str, str], str]:
        raise NotImplementedError

    def call(self, who: str, method: str, path: str, body: Any = None, media_type: str = JSON, **headers: str) -> Answer:
        if who in self.token:
            headers = {"Authorization": f"Token {self.token[who]}", **headers}
        if not isinstance(body, bytes):
            body = json.dumps(body).encode() if body is not None else b""
        answer = self.request(method, path, body, {"Content-Type": media_type, **headers})
        self.answers.append(Answer(who, path.partition("?")[0], *answer))
        return self.answers[-1]

    def assert_statuses(self, *expected: int) -> None:
        """The requests were answered so, and neither a response nor a log holds a secret."""
        self.assertEqual([answer.status for answer in self.answers], list(expected))
        for answer in self.answers:
            with self.subTest(answer.who, path=answer.path, status=answer.status):
                self.assert_kept(answer.shown, answer.who, "the response")
        for file in self.log_folder.iterdir():
            self.assert_kept(file.read_text(), "nobody", file.name)

    def assert_kept(self, text: str, who: str, where: str) -> None:
        """The text, which `who` can read, holds no part of a secret that is not theirs."""
        hashes = [*User.objects.values_list("password", flat=True), *AuthToken.objects.values_list("digest", flat=True)]
        kept = [self.signing_key, self.database_password, *self.passwords.values(), *self.given, *hashes]
        if who not in ("dave", "erin"):
            kept += self.contents.values()
        if who not in ("dave", "operator"):
            kept.append(self.email.partition("@")[0])
        for one in filter(None, kept):
            for part in (one[:15], one[-24:-12], one[-12:]):
                self.assertNotIn(part, text, where)

    def credentials(self, who: str, password: str | None = None, **more: str) -> dict[str, str]:
        return {"username": who, "password": self.passwords[password or who], **more}

    def log_in(self, who: str, password: str | None = None, action: str = "login", **more: str) -> None:
        answer = self.call(who, "POST", f"/api/auth/{action}", self.credentials(who, password, **more))
        if answer.status < 300:
            self.token[who] = json.loads(answer.text)["token"]
            self.given.append(self.token[who])

    def sign_up(self) -> None:
        self.log_in("dave", action="register", email=self.email)
        self.log_in("erin", action="register")
        self.log_in("frank", action="register")
        self.answers.clear()

    def send(self, who: str, receiver: str, content: str, **headers: str) -> Answer:
        return self.call(who, "POST", "/api/message", {"receiver": receiver, "content": self.contents[content]}, **headers)


class SecretTests(SecretsMixin, ApiTestCase):
    """In this process: responses and logs."""

    def request(self, method, path, body, headers):
        response = Client(raise_request_exception=False).generic(
            method, path, body, headers.pop("Content-Type"), headers=headers
        )
        headers = dict(response.items())
        headers["Set-Cookie"] = "; ".join(f"{name}={morsel.value}" for name, morsel in response.cookies.items())
        return response.status_code, headers, response.text

    def test_signing_up_and_logging_in(self):
        self.log_in("dave", action="register", email=self.email)
        self.log_in("dave", action="register")  # a name that is taken
        self.log_in("weak", "of digits", action="register")
        self.log_in("dave")
        self.log_in("dave", "wrong")
        self.log_in("nobody", "wrong")

        self.assert_statuses(201, 400, 400, 200, 400, 400)

    def test_sending(self):
        self.sign_up()
        self.send("dave", "erin", "first", **{"Idempotency-Key": "key"})
        self.send("dave", "erin", "first", **{"Idempotency-Key": "key"})
        self.send("dave", "erin", "refused", **{"Idempotency-Key": "key"})
        self.send("dave", "erin", "refused", **{"Idempotency-Key": "no key"})
        self.send("dave", "nobody", "refused")
        self.call("erin", "POST", "/api/block", {"blocked": "frank"})
        self.send("frank", "erin", "refused")

        self.assert_statuses(201, 201, 422, 400, 400, 201, 403)

    def test_reading(self):
        self.sign_up()
        first = json.loads(self.send("dave", "erin", "first").text)["id"]
        self.answers.clear()
        lists = ("message", "message/sent", "message/received", "conversation", "block", "auth/user", "message?after=0")
        for who, status, statuses in (("dave", 200, 200), ("erin", 200, 200), ("frank", 404, 200), ("nobody", 401, 401)):
            for path in (*lists, f"message/{first}"):
                self.call(who, "GET", f"/api/{path}")
            self.assertEqual([answer.status for answer in self.answers[-8:]], [statuses] * 7 + [status])
        del self.answers[:-1]
        for path in ("/api/schema", "/api/docs", "/healthz", "/readyz"):
            self.call("nobody", "GET", path)
        self.call("frank", "POST", "/api/conversation/dave/read", {"up_to": first})
        self.call("erin", "POST", "/api/conversation/dave/read", {"up_to": first})

        self.assert_statuses(401, 200, 200, 200, 200, 404, 200)

    def test_requests_that_cannot_be_read(self):
        self.sign_up()
        credentials = json.dumps(self.credentials("dave")).encode()
        for body in (credentials[:-1], credentials[:-2], b"[%s]" % credentials, b'{"x": %s}' % credentials):
            self.call("nobody", "POST", "/api/auth/login", body)
        for wrong in ("\x00", "\ud800", "x" * 1024):
            twisted = {"username": "weak", "password": f"{self.passwords['wrong']}{wrong}"}
            self.call("nobody", "POST", "/api/auth/register", twisted)
        self.call("nobody", "POST", "/api/auth/login", urlencode({"password": self.passwords["dave"]}).encode(), FORM)
        self.call("nobody", "POST", "/api/auth/login", credentials, Host="evil.example")
        self.call("nobody", "PUT", "/api/auth/login", credentials)
        self.call("nobody", "POST", "/api/nothing", credentials)
        self.call("nobody", "POST", "/api/auth/login", credentials, "text/xml")

        self.assert_statuses(*[400] * 9, 405, 404, 415)

    def test_messages_that_cannot_be_read(self):
        self.sign_up()
        message = json.dumps({"receiver": "erin", "content": self.contents["refused"]}).encode()
        self.call("dave", "POST", "/api/message", message[:-1])
        self.call("dave", "POST", "/api/message", message.replace(b"erin", b"er\xffin"))
        self.call("dave", "GET", f"/api/message?token={self.token['dave']}")
        self.call("dave", "POST", "/api/message", message.ljust(2**20 + 1))
        for scheme in ("Basic ", "Token x", ""):
            self.call("nobody", "GET", "/api/message", Authorization=f"{scheme}{self.token['dave']}")

        self.assert_statuses(400, 400, 400, 413, 401, 401, 401)

    @override_settings(LIMIT_LOGIN=Limit(2, 300))
    def test_guessing(self):
        self.sign_up()
        for _ in range(3):
            self.log_in("frank", "wrong")

        self.assert_statuses(400, 400, 429)

    def test_the_admin(self):
        User.objects.create_superuser("operator", password=self.passwords["operator"])
        page = self.call("nobody", "GET", "/admin/login/")
        form = dict(re.findall('name="(csrfmiddlewaretoken)" value="(.*?)"', page.text))
        for password in ("wrong", "operator"):
            body = urlencode(form | self.credentials("operator", password)).encode()
            answer = self.call(
                "operator", "POST", "/admin/login/?next=/admin/", body, FORM, Cookie=page.headers["Set-Cookie"]
            )
        session = answer.headers["Set-Cookie"]
        self.given.append(re.search("sessionid=([^;]*)", session)[1])
        for path in ("/admin/", "/admin/auth/user/", "/admin/knox/authtoken/"):
            self.call("operator", "GET", path, Cookie=session)

        self.assert_statuses(200, 200, 302, 200, 200, 200)

    def test_changing_the_password_and_leaving(self):
        self.sign_up()
        for current, new in (("wrong", "new"), ("dave", "of digits"), ("dave", "new")):
            body = {"current_password": self.passwords[current], "new_password": self.passwords[new]}
            self.call("dave", "POST", "/api/auth/password", body)
        self.log_in("dave", "new")
        self.call("dave", "POST", "/api/auth/logout")
        self.call("erin", "POST", "/api/auth/logoutall")
        self.call("erin", "GET", "/api/message")

        self.assert_statuses(400, 400, 204, 200, 204, 204, 401)


@skipUnless(PROCESSES.exists(), "command lines are read where Linux shows them")
class ServiceSecretTests(SecretsMixin, ConcurrentTestCase):
    """In processes of the service: what they print, their command lines, and what only they can meet."""

    def setUp(self):
        super().setUp()
        self.signing_key, self.database_password = secret("signing-key"), secret("database-password")
        self.service = self.enterContext(
            run_service(
                self.log_folder,
                DATABASE_URL=url_with(self.database_password),
                SECRET_KEY=self.signing_key,
                HTTPS="on",
                TRUSTED_PROXIES="1",
                WEB_CONCURRENCY="1",
                output=self.enterContext((self.log_folder / OUTPUT).open("w")),
            )
        )
        self.sign_up()

    def request(self, method, path, body, headers):
        with closing(http.client.HTTPConnection(urlsplit(self.service.url).netloc, timeout=30)) as connection:
            connection.request(method, path, body, {"X-Forwarded-Proto": "https", **headers})
            response = connection.getresponse()
            self.assert_protected(response.headers, kind="data")
            self.assertEqual(response.headers["Strict-Transport-Security"], A_YEAR)
            return response.status, response.headers, response.read().decode()

    def test_unforeseen_errors(self):
        self.send("dave", "erin", "twice")
        with no_content_twice():
            self.send("dave", "erin", "twice")
        with mailboxes_out_of_reach():
            self.send("dave", "erin", "away")

        self.assert_statuses(201, 500, 503)
        self.assertEqual(
            [json.loads(answer.text) for answer in self.answers[1:]],
            [{"detail": "Something went wrong"}, {"detail": "The service is unavailable. Try again in a moment."}],
        )
        self.assertEqual({file.name for file in self.log_folder.iterdir()}, {OUTPUT, *(f"{name}.log" for name in LOGS)})

    def test_what_is_no_http(self):
        token = self.token["dave"].encode()
        address = urlsplit(self.service.url)
        for raw in (
            b"GET /api/message HTTP/1.1\r\nHost: localhost\r\nAuthorization : Token %s\r\n\r\n" % token,
            b"GET /api/message HTTP/1.1\r\nHost: localhost\r\nAuthorization: Token %s\x00\r\n\r\n" % token,
            b"GET /api/message HTTP/1.1\r\nHost: localhost\r\nToken %s\r\n\r\n" % token,
            b"GET /api/message?token=%s HTTP/9.9\r\nHost: localhost\r\n\r\n" % token,
            b"TOKEN=%s\r\n\r\n" % token,
        ):
            with closing(socket.create_connection((address.hostname, address.port), timeout=20)) as client:
                client.sendall(raw)
                answer = b"".join(iter(lambda client=client: client.recv(65_536), b""))
            self.assertRegex(answer, rb"\AHTTP/1.1 400 ")
            self.assert_kept(answer.decode(), "nobody", "the response")

        self.assert_statuses()

    def test_processes(self):
        processes = [*self.processes()]

        command_lines = "\n".join((process / "cmdline").read_text() for process in processes)
        self.assertIn("config.server", command_lines)
        self.assert_kept(command_lines, "nobody", "the command lines")
        modes = {stat.S_IMODE((process / "environ").stat().st_mode) for process in processes}
        self.assertEqual(modes, {stat.S_IRUSR}, "the environment, which holds secrets, is for its user alone")

    def processes(self) -> Iterator[Path]:
        """Those of the service."""
        for path in PROCESSES.glob("[0-9]*"):
            with suppress(ProcessLookupError):  # one that has just ended
                if os.getpgid(int(path.name)) == self.service.process.pid:
                    yield path
