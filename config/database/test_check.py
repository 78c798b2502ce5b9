"""The start of the server, `manage.py migrate` and `manage.py runserver` if the database cannot be used, or not yet."""

import os
import socketserver
import struct
import subprocess
import sys
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path
from unittest import skipUnless
from urllib.parse import urlsplit

from django.conf import settings
from django.db import connection
from django.test import TransactionTestCase

from config.database import test_changes
from config.testing.http_client import free_port

PASSWORD = "topsecret"


FAIL_TWICE = """
from django.core.management import CommandError, call_command
for _ in range(2):
    try:
        call_command("migrate", "unknown")
    except CommandError:
        print("failed")
"""
COMMANDS = {
    "serve": ["-m", "config.server"],
    "migrate": ["manage.py", "migrate"],
    "fail to migrate twice": ["manage.py", "shell", "-c", FAIL_TWICE],
    "runserver": ["manage.py", "runserver"],
}


def start(command, database_url):
    """Start the command with this DATABASE_URL, and return its process."""
    return subprocess.Popen(  # noqa: S603 - the project's own manage.py and server
        [sys.executable, *COMMANDS[command]],
        cwd=settings.BASE_DIR,
        env={**os.environ, "DATABASE_URL": database_url, "PORT": str(free_port())},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


class FakePostgreSQL(socketserver.ThreadingTCPServer):
    """Rejects each session with the next of the errors, given as (SQLSTATE, message). The last error is repeated."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, port, *errors):
        self.errors = list(errors)
        super().__init__(("127.0.0.1", port), self.Session)

    class Session(socketserver.StreamRequestHandler):
        def handle(self):
            (length,) = struct.unpack("!I", self.rfile.read(4))
            while self.rfile.read(length - 4)[:2] != b"\0\3":  # the client first asks for encryption
                self.wfile.write(b"N")
                (length,) = struct.unpack("!I", self.rfile.read(4))
            errors = self.server.errors
            state, message = errors.pop(0) if len(errors) > 1 else errors[0]
            fields = {"S": "FATAL", "V": "FATAL", "C": state, "M": message}
            content = b"".join(f"{key}{value}\0".encode() for key, value in fields.items())
            self.wfile.write(b"E" + struct.pack("!I", len(content) + 5) + content + b"\0")


class DatabaseTestCase(TransactionTestCase):
    def setUp(self):
        super().setUp()
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))

    @contextmanager
    def new_database(self, options=""):
        """Create an empty database of the kind that the tests run on, and yield its URL."""
        if connection.vendor == "sqlite":
            yield f"sqlite:///{self.folder}/new.sqlite3"
            return
        name = f"{connection.settings_dict['NAME']}_new"
        with connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {name} TEMPLATE template0 {options}")
            try:
                yield urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{name}").geturl()
            finally:
                cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def assert_aborts(self, process, reason):
        """Assert that the process ends with one line that names DATABASE_URL and the reason, and shows no password."""
        _, error = process.communicate(timeout=60)

        self.assertEqual(process.returncode, 1, error)
        self.assertRegex(error, r"\ADATABASE_URL: [^\n]+\n\Z")
        self.assertIn(reason, error)
        self.assertNotIn(PASSWORD, error)


class UnusableDatabaseTests(DatabaseTestCase):
    def test_aborts_if_sqlite_cannot_open_the_file(self):
        (self.folder / "text").write_text("This is no database, but long enough to be taken for one." * 20)

        for file, reason in (("text", "file is not a database"), ("missing/db", "missing/db"), (".", "not a file")):
            with self.subTest(file=file):
                self.assert_aborts(start("migrate", f"sqlite:///{self.folder}/{file}"), reason)

    def test_aborts_if_the_folder_is_not_writable(self):
        self.assert_aborts(start("migrate", "sqlite:////proc/db.sqlite3"), "")

    def test_aborts_if_the_password_is_not_encoded(self):
        for password in (f"{PASSWORD}@{PASSWORD}", f"12/{PASSWORD}"):
            url = f"postgresql://user:{password}@127.0.0.1:1/name"
            self.assert_aborts(start("migrate", url), "write @ as %40 and / as %2F")

    def test_aborts_if_the_server_rejects_the_session(self):
        for state, reason in (
            ("28P01", 'password authentication failed for user "user"'),
            ("3D000", 'database "name" does not exist'),
        ):
            with self.subTest(state=state), FakePostgreSQL(0, (state, reason)) as server:
                threading.Thread(target=server.serve_forever).start()
                url = f"postgresql://user:{PASSWORD}@127.0.0.1:{server.server_address[1]}/name"

                for command in COMMANDS:
                    self.assert_aborts(start(command, url), reason)
                server.shutdown()

    def test_waits_for_a_server_that_is_starting(self):
        """The server first does not listen, then accepts no sessions, then rejects the password."""
        port = free_port()
        process = start("migrate", f"postgresql://user:{PASSWORD}@127.0.0.1:{port}/name")
        with self.assertRaises(subprocess.TimeoutExpired):
            process.wait(timeout=3)
        starting = ("57P03", "the database system is starting up")

        with FakePostgreSQL(port, *[starting] * 4, ("28P01", "password authentication failed")) as server:
            threading.Thread(target=server.serve_forever).start()

            self.assert_aborts(process, "password authentication failed")
            server.shutdown()

    @skipUnless(connection.vendor == "postgresql", "SQLite stores every text")
    def test_aborts_if_the_encoding_is_not_utf_8(self):
        for encoding in ("LATIN1", "SQL_ASCII"):
            with self.subTest(encoding=encoding), self.new_database(f"ENCODING '{encoding}' LOCALE 'C'") as url:
                self.assert_aborts(start("migrate", url), f"the encoding of the database is {encoding}")


class MigrateTests(DatabaseTestCase):
    @skipUnless(connection.vendor == "postgresql", "SQLite has no such settings")
    def test_settings_of_the_database_have_no_effect(self):
        with self.new_database() as url:
            name = urlsplit(url).path[1:]
            with connection.cursor() as cursor:
                for setting, value in test_changes.SessionSettingsTests.SETTINGS.items():
                    cursor.execute(f"ALTER DATABASE {name} SET {setting} = '{value}'")
            process = start("migrate", url)

            self.assertEqual((process.communicate(timeout=120)[1], process.returncode), ("", 0))

    def test_failed_migration_releases_its_lock(self):
        with self.new_database() as url:
            process = start("fail to migrate twice", url)
            self.addCleanup(process.kill)

            self.assertEqual((process.communicate(timeout=60)[1], process.returncode), ("", 0))

    def test_several_processes_migrate_at_the_same_time(self):
        """On SQLite, two of them through a link in another folder."""
        with self.new_database() as url:
            other = url
            if connection.vendor == "sqlite":
                link = self.folder / "folder" / "link.sqlite3"
                link.parent.mkdir()
                link.symlink_to(self.folder / "new.sqlite3")
                other = f"sqlite:///{link}"
            processes = [start("migrate", each) for each in (url, other, url, other)]
            errors = [process.communicate(timeout=300)[1] for process in processes]

        self.assertEqual(errors, [""] * 4)
        self.assertEqual([process.returncode for process in processes], [0] * 4)
