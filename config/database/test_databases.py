"""What the project's own backends add to Django's."""

import os
import socket
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from unittest import mock, skipUnless

from django.conf import settings
from django.db import DatabaseError, close_old_connections, connection, connections, transaction

from accounts.authentication import AuthToken
from blocking.models import Block
from config.database.postgresql.base import DatabaseWrapper
from config.testing.cases import ConcurrentTestCase
from config.testing.http_client import free_port
from config.testing.service import test_database_url
from messageservice.models import Mailbox, Message


def timed(call):
    """What it returns, and after how many seconds."""
    began = time.monotonic()
    return call(), time.monotonic() - began


@skipUnless(connection.vendor == "sqlite", "about the database backend for SQLite")
class TurnTests(ConcurrentTestCase):
    BODY = {"receiver": "bob", "content": "hi"}

    def setUp(self):
        super().setUp()
        self.alice_client, self.bob_client = self.as_user(self.alice), self.as_user(self.bob)

    @contextmanager
    def writing_elsewhere(self):
        """As another process does: it does not queue up with the threads of this one."""
        with closing(sqlite3.connect(connection.settings_dict["NAME"], isolation_level=None)) as elsewhere:
            elsewhere.execute("BEGIN IMMEDIATE")
            yield

    def send_amidst(self, writing, seconds):
        """The answer to a send while somebody writes for so many seconds, and after how many it came."""
        has_begun = threading.Event()

        def write():
            with writing():
                has_begun.set()
                time.sleep(seconds)

        def send():
            has_begun.wait()
            return timed(lambda: self.alice_client.post("/api/message", self.BODY))

        _, sent = self.at_once(write, send)
        return sent

    def test_a_send_waits_for_its_turn(self):
        for writing in (transaction.atomic, self.writing_elsewhere):
            with self.subTest(writing=writing.__name__):
                before = Message.objects.count()

                response, seconds = self.send_amidst(writing, 0.3)

                self.assertEqual(response.status_code, 201)
                self.assertGreater(seconds, 0.2)
                self.assertEqual(Message.objects.count(), before + 1)

    def test_a_send_does_not_wait_for_ever(self):
        for writing in (transaction.atomic, self.writing_elsewhere):
            with self.subTest(writing=writing.__name__):
                before = Message.objects.count()

                with mock.patch.dict(connection.settings_dict["OPTIONS"], timeout=0.1):
                    response, seconds = self.send_amidst(writing, 1)

                self.assertEqual(response.status_code, 503)
                self.assertIn("Retry-After", response.headers)
                self.assertLess(seconds, 0.9)
                self.assertEqual(Message.objects.count(), before)

    def test_a_refused_send_passes_its_turn_on(self):
        Block.objects.create(blocker=self.bob, blocked=self.alice)

        response = self.alice_client.post("/api/message", self.BODY)

        self.assertEqual(response.status_code, 403)
        self.assert_others_have_their_turn()

    def test_a_send_that_has_waited_in_vain_passes_its_turn_on(self):
        with self.writing_elsewhere(), mock.patch.dict(connection.settings_dict["OPTIONS"], timeout=0.1):
            response = self.alice_client.post("/api/message", self.BODY)

        self.assertEqual(response.status_code, 503)
        self.assert_others_have_their_turn()

    def test_a_connection_closed_in_a_transaction_passes_its_turn_on(self):
        with suppress(DatabaseError), transaction.atomic():
            connection.close()

        self.assert_others_have_their_turn()

    def assert_others_have_their_turn(self):
        body = {"receiver": "carol", "content": "hi"}

        ((response, seconds),) = self.at_once(lambda: timed(lambda: self.bob_client.post("/api/message", body)))

        self.assertEqual(response.status_code, 201)
        self.assertLess(seconds, 5)


@skipUnless(connection.vendor == "sqlite", "about the database backend for SQLite")
class FileTests(ConcurrentTestCase):
    def setUp(self):
        super().setUp()
        self.file = Path(self.enterContext(tempfile.TemporaryDirectory())) / "new.sqlite3"

    def connected(self):
        new = connection.copy()
        new.settings_dict = connection.settings_dict | {"NAME": self.file}
        return closing(new)

    def test_is_made_for_its_owner_alone(self):
        with self.connected() as new, new.cursor() as cursor:
            cursor.execute("CREATE TABLE kept (id integer)")

            made = {file.name: stat.filemode(file.stat().st_mode) for file in self.file.parent.iterdir()}

        self.assertEqual(made, dict.fromkeys(["new.sqlite3", "new.sqlite3-wal", "new.sqlite3-shm"], "-rw-------"))

    def test_a_second_connection_leaves_the_first_one_its_lock(self):
        """Without it, who closes the file elsewhere is taken for the last one, and removes the log written to here."""
        elsewhere = "import sqlite3, sys; one = sqlite3.connect(sys.argv[1]); one.execute('SELECT * FROM kept'); one.close()"
        with self.connected() as first, first.cursor() as cursor:
            cursor.execute("CREATE TABLE kept (id integer)")
            with self.connected() as second, second.cursor() as other_cursor:
                other_cursor.execute("SELECT * FROM kept")

                subprocess.run([sys.executable, "-c", elsewhere, self.file], check=True)  # noqa: S603 - no input of anybody's

                self.assertTrue(self.file.with_name("new.sqlite3-wal").exists())


@skipUnless(connection.vendor == "postgresql", "about the database backend for PostgreSQL")
class LongestWaitTests(ConcurrentTestCase):
    def setUp(self):
        super().setUp()
        self.alice_client = self.as_user(self.alice)
        connection.close()
        self.enterContext(mock.patch.object(DatabaseWrapper, "longest_wait", 1.2))
        self.addCleanup(setattr, DatabaseWrapper, "silent_until", 0.0)

    @contextmanager
    def locked(self, model):
        with closing(connection.copy()) as other, other.cursor() as cursor:
            cursor.execute("SET idle_in_transaction_session_timeout = 5000")  # the longest that a test may hang
            cursor.execute("BEGIN")
            cursor.execute(f"LOCK TABLE {model._meta.db_table}")
            yield

    def get_user(self):
        response = self.alice_client.get("/api/auth/user")
        close_old_connections()  # as at the end of each request; the test client leaves it out
        return response

    def assert_refused(self, *reasons):
        """One request for each of the reasons, all at once."""
        responses = self.at_once(*[self.get_user] * len(reasons))

        for response in responses:
            self.assertEqual((response.status_code, response.json()), (503, {"detail": "Something went wrong"}))
            self.assertIn("Retry-After", response.headers)
        found = [line["traceback"].splitlines()[-1] for line in self.log_lines("debug")[-len(reasons) :]]
        for reason, line in zip(sorted(reasons), sorted(line.partition(": ")[2] for line in found), strict=True):
            self.assertIn(reason, line)

    def test_the_server_ends_a_statement_before(self):
        with self.locked(AuthToken):
            self.assert_refused("canceling statement due to statement timeout")

        self.assertEqual(self.get_user().status_code, 200)

    def test_what_the_server_does_not_end_is_given_up_and_nobody_tries_again_for_a_while(self):
        with self.locked(AuthToken), mock.patch.dict(connection.settings_dict["OPTIONS"], options="-c statement_timeout=0"):
            self.assert_refused("timeout expired")
        self.assertGreater(DatabaseWrapper.silent_until, 0)

        DatabaseWrapper.silent_until = time.monotonic() + 60
        self.assert_refused("The server did not answer a moment ago.")

        DatabaseWrapper.silent_until = time.monotonic()
        self.assertEqual(self.get_user().status_code, 200)
        self.assertEqual(DatabaseWrapper.silent_until, 0)

    def test_a_transaction_is_given_up_as_a_single_statement_is(self):
        body = {"receiver": "bob", "content": "hi"}

        with self.locked(Mailbox), mock.patch.dict(connection.settings_dict["OPTIONS"], options="-c statement_timeout=0"):
            ((response, seconds),) = self.at_once(lambda: timed(lambda: self.alice_client.post("/api/message", body)))

        self.assertEqual(response.status_code, 503)
        self.assertIn("timeout expired", self.log_lines("debug")[-1]["traceback"])
        self.assertLess(seconds, 2 * DatabaseWrapper.longest_wait)
        self.assertGreater(DatabaseWrapper.silent_until, 0)
        DatabaseWrapper.silent_until = 0.0
        self.assertFalse(Message.objects.exists())

    def test_one_tries_for_all(self):
        with closing(socket.create_server(("127.0.0.1", 0))) as silent:
            nowhere = {"HOST": "127.0.0.1", "PORT": silent.getsockname()[1]}
            with mock.patch.dict(connection.settings_dict, nowhere):
                DatabaseWrapper.silent_until = time.monotonic()
                self.assert_refused("connection timeout expired", *["The server did not answer a moment ago."] * 3)

        self.assertGreater(DatabaseWrapper.silent_until, time.monotonic())

    def test_each_tries_for_itself_where_the_server_refuses(self):
        with mock.patch.dict(connection.settings_dict, HOST="127.0.0.1", PORT=free_port()):
            responses = self.at_once(self.get_user) + self.at_once(*[self.get_user] * 4)

        self.assertEqual([response.status_code for response in responses], [503] * 5)
        for line in self.log_lines("debug")[-5:]:
            self.assertIn("Connection refused", line["traceback"])
        self.assertEqual([response.status_code for response in self.at_once(*[self.get_user] * 4)], [200] * 4)

    def test_holds_for_the_process_that_serves_requests(self):
        script = "import config.wsgi; from config.database.sql import fetch_one; print(*fetch_one('SHOW statement_timeout'))"
        result = subprocess.run(  # noqa: S603 - no input of anybody's
            [sys.executable, "-c", script],
            cwd=settings.BASE_DIR,
            env={**os.environ, "DATABASE_URL": test_database_url()},
            capture_output=True,
            text=True,
        )

        self.assertEqual((result.stdout, result.stderr), ("4050ms\n", ""))


@skipUnless(connection.vendor == "postgresql", "about the database backend for PostgreSQL")
class KeptConnectionTests(ConcurrentTestCase):
    def test_one_that_the_server_closed_is_replaced(self):
        client = self.as_user(self.alice)
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            (process,) = cursor.fetchone()
        other = connection.copy()
        with other.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [process])  # waits until it has ended
            self.assertEqual(cursor.fetchone(), (True,))
        other.close()

        close_old_connections()  # as at the begin of each request; the test client leaves it out
        response = client.get("/api/message")

        self.assertEqual(response.status_code, 200)

    def test_one_that_was_closed_here_is_replaced(self):
        client = self.as_user(self.alice)
        connection.connection.close()

        close_old_connections()
        response = client.get("/api/message")

        self.assertEqual(response.status_code, 200)

    def test_a_sound_one_is_not_asked_for_its_health(self):
        client = self.as_user(self.alice)
        close_old_connections()

        with mock.patch.object(type(connections["default"]), "is_usable", side_effect=AssertionError("asked")):
            response = client.get("/api/message")

        self.assertEqual(response.status_code, 200)

    def test_one_to_a_server_that_takes_no_writes_any_more_is_replaced(self):
        client = self.as_user(self.alice)
        body = {"receiver": "bob", "content": "hi"}
        with connection.cursor() as cursor:
            cursor.execute("SET default_transaction_read_only = on")  # as a primary that is about to be demoted

        refused = client.post("/api/message", body)
        accepted = client.post("/api/message", body)

        self.assertEqual((refused.status_code, refused.json()), (503, {"detail": "Something went wrong"}))
        self.assertIn("Retry-After", refused.headers)
        self.assertIn("ReadOnlySqlTransaction", self.log_lines("debug")[-1]["traceback"])
        self.assertEqual(accepted.status_code, 201)
        self.assertEqual(Message.objects.count(), 1)
