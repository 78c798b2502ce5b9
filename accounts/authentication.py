"""Tokens: django-rest-knox, which no other module imports."""

from django.contrib.auth.models import User
from django.utils import timezone
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from knox.auth import TokenAuthentication as KnoxAuthentication
from knox.crypto import hash_token
from knox.models import AuthToken
from rest_framework.authentication import get_authorization_header
from rest_framework.exceptions import AuthenticationFailed

from config.log import current_request

SCHEMES = ("token", "bearer")


def issue_token(user: User) -> tuple[AuthToken, str]:
    """A new token for the user, and its text, which is nowhere kept."""
    return AuthToken.objects.create(user)


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
            auth_token = AuthToken.objects.select_related("user").get(
                digest=digest, expiry__gt=timezone.now(), user__is_active=True
            )
        except (UnicodeDecodeError, AuthToken.DoesNotExist):
            raise AuthenticationFailed("Invalid token.") from None
        return auth_token.user, auth_token


class TokenScheme(OpenApiAuthenticationExtension):
    """How the API's description names the tokens. `Bearer`, which is read as well, is what its tools know."""

    target_class = TokenAuthentication
    name = "token"

    def get_security_definition(self, auto_schema):
        return {"type": "http", "scheme": "bearer", "description": "The token that register or log-in gave"}
