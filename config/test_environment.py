"""Settings from the environment: what makes sense is taken, what makes none stops the start with one line."""

import os
import re
import runpy
import stat
import subprocess
import sys
import tempfile
from datetime import timedelta
from pathlib import Path
from unittest import mock

from django.conf import settings
from django.db import connection
from django.test import SimpleTestCase, TestCase

from config import environment

VARIABLES = (
    "DATABASE_URL", "PORT", "HOST", "WEB_CONCURRENCY", "SECRET_KEY", "DEBUG", "ALLOWED_HOSTS", "TRUSTED_PROXIES",
    "TOKEN_TTL", "PASSWORD_MIN_LENGTH", "LOG_DIR", "HTTPS", "CORS_ALLOWED_ORIGINS", "LIMIT_LOGIN", "LIMIT_LOGIN_ADDRESS",
    "LIMIT_LOGIN_NAME", "LIMIT_PASSWORD", "LIMIT_SIGNUP", "LIMIT_SEND",
)  # fmt: skip
HIDDEN = "topsecret"


class EnvironmentTestCase(SimpleTestCase):
    def setUp(self):
        super().setUp()
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))

    def environ(self, **variables):
        """The environment with these of our variables and no others."""
        others = {name: value for name, value in os.environ.items() if name not in VARIABLES}
        return {**others, "LOG_DIR": str(self.folder / "logs"), "SECRET_KEY": "x" * 50, **variables}

    def settings_with(self, **variables):
        """What config/settings.py makes of these variables."""
        with mock.patch.dict(os.environ, self.environ(**variables), clear=True):
            return runpy.run_path(str(settings.BASE_DIR / "config" / "settings.py"))

    def assertStops(self, variable, value):  # noqa: N802 - unittest's way to name it
        """The start is stopped, with one line that names the variable and gives no password away."""
        with self.subTest(variable=variable, value=value):
            with self.assertRaises(SystemExit) as stop:
                self.settings_with(**{variable: value})

            self.assertRegex(stop.exception.code, rf"\A{variable}: [^\r\n]+\Z")
            self.assertNotIn(HIDDEN, stop.exception.code)


class DefaultTests(EnvironmentTestCase):
    def test_are_those_of_the_readme(self):
        for empty in ({}, {name: "" for name in VARIABLES if name not in ("LOG_DIR", "SECRET_KEY")}):
            with self.subTest(empty=empty):
                found = self.settings_with(**empty)

                self.assertIs(found["DEBUG"], False)
                self.assertEqual(found["ALLOWED_HOSTS"], ["localhost", "127.0.0.1", "[::1]"])
                self.assertEqual((found["HOST"], found["PORT"]), ("127.0.0.1", 8000))
                self.assertEqual(found["WEB_CONCURRENCY"], os.cpu_count())
                self.assertEqual(found["TRUSTED_PROXIES"], 0)
                self.assertEqual(found["REST_KNOX"]["TOKEN_TTL"], timedelta(hours=10))
                self.assertEqual(found["PASSWORD_MIN_LENGTH"], 8)
                self.assertEqual(found["DATABASES"]["default"]["NAME"], settings.BASE_DIR / "db.sqlite3")


class SenseTests(EnvironmentTestCase):
    def test_good_values_are_taken(self):
        cases = (
            ("DEBUG", "on", True), ("DEBUG", "1", True), ("DEBUG", "True", True),
            ("DEBUG", "off", False), ("DEBUG", "no", False),
            ("PORT", "1", 1), ("PORT", "65535", 65535),
            ("HOST", "10.0.0.1", "10.0.0.1"), ("HOST", "::1", "::1"),
            ("WEB_CONCURRENCY", "1", 1), ("WEB_CONCURRENCY", "64", 64),
            ("TRUSTED_PROXIES", "2", 2),
            ("TOKEN_TTL", "1", 1), ("TOKEN_TTL", "31536000", 31_536_000),
            ("PASSWORD_MIN_LENGTH", "12", 12),
            ("ALLOWED_HOSTS", "*", ["*"]),
            ("ALLOWED_HOSTS", "chat.example, .example.org,[::1]", ["chat.example", ".example.org", "[::1]"]),
            ("SECRET_KEY", "a key of one's own", "a key of one's own"),
            ("CORS_ALLOWED_ORIGINS", "https://a.example, http://[::1]:3000", ["https://a.example", "http://[::1]:3000"]),
            ("LIMIT_SEND", "10/60", environment.Limit(count=10, seconds=60)), ("LIMIT_SEND", "off", None),
            ("LIMIT_LOGIN", "off", None),
        )  # fmt: skip

        for variable, value, expected in cases:
            with self.subTest(variable=variable, value=value):
                self.assertEqual(self.settings_with(**{variable: value})[variable], expected)

    def test_limits_of_log_in_are_off_with_the_first_of_them(self):
        off, one_kept = self.settings_with(LIMIT_LOGIN="off"), self.settings_with(LIMIT_LOGIN="off", LIMIT_LOGIN_NAME="9/60")

        self.assertEqual((off["LIMIT_LOGIN_ADDRESS"], off["LIMIT_LOGIN_NAME"]), (None, None))
        self.assertEqual(one_kept["LIMIT_LOGIN_NAME"], environment.Limit(count=9, seconds=60))

    def test_password_length_reaches_the_validator(self):
        validators = self.settings_with(PASSWORD_MIN_LENGTH="12")["AUTH_PASSWORD_VALIDATORS"]

        self.assertIn({"min_length": 12}, [validator.get("OPTIONS") for validator in validators])

    def test_token_lifetime_reaches_knox(self):
        found = self.settings_with(TOKEN_TTL="60")

        self.assertEqual(found["REST_KNOX"]["TOKEN_TTL"], timedelta(minutes=1))


class NonsenseTests(EnvironmentTestCase):
    def test_numbers(self):
        nonsense = ("abc", "-1", "1e9", "1.5", " ", "0x10", "1_000", "٣", "9" * 5_000, "8000\n")
        bounds = {
            "PORT": ("0", "70000", "65536"),
            "WEB_CONCURRENCY": ("0", "100000"),
            "TRUSTED_PROXIES": ("1000",),
            "TOKEN_TTL": ("0", "99999999999"),  # past what a date can hold
            "PASSWORD_MIN_LENGTH": ("0", "100000"),
        }

        for variable, outside in bounds.items():
            for value in nonsense + outside:
                self.assertStops(variable, value)

    def test_switches(self):
        for value in ("maybe", "2", "onn", "on\n"):
            self.assertStops("DEBUG", value)

    def test_origins(self):
        for value in ("*", "example.com", "https://", "https://a/", "https://a,,https://b", "https://a b"):
            self.assertStops("CORS_ALLOWED_ORIGINS", value)

    def test_limits(self):
        for variable in (variable for variable in VARIABLES if variable.startswith("LIMIT_")):
            for value in ("10", "10/", "/60", "0/60", "10/0", "-1/60", "10/60s", "1.5/60", "on", "9999999999/1", "10/60\n"):
                self.assertStops(variable, value)

    def test_hosts(self):
        for value in ("http://a", "a,,b", "a:8000", "a/b", ",", "a b", "[::1", "a\nb", "*.example", "-"):
            self.assertStops("ALLOWED_HOSTS", value)

    def test_log_folder(self):
        file = self.folder / "file"
        file.touch()

        for path in (file, file / "logs", file / "a\nb"):
            self.assertStops("LOG_DIR", str(path))

    def test_log_folder_that_cannot_be_written(self):
        with mock.patch("os.access", return_value=False):  # whoever runs the tests, root may write everywhere
            self.assertStops("LOG_DIR", str(self.folder))

    def test_database_urls(self):
        urls = (
            "mysql://x",
            "x",
            "://",
            "postgresql://",
            "postgresql:///",
            "postgresql://host",
            "postgresql://host/",
            f"postgresql://u:{HIDDEN}@",
            f"postgresql://u:{HIDDEN}@/",
            f"postgresql://u:{HIDDEN}@[/x",
            f"postgresql://u:{HIDDEN}@h:xx/name",
            f"postgresql://u:{HIDDEN}@h:5432,h2:xx/name",
            f"postgresql://u:{HIDDEN}@h/name?nonsense=1",
            f"postgresql://u:{HIDDEN}%zz@h/name",
            f"postgresql://u:{HIDDEN}/with/slashes@h:5432/name",
            f"postgresql:u:{HIDDEN}@h/name",
            f"mysql://u:{HIDDEN}@h/name",
            f"{HIDDEN}",
            "postgresql://h:0/name",
            "postgresql://h:99999/name",
            "sqlite://",
            "sqlite:///",
            f"sqlite:///{self.folder}/missing/db.sqlite3",
            f"sqlite:///{self.folder}/missing\n/db.sqlite3",
            f"sqlite:///{self.folder}",
            "sqlite:///:memory:/x",
        )

        for url in urls:
            self.assertStops("DATABASE_URL", url)


class DatabaseUrlTests(EnvironmentTestCase):
    def database(self, url, default=Path("/unused")):
        with mock.patch.dict(os.environ, DATABASE_URL=url):
            return environment.database("DATABASE_URL", default)

    def test_parts_of_a_url(self):
        for scheme in ("postgresql", "postgres"):
            with self.subTest(scheme=scheme):
                found = self.database(f"{scheme}://u%40x:p%3Aw%2F@host:5433/name?sslmode=require")

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

    def test_of_several_hosts_the_primary(self):
        found = self.database("postgresql://u:p@host1:5432,host2:5433/name")

        self.assertEqual((found["HOST"], found["PORT"]), ("host1,host2", "5432,5433"))
        self.assertEqual(found["OPTIONS"]["target_session_attrs"], "read-write")

    def test_commits_are_synchronous_whatever_the_url_says(self):
        for query in ("", "?options=-c%20synchronous_commit%3Doff", "?options=-c%20statement_timeout%3D1000"):
            with self.subTest(query=query):
                options = self.database(f"postgresql://host/name{query}")["OPTIONS"]["options"]

                self.assertEqual(re.findall(r"synchronous_commit=(\w+)", options)[-1], "on")

    def test_no_answer_waits_for_a_database_that_is_gone(self):
        options = self.database("postgresql://host/name")["OPTIONS"]

        self.assertLess(options["connect_timeout"], 5)
        self.assertLessEqual(options["tcp_user_timeout"], 5_000)
        self.assertRegex(options["options"], r"lock_timeout=\d+")

    def test_no_cursor_stays_open_on_a_server_that_a_pooler_shares_out(self):
        self.assertTrue(self.database("postgresql://host/name")["DISABLE_SERVER_SIDE_CURSORS"])

    def test_only_a_process_that_serves_requests_has_its_statements_ended(self):
        self.assertNotIn("statement_timeout", self.database("postgresql://host/name")["OPTIONS"]["options"])

    def test_sqlite_file(self):
        for name in ("db.sqlite3", "with%20space.sqlite3"):
            with self.subTest(name=name):
                found = self.database(f"sqlite:///{self.folder}/{name}")

                self.assertEqual(found["NAME"], self.folder / name.replace("%20", " "))
                self.assertEqual(found["OPTIONS"]["transaction_mode"], "IMMEDIATE")

    def test_default_file_is_taken_to_the_letter(self):
        for name in ("a b", "a%41b", "a#b", "a?b"):
            with self.subTest(name=name):
                folder = self.folder / name
                folder.mkdir()

                self.assertEqual(self.database("", folder / "db.sqlite3")["NAME"], folder / "db.sqlite3")


class DurabilityTests(TestCase):
    """What the connection of the running tests says of itself."""

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


class SecretKeyTests(EnvironmentTestCase):
    def setUp(self):
        super().setUp()
        self.file = self.folder / "key"

    def key(self, **variables):
        with mock.patch.dict(os.environ, self.environ(**{"SECRET_KEY": "", **variables}), clear=True):
            return environment.secret("SECRET_KEY", self.file)

    def test_is_made_at_first_and_kept_for_its_owner_alone(self):
        first, second = self.key(), self.key()

        self.assertGreaterEqual(len(first), 50)
        self.assertEqual((second, self.file.read_text()), (first, first))
        self.assertEqual(stat.S_IMODE(self.file.stat().st_mode), 0o600)
        self.assertEqual([*self.folder.iterdir()], [self.file])

    def test_is_another_one_elsewhere(self):
        first = self.key()
        self.file.unlink()

        self.assertNotEqual(self.key(), first)

    def test_variable_comes_first(self):
        found = self.key(SECRET_KEY="of the variable")

        self.assertEqual(found, "of the variable")
        self.assertFalse(self.file.exists())

    def test_stops_where_no_key_can_be_kept(self):
        self.file = self.folder / "missing" / "key"

        with self.assertRaisesRegex(SystemExit, r"\ASECRET_KEY: [^\n]+\Z"):
            self.key()

    def test_stops_at_a_file_that_holds_no_key(self):
        for content in (b"", b"\n", b"\xff"):
            self.file.write_bytes(content)

            with self.subTest(content=content), self.assertRaisesRegex(SystemExit, r"\ASECRET_KEY: [^\n]+\Z"):
                self.key()

    def test_processes_that_start_at_once_share_one(self):
        script = (
            "import sys, pathlib; from config.environment import secret; print('ready', flush=True); sys.stdin.read(); "
            + ("print(secret('SECRET_KEY', pathlib.Path(sys.argv[1])))")
        )
        processes = [
            subprocess.Popen(  # noqa: S603 - what it runs stands above
                [sys.executable, "-c", script, str(self.file)],
                cwd=settings.BASE_DIR,
                env=self.environ(SECRET_KEY=""),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(6)
        ]
        for process in processes:
            process.stdout.readline()

        for process in processes:
            process.stdin.close()  # all begin now
        keys = [process.stdout.read() for process in processes]

        self.assertEqual([process.wait(timeout=30) for process in processes], [0] * 6)
        self.assertEqual({*keys}, {f"{self.file.read_text()}\n"})
        self.assertEqual([*self.folder.iterdir()], [self.file])
        for process in processes:
            process.stdout.close()


class StartTests(EnvironmentTestCase):
    """In real processes."""

    def run_command(self, *command, **variables):
        return subprocess.run(  # noqa: S603 - our own manage.py and server
            [sys.executable, *command],
            cwd=settings.BASE_DIR,
            env=self.environ(**variables),
            capture_output=True,
            text=True,
            timeout=60,
        )

    def test_goes_on_with_good_values(self):
        run = self.run_command("manage.py", "check", PORT="8001", DEBUG="off", ALLOWED_HOSTS="chat.example")

        self.assertEqual((run.returncode, run.stderr), (0, ""))

    def test_stops_with_one_line_that_names_the_variable(self):
        check, server = ("manage.py", "check"), ("-m", "gunicorn", "--config", "python:config.server.gunicorn")

        for command, variable, value in (
            (check, "DEBUG", "maybe"),
            (check, "DATABASE_URL", f"postgresql://u:{HIDDEN}@[/x"),
            (server, "PORT", "abc"),
            (server, "HOST", "192.0.2.1"),  # no address of this machine
            (server, "LOG_DIR", f"{__file__}/logs"),
        ):
            with self.subTest(command=command, variable=variable):
                run = self.run_command(*command, **{variable: value})

                self.assertNotEqual(run.returncode, 0)
                self.assertRegex(run.stderr, rf"\A{variable}: [^\n]+\n\Z")
                self.assertEqual(run.stdout, "")
                self.assertNotIn(HIDDEN, run.stderr)
