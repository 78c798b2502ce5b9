"""Statements in SQL, for the calls whose speed matters: Django takes longer to put one together than a database to answer.

They are written so that both PostgreSQL and SQLite read them.
"""

from datetime import UTC, datetime
from typing import Any

from django.db import connection, models

LARGEST_ID = 2**63 - 1  # that a database can store


class Table:
    """The table of a model, for f-strings: `{MESSAGE}` is its name, `{MESSAGE.sender}` the column of the field `sender`.

    A statement that uses a field which was renamed or removed fails at import. With an alias, `{M}` declares the alias and
    the columns carry it.
    """

    def __init__(self, model: type[models.Model], alias: str = "") -> None:
        self._name = f"{model._meta.db_table} {alias}".rstrip()
        prefix = f"{alias}." if alias else ""
        for field in model._meta.concrete_fields:
            setattr(self, field.name, f"{prefix}{field.column}")

    def __str__(self) -> str:
        return self._name


def fetch_all(statement: str, /, **parameters: Any) -> list[tuple]:
    """The rows that the statement returns; `parameters` stand in it as `%(name)s`.

    Times go in with their zone and come out as the database driver has them: in UTC, on SQLite without saying so.
    """
    with connection.cursor() as cursor:
        cursor.execute(statement, _adapted(parameters))
        return cursor.fetchall()


def fetch_one(statement: str, /, **parameters: Any) -> tuple | None:
    """The first row that the statement returns, None where there is none."""
    with connection.cursor() as cursor:
        cursor.execute(statement, _adapted(parameters))
        return cursor.fetchone()


def execute(statement: str, /, **parameters: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement, _adapted(parameters))


def in_utc(time: datetime | None) -> datetime | None:
    """A time as it came out of the database, with its zone."""
    return time and time.replace(tzinfo=UTC)


def _adapted(parameters: dict[str, Any]) -> dict[str, Any]:
    return {
        name: connection.ops.adapt_datetimefield_value(value) if isinstance(value, datetime) else value
        for name, value in parameters.items()
    }
