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


class Response(NamedTuple):
    """A response, and the user who received it."""

    who: str
    path: str
    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def checked_text(self) -> str:
        """The headers and body, without a token or cookie that they are meant to contain."""
        text = self.text
        if self.path in ("/api/auth/register", "/api/auth/login") and self.status < 300:
            text = text.replace(json.loads(text)["token"], "")
        return "\n".join([*(f"{name}: {value}" for name, value in self.headers.items() if name != "Set-Cookie"), text])


def secret(name: str) -> str:
    """Return a random secret that starts with the name."""
    return f"{name}-{secrets.token_hex(12)}"


def database_url_with(password: str) -> str:
    """Return the URL of the tests' database, with the password if it has none: then the server accepts any password."""
    url = test_database_url()
    parts = urlsplit(url)
    if connection.vendor == "sqlite" or parts.password:
        return url
    return parts._replace(netloc=f"{parts.username}:{password}@{parts.netloc.rpartition('@')[2]}").geturl()


@contextmanager
def make_mailboxes_unavailable() -> Iterator[None]:
    """Make requests that need a mailbox fail, because the database does not respond."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            with transaction.atomic():
                cursor.execute("LOCK TABLE messageservice_mailbox IN ACCESS EXCLUSIVE MODE")
                yield
        else:
            cursor.execute("ALTER TABLE messageservice_mailbox RENAME TO messageservice_missing")
            try:
                yield
            finally:
                cursor.execute("ALTER TABLE messageservice_missing RENAME TO messageservice_mailbox")


@contextmanager
def unique_content() -> Iterator[None]:
    """Make a second message with the same content fail with an unexpected error. PostgreSQL quotes the content in it."""
    with connection.cursor() as cursor:
        cursor.execute("CREATE UNIQUE INDEX unique_content ON messageservice_message (content)")
        try:
            yield
        finally:
            cursor.execute("DROP INDEX unique_content")


class SecretsMixin(HeaderAssertions):
    """dave and erin exchange messages; frank must not read them, and an operator must not see a token or a hash."""

    signing_key = settings.SECRET_KEY
    database_password = None

    def setUp(self):
        super().setUp()
        self.responses: list[Response] = []
        self.email = f"{secret('email')}@example.org"
        self.passwords = {name: secret("password") for name in ("dave", "new", "erin", "frank", "operator", "wrong")}
        self.passwords["of digits"] = f"{secrets.randbelow(10**24):024}"
        self.contents = {name: secret("content") for name in ("first", "repeated", "unavailable", "rejected")}
        self.issued_secrets: list[str] = []  # tokens and the session key of the operator
        self.tokens: dict[str, str] = {}

    def request(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, Mapping[str, str], str]:
        """Send the request, and return status, headers and body of the response."""
        raise NotImplementedError

    def send(self, who: str, method: str, path: str, body: Any = None, media_type: str = JSON, **headers: str) -> Response:
        """Send the request with the token of `who`, if there is one, and remember the response."""
        if who in self.tokens:
            headers = {"Authorization": f"Token {self.tokens[who]}", **headers}
        if not isinstance(body, bytes):
            body = json.dumps(body).encode() if body is not None else b""
        response = self.request(method, path, body, {"Content-Type": media_type, **headers})
        self.responses.append(Response(who, path.partition("?")[0], *response))
        return self.responses[-1]

    def assert_statuses_and_no_secrets(self, *expected: int) -> None:
        """Assert that the responses have these statuses, and that no response and no log contains a secret."""
        self.assertEqual([response.status for response in self.responses], list(expected))
        for response in self.responses:
            with self.subTest(response.who, path=response.path, status=response.status):
                self.assert_no_secrets(response.checked_text, response.who, "the response")
        for file in self.log_folder.iterdir():
            self.assert_no_secrets(file.read_text(), "nobody", file.name)

    def assert_no_secrets(self, text: str, who: str, where: str) -> None:
        """Assert that the text, which `who` can read, contains no part of another user's secret."""
        hashes = [*User.objects.values_list("password", flat=True), *AuthToken.objects.values_list("digest", flat=True)]
        hidden = [self.signing_key, self.database_password, *self.passwords.values(), *self.issued_secrets, *hashes]
        if who not in ("dave", "erin"):
            hidden += self.contents.values()
        if who not in ("dave", "operator"):
            hidden.append(self.email.partition("@")[0])
        for value in filter(None, hidden):
            for part in (value[:15], value[-24:-12], value[-12:]):
                self.assertNotIn(part, text, where)

    def credentials(self, who: str, password: str | None = None, **extra: str) -> dict[str, str]:
        """Return the name, and the password with this key in `self.passwords`, by default the password of the user."""
        return {"username": who, "password": self.passwords[password or who], **extra}

    def log_in(self, who: str, password: str | None = None, action: str = "login", **extra: str) -> None:
        """Log in, or register, and store the token."""
        response = self.send(who, "POST", f"/api/auth/{action}", self.credentials(who, password, **extra))
        if response.status < 300:
            self.tokens[who] = json.loads(response.text)["token"]
            self.issued_secrets.append(self.tokens[who])

    def sign_up(self) -> None:
        """Register dave, erin and frank."""
        self.log_in("dave", action="register", email=self.email)
        self.log_in("erin", action="register")
        self.log_in("frank", action="register")
        self.responses.clear()

    def send_message(self, who: str, receiver: str, content: str, **headers: str) -> Response:
        """Send the message that has the key `content` in `self.contents`."""
        return self.send(who, "POST", "/api/message", {"receiver": receiver, "content": self.contents[content]}, **headers)


class SecretTests(SecretsMixin, ApiTestCase):
    """Responses and logs of this process."""

    def request(self, method, path, body, headers):
        response = Client(raise_request_exception=False).generic(
            method, path, body, headers.pop("Content-Type"), headers=headers
        )
        headers = dict(response.items())
        headers["Set-Cookie"] = "; ".join(f"{name}={morsel.value}" for name, morsel in response.cookies.items())
        return response.status_code, headers, response.text

    def test_registration_and_login_reveal_no_secret(self):
        self.log_in("dave", action="register", email=self.email)
        self.log_in("dave", action="register")  # a name that is taken
        self.log_in("weak", "of digits", action="register")
        self.log_in("dave")
        self.log_in("dave", "wrong")
        self.log_in("nobody", "wrong")

        self.assert_statuses_and_no_secrets(201, 400, 400, 200, 400, 400)

    def test_sending_reveals_no_secret(self):
        self.sign_up()
        self.send_message("dave", "erin", "first", **{"Idempotency-Key": "key"})
        self.send_message("dave", "erin", "first", **{"Idempotency-Key": "key"})
        self.send_message("dave", "erin", "rejected", **{"Idempotency-Key": "key"})
        self.send_message("dave", "erin", "rejected", **{"Idempotency-Key": "no key"})
        self.send_message("dave", "nobody", "rejected")
        self.send("erin", "POST", "/api/block", {"blocked": "frank"})
        self.send_message("frank", "erin", "rejected")

        self.assert_statuses_and_no_secrets(201, 201, 422, 400, 400, 201, 403)

    def test_reading_reveals_no_secret(self):
        self.sign_up()
        first = json.loads(self.send_message("dave", "erin", "first").text)["id"]
        self.responses.clear()
        lists = ("message", "message/sent", "message/received", "conversation", "block", "auth/user", "message?after=0")
        for who, status, statuses in (("dave", 200, 200), ("erin", 200, 200), ("frank", 404, 200), ("nobody", 401, 401)):
            for path in (*lists, f"message/{first}"):
                self.send(who, "GET", f"/api/{path}")
            self.assertEqual([response.status for response in self.responses[-8:]], [statuses] * 7 + [status])
        del self.responses[:-1]
        for path in ("/api/schema", "/api/docs", "/healthz", "/readyz"):
            self.send("nobody", "GET", path)
        self.send("frank", "POST", "/api/conversation/dave/read", {"up_to": first})
        self.send("erin", "POST", "/api/conversation/dave/read", {"up_to": first})

        self.assert_statuses_and_no_secrets(401, 200, 200, 200, 200, 404, 200)

    def test_invalid_login_requests_reveal_no_secret(self):
        self.sign_up()
        credentials = json.dumps(self.credentials("dave")).encode()
        for body in (credentials[:-1], credentials[:-2], b"[%s]" % credentials, b'{"x": %s}' % credentials):
            self.send("nobody", "POST", "/api/auth/login", body)
        for wrong in ("\x00", "\ud800", "x" * 1024):
            twisted = {"username": "weak", "password": f"{self.passwords['wrong']}{wrong}"}
            self.send("nobody", "POST", "/api/auth/register", twisted)
        self.send("nobody", "POST", "/api/auth/login", urlencode({"password": self.passwords["dave"]}).encode(), FORM)
        self.send("nobody", "POST", "/api/auth/login", credentials, Host="evil.example")
        self.send("nobody", "PUT", "/api/auth/login", credentials)
        self.send("nobody", "POST", "/api/nothing", credentials)
        self.send("nobody", "POST", "/api/auth/login", credentials, "text/xml")

        self.assert_statuses_and_no_secrets(*[400] * 9, 405, 404, 415)

    def test_invalid_message_requests_reveal_no_secret(self):
        self.sign_up()
        message = json.dumps({"receiver": "erin", "content": self.contents["rejected"]}).encode()
        self.send("dave", "POST", "/api/message", message[:-1])
        self.send("dave", "POST", "/api/message", message.replace(b"erin", b"er\xffin"))
        self.send("dave", "GET", f"/api/message?token={self.tokens['dave']}")
        self.send("dave", "POST", "/api/message", message.ljust(2**20 + 1))
        for scheme in ("Basic ", "Token x", ""):
            self.send("nobody", "GET", "/api/message", Authorization=f"{scheme}{self.tokens['dave']}")

        self.assert_statuses_and_no_secrets(400, 400, 400, 413, 401, 401, 401)

    @override_settings(LIMIT_LOGIN=Limit(2, 300))
    def test_rejected_passwords_reveal_no_secret(self):
        self.sign_up()
        for _ in range(3):
            self.log_in("frank", "wrong")

        self.assert_statuses_and_no_secrets(400, 400, 429)

    def test_admin_reveals_no_secret(self):
        User.objects.create_superuser("operator", password=self.passwords["operator"])
        page = self.send("nobody", "GET", "/admin/login/")
        form = dict(re.findall('name="(csrfmiddlewaretoken)" value="(.*?)"', page.text))
        for password in ("wrong", "operator"):
            body = urlencode(form | self.credentials("operator", password)).encode()
            response = self.send(
                "operator", "POST", "/admin/login/?next=/admin/", body, FORM, Cookie=page.headers["Set-Cookie"]
            )
        session = response.headers["Set-Cookie"]
        self.issued_secrets.append(re.search("sessionid=([^;]*)", session)[1])
        for path in ("/admin/", "/admin/auth/user/", "/admin/knox/authtoken/"):
            self.send("operator", "GET", path, Cookie=session)

        self.assert_statuses_and_no_secrets(200, 200, 302, 200, 200, 200)

    def test_password_change_and_logout_reveal_no_secret(self):
        self.sign_up()
        for current, new in (("wrong", "new"), ("dave", "of digits"), ("dave", "new")):
            body = {"current_password": self.passwords[current], "new_password": self.passwords[new]}
            self.send("dave", "POST", "/api/auth/password", body)
        self.log_in("dave", "new")
        self.send("dave", "POST", "/api/auth/logout")
        self.send("erin", "POST", "/api/auth/logoutall")
        self.send("erin", "GET", "/api/message")

        self.assert_statuses_and_no_secrets(400, 400, 204, 200, 204, 204, 401)


@skipUnless(PROCESSES.exists(), "only Linux shows command lines in /proc")
class ServiceSecretTests(SecretsMixin, ConcurrentTestCase):
    """Processes of the service: their output, command lines and environment, and errors that only they can have."""

    def setUp(self):
        super().setUp()
        self.signing_key, self.database_password = secret("signing-key"), secret("database-password")
        self.service = self.enterContext(
            run_service(
                self.log_folder,
                DATABASE_URL=database_url_with(self.database_password),
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

    def test_unexpected_errors_reveal_no_secret(self):
        self.send_message("dave", "erin", "repeated")
        with unique_content():
            self.send_message("dave", "erin", "repeated")
        with make_mailboxes_unavailable():
            self.send_message("dave", "erin", "unavailable")

        self.assert_statuses_and_no_secrets(201, 500, 503)
        self.assertEqual(
            [json.loads(response.text) for response in self.responses[1:]],
            [{"detail": "Something went wrong"}, {"detail": "The service is unavailable. Try again in a moment."}],
        )
        self.assertEqual({file.name for file in self.log_folder.iterdir()}, {OUTPUT, *(f"{name}.log" for name in LOGS)})

    def test_bytes_that_are_not_http_reveal_no_secret(self):
        token = self.tokens["dave"].encode()
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
                response = b"".join(iter(lambda client=client: client.recv(65_536), b""))
            self.assertRegex(response, rb"\AHTTP/1.1 400 ")
            self.assert_no_secrets(response.decode(), "nobody", "the response")

        self.assert_statuses_and_no_secrets()

    def test_command_lines_and_environment_reveal_no_secret(self):
        processes = [*self.processes()]

        command_lines = "\n".join((process / "cmdline").read_text() for process in processes)
        self.assertIn("config.server", command_lines)
        self.assert_no_secrets(command_lines, "nobody", "the command lines")
        modes = {stat.S_IMODE((process / "environ").stat().st_mode) for process in processes}
        self.assertEqual(modes, {stat.S_IRUSR}, "the environment, which holds secrets, is for its user alone")

    def processes(self) -> Iterator[Path]:
        """Yield the processes of the service."""
        for path in PROCESSES.glob("[0-9]*"):
            with suppress(ProcessLookupError):  # the process has just ended
                if os.getpgid(int(path.name)) == self.service.process.pid:
                    yield path
