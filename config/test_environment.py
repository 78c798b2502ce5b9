"""Settings from environment variables: valid values are used, an invalid value prevents startup with one line."""

import os
import runpy
import stat
import subprocess
import sys
import tempfile
from datetime import timedelta
from pathlib import Path
from unittest import mock

from django.conf import settings
from django.test import SimpleTestCase

from config import environment
from config.cpus import usable_cpus

VARIABLES = (
    "DATABASE_URL", "DATABASE_URL_FILE", "PORT", "HOST", "WEB_CONCURRENCY", "SECRET_KEY", "SECRET_KEY_FILE", "DEBUG",
    "ALLOWED_HOSTS", "TRUSTED_PROXIES", "TOKEN_TTL", "PASSWORD_MIN_LENGTH", "LOG_DIR", "HTTPS", "CORS_ALLOWED_ORIGINS",
    "METRICS", "LIMIT_LOGIN", "LIMIT_LOGIN_ADDRESS", "LIMIT_LOGIN_NAME", "LIMIT_PASSWORD", "LIMIT_SIGNUP", "LIMIT_SEND",
)  # fmt: skip
PASSWORD = "topsecret"


class EnvironmentTestCase(SimpleTestCase):
    def setUp(self):
        super().setUp()
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))

    def environ(self, **variables):
        """Return the environment of this process with these variables of the service and no others."""
        others = {name: value for name, value in os.environ.items() if name not in VARIABLES}
        return {**others, "LOG_DIR": str(self.folder / "logs"), "SECRET_KEY": "x" * 50, **variables}

    def settings_with(self, **variables):
        """Return the content of config/settings.py, run with these variables."""
        with mock.patch.dict(os.environ, self.environ(**variables), clear=True):
            return runpy.run_path(str(settings.BASE_DIR / "config" / "settings.py"))

    def assert_aborts(self, variable, *values):
        """Assert that each value ends the process with one line that names the variable and shows no password."""
        for value in values:
            with self.subTest(variable=variable, value=value):
                with self.assertRaises(SystemExit) as stop:
                    self.settings_with(**{variable: value})

                self.assertRegex(stop.exception.code, rf"\A{variable}: [^\r\n]+\Z")
                self.assertNotIn(PASSWORD, stop.exception.code)


class ValidValueTests(EnvironmentTestCase):
    def test_defaults_are_those_of_the_readme(self):
        for variables in ({}, {name: "" for name in VARIABLES if name not in ("LOG_DIR", "SECRET_KEY")}):
            with self.subTest(variables=variables):
                values = self.settings_with(**variables)

                self.assertIs(values["DEBUG"], False)
                self.assertIs(values["HTTPS"], False)
                self.assertEqual(values["ALLOWED_HOSTS"], ["localhost", "127.0.0.1", "[::1]"])
                self.assertEqual(values["CORS_ALLOWED_ORIGINS"], [])
                self.assertEqual((values["HOST"], values["PORT"]), ("127.0.0.1", 8000))
                self.assertEqual(values["WEB_CONCURRENCY"], usable_cpus())
                self.assertEqual(values["TRUSTED_PROXIES"], 0)
                self.assertEqual(values["REST_KNOX"]["TOKEN_TTL"], timedelta(hours=10))
                self.assertEqual(values["PASSWORD_MIN_LENGTH"], 8)
                self.assertIsNone(values["METRICS"])
                self.assertNotIn("config.metrics.MetricsMiddleware", values["MIDDLEWARE"])
                self.assertEqual(values["LIMIT_SEND"], environment.Limit(count=3000, seconds=60))
                self.assertEqual(values["DATABASES"]["default"]["NAME"], settings.BASE_DIR / "db.sqlite3")

    def test_values_are_used(self):
        cases = (
            ("DEBUG", "on", True), ("DEBUG", "1", True), ("DEBUG", "True", True),
            ("DEBUG", "off", False), ("DEBUG", "no", False),
            ("PORT", "1", 1), ("PORT", "65535", 65535),
            ("HOST", "10.0.0.1", "10.0.0.1"), ("HOST", "::1", "::1"),
            ("WEB_CONCURRENCY", "64", 64),
            ("TRUSTED_PROXIES", "2", 2),
            ("TOKEN_TTL", "31536000", 31_536_000),
            ("PASSWORD_MIN_LENGTH", "12", 12),
            ("ALLOWED_HOSTS", "*", ["*"]),
            ("ALLOWED_HOSTS", "chat.example, .example.org,[::1]", ["chat.example", ".example.org", "[::1]"]),
            ("SECRET_KEY", "a key of my own", "a key of my own"),
            ("LOG_DIR", "-", None),
            ("CORS_ALLOWED_ORIGINS", "https://a.example, http://[::1]:3000", ["https://a.example", "http://[::1]:3000"]),
            ("METRICS", "127.0.0.1:9100", ("127.0.0.1", 9100)), ("METRICS", "[::1]:9100", ("::1", 9100)),
            ("METRICS", "off", None),
            ("LIMIT_SEND", "10/60", environment.Limit(count=10, seconds=60)), ("LIMIT_SEND", "off", None),
        )  # fmt: skip

        for variable, value, expected in cases:
            with self.subTest(variable=variable, value=value):
                self.assertEqual(self.settings_with(**{variable: value})[variable], expected)

    def test_reads_values_from_files(self):
        (self.folder / "url").write_text(f"postgresql://user:{PASSWORD}@host/name\n")
        (self.folder / "key").write_text("the secret key\n")
        files = {"DATABASE_URL_FILE": str(self.folder / "url"), "SECRET_KEY_FILE": str(self.folder / "key")}

        values = self.settings_with(**files)

        self.assertEqual(values["SECRET_KEY"], "the secret key")
        self.assertEqual(values["DATABASES"]["default"]["PASSWORD"], PASSWORD)

    def test_login_limits_are_off_if_limit_login_is_off(self):
        without = self.settings_with(LIMIT_LOGIN="off")
        with_another = self.settings_with(LIMIT_LOGIN="off", LIMIT_LOGIN_NAME="9/60")

        self.assertEqual((without["LIMIT_LOGIN_ADDRESS"], without["LIMIT_LOGIN_NAME"]), (None, None))
        self.assertEqual(with_another["LIMIT_LOGIN_NAME"], environment.Limit(count=9, seconds=60))

    def test_passes_values_to_the_libraries(self):
        values = self.settings_with(PASSWORD_MIN_LENGTH="12", TOKEN_TTL="60")

        validators = [validator.get("OPTIONS") for validator in values["AUTH_PASSWORD_VALIDATORS"]]
        self.assertIn({"min_length": 12}, validators)
        self.assertEqual(values["REST_KNOX"]["TOKEN_TTL"], timedelta(minutes=1))


class InvalidValueTests(EnvironmentTestCase):
    def test_aborts_on_invalid_numbers(self):
        bounds = {
            "PORT": ("0", "65536"),
            "WEB_CONCURRENCY": ("0", "100000", "two"),
            "TRUSTED_PROXIES": ("1000",),
            "TOKEN_TTL": ("0", "99999999999"),  # more than a date can hold
            "PASSWORD_MIN_LENGTH": ("0", "100000"),
        }

        for variable, values in bounds.items():
            self.assert_aborts(variable, "-1", "1e9", "1.5", " ", "0x10", "1_000", "٣", "9" * 5_000, "8000\n", *values)

    def test_aborts_on_invalid_booleans(self):
        for variable in ("DEBUG", "HTTPS"):
            self.assert_aborts(variable, "maybe", "2", "onn", "on\n")

    def test_aborts_on_values_that_are_not_utf_8(self):
        for variable in VARIABLES:
            if not variable.endswith("_FILE"):
                self.assert_aborts(variable, f"{PASSWORD}\udcff")

    def test_aborts_on_https_without_a_proxy(self):
        self.assert_aborts("HTTPS", "on")

    def test_aborts_on_invalid_origins(self):
        invalid = ("*", "example.com", "https://", "https://a/", "https://a,,https://b", "https://a b")
        self.assert_aborts("CORS_ALLOWED_ORIGINS", *invalid, "https://a.example:65536", "https://a..b", "https://A.example")
        self.assert_aborts("CORS_ALLOWED_ORIGINS", "https://[::::]", "https://[1.2.3.4]:80", "https://[:]", "https://[::1")

    def test_aborts_on_invalid_limits(self):
        for variable in (variable for variable in VARIABLES if variable.startswith("LIMIT_")):
            invalid = ("10", "10/", "/60", "0/60", "10/0", "-1/60", "10/60s", "1.5/60", "on", "9999999999/1", "10/60\n")
            self.assert_aborts(variable, *invalid)

    def test_aborts_on_invalid_addresses(self):
        invalid = (
            "on",
            "9100",
            ":9100",
            "a:0",
            "a:65536",
            "::1:9100",
            "[x]:9100",
            "[::::]:9100",
            "a..b:9100",
            "a:9100/metrics",
            "a:9\n",
            "a:8000",
        )
        self.assert_aborts("METRICS", *invalid)

    def test_aborts_on_invalid_hosts(self):
        invalid = ("http://a", "a,,b", "a:8000", "a/b", ",", "a b", "[::1", "a\nb", "*.example", "-")
        self.assert_aborts("ALLOWED_HOSTS", *invalid, "[:]", "[1.2.3.4]", "[::::]", "a..b", "a.-b", "a-.b")

    def test_aborts_on_unusable_log_folders(self):
        file = self.folder / "file"
        file.touch()

        self.assert_aborts("LOG_DIR", str(file), f"{file}/logs", f"{file}/a\nb", "/proc", "/proc/logs")

    def test_aborts_on_files_without_a_value(self):
        empty, binary = self.folder / "empty", self.folder / "binary"
        empty.touch()
        binary.write_bytes(b"\xff")
        nul = self.folder / "nul"
        nul.write_bytes(b"postgresql://host/a\0b")

        for variable in ("DATABASE_URL_FILE", "SECRET_KEY_FILE", "HOST_FILE"):
            self.assert_aborts(variable, str(empty), str(binary), str(nul), f"{self.folder}/missing", str(self.folder))

    def test_aborts_on_invalid_database_urls(self):
        self.assert_aborts(
            "DATABASE_URL",
            "mysql://x",
            "x",
            "://",
            "postgresql://",
            "postgresql:///",
            "postgresql://host/",
            f"postgresql://u:{PASSWORD}@",
            f"postgresql://u:{PASSWORD}@/",
            f"postgresql://u:{PASSWORD}@[/x",
            f"postgresql://u:{PASSWORD}@h:xx/name",
            f"postgresql://u:{PASSWORD}@h:5432,h2:xx/name",
            f"postgresql://u:{PASSWORD}@h/name?nonsense=1",
            f"postgresql://u:{PASSWORD}%zz@h/name",
            f"postgresql://u:{PASSWORD}/with/slashes@h:5432/name",
            f"postgresql:u:{PASSWORD}@h/name",
            f"mysql://u:{PASSWORD}@h/name",
            PASSWORD,
            "postgresql://h:0/name",
            "postgresql://h:99999/name",
            "sqlite://",
            "sqlite:///",
            f"sqlite:///{self.folder}/missing/db.sqlite3",
            f"sqlite:///{self.folder}/missing\n/db.sqlite3",
            f"sqlite:///{self.folder}",
            "sqlite:///:memory:/x",
            "sqlite:///:memory:",
            "sqlite:db.sqlite3",
            "sqlite:/db.sqlite3",
            "sqlite://db.sqlite3",
            "sqlite://data/db.sqlite3",
            f"sqlite://u:{PASSWORD}@host/db.sqlite3",
            "sqlite://[x/db.sqlite3",
            "sqlite://℀/db",
            f"sqlite:///{self.folder}/db#x",
            f"sqlite:///{self.folder}/db?mode=ro",
            f"sqlite:///{self.folder}/%00/db",
            f"sqlite:///{self.folder}/{'x' * 300}",
            f"sqlite:///{self.folder}/{'x' * 5000}",
        )


class SecretKeyTests(EnvironmentTestCase):
    def setUp(self):
        super().setUp()
        self.file = self.folder / "key"

    def key(self, value=""):
        """Return the secret key if SECRET_KEY has this value."""
        with mock.patch.dict(os.environ, SECRET_KEY=value):
            return environment.secret("SECRET_KEY", self.file)

    def test_is_generated_once_and_only_its_owner_can_read_it(self):
        first, second = self.key(), self.key()

        self.assertGreaterEqual(len(first), 50)
        self.assertEqual((second, self.file.read_text()), (first, first))
        self.assertEqual(stat.S_IMODE(self.file.stat().st_mode), 0o600)
        self.assertEqual([*self.folder.iterdir()], [self.file])

    def test_differs_between_installations(self):
        first = self.key()
        self.file.unlink()

        self.assertNotEqual(self.key(), first)

    def test_variable_takes_precedence(self):
        self.assertEqual(self.key("of the variable"), "of the variable")
        self.assertFalse(self.file.exists())

    def test_aborts_if_the_key_cannot_be_stored(self):
        self.file = self.folder / "missing" / "key"

        with self.assertRaisesRegex(SystemExit, r"\ASECRET_KEY: [^\n]+\Z"):
            self.key()

    def test_aborts_if_the_file_contains_no_key(self):
        for content in (b"", b"\n", b"\xff"):
            self.file.write_bytes(content)

            with self.subTest(content=content), self.assertRaisesRegex(SystemExit, r"\ASECRET_KEY: [^\n]+\Z"):
                self.key()

    def test_processes_that_start_at_the_same_time_share_one_key(self):
        script = (
            "import sys, pathlib; from config.environment import secret; print('ready', flush=True); sys.stdin.read(); "
            "print(secret('SECRET_KEY', pathlib.Path(sys.argv[1])))"
        )
        processes = [
            subprocess.Popen(  # noqa: S603 - no input from outside
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
            process.stdin.close()  # all processes continue now
        keys = [process.stdout.read() for process in processes]

        self.assertEqual([process.wait(timeout=30) for process in processes], [0] * 6)
        self.assertEqual({*keys}, {f"{self.file.read_text()}\n"})
        self.assertEqual([*self.folder.iterdir()], [self.file])
        for process in processes:
            process.stdout.close()


class StartTests(EnvironmentTestCase):
    """The start of real processes."""

    def run_command(self, *command, **variables):
        """Run the command with these variables, and return its output."""
        return subprocess.run(  # noqa: S603 - the project's own manage.py and server
            [sys.executable, *command],
            cwd=settings.BASE_DIR,
            env=self.environ(**variables),
            capture_output=True,
            text=True,
            timeout=60,
        )

    def test_starts_with_valid_values(self):
        run = self.run_command("manage.py", "check", PORT="8001", DEBUG="off", ALLOWED_HOSTS="chat.example")

        self.assertEqual((run.returncode, run.stderr), (0, ""))

    def test_aborts_on_arguments_that_are_not_utf_8(self):
        run = self.run_command("manage.py", "rename_user", b"\xff", "alice")

        self.assertEqual((run.returncode, run.stderr), (1, "An argument is not UTF-8.\n"))

    def test_invalid_value_prevents_startup_with_one_line_that_names_the_variable(self):
        check, server = ("manage.py", "check"), ("-m", "config.server")

        for command, variable, value in (
            (check, "DEBUG", "maybe"),
            (check, "DATABASE_URL", f"postgresql://u:{PASSWORD}@[/x"),
            (server, "PORT", "abc"),
            (server, "HOST", "192.0.2.1"),  # not an address of this machine
            (server, "HOST", ".."),
            (server, "HOST", "a" * 70),
            (server, "LOG_DIR", f"{__file__}/logs"),
        ):
            with self.subTest(command=command, variable=variable):
                run = self.run_command(*command, **{variable: value})

                self.assertNotEqual(run.returncode, 0)
                self.assertRegex(run.stderr, rf"\A{variable}: [^\n]+\n\Z")
                self.assertEqual(run.stdout, "")
                self.assertNotIn(PASSWORD, run.stderr)
