"""Statements in SQL, for the calls whose speed matters: Django takes longer to put one together than a database to answer.

They are written so that both PostgreSQL and SQLite read them.
"""

from datetime import UTC, datetime
from typing import Any

from django.db import connection


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
