"""What the tests of all apps start from."""

import json
import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch
from urllib.parse import urlsplit

from django.conf import settings
from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import User
from django.db import connection
from django.db.models import Model
from django.test import Client
from django.test.runner import DiscoverRunner
from django.test.testcases import is_pickable
from django.urls import URLResolver, get_resolver, reverse
from rest_framework.test import APIClient, APITestCase, APITransactionTestCase

from accounts.authentication import issue_token
from accounts.models import user_named
from config.calling import call, free_port

PASSWORD = "a long secret"
USERNAMES = ("alice", "bob", "carol")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
UNITTESTS_OWN = ("_outcome", "_subtest")  # they hold the case itself
LOGS = ("requests", "activity", "debug")


class TestRunner(DiscoverRunner):
    """Django's, but a run that finds no test fails, and parallel runs get whole copies of SQLite's database."""

    def build_suite(self, *args, **kwargs):
        suite = super().build_suite(*args, **kwargs)
        if not suite.countTestCases():
            sys.exit("No test was found.")
        return suite

    def setup_databases(self, **kwargs):
        processes, self.parallel = self.parallel, 1
        databases = super().setup_databases(**kwargs)
        self.parallel = processes
        if processes > 1:
            connection.close()  # SQLite then empties its write-ahead log, which Django would not copy
            for process in range(1, processes + 1):
                connection.creation.clone_test_db(str(process), self.verbosity, keepdb=self.keepdb)
        return databases


class ApiTestMixin:
    """alice, bob and carol, a client for each, and three empty logs."""

    def setUp(self):
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.log_folder = Path(folder.name)
        for name in LOGS:
            handler = logging.getLogger(name).handlers[0]
            self.addCleanup(setattr, handler, "filename", handler.filename)
            handler.filename = str(self.log_folder / f"{name}.log")

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
    return APIClient(headers={"authorization": f"{scheme} {token}"})


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


def test_database_url() -> str:
    """The DATABASE_URL of the database that the running tests use."""
    name = connection.settings_dict["NAME"]
    if connection.vendor == "sqlite":
        return f"sqlite:///{name}"
    return urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{name}").geturl()


class Service:
    """The service as `make serve` starts it, in processes of its own, on the tests' database.

    `environment` holds more of its settings.
    """

    def __init__(self, log_folder: Path, **environment: str) -> None:
        self.log_folder = log_folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.environment = {
            **os.environ,
            "DATABASE_URL": test_database_url(),
            "LOG_DIR": str(log_folder),
            "PORT": str(self.port),
            "WEB_CONCURRENCY": "4",
            **environment,
        }

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "--config", "python:config.server"],
            cwd=settings.BASE_DIR,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if self.request("GET", "/readyz")[0] == 200:
                    return
            except OSError:
                time.sleep(0.1)
        if self.process.poll() is None:
            self.kill()
        raise TimeoutError("The service ended at once, or did not start within 30 seconds.")

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=40)

    def kill(self) -> None:
        """End all of its processes at once, with SIGKILL."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def request(self, method: str, path: str, body: Any = None, token: str | None = None, **headers: str) -> tuple[int, Any]:
        """Status and JSON of the answer; raises OSError where there is none."""
        return call(self.url + path, method, body, token, seconds=30, **headers)


@contextmanager
def running_service(log_folder: Path, **environment: str) -> Iterator[Service]:
    service = Service(log_folder, **environment)
    service.start()
    try:
        yield service
    finally:
        service.stop()
