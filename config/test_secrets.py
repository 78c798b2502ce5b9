"""Nothing secret gets out of a running service: not into its logs, its answers, what it prints, or its command lines."""

import http.client
import json
import os
import re
import secrets
import socket
import stat
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple
from unittest import skipUnless
from urllib.parse import urlencode, urlsplit

from django.contrib.auth.models import User
from django.db import connection, transaction

from accounts.authentication import AuthToken
from config.api.test_headers import A_YEAR, HeaderAssertions
from config.testing.cases import LOGS, ConcurrentTestCase
from config.testing.service import running_service, test_database_url

OUTPUT = "output"  # what the service prints
PROCESSES = Path("/proc")
JSON, FORM = "application/json", "application/x-www-form-urlencoded"


class Answer(NamedTuple):
    who: str
    method: str
    path: str
    status: int
    headers: http.client.HTTPMessage
    text: str

    @property
    def shown(self) -> str:
        """All of it but the token, or the cookie, that it is there to give."""
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


@skipUnless(PROCESSES.exists(), "command lines are read where Linux shows them")
class SecretTests(HeaderAssertions, ConcurrentTestCase):
    """dave and erin do all that one can do, and much that one cannot; frank looks on, and an operator logs in."""

    def setUp(self):
        super().setUp()
        self.answers: list[Answer] = []
        self.signing_key = secret("signing-key")
        self.database_url = url_with(secret("database-password"))
        self.email = f"{secret('email')}@example.org"
        self.passwords = {name: secret("password") for name in ("dave", "dave's new", "erin", "frank", "operator", "wrong")}
        self.passwords["of digits"] = f"{secrets.randbelow(10**24):024}"
        self.contents = {name: secret("content") for name in ("first", "twice", "blocked", "away", "refused")}
        self.given: list[str] = []  # tokens and the key of the operator's session
        self.token: dict[str, str] = {}
        User.objects.create_superuser("operator", password=self.passwords["operator"])

    def test_nothing_secret_gets_out(self):
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        with running_service(
            folder,
            DATABASE_URL=self.database_url,
            SECRET_KEY=self.signing_key,
            HTTPS="on",
            TRUSTED_PROXIES="1",
            LIMIT_LOGIN="5/300",
            GUNICORN_CMD_ARGS=f"--capture-output --error-logfile {folder / OUTPUT}",
        ) as self.service:
            self.do_everything()
            processes = [*self.processes()]
            command_lines = "\n".join((process / "cmdline").read_text() for process in processes)
            modes = {stat.S_IMODE((process / "environ").stat().st_mode) for process in processes}

        self.assertLessEqual(
            {200, 201, 204, 302, 400, 401, 403, 404, 405, 413, 415, 422, 429, 500, 503},
            {answer.status for answer in self.answers},
        )
        self.assertEqual({file.name for file in folder.iterdir()}, {OUTPUT, *(f"{name}.log" for name in LOGS)})
        for file in folder.iterdir():
            self.assert_kept(file.read_text(), "nobody", file.name)
        self.assertIn("config.server", command_lines)
        self.assert_kept(command_lines, "nobody", "the command lines")
        self.assertEqual(modes, {stat.S_IRUSR}, "the environment, which holds secrets, is for its user alone")
        for answer in self.answers:
            with self.subTest(answer.who, method=answer.method, path=answer.path, status=answer.status):
                self.assert_kept(answer.shown, answer.who, "the answer")
                self.assert_protected(answer.headers, kind="page" if answer.text.startswith("<") else "data")
                self.assertEqual(answer.headers["Strict-Transport-Security"], A_YEAR)

    def assert_kept(self, text: str, who: str, where: str) -> None:
        """The text, which `who` can read, holds no part of what is not for them."""
        self.assertTrue(text, where)
        hashes = [*User.objects.values_list("password", flat=True), *AuthToken.objects.values_list("digest", flat=True)]
        kept = [self.signing_key, urlsplit(self.database_url).password, *self.passwords.values(), *self.given, *hashes]
        if who not in ("dave", "erin"):
            kept += self.contents.values()
        if who not in ("dave", "operator"):
            kept.append(self.email.partition("@")[0])
        for one in filter(None, kept):
            for part in (one[:15], one[-24:-12], one[-12:]):
                self.assertNotIn(part, text, where)

    def assert_says_nothing(self, answer: Answer, status: int) -> None:
        self.assertEqual((answer.status, json.loads(answer.text)), (status, {"detail": "Something went wrong"}))

    def processes(self) -> Iterator[Path]:
        """Those of the service."""
        for path in PROCESSES.glob("[0-9]*"):
            with suppress(ProcessLookupError):  # another one that has ended meanwhile
                if os.getpgid(int(path.name)) == self.service.process.pid:
                    yield path

    def do_everything(self):
        self.sign_up()
        self.write()
        self.read()
        self.misspell()
        self.speak_no_http()
        with no_content_twice():
            self.assert_says_nothing(self.send("dave", "erin", "twice"), 500)
        with mailboxes_out_of_reach():
            self.assert_says_nothing(self.send("dave", "erin", "away"), 503)
        self.guess()
        self.enter_the_admin()
        self.leave()

    def call(self, who: str, method: str, path: str, body=None, media_type: str = JSON, **headers: str) -> Answer:
        if who in self.token:
            headers = {"Authorization": f"Token {self.token[who]}", **headers}
        if not isinstance(body, bytes | None):
            body = json.dumps(body).encode()
        headers = {"Content-Type": media_type, "X-Forwarded-Proto": "https", **headers}
        with closing(http.client.HTTPConnection(urlsplit(self.service.url).netloc, timeout=30)) as connection:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            self.answers.append(
                Answer(who, method, path.partition("?")[0], response.status, response.headers, response.read().decode())
            )
        return self.answers[-1]

    def credentials(self, who: str, password: str | None = None, **more: str) -> dict[str, str]:
        return {"username": who, "password": self.passwords[password or who], **more}

    def log_in(self, who: str, password: str | None = None, deed: str = "login", **more: str) -> None:
        answer = self.call(who, "POST", f"/api/auth/{deed}", self.credentials(who, password, **more))
        if answer.status < 300:
            self.token[who] = json.loads(answer.text)["token"]
            self.given.append(self.token[who])

    def send(self, who: str, receiver: str, content: str, **headers: str) -> Answer:
        return self.call(who, "POST", "/api/message", {"receiver": receiver, "content": self.contents[content]}, **headers)

    def sign_up(self):
        self.log_in("dave", deed="register", email=self.email)
        self.log_in("erin", deed="register")
        self.log_in("frank", deed="register")
        self.log_in("dave", deed="register")  # a name that is taken
        self.log_in("weak", "of digits", deed="register")
        self.log_in("dave")
        self.log_in("dave", "wrong")
        self.log_in("nobody", "wrong")

    def write(self):
        self.send("dave", "erin", "first", **{"Idempotency-Key": "key"})
        self.send("dave", "erin", "first", **{"Idempotency-Key": "key"})
        self.send("dave", "erin", "refused", **{"Idempotency-Key": "key"})
        self.send("dave", "erin", "refused", **{"Idempotency-Key": "no key"})
        self.send("dave", "erin", "twice")
        self.send("dave", "nobody", "refused")
        self.call("erin", "POST", "/api/block", {"blocked": "frank"})
        self.send("frank", "erin", "blocked")
        self.call("erin", "DELETE", "/api/block/frank")

    def read(self):
        first = next(json.loads(answer.text)["id"] for answer in self.answers if answer.path == "/api/message")
        for who in ("dave", "erin", "frank", "nobody"):
            lists = ("message", "message/sent", "message/received", "conversation", "block", "auth/user")
            for path in (*lists, "message?after=0", f"message/{first}"):
                self.call(who, "GET", f"/api/{path}")
            for path in ("/api/schema", "/api/docs", "/healthz", "/readyz"):
                self.call(who, "GET", path)
        self.call("frank", "POST", "/api/conversation/dave/read", {"up_to": first})
        self.call("erin", "POST", "/api/conversation/dave/read", {"up_to": first})

    def misspell(self):
        """What holds secrets, and cannot be read or is not where it belongs."""
        credentials = json.dumps(self.credentials("dave")).encode()
        message = json.dumps({"receiver": "erin", "content": self.contents["refused"]}).encode()
        for body in (credentials[:-1], credentials[:-2], b"[%s]" % credentials, b'{"x": %s}' % credentials):
            self.call("nobody", "POST", "/api/auth/login", body)
        for wrong in ("\x00", "\ud800", "x" * 1024):
            twisted = {"username": "weak", "password": f"{self.passwords['wrong']}{wrong}"}
            self.call("nobody", "POST", "/api/auth/register", twisted)
        self.call("nobody", "POST", "/api/auth/login", urlencode({"password": self.passwords["dave"]}).encode(), FORM)
        self.call("nobody", "POST", "/api/auth/login", credentials, "text/xml")
        self.call("nobody", "PUT", "/api/auth/login", credentials)
        self.call("nobody", "POST", "/api/nothing", credentials)
        self.call("nobody", "POST", "/api/auth/login", credentials, Host="evil.example")
        self.call("dave", "POST", "/api/message", message[:-1])
        self.call("dave", "POST", "/api/message", message.replace(b"erin", b"er\xffin"))
        self.call("dave", "POST", "/api/message", message.ljust(2**20 + 1))
        self.call("dave", "GET", f"/api/message?token={self.token['dave']}")
        for scheme in ("Basic ", "Token x", ""):
            self.call("nobody", "GET", "/api/message", Authorization=f"{scheme}{self.token['dave']}")

    def speak_no_http(self):
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
            self.assert_kept(answer.decode(), "nobody", "the answer")

    def guess(self):
        for _ in range(6):
            self.log_in("frank", "wrong")

    def enter_the_admin(self):
        page = self.call("nobody", "GET", "/admin/login/")
        form = dict(re.findall('name="(csrfmiddlewaretoken)" value="(.*?)"', page.text))
        cookie = page.headers["Set-Cookie"].partition(";")[0]
        referer = f"https://{urlsplit(self.service.url).netloc}/admin/login/"
        for password in ("wrong", "operator"):
            body = urlencode(form | self.credentials("operator", password)).encode()
            answer = self.call("operator", "POST", "/admin/login/", body, FORM, Cookie=cookie, Referer=referer)
        cookies = "; ".join(value.partition(";")[0] for value in answer.headers.get_all("Set-Cookie"))
        self.given.append(re.search("sessionid=([^;]*)", cookies)[1])
        for path in ("/admin/", "/admin/auth/user/", "/admin/knox/authtoken/"):
            self.assertEqual(self.call("operator", "GET", path, Cookie=cookies).status, 200)

    def leave(self):
        for current, new in (("wrong", "dave's new"), ("dave", "of digits"), ("dave", "dave's new")):
            body = {"current_password": self.passwords[current], "new_password": self.passwords[new]}
            self.call("dave", "POST", "/api/auth/password", body)
        self.log_in("dave", "dave's new")
        self.call("dave", "POST", "/api/auth/logout")
        self.call("erin", "POST", "/api/auth/logoutall")
        self.call("erin", "GET", "/api/message")
