"""Creates and checks tokens. Only this module imports django-rest-knox."""

from django.contrib.auth.models import User
from django.db import connection
from django.utils import timezone
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from knox.auth import TokenAuthentication as KnoxAuthentication
from knox.crypto import hash_token
from knox.models import AuthToken, get_digest_token
from knox.settings import CONSTANTS, knox_settings
from rest_framework.authentication import get_authorization_header
from rest_framework.exceptions import AuthenticationFailed

from accounts.models import USER, USER_COLUMNS, PagedQuerySet, read_user
from config.database.sql import Table, fetch_one
from config.log import current_request

SCHEMES = ("token", "bearer")

TOKEN = Table(AuthToken, "t")
TOKEN_COLUMNS = {field.attname: field.column for field in AuthToken._meta.concrete_fields}
INSERT_TOKEN = f"""
    INSERT INTO {Table(AuthToken)} ({", ".join(TOKEN_COLUMNS.values())})
    SELECT {", ".join(f"%({name})s" for name in TOKEN_COLUMNS)} FROM {USER}
    WHERE {USER.id} = %(user_id)s AND {USER.password} = %(password)s AND {USER.is_active}
"""
SELECT_USER_OF_TOKEN = f"""
    SELECT {USER_COLUMNS} FROM {TOKEN} JOIN {USER} ON {USER.id} = {TOKEN.user}
    WHERE {TOKEN.digest} = %(digest)s AND {TOKEN.expiry} > %(now)s AND {USER.is_active}
"""


def issue_token(user: User) -> tuple[AuthToken, str] | None:
    """Create a token for the user. Returns (token, text); the text is not stored.

    Returns None if the password was changed or the account deactivated since `user` was read. Serialized with
    `change_password` and `deactivate` by the lock on the user's row: either the token exists first and is deleted with the
    others, or the change is visible here and no token is created.
    """
    digest, text = get_digest_token()
    now = timezone.now()
    token = AuthToken(
        digest=digest,
        token_key=text[: CONSTANTS.TOKEN_KEY_LENGTH],
        user=user,
        created=now,
        expiry=now + knox_settings.TOKEN_TTL,
    )
    issued = fetch_one(
        INSERT_TOKEN + (" FOR NO KEY UPDATE" if connection.features.has_select_for_update else "") + " RETURNING 1",
        **{name: getattr(token, name) for name in TOKEN_COLUMNS},
        password=user.password,
    )
    return (token, text) if issued else None


def live_tokens(user: User) -> PagedQuerySet:
    """Return the user's tokens that have not expired, newest first."""
    return PagedQuerySet(AuthToken).filter(user=user, expiry__gt=timezone.now()).order_by("-created", "-pk")


class TokenAuthentication(KnoxAuthentication):
    """Finds a token by its digest, the primary key, together with its user.

    Knox's own class reads all tokens of the user for each request, and fails on a token that is not UTF-8.
    """

    def authenticate(self, request):
        scheme, _, token = get_authorization_header(request).partition(b" ")
        if scheme.decode("latin-1").lower() not in SCHEMES:
            return None
        digest = hash_token(token.strip().decode("latin-1"))
        user = read_user(SELECT_USER_OF_TOKEN, digest=digest, now=timezone.now())
        if user is None:
            raise AuthenticationFailed("Invalid token.")
        current_request().user = user.username
        return user, AuthToken.from_db(connection.alias, ("digest", "user_id"), (digest, user.pk))


class TokenScheme(OpenApiAuthenticationExtension):
    """Describes tokens in the schema as `Bearer` tokens, which the service accepts and tools support."""

    target_class = TokenAuthentication
    name = "token"

    def get_security_definition(self, auto_schema):
        return {"type": "http", "scheme": "bearer", "description": "The token from register or login"}
