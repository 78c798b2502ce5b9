"""The two database backends, where they differ from Django's."""

import os
import socket
import sqlite3
import stat
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from unittest import mock, skipUnless

from django.conf import settings
from django.db import DatabaseError, close_old_connections, connection, transaction

from accounts.authentication import AuthToken
from blocking.models import Block
from config.database.postgresql.base import DatabaseWrapper
from config.testing.cases import ConcurrentTestCase
from config.testing.http_client import free_port
from config.testing.service import run_service, test_database_url
from messageservice.models import Mailbox, Message

UNAVAILABLE = (503, {"detail": "The service is unavailable. Try again in a moment."})


@skipUnless(connection.vendor == "sqlite", "about the database backend for SQLite")
class WriteLockTests(ConcurrentTestCase):
    def setUp(self):
        super().setUp()
        self.alice_client = self.as_user(self.alice)
        self.pool = self.enterContext(ThreadPoolExecutor(1))

    def send(self):
        """Send a message as alice, and close the connection of this thread."""
        try:
            return self.alice_client.post("/api/message", {"receiver": "bob", "content": "hi"})
        finally:
            connection.close()

    def limit_wait(self, seconds):
        """Limit the time that new connections wait for the lock."""
        return mock.patch.dict(connection.settings_dict["OPTIONS"], timeout=seconds)

    @contextmanager
    def transaction_of_another_process(self):
        """Open a transaction without the lock of this process, as another process does."""
        with closing(sqlite3.connect(connection.settings_dict["NAME"], isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            yield

    def assert_others_can_write(self):
        """Assert that another thread can send a message."""
        response = self.pool.submit(self.send).result(timeout=10)  # half of the time that it would wait for the lock
        self.assertEqual(response.status_code, 201)

    def test_a_send_waits_for_another_transaction(self):
        for other in (transaction.atomic, self.transaction_of_another_process):
            with self.subTest(other=other.__name__):
                with other():
                    sending = self.pool.submit(self.send)
                    time.sleep(0.3)
                    self.assertFalse(sending.done())
                self.assertEqual(sending.result().status_code, 201)
        self.assertEqual(Message.objects.count(), 2)

    def test_a_send_fails_after_the_timeout(self):
        for other in (transaction.atomic, self.transaction_of_another_process):
            with self.subTest(other=other.__name__), self.limit_wait(0.1), other():
                response = self.pool.submit(self.send).result(timeout=10)

                self.assertEqual(response.status_code, 503)
                self.assertIn("Retry-After", response.headers)
        self.assertEqual(Message.objects.count(), 0)

    def test_a_send_that_failed_releases_the_lock(self):
        with self.transaction_of_another_process(), self.limit_wait(0.1):
            response = self.alice_client.post("/api/message", {"receiver": "bob", "content": "hi"})

        self.assertEqual(response.status_code, 503)
        self.assert_others_can_write()

    def test_a_rejected_send_releases_the_lock(self):
        Block.objects.create(blocker=self.bob, blocked=self.alice)

        response = self.alice_client.post("/api/message", {"receiver": "bob", "content": "hi"})

        self.assertEqual(response.status_code, 403)
        Block.objects.all().delete()
        self.assert_others_can_write()

    def test_a_connection_closed_in_a_transaction_releases_the_lock(self):
        with suppress(DatabaseError), transaction.atomic():
            connection.close()

        self.assert_others_can_write()


@skipUnless(connection.vendor == "sqlite", "about the database backend for SQLite")
class FileTests(ConcurrentTestCase):
    def setUp(self):
        super().setUp()
        self.file = Path(self.enterContext(tempfile.TemporaryDirectory())) / "new.sqlite3"

    def connect(self):
        """Return a new connection to `self.file`, which is closed at the end of the block."""
        new = connection.copy()
        new.settings_dict = connection.settings_dict | {"NAME": self.file}
        return closing(new)

    def test_only_its_owner_can_read_it(self):
        with self.connect() as new, new.cursor() as cursor:
            cursor.execute("CREATE TABLE test (id integer)")

            modes = {file.name: stat.filemode(file.stat().st_mode) for file in self.file.parent.iterdir()}

        self.assertEqual(modes, dict.fromkeys(["new.sqlite3", "new.sqlite3-wal", "new.sqlite3-shm"], "-rw-------"))

    def test_a_second_connection_does_not_release_the_locks_of_the_first(self):
        """Without these locks, another process that closes the file assumes to be the last user, and deletes the log."""
        script = "import sqlite3, sys; file = sqlite3.connect(sys.argv[1]); file.execute('SELECT * FROM test'); file.close()"
        with self.connect() as first, first.cursor() as cursor:
            cursor.execute("CREATE TABLE test (id integer)")
            with self.connect() as second, second.cursor() as other_cursor:
                other_cursor.execute("SELECT * FROM test")

                subprocess.run([sys.executable, "-c", script, self.file], check=True)  # noqa: S603 - no input from outside

                self.assertTrue(self.file.with_name("new.sqlite3-wal").exists())


@skipUnless(connection.vendor == "postgresql", "about the database backend for PostgreSQL")
class LongestWaitTests(ConcurrentTestCase):
    def setUp(self):
        super().setUp()
        self.alice_client = self.as_user(self.alice)
        connection.close()
        self.enterContext(mock.patch.object(DatabaseWrapper, "longest_wait", 1.2))
        self.addCleanup(setattr, DatabaseWrapper, "retry_at", 0.0)

    @contextmanager
    def lock(self, model):
        """Lock the table on another connection."""
        with closing(connection.copy()) as other, other.cursor() as cursor:
            cursor.execute("SET idle_in_transaction_session_timeout = 5000")  # so that no test hangs longer
            cursor.execute("BEGIN")
            cursor.execute(f"LOCK TABLE {model._meta.db_table}")
            yield

    def get_user(self):
        response = self.alice_client.get("/api/auth/user")
        close_old_connections()  # as after each request; the test client does not do it
        return response

    def assert_unavailable(self, *reasons):
        """Assert that parallel requests, one for each reason, are all a 503, and that the log has all reasons."""
        responses = self.in_parallel(*[self.get_user] * len(reasons))

        for response in responses:
            self.assertEqual((response.status_code, response.json()), UNAVAILABLE)
            self.assertIn("Retry-After", response.headers)
        found = [line["traceback"].splitlines()[-1] for line in self.log_lines("debug")[-len(reasons) :]]
        for reason, line in zip(sorted(reasons), sorted(line.partition(": ")[2] for line in found), strict=True):
            self.assertIn(reason, line)

    def test_the_server_cancels_a_slow_statement(self):
        with self.lock(AuthToken):
            self.assert_unavailable("canceling statement due to statement timeout")

        self.assertEqual(self.get_user().status_code, 200)

    def test_after_a_timeout_requests_fail_at_once_for_a_while(self):
        with self.lock(AuthToken), mock.patch.dict(connection.settings_dict["OPTIONS"], options="-c statement_timeout=0"):
            self.assert_unavailable("timeout expired")
        self.assertGreater(DatabaseWrapper.retry_at, 0)

        DatabaseWrapper.retry_at = time.monotonic() + 60
        self.assert_unavailable("The server did not respond a moment ago.")

        DatabaseWrapper.retry_at = time.monotonic()
        self.assertEqual(self.get_user().status_code, 200)
        self.assertEqual(DatabaseWrapper.retry_at, 0)

    def test_a_transaction_waits_no_longer_than_a_statement(self):
        body = {"receiver": "bob", "content": "hi"}

        with self.lock(Mailbox), mock.patch.dict(connection.settings_dict["OPTIONS"], options="-c statement_timeout=0"):
            (response,) = self.in_parallel(lambda: self.alice_client.post("/api/message", body))

            self.assertEqual(response.status_code, 503)  # while the table is still locked
        self.assertIn("timeout expired", self.log_lines("debug")[-1]["traceback"])
        self.assertGreater(DatabaseWrapper.retry_at, 0)
        DatabaseWrapper.retry_at = 0.0
        self.assertFalse(Message.objects.exists())

    def test_only_one_thread_tries_to_connect_again(self):
        with closing(socket.create_server(("127.0.0.1", 0))) as silent:
            nowhere = {"HOST": "127.0.0.1", "PORT": silent.getsockname()[1]}
            with mock.patch.dict(connection.settings_dict, nowhere):
                DatabaseWrapper.retry_at = time.monotonic()
                self.assert_unavailable("connection timeout expired", *["The server did not respond a moment ago."] * 3)

        self.assertGreater(DatabaseWrapper.retry_at, time.monotonic())

    def test_every_thread_tries_if_the_server_refuses_connections(self):
        with mock.patch.dict(connection.settings_dict, HOST="127.0.0.1", PORT=free_port()):
            responses = self.in_parallel(self.get_user) + self.in_parallel(*[self.get_user] * 4)

        self.assertEqual([response.status_code for response in responses], [503] * 5)
        for line in self.log_lines("debug")[-5:]:
            self.assertIn("Connection refused", line["traceback"])
        self.assertEqual([response.status_code for response in self.in_parallel(*[self.get_user] * 4)], [200] * 4)

    def test_a_process_that_serves_requests_limits_its_statements(self):
        script = "import config.wsgi; from config.database.sql import fetch_one; print(*fetch_one('SHOW statement_timeout'))"
        result = subprocess.run(  # noqa: S603 - no input from outside
            [sys.executable, "-c", script],
            cwd=settings.BASE_DIR,
            env={**os.environ, "DATABASE_URL": test_database_url(), "SERVING": "on"},
            capture_output=True,
            text=True,
        )

        self.assertEqual((result.stdout, result.stderr), ("4050ms\n", ""))


@skipUnless(connection.vendor == "postgresql", "about the database backend for PostgreSQL")
class PersistentConnectionTests(ConcurrentTestCase):
    def test_is_replaced_after_the_server_closed_it(self):
        client = self.as_user(self.alice)
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            (process,) = cursor.fetchone()
        other = connection.copy()
        with other.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [process])  # waits until it has ended
            self.assertEqual(cursor.fetchone(), (True,))
        other.close()

        close_old_connections()  # as before each request; the test client does not do it
        response = client.get("/api/message")

        self.assertEqual(response.status_code, 200)

    def test_is_replaced_after_this_process_closed_it(self):
        client = self.as_user(self.alice)
        connection.connection.close()

        close_old_connections()
        response = client.get("/api/message")

        self.assertEqual(response.status_code, 200)

    def test_is_checked_without_a_query(self):
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            (process,) = cursor.fetchone()

        close_old_connections()
        connection.close_if_health_check_failed()  # as before the first query of each request

        self.assertEqual(connection.connection.info.backend_pid, process)
        with closing(connection.copy()) as other, other.cursor() as cursor:
            cursor.execute("SELECT query FROM pg_stat_activity WHERE pid = %s", [process])
            self.assertEqual(cursor.fetchone(), ("SELECT pg_backend_pid()",))

    def test_is_replaced_after_the_server_became_read_only(self):
        client = self.as_user(self.alice)
        body = {"receiver": "bob", "content": "hi"}
        with connection.cursor() as cursor:
            cursor.execute("SET default_transaction_read_only = on")  # like a primary that is about to be demoted

        failed = client.post("/api/message", body)
        close_old_connections()
        succeeded = client.post("/api/message", body)

        self.assertEqual(failed.status_code, 503)
        self.assertEqual(succeeded.status_code, 201)
        self.assertEqual(Message.objects.count(), 1)


@skipUnless(connection.vendor == "postgresql", "about the database backend for PostgreSQL")
class ApplicationNameTests(ConcurrentTestCase):
    def names(self):
        """Return the application_name of every connection to the database."""
        with connection.cursor() as cursor:
            cursor.execute("SELECT application_name FROM pg_stat_activity WHERE datname = current_database()")
            return {name for (name,) in cursor.fetchall()}

    def test_names_the_node_and_the_process(self):
        with run_service(self.log_folder, WEB_CONCURRENCY="1") as service:
            main = service.process.pid
            worker = Path(f"/proc/{main}/task/{main}/children").read_text().strip()

            self.assertIn(f"messages {socket.gethostname()[:40]} {worker}", self.names())

    def test_name_in_the_url_takes_precedence(self):
        url = f"{test_database_url()}?application_name=mine"
        with run_service(self.log_folder, WEB_CONCURRENCY="1", DATABASE_URL=url):
            self.assertIn("mine", self.names())

    def test_process_id_is_not_cut_off_after_a_long_host_name(self):
        with mock.patch("socket.gethostname", return_value="h" * 64), closing(connection.copy()) as other:
            other.ensure_connection()

            self.assertIn(f"messages {'h' * 40} {os.getpid()}", self.names())
