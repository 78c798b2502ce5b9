"""Django's migrate command, which several processes may run at the same time."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from django.core.management.commands import migrate
from django.db import connection

from config.database.check import wait_for_database
from config.database.sql import fetch_one

LOCK = 0x6F_66_66_6C_69_6E_65  # a number that no other program takes a lock on in this database


class Command(migrate.Command):
    def handle(self, *args, **options):
        wait_for_database()
        is_standby = connection.vendor == "postgresql" and fetch_one("SELECT pg_is_in_recovery()") == (True,)
        if is_standby and not options["plan"] and not options["check_unapplied"]:
            self.stdout.write("The database is a standby: nothing is migrated here, its tables come from the primary.")
            return
        with _lock():
            super().handle(*args, **options)


@contextmanager
def _lock() -> Iterator[None]:
    """Let one process migrate the database at a time. The lock ends with the process.

    A process polls for PostgreSQL's lock: a statement that waited would deadlock with CREATE INDEX CONCURRENTLY.
    """
    if connection.vendor == "sqlite":
        folder = os.open(Path(connection.settings_dict["NAME"]).resolve().parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)
    else:
        with closing(connection.copy()) as lock, lock.cursor() as cursor:
            while not cursor.execute("SELECT pg_try_advisory_lock(%s)", [LOCK]).fetchone()[0]:
                time.sleep(0.1)
            yield
