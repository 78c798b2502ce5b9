"""What one can do with an account."""

from dataclasses import dataclass
from datetime import datetime

from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import User
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction

from accounts.authentication import AuthToken, issue_token
from accounts.hashers import OwaspArgon2Hasher
from accounts.limits import LoginTries, password_tries, signup_tries
from accounts.models import user_named
from config.log import current_request, record_event

WRONG_CURRENT = "This is not your current password."


@dataclass(frozen=True, slots=True)
class Session:
    """What a client needs to go on as `user`: a token's text, and when it dies."""

    user: User
    token: str
    expiry: datetime


def register(*, username: str, password: str, email: str = "") -> Session:
    """Make an account and open its first session.

    Raises ValidationError for a weak password and for a taken name, LimitReached for an address with too many sign-ups.
    """
    tries = signup_tries()
    tries.check()
    user = User(username=username, email=email)
    _set_password(user, password, field="password")
    try:
        with transaction.atomic():
            tries.count()
            user.save()
            session = _open_session(user)
    except IntegrityError:  # auth_user's two unique indexes: on the name as written and in lower case
        raise ValidationError({"username": ["A user with that username already exists."]}) from None
    return session


def log_in(*, username: str, password: str) -> Session:
    """Open another session.

    Raises the same ValidationError, after the same time, whatever is wrong with the credentials: the password is hashed even
    where there is none to compare it with. Raises LimitReached after too many failures.
    """
    tries = LoginTries(username)
    tries.check()
    user = user_named(username)
    session = None
    if user is None or not user.has_usable_password():
        make_password(password)
    elif user.check_password(password) and user.is_active:
        tries.check()
        _renew_hash(user, password)
        session = _open_session(user)
    if session is None:
        tries.count()
        record_event("Invalid Login", who=username)
        raise ValidationError("Incorrect credentials")
    record_event("Login", who=user.username)
    return session


def log_out_everywhere(user: User) -> None:
    user.auth_token_set.all().delete()
    record_event("Logout All", who=user.username)


def change_password(*, user: User, token: AuthToken, current_password: str, new_password: str) -> None:
    """Set a new password and end every session but the one of `token`.

    Raises ValidationError by field for a wrong current and a weak new password, LimitReached after too many wrong ones.
    """
    if not verify_password(user, current_password):
        raise ValidationError({"current_password": [WRONG_CURRENT]})
    unchanged = User.objects.filter(pk=user.pk, password=user.password)
    _set_password(user, new_password, field="new_password")
    with transaction.atomic():
        if not unchanged.update(password=user.password):  # another request has changed it since it was checked
            raise ValidationError({"current_password": [WRONG_CURRENT]})
        user.auth_token_set.exclude(pk=token.pk).delete()
    record_event("Change Password", who=user.username)


def verify_password(user: User, password: str) -> bool:
    """Whether it is the user's; one that is wrong is counted. Raises LimitReached after too many of those."""
    tries = password_tries(user)
    tries.check()
    if not user.check_password(password):
        tries.count()
        return False
    tries.check()
    return True


def revoke_tokens(user: User) -> None:
    """What an operator does about an account in the wrong hands."""
    user.auth_token_set.all().delete()
    record_event("Revoke Tokens", who=current_request().user, whom=user.username)


def deactivate(user: User) -> None:
    """What an operator does about an account for good: nobody can log in to it.

    Its tokens are dead even if it is activated again.
    """
    with transaction.atomic():
        User.objects.filter(pk=user.pk).update(is_active=False)
        user.auth_token_set.all().delete()
    record_event("Deactivate User", who=current_request().user, whom=user.username)


def _set_password(user: User, password: str, *, field: str) -> None:
    try:
        validate_password(password, user)
    except ValidationError as error:
        raise ValidationError({field: error.messages}) from None
    user.set_password(password)


def _renew_hash(user: User, password: str) -> None:
    """Hash the user's password anew where that was done with other parameters, and nobody has changed it meanwhile.

    Where somebody has, `user` holds a password that is not theirs, and gets no session.
    """
    old = user.password
    if OwaspArgon2Hasher().is_outdated(old):
        user.set_password(password)
        User.objects.filter(pk=user.pk, password=old).update(password=user.password)


def _open_session(user: User) -> Session | None:
    """A session, or None where the password was changed or the account deactivated since `user` was read."""
    issued = issue_token(user)
    if issued is None:
        return None
    token, text = issued
    return Session(user=user, token=text, expiry=token.expiry)
