"""Access: which endpoints require a token, what other users get, and what no request can read or change."""

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, NamedTuple
from unittest import mock
from urllib.parse import quote

from django.apps import apps
from django.conf import settings
from django.contrib import admin
from django.contrib.auth.hashers import Argon2PasswordHasher, make_password
from django.contrib.auth.models import Group, User
from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import URLPattern, URLResolver, get_resolver, resolve
from django.utils import timezone
from rest_framework.test import APIClient

from accounts.authentication import issue_token
from blocking.models import Block
from config.testing.cases import PASSWORD, AdminTestCase, ApiTestCase, make_user, with_token
from messageservice.actions import send_message
from messageservice.testing import EMPTY_PAGE

METHODS = ("get", "post", "put", "patch", "delete")
EVERY_METHOD = (*METHODS, "head", "options", "trace", "nonsense")
TESTED_ELSEWHERE = ("admin", "admin/", "")  # in AdminTests below; "" is for unknown paths: config.api.tests.UnknownPathTests

NOT_FOUND = (404, {"detail": "Not found."})
EMPTY_LIST = (200, EMPTY_PAGE)
EMPTY_CURSOR_LIST = (200, {"next": None, "previous": None, "results": []})
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


class Request(NamedTuple):
    """A request. In its path and body, `{message}` is the id of a message from alice to bob, `{session}` of alice's session.

    `for_other_user` is the status and JSON of the response to carol. It is None if the endpoint requires no token.
    """

    method: str
    path: str
    body: dict[str, str] | None
    status: int  # for alice
    for_other_user: tuple[int, Any] | None
    key: str | None = None


def get(path: str, for_other_user: tuple[int, Any] | None, status: int = 200) -> Request:
    """Return a GET request."""
    return Request("get", path, None, status, for_other_user)


def post(
    path: str, body: dict[str, str] | None, status: int, for_other_user: tuple[int, Any] | None, key: str | None = None
) -> Request:
    """Return a POST request, with the key as its Idempotency-Key."""
    return Request("post", path, body, status, for_other_user, key)


RANGE = "since=2020-01-05T00:00:00Z&until=9999-12-31T00:00:00Z"
TO_CAROL = {"receiver": "carol", "content": "hi"}
REQUESTS = (
    # Without a token.
    get("/healthz", None),
    get("/readyz", None),
    get("/api/schema", None),
    get("/api/docs", None),
    post("/api/auth/register", {"username": "dave", "password": PASSWORD}, 201, None),
    post("/api/auth/login", {"username": "alice", "password": PASSWORD}, 200, None),
    # The account of the user: carol's requests do not affect alice and bob.
    post("/api/auth/logout", None, 204, (204, None)),
    post("/api/auth/logoutall", None, 204, (204, None)),
    get("/api/auth/session", (200, {**EMPTY_PAGE, "count": 1, "results": [mock.ANY]})),
    Request("delete", "/api/auth/session/{session}", None, 204, NOT_FOUND),
    get("/api/auth/user", (200, {"username": "carol", "email": ""})),
    post("/api/auth/password", {"current_password": PASSWORD, "new_password": "quite another secret"}, 204, (204, None)),
    post("/api/auth/user/delete", {"current_password": PASSWORD}, 204, (204, None)),
    # Messages.
    get("/api/message", EMPTY_LIST),
    get("/api/message?user=alice", EMPTY_LIST),
    get("/api/message?user=bob", EMPTY_LIST),
    get("/api/message?after=0", EMPTY_CURSOR_LIST),
    get("/api/message?before={message}", EMPTY_CURSOR_LIST),
    get(f"/api/message?{RANGE}", EMPTY_LIST),
    get("/api/message/sent", EMPTY_LIST),
    get("/api/message/sent?receiver=bob", EMPTY_LIST),
    get("/api/message/sent?after=0", EMPTY_CURSOR_LIST),
    get(f"/api/message/sent?{RANGE}", EMPTY_LIST),
    get("/api/message/received", EMPTY_LIST),
    get(f"/api/message/received?{RANGE}", EMPTY_LIST),
    get("/api/message/received?sender=bob", EMPTY_LIST),
    get("/api/message/received?unread=true", EMPTY_LIST),
    get("/api/message/received?unread=false", EMPTY_LIST),
    get("/api/message/received?after=0", EMPTY_CURSOR_LIST),
    get("/api/message/{message}", NOT_FOUND),
    post("/api/message", TO_CAROL, 201, (201, mock.ANY)),
    post("/api/message", TO_CAROL, 422, (201, mock.ANY), key="alices"),  # another user can use the same key
    get("/api/conversation", EMPTY_LIST),
    get("/api/conversation?unread=true", EMPTY_LIST),
    get("/api/conversation?unread=false", EMPTY_LIST),
    get("/api/conversation?before=9999999999", EMPTY_CURSOR_LIST),
    post("/api/conversation/bob/read", {"up_to": "{message}"}, 200, NOT_FOUND),
    # Blocks.
    get("/api/block", EMPTY_LIST),
    post("/api/block", {"blocked": "carol"}, 201, (400, {"blocked": ["You cannot block yourself."]})),
    Request("delete", "/api/block/bob", None, 204, NOT_FOUND),
)
PROTECTED = tuple(request for request in REQUESTS if request.for_other_user)
PUBLIC = tuple(request for request in REQUESTS if not request.for_other_user)


def operations() -> Iterator[tuple[str, str]]:
    """Yield every method of every route, as (method, route)."""
    for route, view in routes(get_resolver().url_patterns):
        for method in METHODS:
            if hasattr(view.view_class, method):
                yield method, route


def routes(patterns: list[URLPattern | URLResolver], prefix: str = "") -> Iterator[tuple[str, Callable]]:
    """Yield every route and its view."""
    for entry in patterns:
        route = f"{prefix}{entry.pattern}"
        if route in TESTED_ELSEWHERE:
            continue
        if isinstance(entry, URLResolver):
            yield from routes(entry.url_patterns, route)
        else:
            yield route, entry.callback


def rows_by_table(*users: User) -> dict[str, list[dict[str, Any]]]:
    """Return all rows by table. With `users`, return only their own rows and the rows that belong to one of them."""
    tables = {}
    keys = {user.pk for user in users}
    for model in apps.get_models():
        owners = [field.attname for field in model._meta.concrete_fields if field.related_model is User]
        if model is User:
            owners = ["id"]
        rows = model._base_manager.order_by("pk").values()
        tables[model._meta.db_table] = [row for row in rows if not users or keys.intersection(map(row.get, owners))]
    return tables


@contextmanager
def roll_back() -> Iterator[None]:
    """Roll back what the block changes in the database."""
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


class RequestTestCase(ApiTestCase):
    """alice and bob have written to each other, and alice blocks bob. carol has no messages and no blocks."""

    def setUp(self):
        super().setUp()
        send_message(sender=self.bob, receiver=self.alice, content="private words")
        row, _ = send_message(sender=self.alice, receiver=self.bob, content="private words", idempotency_key="alices")
        self.message = row.id
        Block.objects.create(blocker=self.alice, blocked=self.bob)
        self.session = issue_token(self.alice)[0].digest[:32]

    def send(self, client: APIClient, request: Request, **extra: Any):
        """Send the request, with the fields of `extra` added to its body."""
        body = {
            name: value.format(message=self.message, session=self.session) for name, value in (request.body or {}).items()
        }
        headers = {"idempotency-key": request.key} if request.key else {}
        return getattr(client, request.method)(
            request.path.format(message=self.message, session=self.session), {**extra, **body}, headers=headers
        )


class AccessTests(RequestTestCase):
    def test_table_has_every_route(self):
        listed = {
            (request.method, resolve(request.path.partition("?")[0].format(message=1, session=1)).route)
            for request in REQUESTS
        }

        self.assertEqual(listed, set(operations()))

    def test_a_valid_token_allows_every_request(self):
        for request in REQUESTS:
            with self.subTest(request=request), roll_back():
                response = self.send(self.as_user(self.alice), request)

                self.assertEqual(response.status_code, request.status, response.content)

    def test_rejects_invalid_credentials(self):
        for reason, headers in self.invalid_credentials().items():
            before = rows_by_table()
            for request in PROTECTED:
                with self.subTest(reason, request=request):
                    response = self.send(APIClient(headers=headers), request)

                    self.assert_unauthorized(response)
                    self.assertEqual([*response.json()], ["detail"])
            self.assertEqual(rows_by_table(), before, reason)

    def test_every_method_requires_the_token(self):
        for path in {request.path for request in PROTECTED}:
            for method in EVERY_METHOD:
                with self.subTest(path=path, method=method):
                    response = self.client.generic(method.upper(), path.format(message=self.message, session=self.session))

                    self.assert_unauthorized(response)

    def test_rejects_every_other_method(self):
        alice, methods = self.as_user(self.alice), set(operations())

        for path in {
            request.path.partition("?")[0].format(message=self.message, session=self.session) for request in REQUESTS
        }:
            for method in {*EVERY_METHOD} - {"head", "options"}:
                if (method, resolve(path).route) not in methods:
                    with self.subTest(path=path, method=method):
                        response = alice.generic(method.upper(), path)

                        self.assertEqual(response.status_code, 405)

    def test_public_endpoints_ignore_credentials(self):
        for reason, headers in self.invalid_credentials().items():
            for request in PUBLIC:
                with self.subTest(reason, request=request), roll_back():
                    response = self.send(APIClient(headers=headers), request)

                    self.assertEqual(response.status_code, request.status, response.content)

    def test_another_user_gets_and_changes_nothing(self):
        carol, before = self.as_user(self.carol), rows_by_table(self.alice, self.bob)

        for request in PROTECTED:
            status, content = request.for_other_user
            with self.subTest(request=request), roll_back():
                response = self.send(carol, request)

                self.assertEqual(response.status_code, status, response.content)
                self.assertEqual(response.json() if response.content else None, content)
                self.assertNotIn(b"private words", response.content)
                self.assertNotIn("Idempotency-Replayed", response.headers)
                self.assertEqual(rows_by_table(self.alice, self.bob), before)

    def assert_unauthorized(self, response):
        self.assertEqual(response.status_code, 401)
        self.assertEqual(response.headers["WWW-Authenticate"], "Token")
        self.assertEqual(response.headers["Content-Type"], "application/json")

    def invalid_credentials(self) -> dict[str, dict[str, str]]:
        """Return headers that give no access, by the reason."""
        tokens = {"an unknown token": "0" * 64}
        with mock.patch("django.utils.timezone.now", return_value=LONG_AGO):
            _, tokens["an expired token"] = issue_token(self.alice)
        _, tokens["a token that was logged out"] = issue_token(self.alice)
        with_token(tokens["a token that was logged out"]).post("/api/auth/logout")
        actions = (
            ("logoutall", {}),
            ("password", {"current_password": PASSWORD, "new_password": "quite another secret"}),
        )
        for action, body in actions:
            client = self.as_user(self.bob)
            _, tokens[f"a token from before {action}"] = issue_token(self.bob)
            self.assertEqual(client.post(f"/api/auth/{action}", body).status_code, 204)
        frank = make_user("frank")
        _, tokens["a token of a deleted user"] = issue_token(frank)
        self.assertEqual(self.as_user(frank).post("/api/auth/user/delete", {"current_password": PASSWORD}).status_code, 204)
        erin = make_user("erin")
        _, tokens["a token of a deactivated user"] = issue_token(erin)
        User.objects.filter(pk=erin.pk).update(is_active=False)
        return {"no token": {}} | {reason: {"authorization": f"Token {token}"} for reason, token in tokens.items()}


class FailedLoginTests(ApiTestCase):
    """All failed logins do the same work, to take the same time: `benchmarks/proofs/login_timing.py` measures it."""

    def test_does_the_same_work_for_every_reason(self):
        decomposed, composed = "Zu\u0308rich geheim", "Z\u00fcrich geheim"
        User.objects.filter(pk=self.carol.pk).update(is_active=False, password=make_password(composed))
        User.objects.create_user("no-password")
        long = "x" * 100_000  # long enough to take longer to hash
        attempts = {
            "unknown name": "nobody",
            "unknown name in capitals": "NOBODY",
            "wrong password": "alice",
            "wrong password, other letter case": "aLICE",
            "deactivated": "carol",  # also with the correct password
            "no usable password": "no-password",
        }
        for password, forms in ((long, [long]), (composed, [composed]), (decomposed, [composed, decomposed])):
            statements = {}
            for kind, username in attempts.items():
                with (
                    self.subTest(kind, password=ascii(password[:30])),
                    CaptureQueriesContext(connection) as queries,
                    record_hashed_passwords() as hashed,
                ):
                    response = self.client.post("/api/auth/login", {"username": username, "password": password})

                    self.assertEqual(response.status_code, 400)
                    self.assertEqual(hashed, forms)
                    statements[kind] = [re.sub(r"'[^']*'|[0-9]+", "…", query["sql"]) for query in queries]
                    self.assertEqual(statements[kind], statements["unknown name"])


@contextmanager
def record_hashed_passwords() -> Iterator[list[str]]:
    """Yield a list of all passwords that are hashed in the block, to be stored or to be compared."""
    hashed = []
    with ExitStack() as stack:
        for name in ("encode", "verify"):
            original = getattr(Argon2PasswordHasher, name)

            def record(hasher, password, other, original=original):
                hashed.append(password)
                return original(hasher, password, other)

            stack.enter_context(mock.patch.object(Argon2PasswordHasher, name, record))
        yield hashed


class MassAssignmentTests(RequestTestCase):
    """Fields in a body that the endpoint does not have."""

    NUMBER = 987_654_321
    TIME = "2001-02-03T04:05:06.000007Z"
    FORGED = {
        **dict.fromkeys(("id", "pk", "user_id", "sender_id", "receiver_id", "owner_id", "blocker_id", "blocked_id"), NUMBER),
        **dict.fromkeys(("sender_place", "receiver_place", "total", "sent", "unread", "window_sent", "count"), NUMBER),
        **dict.fromkeys(("user", "sender", "receiver", "owner", "partner", "blocker", "blocked", "username"), "bob"),
        **dict.fromkeys(("created", "read", "expiry", "last_login", "date_joined", "window_ends", "ends"), TIME),
        **dict.fromkeys(("is_staff", "is_superuser", "groups", "user_permissions"), True),
        **dict.fromkeys(("digest", "token", "token_key", "key", "idempotency_key", "first_name", "last_name"), "forged"),
        "content": "forged",
        "is_active": False,
    }

    def test_other_fields_have_no_effect(self):
        for request in REQUESTS:
            if request.method == "post":
                with self.subTest(request=request):
                    changes = self.changes(request)
                    forged = self.changes(request, **self.FORGED)

                    self.assertTrue(changes or request.status != 201)
                    self.assertEqual(forged, changes)

    def changes(self, request: Request, **extra: Any) -> dict[str, tuple[list, list]]:
        """Return the rows that the request removes from each table and adds to it, without values that differ each time."""
        with roll_back():
            client = self.as_user(self.alice)
            before = rows_by_table()
            response = self.send(client, request, **extra)
            after = rows_by_table()
            self.assertEqual(response.status_code, request.status, response.content)
            self.names = dict(User.objects.values_list("pk", "username"))
        return {
            table: (
                [self.comparable_row(row) for row in rows if row not in after[table]],
                [self.comparable_row(row) for row in after[table] if row not in rows],
            )
            for table, rows in before.items()
            if rows != after[table]
        }

    def comparable_row(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return the row without values that differ each time."""
        return {name: self.comparable_value(name, value) for name, value in row.items()}

    def comparable_value(self, name: str, value: Any) -> Any:
        """Return the value of the column, or a replacement if the value differs each time."""
        if name in ("digest", "token_key", "password", "key"):
            return value == "forged"
        if name in ("id", "last_message_id"):
            return value == self.NUMBER
        if name.endswith("_id"):
            return self.comparable_value("username", self.names.get(value, value))
        if isinstance(value, str):
            return re.sub("^deleted-[0-9a-f]{12}$", "deleted-", value)
        if isinstance(value, datetime):
            return abs(value - timezone.now()) < timedelta(days=1)
        return value


class SqlInjectionTests(RequestTestCase):
    TEXTS = ("' OR '1'='1", "alice'--", '"; DROP TABLE auth_user; --', "%(user)s", "%s", "{user}", "\\'", "$1", "/**/alice")

    def test_text_never_becomes_part_of_a_statement(self):
        carol, before = self.as_user(self.carol), rows_by_table(self.alice, self.bob)

        for text in self.TEXTS:
            with self.subTest(text), roll_back():
                quoted = quote(text, safe="")
                rejected = (
                    carol.get(f"/api/message?user={quoted}"),
                    carol.get(f"/api/message/sent?receiver={quoted}"),
                    carol.get(f"/api/message/received?sender={quoted}&date={quoted}&page_size={quoted}"),
                    carol.get(f"/api/message?since={quoted}"),
                    carol.get(f"/api/message?until={quoted}"),
                    carol.get(f"/api/conversation?before={quoted}"),
                    carol.get(f"/api/message?after={quoted}"),
                    carol.get(f"/api/message/{quoted}"),
                    carol.delete(f"/api/block/{quoted}"),
                    carol.delete(f"/api/auth/session/{quoted}"),
                    carol.post(f"/api/conversation/{quoted}/read", {"up_to": 1}),
                    carol.post("/api/message", {"receiver": text, "content": text}),
                    carol.post("/api/auth/login", {"username": text, "password": text}),
                )
                sent = [
                    carol.post("/api/message", {"receiver": "carol", "content": text}, headers={"idempotency-key": key})
                    for key in (text.replace(" ", ""), "another")
                ]

                self.assertLessEqual({response.status_code for response in rejected}, {400, 404})
                self.assertEqual([response.json()["content"] for response in sent], [text, text])
                self.assertEqual(carol.get("/api/message").json()["count"], 2)
                self.assertEqual(rows_by_table(self.alice, self.bob), before)


class RowIdTests(RequestTestCase):
    FIRST = 76_543_210

    @classmethod
    def setUpTestData(cls):
        super().setUpTestData()
        for number, user in enumerate((cls.alice, cls.bob, cls.carol)):
            User.objects.filter(pk=user.pk).update(id=cls.FIRST + number)
            user.pk = cls.FIRST + number

    def test_no_response_shows_the_row_id_of_a_user(self):
        for user in (self.alice, self.carol):
            for request in REQUESTS:
                with self.subTest(user=user, request=request), roll_back():
                    response = self.send(self.as_user(user), request)

                    self.assertNotIn(str(self.FIRST)[:-1], f"{response.headers}{response.text}")


class AdminTests(AdminTestCase):
    """Only staff can use the admin, and only with permissions. accounts.test_admin tests the permissions in detail."""

    def setUp(self):
        super().setUp()
        send_message(sender=self.alice, receiver=self.bob, content="private words")
        Block.objects.create(blocker=self.alice, blocked=self.bob)
        self.paths = [*self.all_paths()]
        self.before = rows_by_table()

    def all_paths(self) -> Iterator[str]:
        """Yield a path for every route of the admin, with the row id of alice if the route takes an id."""
        for route, _ in routes(admin.site.get_urls()):
            first_choice = re.sub(r"\(\?P<\w+>(\w*)[^)]*\)", r"\1", route).strip("^$")
            yield f"/admin/{re.sub('<.*?>', str(self.alice.pk), first_choice)}"

    def client_with_session(self, user: User) -> Client:
        """Return a client with a session of the user, who need not be staff."""
        client = Client()
        client.force_login(user)  # a user who is no longer staff may still have a session
        self.before = rows_by_table()
        return client

    def test_only_staff_can_log_in(self):
        exceptions = {"/admin/login/": (200, None), "/admin/logout/": (302, "/admin/")}
        strangers = {
            "nobody": Client(),
            "an ordinary user's session": self.client_with_session(self.alice),
            "an ordinary user's token": self.as_user(self.alice),
            "the operator's token": self.as_user(self.operator),
        }
        self.before = rows_by_table()
        self.assertGreater(len(self.paths), 30)

        for (who, client), path in ((stranger, path) for stranger in strangers.items() for path in self.paths):
            for method in ("get", "post"):
                with self.subTest(who, path=path, method=method):
                    response = getattr(client, method)(path)

                    expected = exceptions.get(path, (302, f"/admin/login/?next={path}"))
                    self.assertEqual((response.status_code, response.headers.get("Location")), expected)
        self.assertEqual(rows_by_table(), self.before)

    def test_api_rejects_its_session(self):
        for path in {request.path.partition("?")[0].format(message=1, session=1) for request in PROTECTED}:
            for method in ("get", "post"):
                with self.subTest(path=path, method=method):
                    response = getattr(self.admin, method)(path)

                    self.assertEqual(response.status_code, 401)
        self.assertEqual(rows_by_table(), self.before)

    def test_staff_without_permissions_cannot_use_any_row(self):
        User.objects.filter(pk=self.bob.pk).update(is_staff=True)
        staff = self.client_with_session(self.bob)

        for path in self.paths:
            if path.count("/") < 4 or path.startswith("/admin/password_change/"):
                continue  # for all operators: the index, the change of their password, the logout
            for method in ("get", "post"):
                with self.subTest(path=path, method=method):
                    response = getattr(staff, method)(path, follow=True)

                    if response.redirect_chain[-1:] != [("/admin/", 302)]:  # with a message that there is no such row
                        self.assertIn(response.status_code, (403, 404))
                    self.assertNotIn("alice", response.text)
                    self.assertNotIn("private words", response.text)
        self.assertEqual(rows_by_table(), self.before)


class AdminUrlTests(AdminTestCase):
    """No URL of the admin and no form is a 500, even if no page of the admin contains it."""

    LISTS = ("auth/user", "auth/group", "blocking/block", "messageservice/message", "knox/authtoken")
    VALUES = ("", "x", "%00", "%ED%A0%80", "9" * 20, "9" * 5000, "_5F", "%2B")
    PARAMETERS = ("p", "o", "q", "e", "all", "_changelist_filters", "_popup", "_to_field", "is_active__exact", "next")
    LOOKUPS = {
        "auth/user": ("date_joined__year", "date_joined__week_day", "email__regex", "groups__id__exact", "is_staff__isnull"),
        "auth/group": ("name__regex", "permissions__id", "user__date_joined__year"),
        "blocking/block": ("created__year", "created__week_day", "blocker__email__regex", "id__in"),
        "messageservice/message": ("created__year", "content__regex", "sender_place__gt"),
        "knox/authtoken": ("expiry__year", "created__hour", "user__date_joined__year"),
    }

    def setUp(self):
        super().setUp()
        message, _ = send_message(sender=self.alice, receiver=self.bob, content="hi")
        self.user = f"/admin/auth/user/{self.alice.pk}"
        token, _ = issue_token(self.alice)
        block = Block.objects.create(blocker=self.alice, blocked=self.bob)
        keys = (self.alice.pk, Group.objects.create(name="group").pk, block.pk, message.id, token.pk)
        self.objects = [f"/admin/{name}/{key}" for name, key in zip(self.LISTS, keys, strict=True)]

    def assert_no_server_error(self, path, form=None):
        with self.subTest(path[:200], form=form):
            response = self.admin.get(path) if form is None else self.admin.post(path, form)

            self.assertLess(response.status_code, 500)

    def test_no_parameter_of_a_list_is_a_500(self):
        for name in self.LISTS:
            for parameter in self.PARAMETERS:
                for value in self.VALUES:
                    self.assert_no_server_error(f"/admin/{name}/?{parameter}={value}")
            for lookup in self.LOOKUPS[name]:
                for value in ("99999999999", "(", "%00"):
                    self.assert_no_server_error(f"/admin/{name}/?{lookup}={value}")

    def test_a_search_of_many_words_ends_soon(self):
        statuses = {name: self.admin.get(f"/admin/{name}/?q={'a+' * 1500}").status_code for name in self.LISTS}

        by_words = dict.fromkeys(("auth/user", "auth/group", "knox/authtoken"), 400)
        self.assertEqual(statuses, {**dict.fromkeys(self.LISTS, 200), **by_words})

    def test_no_page_of_an_object_is_a_500(self):
        for path in self.objects:
            for action in ("change", "delete", "history", "password"):
                for query in ("", "?p=2", "?q=x"):
                    self.assert_no_server_error(f"{path}/{action}/{query}")
            self.assertEqual(self.admin.get(f"{path}/history/").status_code, 200)

    def test_no_url_of_an_object_is_a_500(self):
        for value in self.VALUES:
            for action in ("change", "delete", "history", "password"):
                for name in self.LISTS:
                    self.assert_no_server_error(f"/admin/{name}/{value}/{action}/")
                for parameter in ("_to_field", "_popup", "_changelist_filters"):
                    self.assert_no_server_error(f"{self.user}/{action}/?{parameter}={value}")

    def test_no_url_of_another_page_is_a_500(self):
        for value in self.VALUES:
            for path in (
                f"{value}/",
                f"auth/{value}/",
                f"auth/user/add/?username={value}",
                f"r/1/{value}/",
                f"r/{value}/1/",
                f"jsi18n/?language={value}",
                f"autocomplete/?term={value}&app_label={value}&model_name={value}&field_name={value}",
                f"autocomplete/?term={value}&app_label=blocking&model_name=block&field_name=blocker",
                f"autocomplete/?term={value}&app_label=auth&model_name=user&field_name=auth_token_set",
                f"login/?next={value}",
                f"password_change/?next={value}",
            ):
                self.assert_no_server_error(f"/admin/{path}")

    def test_no_form_is_a_500(self):
        for value in ("", "x", "9" * 20, "9" * 5000, "\x00"):
            for name in ("auth/user", "auth/group", "blocking/block"):
                form = {"action": "delete_selected", "_selected_action": 1, "post": "yes"}
                for field in (*form, "index", "select_across"):
                    self.assert_no_server_error(f"/admin/{name}/", {**form, field: value})
            for field in ("_to_field", "_popup", "groups", "email"):
                self.assert_no_server_error(f"{self.user}/change/", {field: value})


class FileTests(ApiTestCase):
    def test_serves_only_the_static_files_of_its_pages(self):
        self.assertEqual(self.client.get("/static/docs/page.js").status_code, 200)
        for path in (
            "/db.sqlite3",
            "/.secret_key",
            "/.git/config",
            "/logs/requests.log",
            "/config/settings.py",
            "/static/",
            "/static/docs/",
            "/static/docs",
            "/static/config/settings.py",
            "/static/../config/settings.py",
            "/static/docs/../../settings.py",
            "/static/%2e%2e/%2e%2e/settings.py",
            "/static/docs/..%2f..%2f..%2f.secret_key",
            f"/static/{settings.BASE_DIR}/manage.py",
        ):
            with self.subTest(path):
                response = self.client.get(path)

                self.assertEqual((response.status_code, response.json()), NOT_FOUND)


class SecurityDocumentTests(ApiTestCase):
    DOCUMENT = Path(settings.BASE_DIR, "docs", "security.md")

    def test_names_existing_tests_and_proofs(self):
        text = self.DOCUMENT.read_text()
        tests = set(re.findall(r"`((?:accounts|blocking|config|messageservice)\.(?:\w+\.)*test\w*\.\w+(?:\.\w+)?)`", text))
        files = set(re.findall(r"`((?:accounts|benchmarks|blocking|config|docs|messageservice)/[\w/.]+)`", text))

        self.assertGreater(len(tests), 30)
        for name in tests:
            with self.subTest(name):
                resolve_name(name)
        for name in files:
            with self.subTest(name):
                self.assertTrue((settings.BASE_DIR / name).exists())
