"""The benchmark's own PostgreSQL server and its databases, kept in `benchmarks/data/` from one run to the next.

`python -m benchmarks.databases` makes those that are missing, and the service's again if a migration was added.
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
    "ordinary": (sys.executable, "-m", "django", "migrate", "--run-syncdb", "--verbosity", "0"),
}
# The first database is filled. The others begin as copies of it, in which these statements run once their tables exist.
TABLES = ("knox_authtoken", "messageservice_message", "messageservice_mailbox", "messageservice_conversation")
COLUMNS = "id, sender_id, receiver_id, content, created, read"
STATEMENTS = {
    "service": (  # all rows again: an index that a migration created in one go is smaller than one that grew with its table
        *(f"CREATE TEMPORARY TABLE old_{table} AS TABLE {table}" for table in TABLES),
        f"TRUNCATE {', '.join(TABLES)}",
        *(f"INSERT INTO {table} TABLE old_{table}" for table in TABLES),
    ),
    "rival": (
        "INSERT INTO users (id, username) SELECT id, username FROM auth_user",
        "INSERT INTO tokens (digest, user_id, expiry) SELECT digest, user_id, expiry FROM knox_authtoken",
        f"INSERT INTO messages ({COLUMNS}) SELECT {COLUMNS} FROM messageservice_message",
        "SELECT setval('messages_id_seq', max(id)) FROM messages",
    ),
    "ordinary": (
        "INSERT INTO authtoken_token SELECT lpad(id::text, 15, '0') || repeat('0', 25), now(), id FROM auth_user",
        f"INSERT INTO ordinary_message ({COLUMNS}) SELECT {COLUMNS} FROM messageservice_message",
        "SELECT setval('ordinary_message_id_seq', max(id)) FROM ordinary_message",
    ),
}


class Server(Cluster):
    """A PostgreSQL server with default settings, except that no checkpoint begins while a workload is measured."""

    def __init__(self) -> None:
        folder = DATA / "postgresql"
        folder.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0:
            shutil.chown(folder, USER)
        if created := next(folder.glob("postgresql-*[0-9]"), None):
            self.data, self.port = created, int(created.name.rpartition("-")[2])
        else:
            super().__init__(folder)

    def start(self) -> None:
        if (self.data / "postmaster.pid").exists():  # a killed run may have left the server running
            self.run("pg_ctl", "restart", "--wait", "--silent", "-l", f"{self.data}.log")
        else:
            super().start()
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
            return (cursor.fetchone() or [None])[0] if cursor.description else None

    def process(self) -> psutil.Process:
        """Return the main process of the server. All its other processes are children of it."""
        return psutil.Process(int((self.data / "postmaster.pid").read_text().split()[0]))


@contextmanager
def running_server() -> Iterator[Server]:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("Ended by SIGTERM"))  # stops the server, too
    server = Server()
    server.start()
    try:
        yield server
    finally:
        server.run("pg_ctl", "stop", "--silent", "--mode", "fast")


def create_tables(name: str, url: str, *arguments: str) -> int:
    """Create the tables of a service's database, or run the same command with `arguments`. Returns its exit status."""
    settings = "benchmarks.ordinary.settings" if name == "ordinary" else "config.settings"
    environment = {**os.environ, "DATABASE_URL": url, "DJANGO_SETTINGS_MODULE": settings}
    folder = OLD if name == "6bc8ad4" else ROOT
    return subprocess.run([*CREATE_TABLES[name], *arguments], cwd=folder, env=environment).returncode


def create_database(server: Server, name: str) -> None:
    """Create a database on PostgreSQL. It has another name until it is complete."""
    server.execute("DROP DATABASE IF EXISTS draft")
    server.execute("CREATE DATABASE draft" if name == "6bc8ad4" else 'CREATE DATABASE draft TEMPLATE "6bc8ad4"')
    if create_tables(name, server.url_of("draft")):
        sys.exit(1)
    with server.connect("draft") as connection:
        if name == "6bc8ad4":
            fill(connection)
        for statement in STATEMENTS.get(name, ()):
            connection.execute(statement)
        connection.execute("VACUUM ANALYZE")
    server.execute(f'DROP DATABASE IF EXISTS "{name}"')
    server.execute(f'ALTER DATABASE draft RENAME TO "{name}"')


def create_sqlite_database(server: Server) -> None:
    """Copy the service's database from PostgreSQL to SQLite."""
    draft = SQLITE.with_name("draft.sqlite3")
    draft.unlink(missing_ok=True)
    if create_tables("service", f"sqlite:///{draft}"):
        sys.exit(1)
    sqlite3.register_adapter(datetime, lambda time: time.replace(tzinfo=None).isoformat(" ", "microseconds"))
    with closing(sqlite3.connect(draft)) as target, server.connect("service") as source, source.transaction():
        target.execute("PRAGMA cache_size = -1000000")  # KiB
        for table in ("auth_user", *TABLES):
            with source.cursor("rows") as rows:
                rows.execute(f"SELECT * FROM {table}")
                names, marks = ", ".join(column.name for column in rows.description), ", ".join("?" * len(rows.description))
                target.executemany(f"INSERT INTO {table} ({names}) VALUES ({marks})", rows)
        target.commit()
        target.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for file in DATA.glob(f"{SQLITE.name}*"):  # also those that a killed service left
        file.unlink()
    draft.rename(SQLITE)


def main() -> None:
    with running_server() as server:
        for name in CREATE_TABLES:
            exists = server.execute(f"SELECT 1 FROM pg_database WHERE datname = '{name}'")
            if not exists or (name == "service" and create_tables(name, server.url_of(name), "--check")):
                print(f"Making the database of {name} …", flush=True)
                create_database(server, name)
        if not SQLITE.exists() or create_tables("service", f"sqlite:///{SQLITE}", "--check"):
            print("Making the database on SQLite …", flush=True)
            create_sqlite_database(server)


if __name__ == "__main__":
    main()
