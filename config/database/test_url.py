"""The configuration of the database connection from DATABASE_URL."""

import os
import re
import tempfile
from pathlib import Path
from unittest import mock

from django.db import connection
from django.test import SimpleTestCase, TestCase

from config.database.url import database


def configure(url, default=Path("/unused")):
    with mock.patch.dict(os.environ, DATABASE_URL=url):
        return database("DATABASE_URL", default)


class PostgreSQLTests(SimpleTestCase):
    def test_parts_of_a_url(self):
        for scheme in ("postgresql", "postgres"):
            with self.subTest(scheme=scheme):
                found = configure(f"{scheme}://u%40x:p%3Aw%2F@host:5433/name?sslmode=require")

                self.assertEqual(
                    {part: found[part] for part in ("ENGINE", "USER", "PASSWORD", "HOST", "PORT", "NAME")},
                    {
                        "ENGINE": "config.database.postgresql",
                        "USER": "u@x",
                        "PASSWORD": "p:w/",
                        "HOST": "host",
                        "PORT": "5433",
                        "NAME": "name",
                    },
                )
                self.assertEqual(found["OPTIONS"]["sslmode"], "require")
                self.assertNotIn("target_session_attrs", found["OPTIONS"])

    def test_uses_the_primary_of_several_hosts(self):
        found = configure("postgresql://u:p@host1:5432,host2:5433/name")

        self.assertEqual((found["HOST"], found["PORT"]), ("host1,host2", "5432,5433"))
        self.assertEqual(found["OPTIONS"]["target_session_attrs"], "read-write")

    def test_commits_are_synchronous_whatever_the_url_says(self):
        for query in ("", "?options=-c%20synchronous_commit%3Doff", "?options=-c%20statement_timeout%3D1000"):
            with self.subTest(query=query):
                options = configure(f"postgresql://host/name{query}")["OPTIONS"]["options"]

                self.assertEqual(re.findall(r"synchronous_commit=(\w+)", options)[-1], "on")

    def test_waits_less_than_five_seconds_for_a_server_that_is_gone(self):
        options = configure("postgresql://host/name")["OPTIONS"]

        self.assertLess(options["connect_timeout"], 5)
        self.assertLessEqual(options["tcp_user_timeout"], 5_000)
        self.assertRegex(options["options"], r"lock_timeout=\d+")

    def test_no_cursor_stays_open_on_a_connection_that_a_pooler_shares(self):
        self.assertTrue(configure("postgresql://host/name")["DISABLE_SERVER_SIDE_CURSORS"])

    def test_only_a_process_that_serves_requests_limits_its_statements(self):
        self.assertNotIn("statement_timeout", configure("postgresql://host/name")["OPTIONS"]["options"])


class SQLiteTests(SimpleTestCase):
    def setUp(self):
        super().setUp()
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))

    def test_path_in_a_url(self):
        for name in ("db.sqlite3", "with%20space.sqlite3"):
            with self.subTest(name=name):
                found = configure(f"sqlite:///{self.folder}/{name}")

                self.assertEqual(found["NAME"], self.folder / name.replace("%20", " "))
                self.assertEqual(found["OPTIONS"]["transaction_mode"], "IMMEDIATE")

    def test_default_path_is_not_decoded(self):
        for name in ("a b", "a%41b", "a#b", "a?b"):
            with self.subTest(name=name):
                folder = self.folder / name
                folder.mkdir()

                self.assertEqual(configure("", folder / "db.sqlite3")["NAME"], folder / "db.sqlite3")


class DurabilityTests(TestCase):
    def ask(self, question):
        with connection.cursor() as cursor:
            cursor.execute(question)
            return cursor.fetchone()[0]

    def test_syncs_each_commit(self):
        if connection.vendor == "sqlite":
            self.assertEqual(self.ask("PRAGMA journal_mode"), "wal")
            self.assertEqual(self.ask("PRAGMA synchronous"), 2)  # FULL
        else:
            self.assertEqual(self.ask("SHOW synchronous_commit"), "on")
            self.assertEqual(self.ask("SHOW lock_timeout"), "3s")
