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
    """Return Django's settings of the database for this DATABASE_URL."""
    with mock.patch.dict(os.environ, DATABASE_URL=url):
        return database("DATABASE_URL", default)


class PostgreSQLTests(SimpleTestCase):
    def test_reads_the_parts_of_a_url(self):
        for scheme in ("postgresql", "postgres"):
            with self.subTest(scheme=scheme):
                result = configure(f"{scheme}://u%40x:p%3Aw%2F@host:5433/name?sslmode=require")

                self.assertEqual(
                    {part: result[part] for part in ("ENGINE", "USER", "PASSWORD", "HOST", "PORT", "NAME")},
                    {
                        "ENGINE": "config.database.postgresql",
                        "USER": "u@x",
                        "PASSWORD": "p:w/",
                        "HOST": "host",
                        "PORT": "5433",
                        "NAME": "name",
                    },
                )
                self.assertEqual(result["OPTIONS"]["sslmode"], "require")
                self.assertNotIn("target_session_attrs", result["OPTIONS"])

    def test_uses_the_primary_of_several_hosts(self):
        result = configure("postgresql://u:p@host1:5432,host2:5433/name")

        self.assertEqual((result["HOST"], result["PORT"]), ("host1,host2", "5432,5433"))
        self.assertEqual(result["OPTIONS"]["target_session_attrs"], "read-write")

    def test_commits_are_synchronous_with_any_options_in_the_url(self):
        for query in ("", "?options=-c%20synchronous_commit%3Doff", "?options=-c%20statement_timeout%3D1000"):
            with self.subTest(query=query):
                options = configure(f"postgresql://host/name{query}")["OPTIONS"]["options"]

                self.assertEqual(re.findall(r"synchronous_commit=(\w+)", options)[-1], "on")

    def test_waits_less_than_five_seconds_for_a_server_that_does_not_respond(self):
        options = configure("postgresql://host/name")["OPTIONS"]

        self.assertLess(options["connect_timeout"], 5)
        self.assertLessEqual(options["tcp_user_timeout"], 5_000)
        self.assertRegex(options["options"], r"lock_timeout=\d+")

    def test_disables_server_side_cursors_which_poolers_do_not_support(self):
        self.assertTrue(configure("postgresql://host/name")["DISABLE_SERVER_SIDE_CURSORS"])

    def test_only_a_process_that_serves_requests_limits_its_statements(self):
        self.assertNotIn("statement_timeout", configure("postgresql://host/name")["OPTIONS"]["options"])


class SQLiteTests(SimpleTestCase):
    def setUp(self):
        super().setUp()
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))

    def test_decodes_the_path_in_a_url(self):
        for name in ("db.sqlite3", "with%20space.sqlite3"):
            with self.subTest(name=name):
                result = configure(f"sqlite:///{self.folder}/{name}")

                self.assertEqual(result["NAME"], self.folder / name.replace("%20", " "))
                self.assertEqual(result["OPTIONS"]["transaction_mode"], "IMMEDIATE")

    def test_default_path_is_not_decoded(self):
        for name in ("a b", "a%41b", "a#b", "a?b"):
            with self.subTest(name=name):
                folder = self.folder / name
                folder.mkdir()

                self.assertEqual(configure("", folder / "db.sqlite3")["NAME"], folder / "db.sqlite3")


class DurabilityTests(TestCase):
    def fetch_value(self, query):
        """Return the first value of the query's result."""
        with connection.cursor() as cursor:
            cursor.execute(query)
            return cursor.fetchone()[0]

    def test_syncs_each_commit(self):
        if connection.vendor == "sqlite":
            self.assertEqual(self.fetch_value("PRAGMA journal_mode"), "wal")
            self.assertEqual(self.fetch_value("PRAGMA synchronous"), 2)  # FULL
        else:
            self.assertEqual(self.fetch_value("SHOW synchronous_commit"), "on")
            self.assertEqual(self.fetch_value("SHOW lock_timeout"), "3s")
