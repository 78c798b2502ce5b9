"""Changes of the database, or of its settings, while the service is running."""

import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from unittest import mock, skipUnless

from django.apps import apps
from django.conf import settings
from django.db import close_old_connections, connection, connections

from config.database.sql import fetch_one
from config.testing.cases import ConcurrentTestCase
from config.testing.service import run_service
from messageservice.models import Conversation, Mailbox, Message

UNAVAILABLE = (503, {"detail": "The service is unavailable. Try again in a moment."})
READ_ONLY_DETAIL = (
    "This node only reads at the moment: its database takes no writes. Try again later, or send it to another node."
)
READ_ONLY = (503, {"detail": READ_ONLY_DETAIL})
SUCCESS = [201] + [200] * 6


def execute_on_new_connection(*statements):
    """Execute the statements on a new connection."""
    with closing(connection.copy()) as other, other.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


class ReadinessTests(ConcurrentTestCase):
    def test_is_503_while_a_table_is_missing(self):
        for model in apps.get_models(include_auto_created=True):
            table = model._meta.db_table
            with self.subTest(table=table):
                execute_on_new_connection(f"ALTER TABLE {table} RENAME TO missing")
                try:
                    response = self.client.get("/readyz")
                finally:
                    execute_on_new_connection(f"ALTER TABLE missing RENAME TO {table}")

                self.assertEqual((response.status_code, response.json()), UNAVAILABLE)
                self.assertIn("Retry-After", response.headers)
                close_old_connections()  # as after each request; the test client does not do it
                self.assertEqual(self.client.get("/readyz").status_code, 200)

    @skipUnless(connection.vendor == "sqlite", "about SQLite's file")
    def test_is_503_after_the_file_was_deleted_or_replaced_until_a_migration(self):
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        url = f"sqlite:///{folder}/db.sqlite3"
        alice = {"username": "alice", "password": "a long secret"}
        migrate = {"args": [sys.executable, "manage.py", "migrate"], "cwd": settings.BASE_DIR, "check": True}
        migrate |= {"env": {**os.environ, "DATABASE_URL": url}, "stdout": subprocess.DEVNULL}
        subprocess.run(**migrate)

        with run_service(folder, DATABASE_URL=url) as service:
            self.assertEqual(service.request("POST", "/api/auth/register", alice)[0], 201)
            for file in folder.glob("db.sqlite3*"):
                file.unlink()

            self.assertEqual(service.request("GET", "/readyz"), UNAVAILABLE)
            self.assertEqual(service.request("POST", "/api/auth/register", alice), UNAVAILABLE)
            (folder / "db.sqlite3").rename(folder / "empty")
            (folder / "db.sqlite3").write_text("no database" * 100)
            self.assertEqual(service.request("GET", "/readyz"), UNAVAILABLE)
            self.assertEqual(service.request("POST", "/api/auth/register", alice), UNAVAILABLE)
            (folder / "empty").rename(folder / "db.sqlite3")
            subprocess.run(**migrate)
            self.assertEqual(service.request("GET", "/readyz")[0], 200)
            self.assertEqual(service.request("POST", "/api/auth/register", alice)[0], 201)


class EndpointsTestCase(ConcurrentTestCase):
    def setUp(self):
        super().setUp()
        self.client = self.as_user(self.alice)
        connection.close()

    def request_endpoints(self):
        """Send a request to each endpoint whose speed matters, and to a few more. Return the statuses."""
        message = self.request("POST", "/api/message", {"receiver": "bob", "content": "hi"})
        responses = [message, self.request("POST", "/api/conversation/bob/read", {"up_to": message.json().get("id")})]
        for path in ("auth/user", "message", "message/sent?receiver=bob", "conversation", "block"):
            responses.append(self.request("GET", f"/api/{path}"))
        return [response.status_code for response in responses]

    def request(self, method, path, body=None):
        """Send the request as alice, and return the response."""
        response = self.client.generic(method, path, json.dumps(body), content_type="application/json")
        close_old_connections()  # as after each request; the test client does not do it
        return response


class MissingTableTests(EndpointsTestCase):
    def test_is_503_while_a_table_or_column_is_missing(self):
        for rename, restore in (
            ("messageservice_message RENAME TO missing", "missing RENAME TO messageservice_message"),
            ("knox_authtoken RENAME TO missing", "missing RENAME TO knox_authtoken"),
            ("auth_user RENAME email TO missing", "auth_user RENAME missing TO email"),
        ):
            with self.subTest(rename):
                execute_on_new_connection(f"ALTER TABLE {rename}")
                try:
                    response = self.request("GET", "/api/message/sent")
                finally:
                    execute_on_new_connection(f"ALTER TABLE {restore}")

                self.assertEqual((response.status_code, response.json()), UNAVAILABLE)
                self.assertEqual(self.request_endpoints(), SUCCESS)


@skipUnless(connection.vendor == "postgresql", "SQLite prepares statements again")
class ChangedColumnTests(EndpointsTestCase):
    """PostgreSQL no longer executes a prepared statement if the types of its result have changed."""

    COLUMNS = {
        "auth_user.username": "varchar(151)",
        "auth_user.email": "text",
        "knox_authtoken.digest": "varchar(129)",
        "knox_authtoken.expiry": "timestamptz(3)",
        "messageservice_message.content": "varchar(20000)",
        "messageservice_mailbox.sent": "numeric",
        "messageservice_conversation.unread": "numeric",
        "blocking_block.created": "timestamptz(3)",
    }

    def change_type(self, column, new_type):
        """Change the type of the column, and return the previous one."""
        table, name = column.split(".")
        old_type = fetch_one(
            "SELECT format_type(atttypid, atttypmod) FROM pg_attribute "
            "WHERE attrelid = CAST(%(table)s AS regclass) AND attname = %(name)s",
            table=table,
            name=name,
        )[0]
        execute_on_new_connection(f"ALTER TABLE {table} ALTER COLUMN {name} TYPE {new_type}")
        return old_type

    def test_all_connections_are_replaced_after_one_503(self):
        another_thread = self.enterContext(ThreadPoolExecutor(1))
        self.addCleanup(lambda: another_thread.submit(connections.close_all).result())
        seen = set()
        for column, new_type in self.COLUMNS.items():
            with self.subTest(column=column):
                for _ in range(4):  # so that PostgreSQL has prepared each statement
                    self.assertEqual(self.request_endpoints(), SUCCESS)
                    self.assertEqual(another_thread.submit(self.request_endpoints).result(), SUCCESS)

                old_type = self.change_type(column, new_type)
                self.addCleanup(self.change_type, column, old_type)

                statuses = self.request_endpoints()
                seen.update(statuses)
                # The first request, and the request to mark a message as read, if the message was not stored:
                self.assertLessEqual(statuses.count(503), 2)
                self.assertEqual(another_thread.submit(self.request_endpoints).result(), SUCCESS)
                self.assertEqual(self.request_endpoints(), SUCCESS)
        self.assertIn(503, seen)


@skipUnless(connection.vendor == "postgresql", "SQLite has no such settings")
class SessionSettingsTests(EndpointsTestCase):
    SETTINGS = {
        "DateStyle": "German",
        "array_nulls": "off",
        "TimeZone": "Asia/Kolkata",
        "IntervalStyle": "iso_8601",
        "bytea_output": "escape",
        "client_encoding": "LATIN1",
        "standard_conforming_strings": "off",
        "default_transaction_isolation": "serializable",
        "default_transaction_deferrable": "on",
        "search_path": "nowhere",
        "extra_float_digits": "-15",
        "statement_timeout": "1",
        "lock_timeout": "1",
        "synchronous_commit": "off",
        "transform_null_equals": "on",
        "plan_cache_mode": "force_custom_plan",
    }

    def setUp(self):
        super().setUp()
        name = connection.settings_dict["NAME"]
        self.alter_database = f"ALTER DATABASE {name}"
        self.alter_role = f"ALTER ROLE CURRENT_USER IN DATABASE {name}"
        resets = (f"{target} RESET ALL" for target in (self.alter_database, self.alter_role))
        self.addCleanup(execute_on_new_connection, *resets)

    def test_settings_of_database_and_role_have_no_effect(self):
        for target in (self.alter_database, self.alter_role):
            for setting, value in self.SETTINGS.items():
                with self.subTest(target=target, setting=setting):
                    Conversation.objects.all().delete()
                    Mailbox.objects.all().delete()  # a first message makes them
                    Message.objects.all().delete()
                    execute_on_new_connection(f"{target} SET {setting} = '{value}'")
                    connection.close()

                    self.assertEqual(self.request_endpoints(), SUCCESS)
                    content = "\\ ' 😀"
                    message = self.request("POST", "/api/message", {"receiver": "bob", "content": content}).json()
                    self.assertEqual(message["content"], content)
                    for query in ("", f"?date={message['created'][:10]}"):
                        self.assertEqual(self.request("GET", f"/api/message/sent{query}").json()["results"][0], message)
                    self.assertTime(message["created"])
                    self.assertEqual(fetch_one("SHOW transaction_isolation"), ("read committed",))
                    execute_on_new_connection(f"{target} RESET ALL")


@skipUnless(connection.vendor == "postgresql", "SQLite has no such setting")
class ReadOnlyTests(EndpointsTestCase):
    """The database accepts no writes, like a hot standby, or a primary that is about to be demoted."""

    def setUp(self):
        super().setUp()
        message = self.request("POST", "/api/message", {"receiver": "bob", "content": "hi"}).json()
        session = self.request("GET", "/api/auth/session").json()["results"][0]
        self.values = {"id": message["id"], "username": "bob", "session_id": session["id"]}
        alter_database = f"ALTER DATABASE {connection.settings_dict['NAME']}"
        self.reset = ("SET default_transaction_read_only = off", f"{alter_database} RESET ALL")
        self.addCleanup(connection.close)
        self.addCleanup(execute_on_new_connection, *self.reset)
        execute_on_new_connection(f"{alter_database} SET default_transaction_read_only = on")
        connection.close()

    def test_every_read_succeeds_and_every_other_operation_is_503(self):
        statuses = {}
        for path, operations in self.request("GET", "/api/schema").json()["paths"].items():
            for method in operations:
                with self.subTest(method=method, path=path):
                    response = self.request(method.upper(), path.format(**self.values), {})

                    statuses[response.headers["X-Request-ID"]] = response.status_code
                    if method == "get":
                        self.assertEqual(response.status_code, 200)
                    else:
                        self.assertEqual((response.status_code, response.json()), READ_ONLY)
                        self.assertEqual(response.headers["Retry-After"], "5")

        lines = {line["request_id"]: line["status"] for line in self.log_lines("requests")}
        self.assertEqual({*statuses.values()}, {200, 503})
        self.assertLessEqual(statuses.items(), lines.items())
        self.assertEqual(self.log_lines("debug"), [])
        self.assertEqual(Message.objects.count(), 1)

    def test_readiness_reports_it_until_writes_succeed_again(self):
        message = {"receiver": "bob", "content": "hi"}

        before = self.request("GET", "/readyz").json()
        failed = self.request("POST", "/api/message", message)
        execute_on_new_connection(*self.reset)
        succeeded = self.request("POST", "/api/message", message)
        after = self.request("GET", "/readyz").json()

        self.assertEqual((before, after), ({"status": "ok", "writable": False}, {"status": "ok", "writable": True}))
        self.assertEqual((failed.status_code, succeeded.status_code), (503, 201))

    def test_checks_no_password_because_it_cannot_count_a_failure(self):
        credentials = {"username": "alice", "password": "wrong"}

        with mock.patch("argon2.PasswordHasher.verify") as verify:
            responses = [
                self.request("POST", "/api/auth/login", credentials),
                self.client.post("/admin/login/", credentials, format="multipart"),
            ]

        self.assertEqual([(response.status_code, response.json()) for response in responses], [READ_ONLY] * 2)
        verify.assert_not_called()
