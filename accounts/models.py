import re
import string
from typing import Any

from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.core.validators import RegexValidator
from django.db import connection, models
from django.db.models import Lookup

from config.database.sql import Table, fetch_one

NO_SUCH_USER = "There is no such user."
ACCOUNT_IS_DELETED = "This account was deleted."
NAME_IS_TAKEN = "A user with that username already exists."
ASCII_TO_LOWER_CASE = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)

USERNAME = User._meta.get_field("username")
USER = Table(User, "u")
# The fields of a user that requests need. The other fields are deferred: each use of a deferred field costs a query.
USER_FIELDS = ("id", "password", "username", "email", "is_active")  # in the order of the table
USER_COLUMNS = ", ".join(getattr(USER, name) for name in USER_FIELDS)


def read_user(statement: str, /, **parameters: Any) -> User | None:
    """Return the user whose USER_COLUMNS the statement selects, or None if it selects no row."""
    row = fetch_one(statement, **parameters)
    return User.from_db(connection.alias, USER_FIELDS, row) if row else None


def user_named(username: str) -> User | None:
    """Return the user with this name in any letter case, or None."""
    if not username.isprintable():  # no name has NUL or lone surrogates, which databases reject
        return None
    return read_user(
        f"SELECT {USER_COLUMNS} FROM {USER} WHERE {_lower_case_in_sql(USER.username)} = %(username)s",
        username=lower_case(username),
    )


def lower_case(username: str) -> str:
    """Return the name with its ASCII letters in lower case. `str.lower` would also turn the Kelvin sign into a `k`."""
    return username.translate(ASCII_TO_LOWER_CASE)


def _lower_case_in_sql(column: str) -> str:
    """Return the SQL for the column in lower case, as in the unique index. A database's locale can have other rules."""
    return f'lower({column} COLLATE "C")' if connection.vendor == "postgresql" else f"lower({column})"


@USERNAME.register_lookup
class AnyCase(Lookup):
    """`User.objects.filter(username__any_case="ALICE")` finds alice."""

    lookup_name = "any_case"
    condition = "{column} = {value}"

    def get_prep_lookup(self):
        return lower_case(self.rhs)

    def as_sql(self, compiler, connection):
        column, _ = self.process_lhs(compiler, connection)
        value, parameters = self.process_rhs(compiler, connection)
        return self.condition.format(column=_lower_case_in_sql(column), value=value), parameters


@USERNAME.register_lookup
class PartInAnyCase(AnyCase):
    """`User.objects.filter(username__part_in_any_case="LI")` finds alice."""

    lookup_name = "part_in_any_case"
    condition = "replace({column}, {value}, '') <> {column}"  # in LIKE, the `_` of a name would match any letter


RESERVED = "deleted-"  # the beginning of the names of deleted accounts


def is_deleted(user: User) -> bool:
    """Return whether the account was deleted, so that only its reserved name and its messages are left.

    Users who had a name like this before such names were reserved are active, or lack the twelve hexadecimal digits.
    """
    return not user.is_active and re.fullmatch(f"{RESERVED}[0-9a-f]{{12}}", user.username) is not None


def check_name_is_free(username: str) -> None:
    """Raise ValidationError for a name that is taken, in any letter case, or reserved for deleted accounts."""
    if lower_case(username).startswith(RESERVED):
        raise ValidationError("Names that begin with deleted- are reserved.")
    if user_named(username):
        raise ValidationError(NAME_IS_TAKEN)


# ASCII only, so that no two names look alike; with a letter or digit, so that no name is a path such as `..`.
check_name_is_plain = RegexValidator(
    r"^(?=.*[A-Za-z0-9])[A-Za-z0-9@.+_-]+\Z",
    "Use ASCII letters, digits and @ . + - _ only, with a letter or digit among them.",
)
NEW_NAME_RULES = [check_name_is_plain, check_name_is_free]
USERNAME.validators.extend(NEW_NAME_RULES)  # so that `createsuperuser` and the admin's form check them as well


def require_user(user: User, field: str) -> None:
    """Raise ValidationError for the field if the user was deleted since they were read."""
    if not User.objects.filter(pk=user.pk).exists():
        raise ValidationError({field: [NO_SUCH_USER]})


class PagedQuerySet(models.QuerySet):
    """The rows of a list that the API returns in pages."""

    def page(self, start: int, size: int) -> tuple[list[models.Model], int]:
        """Return up to `size` rows from the offset `start`, and the number of all rows."""
        return list(self[start : start + size]), self.count()


class Tally(models.Model):
    """How many failed logins, wrong passwords or sign-ups a limit has counted since its window began, and when that ends."""

    key = models.CharField(max_length=64, primary_key=True)
    count = models.PositiveIntegerField()
    ends = models.DateTimeField(db_index=True)

    class Meta:
        verbose_name_plural = "tallies"

    def __str__(self) -> str:
        return f"{self.count} until {self.ends}"
