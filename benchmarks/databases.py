"""The filled databases: made where they are missing, kept for the next run. Drop them to have them made anew."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import psutil
import psycopg

from benchmarks import fill

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "benchmarks" / "data"
POSTGRESQL_URL = os.environ.get("POSTGRESQL_URL", "postgresql://postgres@127.0.0.1:5432/postgres")

SERVICE = {"DJANGO_SETTINGS_MODULE": "config.settings"}
ORDINARY = {"DJANGO_SETTINGS_MODULE": "benchmarks.ordinary.settings"}


def service_on_postgresql() -> str:
    """The URL of the service's database on PostgreSQL."""
    url = _url("bench_service")
    if _made("bench_service"):
        environment = {**SERVICE, "DATABASE_URL": url}
        _django("migrate", "--verbosity", "0", **environment)
        with psycopg.connect(url) as connection:
            fill.fill_service(fill.postgresql_insert(connection), _password_hash(environment))
        _settle(url)
    return url


def ordinary_on_postgresql() -> str:
    """The URL of the ordinary yardstick's database."""
    url = _url("bench_ordinary")
    if _made("bench_ordinary"):
        environment = {**ORDINARY, "ORDINARY_DATABASE_URL": url}
        _django("migrate", "--verbosity", "0", **environment)
        with psycopg.connect(url) as connection:
            fill.fill_ordinary(fill.postgresql_insert(connection), _password_hash(environment))
        _settle(url)
    return url


def service_on_sqlite() -> str:
    """The URL of the service's database on SQLite."""
    DATA.mkdir(exist_ok=True)
    file, draft = DATA / "service.sqlite3", DATA / "draft.sqlite3"
    if not file.exists():
        draft.unlink(missing_ok=True)
        environment = {**SERVICE, "DATABASE_URL": f"sqlite:///{draft}"}
        _django("migrate", "--verbosity", "0", **environment)
        connection = sqlite3.connect(draft)
        connection.execute("PRAGMA synchronous=OFF")
        with connection:
            fill.fill_service(fill.sqlite_insert(connection), _password_hash(environment))
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()
        draft.rename(file)
    return f"sqlite:///{file}"


def postmaster() -> psutil.Process:
    """PostgreSQL's main process, whose children are all its others; the server runs on this machine."""
    with psycopg.connect(POSTGRESQL_URL) as connection:
        (file,) = connection.execute("SELECT pg_read_file('postmaster.pid')").fetchone()
    return psutil.Process(int(file.split()[0]))


def postgresql_version() -> str:
    with psycopg.connect(POSTGRESQL_URL) as connection:
        return connection.execute("SHOW server_version").fetchone()[0].split()[0]


def checkpoint() -> None:
    """Have PostgreSQL write now what it would write during the measurement."""
    with psycopg.connect(POSTGRESQL_URL, autocommit=True) as connection:
        connection.execute("CHECKPOINT")


def row_sizes(url: str) -> Iterable[tuple[str, int, int]]:
    """For each table of the service on PostgreSQL that grows with its use: the bytes of a row, and those of its indexes."""
    with psycopg.connect(url) as connection:
        connection.execute("ANALYZE")  # counts the rows
        return connection.execute(
            "SELECT relname, round(pg_table_size(oid) / reltuples)::int, round(pg_indexes_size(oid) / reltuples)::int"
            " FROM pg_class WHERE reltuples > 0 AND relname IN ('auth_user', 'knox_authtoken', 'messageservice_mailbox',"
            " 'messageservice_conversation', 'messageservice_message') ORDER BY relname"
        ).fetchall()


def _url(database: str) -> str:
    return f"{POSTGRESQL_URL.rpartition('/')[0]}/{database}"


def _made(database: str) -> bool:
    """Make the database unless it is there; whether it was made."""
    with psycopg.connect(POSTGRESQL_URL, autocommit=True) as connection:
        if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (database,)).fetchone():
            return False
        connection.execute(f"CREATE DATABASE {database}")
    return True


def _django(*arguments: str, **environment: str) -> str:
    command = [sys.executable, "-m", "django", *arguments]
    environment = {**os.environ, **environment}
    return subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout


def _password_hash(environment: dict[str, str]) -> str:
    hashing = f"from django.contrib.auth.hashers import make_password; print(make_password({fill.PASSWORD!r}))"
    return _django("shell", "--no-imports", "-c", hashing, **environment).strip()


def _settle(url: str) -> None:
    """Go on with ids after those that were copied in, and do now what autovacuum would do during the measurement."""
    with psycopg.connect(url, autocommit=True) as connection:
        tables = connection.execute(
            "SELECT table_name FROM information_schema.columns"
            " WHERE table_schema = 'public' AND is_identity = 'YES' AND column_name = 'id'"
        ).fetchall()
        for (table,) in tables:
            connection.execute(
                f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), max(id)) FROM {table} HAVING max(id) IS NOT NULL"
            )
        connection.execute("VACUUM ANALYZE")
