"""What can be done with an account."""

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from secrets import token_hex
from typing import Any

from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import User
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import IntegrityError, transaction
from django.db.models import ProtectedError
from django.http import Http404

from accounts.authentication import AuthToken, issue_token, live_tokens
from accounts.hashers import check_password
from accounts.limits import LoginAttempts, password_attempts, signup_attempts
from accounts.models import (
    ACCOUNT_IS_DELETED,
    NAME_IS_TAKEN,
    RESERVED,
    USERNAME,
    check_name_is_plain,
    is_deleted,
    lower_case,
    user_named,
)
from config.api.exceptions import LimitReached
from config.log import current_request, record_event
from config.metrics import rejected_logins

WRONG_CURRENT = "This is not your current password."


@dataclass(frozen=True, slots=True)
class Session:
    """What a client needs to act as `user`: the text of a token, and when it expires."""

    user: User
    token: str
    expiry: datetime


def open_session(user: User) -> Session | None:
    """Create a token for the user, or return None if the password or the account has changed since `user` was read."""
    issued = issue_token(user)
    if issued is None:
        return None
    token, text = issued
    return Session(user=user, token=text, expiry=token.expiry)


def register(*, username: str, password: str, email: str = "") -> Session:
    """Create an account and open its first session.

    Raises LimitReached if the address has had too many sign-ups, which are counted before the password is hashed, and
    ValidationError if another request takes the name in the meantime.
    """
    signup_attempts().record()
    user = User(username=username, email=email, password=make_password(password))
    try:
        with transaction.atomic():
            user.save()
            session = open_session(user)
    except IntegrityError:  # the unique indexes on the name as written and in lower case
        raise ValidationError({"username": [NAME_IS_TAKEN]}) from None
    return session


@rejected_logins.count_exceptions(LimitReached)
def log_in(*, username: str, password: str, on_success: Callable[[User], Any] = open_session) -> Any:
    """Check the credentials and return the result of `on_success` for their user.

    Raises ValidationError if the credentials are wrong or the result is None: always the same error, after the same time.
    Raises LimitReached after too many failures.
    """
    attempts = LoginAttempts(lower_case(username))
    attempts.check()
    user = user_named(username)
    result = None
    if check_password(user, password) and user.is_active:
        attempts.check()
        result = on_success(user)
    if result is None:
        attempts.record()
        record_event("Invalid Login", who=user.username if user else username)
        raise ValidationError("Incorrect credentials")
    record_event("Login", who=user.username)
    return result


def end_session(user: User, session_id: str) -> None:
    """Revoke the token whose digest begins with these 32 hexadecimal digits. Raises Http404 if there is none."""
    tokens = live_tokens(user).filter(digest__startswith=session_id)
    if not re.fullmatch("[0-9a-f]{32}", session_id) or not tokens.delete()[0]:
        raise Http404
    record_event("End Session", who=user.username)


def log_out_everywhere(user: User) -> None:
    user.auth_token_set.all().delete()
    record_event("Logout All", who=user.username)


def change_password(*, user: User, token: AuthToken, current_password: str, new_password: str) -> None:
    """Set a new password and end every session except that of `token`.

    Raises ValidationError by field if the current password is wrong or the new password too weak, and LimitReached after
    too many wrong passwords.
    """
    if not verify_password(user, current_password):
        raise ValidationError({"current_password": [WRONG_CURRENT]})
    try:
        validate_password(new_password, user)
    except ValidationError as error:
        raise ValidationError({"new_password": error.messages}) from None
    new_hash = make_password(new_password)
    with transaction.atomic():
        unchanged = User.objects.filter(pk=user.pk, password=user.password)
        if not unchanged.update(password=new_hash):  # another request has changed the password since it was checked
            raise ValidationError({"current_password": [WRONG_CURRENT]})
        user.auth_token_set.exclude(pk=token.pk).delete()
    record_event("Change Password", who=user.username)


def verify_password(user: User, password: str) -> bool:
    """Return whether the password is the user's. Counts wrong passwords, and raises LimitReached after too many."""
    attempts = password_attempts(user)
    attempts.check()
    if not check_password(user, password):
        attempts.record()
        return False
    attempts.check()
    return True


def set_password(user: User, password: str | None) -> None:
    """Set a password on behalf of an operator, or none with None, and revoke the user's tokens.

    Raises PermissionDenied if the account was deleted.
    """
    with transaction.atomic():
        lock_account(user)
        user.set_password(password)
        user.save(update_fields=["password"])
        user.auth_token_set.all().delete()
    record_event("Revoke Tokens", who=current_request().user, whom=user.username)


def revoke_tokens(user: User) -> None:
    """Revoke all tokens of the user on behalf of an operator."""
    user.auth_token_set.all().delete()
    record_event("Revoke Tokens", who=current_request().user, whom=user.username)


def deactivate(user: User) -> None:
    """Deactivate the account on behalf of an operator. Its tokens stay invalid if it is activated again."""
    with transaction.atomic():
        User.objects.filter(pk=user.pk).update(is_active=False)
        user.auth_token_set.all().delete()
    record_event("Deactivate User", who=current_request().user, whom=user.username)


def delete_user(user: User) -> None:
    """Delete a user who has no messages, on behalf of an operator. Raises PermissionDenied if they have got one just now."""
    try:
        user.delete()
    except ProtectedError:
        raise PermissionDenied(f"{user} has messages.") from None
    record_event("Delete Account", who=current_request().user, whom=user.username)


def lock_account(user: User) -> None:
    """Read the user again and lock their row until the transaction ends, so that saving all fields undoes no other change.

    Raises PermissionDenied if the account was deleted.
    """
    with suppress(User.DoesNotExist):
        user.refresh_from_db(from_queryset=User.objects.select_for_update())
        if not is_deleted(user):
            return
    raise PermissionDenied(ACCOUNT_IS_DELETED)


def anonymize_account(user: User) -> bool:
    """Delete what the account holds about its user, and give it a reserved name. No other name bypasses the rules for names.

    Returns False and changes nothing if the account is already deleted, or its password has changed since `user` was read.
    Call it from `messageservice.actions` only, with the user's mailbox locked.
    """
    anonymized = not is_deleted(user) and User.objects.filter(pk=user.pk, password=user.password).update(
        username=f"{RESERVED}{token_hex(6)}",
        password=make_password(None),
        email="",
        first_name="",
        last_name="",
        last_login=None,
        is_active=False,
        is_staff=False,
        is_superuser=False,
    )
    if anonymized:
        user.auth_token_set.all().delete()
        user.groups.clear()
        user.user_permissions.clear()
    return bool(anonymized)


def rename_user(user: User, username: str) -> None:
    """Give the user another name on behalf of an operator.

    Raises ValidationError if the name is invalid or taken, or the account deleted.
    """
    if lower_case(username) == lower_case(user.username):  # only its letter case changes
        check_name_is_plain(username)
    else:
        USERNAME.clean(username, user)
    try:
        with transaction.atomic():
            lock_account(User(pk=user.pk))  # not `user`, which keeps the old name for the log
            User.objects.filter(pk=user.pk).update(username=username)
    except IntegrityError:
        raise ValidationError(NAME_IS_TAKEN) from None
    except PermissionDenied as error:
        raise ValidationError(str(error)) from None
    record_event("Rename User", who=user.username, whom=username)
