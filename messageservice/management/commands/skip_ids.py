"""Skips ids of messages that the database has lost but clients may have seen."""

import re

from django.core.management.base import BaseCommand, CommandError
from django.db import connection, transaction

from config.database.sql import execute, fetch_one
from messageservice.models import MESSAGE

# More than the messages of two days at 440 a second. 90 million such steps fit below 2^53, where JavaScript's numbers end.
DEFAULT, MOST = 100_000_000, 10_000_000_000
SEQUENCE = f"pg_get_serial_sequence('{MESSAGE}', '{MESSAGE.id}')"
LARGEST = f"SELECT coalesce(max({MESSAGE.id}), 0) FROM {MESSAGE}"  # noqa: S608


class Command(BaseCommand):
    help = "Skips ids of messages, so that no id is used twice after a restore or a failover that lost messages."

    def add_arguments(self, parser):
        parser.add_argument("n", nargs="?", default=str(DEFAULT), help=f"how many ids to skip, by default {DEFAULT}")

    def handle(self, *, n, **options):
        if not re.fullmatch("[0-9]{1,11}", n) or not 1 <= int(n) <= MOST:
            raise CommandError(f"{n!r} is not a whole number from 1 to {MOST}.")
        skip = _skip_on_postgresql if connection.vendor == "postgresql" else _skip_on_sqlite
        with transaction.atomic():
            old, new = skip(int(n))
        self.stdout.write(f"The next message gets the id {new}. Without the skip it would get {old}.")


def _skip_on_postgresql(n: int) -> tuple[int, int]:
    """Return the next id before and after. No message is sent in between: it could get a skipped id."""
    execute(f"LOCK TABLE {MESSAGE} IN SHARE ROW EXCLUSIVE MODE")
    [old] = fetch_one(f"SELECT greatest(nextval({SEQUENCE}), ({LARGEST}) + 1)")
    execute(f"SELECT setval({SEQUENCE}, %(new)s, false)", new=old + n)
    return old, old + n


def _skip_on_sqlite(n: int) -> tuple[int, int]:
    """Return the next id before and after. SQLite keeps the largest id of a table with AUTOINCREMENT."""
    table = str(MESSAGE)
    [last] = fetch_one("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = %(table)s", table=table)
    execute("DELETE FROM sqlite_sequence WHERE name = %(table)s", table=table)  # there is none before the first message
    execute("INSERT INTO sqlite_sequence (name, seq) VALUES (%(table)s, %(seq)s)", table=table, seq=last + n)
    return last + 1, last + 1 + n
