"""Who gets in: what each path asks for, what it gives a stranger, and what no body and no user can reach."""

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
from django.contrib.auth.models import User
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
TESTED_ELSEWHERE = ("admin", "admin/", "")  # by AdminTests below; the last knows no path, see config.tests.UnknownPathTests

NOT_FOUND = (404, {"detail": "Not found."})
NOTHING = (200, EMPTY_PAGE)
NOTHING_NEXT_TO_AN_ID = (200, {"next": None, "previous": None, "results": []})
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


class Call(NamedTuple):
    """A request; `{message}` in its path and body is the id of a message between alice and bob, `{session}` of her session.

    `stranger` is what carol gets, status and JSON, who has nothing to do with the two; None where the call is open.
    """

    method: str
    path: str
    body: dict[str, str] | None
    status: int  # for alice
    stranger: tuple[int, Any] | None
    key: str | None = None


def get(path: str, stranger: tuple[int, Any] | None, status: int = 200) -> Call:
    return Call("get", path, None, status, stranger)


def post(
    path: str, body: dict[str, str] | None, status: int, stranger: tuple[int, Any] | None, key: str | None = None
) -> Call:
    return Call("post", path, body, status, stranger, key)


RANGE = "since=2020-01-05T00:00:00Z&until=9999-12-31T00:00:00Z"
TO_CAROL = {"receiver": "carol", "content": "hi"}
CALLS = (
    # Open.
    get("/healthz", None),
    get("/readyz", None),
    get("/api/schema", None),
    get("/api/docs", None),
    post("/api/auth/register", {"username": "dave", "password": PASSWORD}, 201, None),
    post("/api/auth/login", {"username": "alice", "password": PASSWORD}, 200, None),
    # One's own account; that of the two stays as it is.
    post("/api/auth/logout", None, 204, (204, None)),
    post("/api/auth/logoutall", None, 204, (204, None)),
    get("/api/auth/session", (200, {**EMPTY_PAGE, "count": 1, "results": [mock.ANY]})),
    Call("delete", "/api/auth/session/{session}", None, 204, NOT_FOUND),
    get("/api/auth/user", (200, {"username": "carol", "email": ""})),
    post("/api/auth/password", {"current_password": PASSWORD, "new_password": "quite another secret"}, 204, (204, None)),
    post("/api/auth/user/delete", {"current_password": PASSWORD}, 204, (204, None)),
    # Messages.
    get("/api/message", NOTHING),
    get("/api/message?user=alice", NOTHING),
    get("/api/message?user=bob", NOTHING),
    get("/api/message?after=0", NOTHING_NEXT_TO_AN_ID),
    get("/api/message?before={message}", NOTHING_NEXT_TO_AN_ID),
    get(f"/api/message?{RANGE}", NOTHING),
    get("/api/message/sent", NOTHING),
    get("/api/message/sent?receiver=bob", NOTHING),
    get("/api/message/sent?after=0", NOTHING_NEXT_TO_AN_ID),
    get(f"/api/message/sent?{RANGE}", NOTHING),
    get("/api/message/received", NOTHING),
    get(f"/api/message/received?{RANGE}", NOTHING),
    get("/api/message/received?sender=bob", NOTHING),
    get("/api/message/received?unread=true", NOTHING),
    get("/api/message/received?unread=false", NOTHING),
    get("/api/message/received?after=0", NOTHING_NEXT_TO_AN_ID),
    get("/api/message/{message}", NOT_FOUND),
    post("/api/message", TO_CAROL, 201, (201, mock.ANY)),
    post("/api/message", TO_CAROL, 422, (201, mock.ANY), key="alices"),  # the same key of another user is another key
    get("/api/conversation", NOTHING),
    get("/api/conversation?unread=true", NOTHING),
    get("/api/conversation?unread=false", NOTHING),
    get("/api/conversation?before=9999999999", NOTHING_NEXT_TO_AN_ID),
    post("/api/conversation/bob/read", {"up_to": "{message}"}, 200, NOT_FOUND),
    # Blocks.
    get("/api/block", NOTHING),
    post("/api/block", {"blocked": "carol"}, 201, (400, {"blocked": ["You cannot block yourself."]})),
    Call("delete", "/api/block/bob", None, 204, NOT_FOUND),
)
CLOSED = tuple(call for call in CALLS if call.stranger)
OPEN = tuple(call for call in CALLS if not call.stranger)


def served() -> Iterator[tuple[str, str]]:
    """Every method of every route."""
    for route, view in routes(get_resolver().url_patterns):
        for method in METHODS:
            if hasattr(view.view_class, method):
                yield method, route


def routes(patterns: list[URLPattern | URLResolver], prefix: str = "") -> Iterator[tuple[str, Callable]]:
    """Every route and its view."""
    for entry in patterns:
        route = f"{prefix}{entry.pattern}"
        if route in TESTED_ELSEWHERE:
            continue
        if isinstance(entry, URLResolver):
            yield from routes(entry.url_patterns, route)
        else:
            yield route, entry.callback


def stored(*users: User) -> dict[str, list[dict[str, Any]]]:
    """All rows, by table; with `users`, those that belong to one of them, and their own."""
    found = {}
    keys = {user.pk for user in users}
    for model in apps.get_models():
        owners = [field.attname for field in model._meta.concrete_fields if field.related_model is User]
        if model is User:
            owners = ["id"]
        rows = model._base_manager.order_by("pk").values()
        found[model._meta.db_table] = [row for row in rows if not users or keys.intersection(map(row.get, owners))]
    return found


@contextmanager
def undone() -> Iterator[None]:
    """What the block changes in the database is taken back at its end."""
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


class CallTestCase(ApiTestCase):
    """alice and bob have written to each other, and alice blocks bob; carol has nothing to do with either."""

    def setUp(self):
        super().setUp()
        send_message(sender=self.bob, receiver=self.alice, content="private words")
        row, _ = send_message(sender=self.alice, receiver=self.bob, content="private words", idempotency_key="alices")
        self.message = row.id
        Block.objects.create(blocker=self.alice, blocked=self.bob)
        self.session = issue_token(self.alice)[0].digest[:32]

    def make(self, client: APIClient, call: Call, **more: Any):
        """The call's answer; the fields of `more` stand beside its own in the body."""
        body = {name: value.format(message=self.message, session=self.session) for name, value in (call.body or {}).items()}
        headers = {"idempotency-key": call.key} if call.key else {}
        return getattr(client, call.method)(
            call.path.format(message=self.message, session=self.session), {**more, **body}, headers=headers
        )


class AccessTests(CallTestCase):
    def test_no_route_is_left_out(self):
        listed = {(call.method, resolve(call.path.partition("?")[0].format(message=1, session=1)).route) for call in CALLS}

        self.assertEqual(listed, set(served()))

    def test_a_valid_token_opens_every_endpoint(self):
        for call in CALLS:
            with self.subTest(call=call), undone():
                response = self.make(self.as_user(self.alice), call)

                self.assertEqual(response.status_code, call.status, response.content)

    def test_nothing_else_opens_one(self):
        for why, headers in self.bad_credentials().items():
            before = stored()
            for call in CLOSED:
                with self.subTest(why, call=call):
                    response = self.make(APIClient(headers=headers), call)

                    self.assert_unauthorized(response)
                    self.assertEqual([*response.json()], ["detail"])
            self.assertEqual(stored(), before, why)

    def test_no_method_bypasses_the_token(self):
        for path in {call.path for call in CLOSED}:
            for method in EVERY_METHOD:
                with self.subTest(path=path, method=method):
                    response = self.client.generic(method.upper(), path.format(message=self.message, session=self.session))

                    self.assert_unauthorized(response)

    def test_no_other_method_is_served(self):
        alice, methods = self.as_user(self.alice), set(served())

        for path in {call.path.partition("?")[0].format(message=self.message, session=self.session) for call in CALLS}:
            for method in {*EVERY_METHOD} - {"head", "options"}:
                if (method, resolve(path).route) not in methods:
                    with self.subTest(path=path, method=method):
                        response = alice.generic(method.upper(), path)

                        self.assertEqual(response.status_code, 405)

    def test_open_calls_ask_for_nothing_and_mind_nothing(self):
        for why, headers in self.bad_credentials().items():
            for call in OPEN:
                with self.subTest(why, call=call), undone():
                    response = self.make(APIClient(headers=headers), call)

                    self.assertEqual(response.status_code, call.status, response.content)

    def test_another_user_gets_and_changes_nothing(self):
        carol, before = self.as_user(self.carol), stored(self.alice, self.bob)

        for call in CLOSED:
            status, answer = call.stranger
            with self.subTest(call=call), undone():
                response = self.make(carol, call)

                self.assertEqual(response.status_code, status, response.content)
                self.assertEqual(response.json() if response.content else None, answer)
                self.assertNotIn(b"private words", response.content)
                self.assertNotIn("Idempotency-Replayed", response.headers)
                self.assertEqual(stored(self.alice, self.bob), before)

    def assert_unauthorized(self, response):
        self.assertEqual(response.status_code, 401)
        self.assertEqual(response.headers["WWW-Authenticate"], "Token")
        self.assertEqual(response.headers["Content-Type"], "application/json")

    def bad_credentials(self) -> dict[str, dict[str, str]]:
        """Headers that open nothing, by what is wrong with them."""
        dead = {"a token that is none": "0" * 64}
        with mock.patch("django.utils.timezone.now", return_value=LONG_AGO):
            _, dead["an expired token"] = issue_token(self.alice)
        _, dead["a token that was logged out"] = issue_token(self.alice)
        with_token(dead["a token that was logged out"]).post("/api/auth/logout")
        deeds = (
            ("logoutall", {}),
            ("password", {"current_password": PASSWORD, "new_password": "quite another secret"}),
        )
        for deed, body in deeds:
            client = self.as_user(self.bob)
            _, dead[f"a token from before {deed}"] = issue_token(self.bob)
            self.assertEqual(client.post(f"/api/auth/{deed}", body).status_code, 204)
        frank = make_user("frank")
        _, dead["a token of a deleted user"] = issue_token(frank)
        self.assertEqual(self.as_user(frank).post("/api/auth/user/delete", {"current_password": PASSWORD}).status_code, 204)
        erin = make_user("erin")
        _, dead["a token of a deactivated user"] = issue_token(erin)
        User.objects.filter(pk=erin.pk).update(is_active=False)
        return {"no token": {}} | {why: {"authorization": f"Token {token}"} for why, token in dead.items()}


class FailedLoginTests(ApiTestCase):
    """What takes the same time does the same work; `benchmarks/proofs/login_timing.py` measures it."""

    def test_does_the_same_whatever_is_wrong(self):
        decomposed, composed = "Zu\u0308rich geheim", "Z\u00fcrich geheim"
        User.objects.filter(pk=self.carol.pk).update(is_active=False, password=make_password(composed))
        User.objects.create_user("hollow")  # whose password the operator made unusable
        long = "x" * 100_000  # so long that it takes longer to hash
        attempts = {
            "unknown name": "nobody",
            "unknown name in capitals": "NOBODY",
            "wrong password": "alice",
            "wrong password, other letter case": "aLICE",
            "deactivated": "carol",  # with the right password as well
            "no usable password": "hollow",
        }
        for password, forms in ((long, [long]), (composed, [composed]), (decomposed, [composed, decomposed])):
            statements = {}
            for kind, username in attempts.items():
                with (
                    self.subTest(kind, password=ascii(password[:30])),
                    CaptureQueriesContext(connection) as queries,
                    hashed_passwords() as hashed,
                ):
                    response = self.client.post("/api/auth/login", {"username": username, "password": password})

                    self.assertEqual(response.status_code, 400)
                    self.assertEqual(hashed, forms)
                    statements[kind] = [re.sub(r"'[^']*'|[0-9]+", "…", query["sql"]) for query in queries]
                    self.assertEqual(statements[kind], statements["unknown name"])


@contextmanager
def hashed_passwords() -> Iterator[list[str]]:
    """What is hashed in the block, to be stored or to be compared, in whatever form."""
    hashed = []
    with ExitStack() as stack:
        for name in ("encode", "verify"):
            original = getattr(Argon2PasswordHasher, name)

            def noted(hasher, password, other, original=original):
                hashed.append(password)
                return original(hasher, password, other)

            stack.enter_context(mock.patch.object(Argon2PasswordHasher, name, noted))
        yield hashed


class MassAssignmentTests(CallTestCase):
    """Fields that no body may set, beside those that it may."""

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

    def test_change_nothing(self):
        for call in CALLS:
            if call.method == "post":
                with self.subTest(call=call):
                    changes = self.changes(call)
                    forged = self.changes(call, **self.FORGED)

                    self.assertTrue(changes or call.status != 201)
                    self.assertEqual(forged, changes)

    def changes(self, call: Call, **more: Any) -> dict[str, tuple[list, list]]:
        """What the call takes out of each table and puts into it, without what is never twice the same."""
        with undone():
            client = self.as_user(self.alice)
            before = stored()
            response = self.make(client, call, **more)
            after = stored()
            self.assertEqual(response.status_code, call.status, response.content)
            self.names = dict(User.objects.values_list("pk", "username"))
        return {
            table: (
                [self.settled(row) for row in rows if row not in after[table]],
                [self.settled(row) for row in after[table] if row not in rows],
            )
            for table, rows in before.items()
            if rows != after[table]
        }

    def settled(self, row: dict[str, Any]) -> dict[str, Any]:
        return {name: self.settled_value(name, value) for name, value in row.items()}

    def settled_value(self, name: str, value: Any) -> Any:
        if name in ("digest", "token_key", "password", "key"):
            return value == "forged"
        if name in ("id", "last_message_id"):
            return value == self.NUMBER
        if name.endswith("_id"):
            return self.settled_value("username", self.names.get(value, value))
        if isinstance(value, str):
            return re.sub("^deleted-[0-9a-f]{12}$", "deleted-", value)
        if isinstance(value, datetime):
            return abs(value - timezone.now()) < timedelta(days=1)
        return value


class StatementTests(CallTestCase):
    TEXTS = ("' OR '1'='1", "alice'--", '"; DROP TABLE auth_user; --', "%(user)s", "%s", "{user}", "\\'", "$1", "/**/alice")

    def test_no_text_becomes_part_of_one(self):
        carol, before = self.as_user(self.carol), stored(self.alice, self.bob)

        for text in self.TEXTS:
            with self.subTest(text), undone():
                quoted = quote(text, safe="")
                refused = (
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

                self.assertLessEqual({response.status_code for response in refused}, {400, 404})
                self.assertEqual([response.json()["content"] for response in sent], [text, text])
                self.assertEqual(carol.get("/api/message").json()["count"], 2)
                self.assertEqual(stored(self.alice, self.bob), before)


class RowIdTests(CallTestCase):
    FIRST = 76_543_210

    @classmethod
    def setUpTestData(cls):
        super().setUpTestData()
        for number, user in enumerate((cls.alice, cls.bob, cls.carol)):
            User.objects.filter(pk=user.pk).update(id=cls.FIRST + number)
            user.pk = cls.FIRST + number

    def test_no_response_shows_the_row_id_of_a_user(self):
        for user in (self.alice, self.carol):
            for call in CALLS:
                with self.subTest(user=user, call=call), undone():
                    response = self.make(self.as_user(user), call)

                    self.assertNotIn(str(self.FIRST)[:-1], f"{response.headers}{response.text}")


class AdminTests(AdminTestCase):
    """The admin lets staff in alone, and to what they are permitted; who may what there is tested in accounts.test_admin."""

    def setUp(self):
        super().setUp()
        send_message(sender=self.alice, receiver=self.bob, content="private words")
        Block.objects.create(blocker=self.alice, blocked=self.bob)
        self.paths = [*self.all_paths()]
        self.before = stored()

    def all_paths(self) -> Iterator[str]:
        """A path for every route of the admin, with the row id of alice where it takes one."""
        for route, _ in routes(admin.site.get_urls()):
            first_choice = re.sub(r"\(\?P<\w+>(\w*)[^)]*\)", r"\1", route).strip("^$")
            yield f"/admin/{re.sub('<.*?>', str(self.alice.pk), first_choice)}"

    def session_of(self, user: User) -> Client:
        client = Client()
        client.force_login(user)  # as who was staff and is no more may still have one
        self.before = stored()
        return client

    def test_only_staff_can_log_in(self):
        own_ways = {"/admin/login/": (200, None), "/admin/logout/": (302, "/admin/")}
        strangers = {
            "nobody": Client(),
            "an ordinary user's session": self.session_of(self.alice),
            "an ordinary user's token": self.as_user(self.alice),
            "the operator's token": self.as_user(self.operator),
        }
        self.before = stored()
        self.assertGreater(len(self.paths), 30)

        for (who, client), path in ((stranger, path) for stranger in strangers.items() for path in self.paths):
            for method in ("get", "post"):
                with self.subTest(who, path=path, method=method):
                    response = getattr(client, method)(path)

                    expected = own_ways.get(path, (302, f"/admin/login/?next={path}"))
                    self.assertEqual((response.status_code, response.headers.get("Location")), expected)
        self.assertEqual(stored(), self.before)

    def test_its_session_opens_no_endpoint_of_the_api(self):
        for path in {call.path.partition("?")[0].format(message=1, session=1) for call in CLOSED}:
            for method in ("get", "post"):
                with self.subTest(path=path, method=method):
                    response = getattr(self.admin, method)(path)

                    self.assertEqual(response.status_code, 401)
        self.assertEqual(stored(), self.before)

    def test_staff_without_permissions_reach_no_row(self):
        User.objects.filter(pk=self.bob.pk).update(is_staff=True)
        staff = self.session_of(self.bob)

        for path in self.paths:
            if path.count("/") < 4 or path.startswith("/admin/password_change/"):
                continue  # what every operator has: the index, one's own password, logging out
            for method in ("get", "post"):
                with self.subTest(path=path, method=method):
                    response = getattr(staff, method)(path, follow=True)

                    if response.redirect_chain[-1:] != [("/admin/", 302)]:  # where it says that there is no such row
                        self.assertIn(response.status_code, (403, 404))
                    self.assertNotIn("alice", response.text)
                    self.assertNotIn("private words", response.text)
        self.assertEqual(stored(), self.before)


class AdminUrlTests(AdminTestCase):
    """No URL of the admin ends in a 500, nor does a form that no page of it sends."""

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
        send_message(sender=self.alice, receiver=self.bob, content="hi")
        self.user = f"/admin/auth/user/{self.alice.pk}"

    def assert_answered(self, path, form=None):
        with self.subTest(path[:200], form=form):
            response = self.admin.get(path) if form is None else self.admin.post(path, form)

            self.assertLess(response.status_code, 500)

    def test_of_a_list(self):
        for name in self.LISTS:
            for parameter in self.PARAMETERS:
                for value in self.VALUES:
                    self.assert_answered(f"/admin/{name}/?{parameter}={value}")
            for lookup in self.LOOKUPS[name]:
                for value in ("99999999999", "(", "%00"):
                    self.assert_answered(f"/admin/{name}/?{lookup}={value}")

    def test_of_an_object(self):
        for value in self.VALUES:
            for action in ("change", "delete", "history", "password"):
                for name in self.LISTS:
                    self.assert_answered(f"/admin/{name}/{value}/{action}/")
                for parameter in ("_to_field", "_popup", "_changelist_filters"):
                    self.assert_answered(f"{self.user}/{action}/?{parameter}={value}")

    def test_of_another_page(self):
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
                f"login/?next={value}",
                f"password_change/?next={value}",
            ):
                self.assert_answered(f"/admin/{path}")

    def test_with_a_form(self):
        for value in ("", "x", "9" * 20, "9" * 5000, "\x00"):
            for name in ("auth/user", "auth/group", "blocking/block"):
                form = {"action": "delete_selected", "_selected_action": 1, "post": "yes"}
                for field in (*form, "index", "select_across"):
                    self.assert_answered(f"/admin/{name}/", {**form, field: value})
            for field in ("_to_field", "_popup", "groups", "email"):
                self.assert_answered(f"{self.user}/change/", {field: value})


class FileTests(ApiTestCase):
    def test_no_file_of_the_service_is_served_but_those_of_its_pages(self):
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
        tests = set(re.findall(r"`((?:accounts|blocking|config|messageservice)\.test\w*\.\w+(?:\.\w+)?)`", text))
        files = set(re.findall(r"`((?:accounts|benchmarks|blocking|config|docs|messageservice)/[\w/.]+)`", text))

        self.assertGreater(len(tests), 30)
        for name in tests:
            with self.subTest(name):
                resolve_name(name)
        for name in files:
            with self.subTest(name):
                self.assertTrue((settings.BASE_DIR / name).exists())
