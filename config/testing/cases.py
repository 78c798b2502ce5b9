"""What the tests of all apps start from."""

import json
import logging
import re
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from html import unescape
from pathlib import Path
from typing import Any
from unittest.mock import patch

from django.conf import settings
from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import User
from django.db import connection
from django.db.models import Model
from django.test import Client
from django.test.testcases import is_pickable
from django.urls import URLResolver, get_resolver, reverse
from rest_framework.test import APIClient, APITestCase, APITransactionTestCase

from accounts.authentication import issue_token
from accounts.models import user_named

PASSWORD = "a long secret"
USERNAMES = ("alice", "bob", "carol")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
UNITTESTS_OWN = ("_outcome", "_subtest")  # they hold the case itself
LOGS = ("requests", "activity", "debug")


class CheckingClient(APIClient):
    """Fails at an error message that docs/api.md does not list."""

    def request(self, **kwargs):
        response = super().request(**kwargs)
        is_json = response.headers.get("Content-Type") == "application/json"
        if response.status_code >= 400 and is_json and response.content:
            for texts in response.json().values():
                for text in [texts] if isinstance(texts, str) else texts:
                    assert listed_messages().fullmatch(text), f"docs/api.md does not list {text!r}"  # noqa: S101
        return response


@cache
def listed_messages() -> re.Pattern:
    """Matches the error messages that docs/api.md lists: the first column of its tables of them."""
    texts = re.findall("^\\| `(.+?)` \\|", (settings.BASE_DIR / "docs" / "api.md").read_text(), re.MULTILINE)
    return re.compile("|".join(".+".join(map(re.escape, text.split("…"))) for text in texts))


class ApiTestMixin:
    """alice, bob and carol, a client for each, and three empty logs."""

    client_class = CheckingClient

    def setUp(self):
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.log_folder = Path(folder.name)
        for name in LOGS:
            handler = logging.getLogger(name).handlers[0]
            self.addCleanup(setattr, handler, "baseFilename", handler.baseFilename)
            handler.baseFilename = str(self.log_folder / f"{name}.log")
        self.enterContext(patch("config.log.TRACEBACK_INTERVAL", 0))  # every error has its traceback

    def __getstate__(self):
        """What of the case can go to the parent process with a failed subtest; Django forgets its clients."""
        kept = {name: value for name, value in self.__dict__.items() if name not in UNITTESTS_OWN and is_pickable(value)}
        return kept | dict.fromkeys(UNITTESTS_OWN)

    def as_user(self, user: User) -> APIClient:
        """A client that is logged in as the user."""
        _, token = issue_token(user)
        return with_token(token)

    def log_lines(self, name: str) -> list[dict[str, Any]]:
        """The lines of requests.log, activity.log or debug.log, read as JSON."""
        file = self.log_folder / f"{name}.log"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def events(self) -> list[tuple[str, str, str]]:
        """What activity.log holds: event, who, whom."""
        return [(line["event"], line["who"], line["whom"]) for line in self.log_lines("activity")]

    def assertTime(self, value: str) -> None:
        self.assertRegex(value, f"^{TIME.pattern}$")


def with_token(token: str, scheme: str = "Token") -> APIClient:
    return CheckingClient(headers={"authorization": f"{scheme} {token}"})


@contextmanager
def deleted_once_found(username: str) -> Iterator[None]:
    """Requests that name the user find them, and somebody deletes them just then."""

    def find(name: str) -> User | None:
        user = user_named(name)
        User.objects.filter(username=username).delete()
        return user

    with patch("accounts.serializers.user_named", find):
        yield


def make_user(username: str) -> User:
    """A user with PASSWORD, made without the time that hashing takes."""
    return User.objects.create(username=username, password=_password_hash())


@cache
def _password_hash() -> str:
    return make_password(PASSWORD)


class ApiTestCase(ApiTestMixin, APITestCase):
    @classmethod
    def setUpTestData(cls):
        cls.alice, cls.bob, cls.carol = map(make_user, USERNAMES)


class AdminTestCase(ApiTestCase):
    """Beside alice, bob and carol there is the operator, whom `self.admin` has logged in through the admin's form."""

    @classmethod
    def setUpTestData(cls):
        super().setUpTestData()
        cls.operator = User.objects.create_superuser("operator", password=PASSWORD)

    def setUp(self):
        super().setUp()
        self.admin = self.logged_in("operator")

    def logged_in(self, username: str) -> Client:
        client = Client()
        client.post("/admin/login/", {"username": username, "password": PASSWORD})
        return client

    def page(self, path: str) -> str:
        response = self.admin.get(path)
        self.assertEqual(response.status_code, 200, path)
        return response.content.decode()

    def listed(self, path: str) -> list[Model]:
        """The rows that a list of the admin shows."""
        return list(self.admin.get(path).context["cl"].result_list)

    def links(self, path: str) -> dict[str, str]:
        """The links of a page, by their label."""
        return {label: unescape(target) for target, label in re.findall('<a href="([^"]+)">([^<]+)</a>', self.page(path))}


class ConcurrentTestCase(ApiTestMixin, APITransactionTestCase):
    """For what can race: nothing is wrapped in a transaction, so threads and other processes see what is stored."""

    def setUp(self):
        super().setUp()
        self.alice, self.bob, self.carol = map(make_user, USERNAMES)

    def at_once(self, *calls: Callable[[], Any]) -> list[Any]:
        """What the calls return, each made in a thread of its own, all let go at the same moment."""
        barrier = threading.Barrier(len(calls))

        def run(call: Callable[[], Any]) -> Any:
            try:
                barrier.wait()
                return call()
            finally:
                connection.close()

        with ThreadPoolExecutor(len(calls)) as pool:
            return list(pool.map(run, calls))


def api_paths() -> Iterator[str]:
    """Every path under /api that a route knows."""
    for entry in get_resolver().url_patterns:
        if str(entry.pattern).startswith("api/"):
            for route in entry.url_patterns if isinstance(entry, URLResolver) else [entry]:
                yield reverse(route.name, kwargs=dict.fromkeys(route.pattern.converters, "1"))
