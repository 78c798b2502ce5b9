"""Tokens: django-rest-knox, which no other module imports."""

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

from accounts.models import USER_COLUMNS, read_user
from config.database.sql import fetch_one
from config.log import current_request

SCHEMES = ("token", "bearer")

TOKEN_FIELDS = tuple(field.attname for field in AuthToken._meta.concrete_fields)
ISSUE = """
    INSERT INTO knox_authtoken (digest, token_key, user_id, created, expiry)
    SELECT %(digest)s, %(token_key)s, id, %(created)s, %(expiry)s FROM auth_user
    WHERE id = %(user_id)s AND password = %(password)s AND is_active
"""
HOLDER = f"""
    SELECT {USER_COLUMNS} FROM knox_authtoken t JOIN auth_user ON auth_user.id = t.user_id
    WHERE t.digest = %(digest)s AND t.expiry > %(now)s AND auth_user.is_active
"""


def issue_token(user: User) -> tuple[AuthToken, str] | None:
    """A new token for the user, and its text, which is nowhere kept.

    None where the password was changed or the account deactivated since `user` was read. A change of password ends all other
    sessions: it waits for the token, or the token for it and is not made.
    """
    digest, text = get_digest_token()
    now = timezone.now()
    values = (digest, text[: CONSTANTS.TOKEN_KEY_LENGTH], user.pk, now, now + knox_settings.TOKEN_TTL)
    row = fetch_one(
        ISSUE + (" FOR NO KEY UPDATE" if connection.features.has_select_for_update else "") + " RETURNING 1",
        **dict(zip(TOKEN_FIELDS, values, strict=True)),
        password=user.password,
    )
    return row and (AuthToken(*values), text)


class TokenAuthentication(KnoxAuthentication):
    """Finds a token by its digest, the primary key, together with its user.

    Knox's own reads all tokens of the user on every request, and breaks on a token that is not UTF-8.
    """

    def authenticate(self, request):
        scheme, _, token = get_authorization_header(request).partition(b" ")
        if scheme.decode("latin-1").lower() not in SCHEMES:
            return None
        user, auth_token = self.authenticate_credentials(token.strip())
        current_request().user = user.username
        return user, auth_token

    def authenticate_credentials(self, token):
        try:
            digest = hash_token(token.decode("ascii"))
        except UnicodeDecodeError:
            raise AuthenticationFailed("Invalid token.") from None
        user = read_user(HOLDER, digest=digest, now=timezone.now())
        if user is None:
            raise AuthenticationFailed("Invalid token.")
        return user, AuthToken.from_db(connection.alias, ("digest", "user_id"), (digest, user.pk))


class TokenScheme(OpenApiAuthenticationExtension):
    """How the API's description names the tokens. `Bearer`, which is read as well, is what its tools know."""

    target_class = TokenAuthentication
    name = "token"

    def get_security_definition(self, auto_schema):
        return {"type": "http", "scheme": "bearer", "description": "The token that register or log-in gave"}
