"""The benchmark's own PostgreSQL server and its databases, kept in `benchmarks/data/` from one run to the next.

`python -m benchmarks.databases` fills those that are missing, and the service's again where a migration was added.
"""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from typing import Any

import psutil
import psycopg

from benchmarks.fill import fill
from benchmarks.proofs.processes import USER, Cluster
from config.testing.service import ROOT

DATA = ROOT / "benchmarks" / "data"
OLD = DATA / "6bc8ad4"  # a clone of the service as it was at that commit, with an environment of its own
RIVAL = DATA / "rival" / "bin"  # the environment of `rival`
SQLITE = DATA / "service.sqlite3"

MIGRATE = ("manage.py", "migrate", "--verbosity", "0")
CREATE_TABLES = {
    "6bc8ad4": (OLD / "dev" / "bin" / "python", *MIGRATE),
    "service": (sys.executable, *MIGRATE),
    "rival": (RIVAL / "python", "-m", "benchmarks.rival.create_tables"),
    # First the tables of Django's own apps, then those of the yardstick, which has no migrations and refers to them.
    "ordinary": ("sh", "-c", '"$0" -m django migrate -v 0 && "$0" -m django migrate -v 0 --run-syncdb', sys.executable),
}
TABLES = ["auth_user", "knox_authtoken", "messageservice_message", "messageservice_mailbox", "messageservice_conversation"]
# The tables of each database that are filled, and the table of 6bc8ad4's database that each of them is a copy of.
COPIES = {
    "6bc8ad4": dict(zip(TABLES, TABLES, strict=True)),
    "service": dict(zip(TABLES, TABLES, strict=True)),
    "rival": {"users": "auth_user", "tokens": "knox_authtoken", "messages": "messageservice_message"},
    "ordinary": {"auth_user": "auth_user", "ordinary_message": "messageservice_message"},
}
ORDINARY_TOKENS = "INSERT INTO authtoken_token SELECT lpad(id::text, 15, '0') || repeat('0', 25), now(), id FROM auth_user"


class Server(Cluster):
    """A PostgreSQL server with default settings, except that no checkpoint begins while a workload is measured."""

    def __init__(self) -> None:
        folder = DATA / "postgresql"
        folder.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0:
            shutil.chown(folder, USER)
        created = next(folder.glob("postgresql-*[0-9]"), None)
        if created is None:
            super().__init__(folder)
        else:
            self.data, self.port = created, int(created.name.rpartition("-")[2])
            self.run(
                "pg_ctl", "restart", "--wait", "--silent", "-l", f"{self.data}.log"
            )  # one may be left from a killed run
        self.execute("ALTER SYSTEM SET checkpoint_timeout = '1h'")
        self.execute("ALTER SYSTEM SET max_wal_size = '8GB'")
        self.execute("SELECT pg_reload_conf()")
        self.execute("CREATE EXTENSION IF NOT EXISTS pg_walinspect")

    def url_of(self, database: str) -> str:
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{database}"

    def connect(self, database: str = "postgres") -> psycopg.Connection:
        return psycopg.connect(self.url_of(database), autocommit=True, options="-c timezone=UTC")

    def execute(self, statement: str, database: str = "postgres") -> Any:
        """Return the first value of the first row, if the statement returns rows."""
        with self.connect(database) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchone()[0] if cursor.description else None

    def process(self) -> psutil.Process:
        """Its main process, whose children are all its others."""
        return psutil.Process(int((self.data / "postmaster.pid").read_text().split()[0]))


@contextmanager
def running_server() -> Iterator[Server]:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("Ended by SIGTERM"))  # and so stops what was started
    server = Server()
    try:
        yield server
    finally:
        server.run("pg_ctl", "stop", "--silent", "--mode", "fast")


def create_tables(name: str, url: str, *arguments: str) -> int:
    """Return the exit status of the command for it, with further arguments if any."""
    settings = "benchmarks.ordinary.settings" if name == "ordinary" else "config.settings"
    environment = {**os.environ, "DATABASE_URL": url, "DJANGO_SETTINGS_MODULE": settings}
    folder = OLD if name == "6bc8ad4" else ROOT
    return subprocess.run([*CREATE_TABLES[name], *arguments], cwd=folder, env=environment).returncode


def make(server: Server, name: str) -> None:
    """Create and fill a database on PostgreSQL. Until it is complete it has another name."""
    server.execute("DROP DATABASE IF EXISTS draft")
    server.execute("CREATE DATABASE draft")
    if create_tables(name, server.url_of("draft")):
        sys.exit(1)
    with server.connect("draft") as target:
        if name == "6bc8ad4":
            fill(target)
        else:
            with server.connect("6bc8ad4") as source:
                for table, origin in COPIES[name].items():
                    copy_table(source, origin, target, table)
        if name == "ordinary":
            target.execute(ORDINARY_TOKENS)
        for table in COPIES[name]:
            if "id" in columns_of(target, table):  # new ids follow those that were filled in
                target.execute(f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), max(id)) FROM {table}")
        target.execute("VACUUM ANALYZE")
    server.execute(f'DROP DATABASE IF EXISTS "{name}"')
    server.execute(f'ALTER DATABASE draft RENAME TO "{name}"')


def columns_of(connection: psycopg.Connection, table: str) -> set[str]:
    query = "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped"
    return {name for (name,) in connection.execute(query, (table,))}


def copy_table(source: psycopg.Connection, origin: str, target: psycopg.Connection, table: str) -> None:
    """Copy the columns that both tables have."""
    names = ", ".join(columns_of(source, origin) & columns_of(target, table))
    with (
        source.cursor().copy(f"COPY {origin} ({names}) TO STDOUT") as rows,
        target.cursor().copy(f"COPY {table} ({names}) FROM STDIN") as copy,
    ):
        for block in rows:
            copy.write(block)


def make_on_sqlite(server: Server) -> None:
    draft = SQLITE.with_name("draft.sqlite3")
    draft.unlink(missing_ok=True)
    if create_tables("service", f"sqlite:///{draft}"):
        sys.exit(1)
    sqlite3.register_adapter(datetime, lambda time: time.replace(tzinfo=None).isoformat(" ", "microseconds"))
    with closing(sqlite3.connect(draft)) as target, server.connect("6bc8ad4") as source, source.transaction():
        target.execute("PRAGMA cache_size = -1000000")  # KiB
        for table in TABLES:
            there = {name for _, name, *_ in target.execute(f"PRAGMA table_info({table})")}
            columns = columns_of(source, table) & there
            names, marks = ", ".join(columns), ", ".join("?" * len(columns))
            with source.cursor("rows") as rows:
                rows.execute(f"SELECT {names} FROM {table}")
                target.executemany(f"INSERT INTO {table} ({names}) VALUES ({marks})", rows)
        target.commit()
        target.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    draft.rename(SQLITE)


def main() -> None:
    with running_server() as server:
        with server.connect() as connection:
            there = {name for (name,) in connection.execute("SELECT datname FROM pg_database")}
        for name in CREATE_TABLES:
            if name not in there or (name == "service" and create_tables(name, server.url_of(name), "--check")):
                print(f"Filling the database of {name} …", flush=True)
                make(server, name)
        if not SQLITE.exists() or create_tables("service", f"sqlite:///{SQLITE}", "--check"):
            print("Filling the database on SQLite …", flush=True)
            make_on_sqlite(server)


if __name__ == "__main__":
    main()
