from typing import Any

from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import connection, models

from config.database.sql import fetch_one

NO_SUCH_USER = "There is no such user."

USER_TABLE = User._meta.db_table
# The columns that requests need of a user. The other fields are deferred: each use of one costs a query.
USER_FIELDS = ("id", "password", "username", "email", "is_active")  # in the order of the table
USER = {name: f"{USER_TABLE}.{User._meta.get_field(name).column}" for name in USER_FIELDS}
USER_COLUMNS = ", ".join(USER.values())


def read_user(statement: str, /, **parameters: Any) -> User | None:
    """The user whose USER_COLUMNS the statement returns, None where it returns no row."""
    row = fetch_one(statement, **parameters)
    return User.from_db(connection.alias, USER_FIELDS, row) if row else None


def user_named(username: str) -> User | None:
    """The user of exactly this name, None where there is none."""
    if not username.isprintable():  # no name has NUL or lone surrogates, which databases reject
        return None
    return read_user(f"SELECT {USER_COLUMNS} FROM {USER_TABLE} WHERE {USER['username']} = %(username)s", username=username)


def require_user(user: User, field: str) -> None:
    """Raise ValidationError, by field, if the user was deleted since they were read."""
    if not User.objects.filter(pk=user.pk).exists():
        raise ValidationError({field: [NO_SUCH_USER]})


class Tally(models.Model):
    """How many failed logins, wrong passwords or sign-ups a limit has counted since its window began."""

    key = models.CharField(max_length=64, primary_key=True)
    count = models.PositiveIntegerField()
    ends = models.DateTimeField(db_index=True)

    class Meta:
        verbose_name_plural = "tallies"

    def __str__(self) -> str:
        return f"{self.count} until {self.ends}"
