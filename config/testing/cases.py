"""The test cases and helpers that the tests of all apps share."""

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
UNITTESTS_OWN = ("_outcome", "_subtest")  # attributes with references to the test case
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
    """Return a pattern for the error messages that docs/api.md lists in the first column of its tables."""
    texts = re.findall("^\\| `(.+?)` \\|", (settings.BASE_DIR / "docs" / "api.md").read_text(), re.MULTILINE)
    return re.compile("|".join(".+".join(map(re.escape, text.split("…"))) for text in texts))


class ApiTestMixin:
    """The users alice, bob and carol, a client for each, and three empty logs."""

    client_class = CheckingClient

    def setUp(self):
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.log_folder = Path(folder.name)
        for name in LOGS:
            handler = logging.getLogger(name).handlers[0]
            self.addCleanup(setattr, handler, "file", handler.file)
            handler.file = self.log_folder / f"{name}.log"
        self.enterContext(patch("config.log.TRACEBACK_INTERVAL", 0))  # every error has its traceback

    def __getstate__(self):
        """Return what the parent process can get of a failed subtest. Django's own method keeps the clients."""
        state = {name: value for name, value in self.__dict__.items() if name not in UNITTESTS_OWN and is_pickable(value)}
        return state | dict.fromkeys(UNITTESTS_OWN)

    def as_user(self, user: User) -> APIClient:
        """Return a client that is logged in as the user."""
        _, token = issue_token(user)
        return with_token(token)

    def log_lines(self, name: str) -> list[dict[str, Any]]:
        """Return the lines of requests.log, activity.log or debug.log, parsed as JSON."""
        file = self.log_folder / f"{name}.log"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def events(self) -> list[tuple[str, str, str]]:
        """Return the lines of activity.log as (event, who, whom)."""
        return [(line["event"], line["who"], line["whom"]) for line in self.log_lines("activity")]

    def assertTime(self, value: str) -> None:
        """Assert that the value is a time in the format of the API."""
        self.assertRegex(value, f"^{TIME.pattern}$")


def with_token(token: str, scheme: str = "Token") -> APIClient:
    """Return a client that sends the token."""
    return CheckingClient(headers={"authorization": f"{scheme} {token}"})


@contextmanager
def delete_after_lookup(username: str) -> Iterator[None]:
    """Delete the user just after a request has looked them up by name."""

    def find(name: str) -> User | None:
        user = user_named(name)
        User.objects.filter(username=username).delete()
        return user

    with patch("accounts.serializers.user_named", find):
        yield


def make_user(username: str) -> User:
    """Create a user with PASSWORD, whose hash is computed only once."""
    return User.objects.create(username=username, password=_password_hash())


@cache
def _password_hash() -> str:
    """Return the hash of PASSWORD."""
    return make_password(PASSWORD)


class ApiTestCase(ApiTestMixin, APITestCase):
    """The usual test case, which rolls back its changes of the database."""

    @classmethod
    def setUpTestData(cls):
        cls.alice, cls.bob, cls.carol = map(make_user, USERNAMES)


class AdminTestCase(ApiTestCase):
    """Adds the operator; `self.admin` is the operator's client, logged in through the admin's form."""

    @classmethod
    def setUpTestData(cls):
        super().setUpTestData()
        cls.operator = User.objects.create_superuser("operator", password=PASSWORD)

    def setUp(self):
        super().setUp()
        self.admin = self.log_in_to_admin("operator")

    def log_in_to_admin(self, username: str) -> Client:
        """Return a client that has sent the login form of the admin."""
        client = Client()
        client.post("/admin/login/", {"username": username, "password": PASSWORD})
        return client

    def page(self, path: str) -> str:
        """Return the HTML of a page, which must be a 200."""
        response = self.admin.get(path)
        self.assertEqual(response.status_code, 200, path)
        return response.content.decode()

    def list_rows(self, path: str) -> list[Model]:
        """Return the rows on a list of the admin."""
        return list(self.admin.get(path).context["cl"].result_list)

    def links(self, path: str) -> dict[str, str]:
        """Return the links of a page by their label."""
        return {label: unescape(target) for target, label in re.findall('<a href="([^"]+)">([^<]+)</a>', self.page(path))}


class ConcurrentTestCase(ApiTestMixin, APITransactionTestCase):
    """For parallel requests: no test runs in a transaction, so threads and other processes see stored rows."""

    def setUp(self):
        super().setUp()
        self.alice, self.bob, self.carol = map(make_user, USERNAMES)

    def in_parallel(self, *functions: Callable[[], Any]) -> list[Any]:
        """Run each function in its own thread, all started at the same moment, and return their results."""
        barrier = threading.Barrier(len(functions))

        def run(function: Callable[[], Any]) -> Any:
            try:
                barrier.wait()
                return function()
            finally:
                connection.close()

        with ThreadPoolExecutor(len(functions)) as pool:
            return list(pool.map(run, functions))


def api_paths() -> Iterator[str]:
    """Return every path under /api that has a route."""
    for entry in get_resolver().url_patterns:
        if str(entry.pattern).startswith("api/"):
            for route in entry.url_patterns if isinstance(entry, URLResolver) else [entry]:
                yield reverse(route.name, kwargs=dict.fromkeys(route.pattern.converters, "1"))
