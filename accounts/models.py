from typing import Any

from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import connection, models

from config.database.sql import fetch_all, fetch_one, in_utc

NO_SUCH_USER = "There is no such user."

# What requests ask of a user. The other fields are deferred: read from the database when they are used.
USER_FIELDS = ("id", "password", "username", "email", "is_active")  # in the order of the table
USER_COLUMNS = ", ".join(f"auth_user.{field}" for field in USER_FIELDS)


def read_user(statement: str, /, **parameters: Any) -> User | None:
    """The user whose USER_COLUMNS the statement returns, None where it returns no row."""
    row = fetch_one(statement, **parameters)
    return row and User.from_db(connection.alias, USER_FIELDS, row)


def user_named(username: str) -> User | None:
    """The user of exactly this name, None where there is none."""
    if not username.isprintable():  # NUL and lone surrogates, which databases refuse, stand in no name
        return None
    return read_user(f"SELECT {USER_COLUMNS} FROM auth_user WHERE username = %(username)s", username=username)


def require_user(user: User, field: str) -> None:
    """Raise ValidationError, by field, where the user was deleted since they were read."""
    if not User.objects.filter(pk=user.pk).exists():
        raise ValidationError({field: [NO_SUCH_USER]})


class TallyQuerySet(models.QuerySet):
    def under(self, keys: list[str]) -> dict[str, "Tally"]:
        """Those of the tallies that there are, by key."""
        parameters = {f"key{number}": key for number, key in enumerate(keys)}
        placeholders = ", ".join(f"%({name})s" for name in parameters)
        rows = fetch_all(f"SELECT key, count, ends FROM accounts_tally WHERE key IN ({placeholders})", **parameters)
        return {key: Tally(key=key, count=count, ends=in_utc(ends)) for key, count, ends in rows}


class Tally(models.Model):
    """How often something happened since its window began: a failed log-in, a wrong password, a sign-up."""

    key = models.CharField(max_length=64, primary_key=True)
    count = models.PositiveIntegerField()
    ends = models.DateTimeField(db_index=True)

    objects = TallyQuerySet.as_manager()

    class Meta:
        verbose_name_plural = "tallies"

    def __str__(self) -> str:
        return f"{self.count} until {self.ends}"
