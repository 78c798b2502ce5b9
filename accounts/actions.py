"""What one can do with an account."""

from dataclasses import dataclass
from datetime import datetime

from django.contrib.auth import authenticate
from django.contrib.auth.models import User
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction

from accounts.authentication import issue_token
from config.log import record_event


@dataclass(frozen=True, slots=True)
class Session:
    """What a client needs to go on as `user`: a token's text, and when it dies."""

    user: User
    token: str
    expiry: datetime


def open_session(user: User) -> Session:
    auth_token, text = issue_token(user)
    return Session(user=user, token=text, expiry=auth_token.expiry)


def register(*, username: str, password: str, email: str = "") -> Session:
    """Make an account and open its first session; raises ValidationError for a weak password and for a taken name."""
    try:
        validate_password(password, User(username=username))
    except ValidationError as error:
        raise ValidationError({"password": error.messages}) from None
    try:
        with transaction.atomic():
            user = User.objects.create_user(username=username, email=email, password=password)
            return open_session(user)
    except IntegrityError:  # auth_user's two unique indexes: on the name as written and in lower case
        raise ValidationError({"username": ["A user with that username already exists."]}) from None


def log_in(*, username: str, password: str) -> Session:
    """Open another session; raises the same ValidationError, after the same time, whatever is wrong with the credentials.

    `authenticate` hashes the password even where there is no such user.
    """
    user = authenticate(username=username, password=password)
    if user is None:
        record_event("Invalid Login", who=username)
        raise ValidationError("Incorrect credentials")
    session = open_session(user)
    record_event("Login", who=user.username)
    return session
