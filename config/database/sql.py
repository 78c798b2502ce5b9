"""Runs hand-written SQL, for statements that the ORM takes longer to compile than the database to run.

Statements must be valid on both PostgreSQL and SQLite. Parameters are written as `%(name)s`.
"""

from datetime import datetime
from typing import Any

from django.db import connection, models


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
    """Return all rows. Times come as the driver returns them: PostgreSQL's with a time zone, SQLite's without."""
    with connection.cursor() as cursor:
        cursor.execute(statement, _adapt(parameters))
        return cursor.fetchall()


def fetch_one(statement: str, /, **parameters: Any) -> tuple | None:
    """Return the first row, or None."""
    return next(iter(fetch_all(statement, **parameters)), None)


def execute(statement: str, /, **parameters: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement, _adapt(parameters))


def is_writable() -> bool:
    """Return whether the database accepts writes. A hot standby, or one with `default_transaction_read_only`, does not.

    The server reports both with its responses. A query is needed only if one of them is on or a pooler hides them.
    """
    if connection.vendor != "postgresql":
        return True
    connection.ensure_connection()
    status = connection.connection.info.parameter_status
    if status("in_hot_standby") == status("default_transaction_read_only") == "off":
        return True
    return fetch_one("SHOW transaction_read_only") == ("off",)  # a standby may have been promoted since its last response


def _adapt(parameters: dict[str, Any]) -> dict[str, Any]:
    adapt = connection.ops.adapt_datetimefield_value
    return {name: adapt(value) if isinstance(value, datetime) else value for name, value in parameters.items()}
