from django.contrib.auth.models import User
from django.contrib.auth.password_validation import validate_password
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from accounts.hashers import LONGEST_PASSWORD
from accounts.models import NEW_NAME_RULES, NO_SUCH_USER, USERNAME, user_named
from config.api.fields import TextField
from config.api.schema import examples

OWN_NAME = "The username as registered"
CURRENT_PASSWORD = "The password of the account"  # noqa: S105
NEW_PASSWORD = "Taken as typed. It must not be short, common, all digits or similar to the username"  # noqa: S105
EXPIRY = "When the token expires"


@extend_schema_field(OpenApiTypes.STR)
class UsernameField(serializers.Field):
    """A user, named by their username in any letter case and shown as registered."""

    default_error_messages = {
        "does_not_exist": NO_SUCH_USER,
        "malformed": NO_SUCH_USER,
        "invalid": "Not a valid string.",
    }

    def to_internal_value(self, data):
        if not isinstance(data, str):
            self.fail("invalid")
        if not data.isprintable():
            self.fail("malformed")
        user = user_named(data)
        if user is None:
            self.fail("does_not_exist")
        return user

    def to_representation(self, value):
        return value.username


@examples(response={"username": "alice", "email": "alice@example.com"})
class UserSerializer(serializers.Serializer):
    """A user as they see themselves."""

    username = serializers.CharField(help_text=OWN_NAME)
    email = serializers.CharField(help_text="The email address, or an empty text")


@examples(request={"username": "alice", "password": "a long secret", "email": "alice@example.com"})
class RegisterSerializer(serializers.Serializer):
    """A new account."""

    username = TextField(
        max_length=USERNAME.max_length,
        validators=NEW_NAME_RULES,
        help_text="ASCII letters, digits and `@.+-_`, with a letter or digit among them. It must not be taken in any letter "
        "case, and must not begin with `deleted-`",
    )
    password = TextField(max_length=LONGEST_PASSWORD, trim_whitespace=False, help_text=NEW_PASSWORD)
    email = serializers.EmailField(
        max_length=254, allow_blank=True, required=False, help_text="An email address. It may be missing or empty"
    )

    def validate_password(self, password):
        """Check the password, and compare it with the name even if the name is invalid."""
        username = self.initial_data.get("username")
        validate_password(password, User(username=username[: USERNAME.max_length] if isinstance(username, str) else ""))
        return password


@examples(request={"username": "alice", "password": "a long secret"})
class LoginSerializer(serializers.Serializer):
    """The name and password of an account."""

    username = TextField(help_text="The username, in any letter case")
    password = TextField(trim_whitespace=False, help_text="The password")


@examples(request={"current_password": "a longer secret"})
class CurrentPasswordSerializer(serializers.Serializer):
    """The password that confirms a request."""

    current_password = TextField(trim_whitespace=False, help_text=CURRENT_PASSWORD)


@examples(request={"current_password": "a long secret", "new_password": "a longer secret"})
class PasswordSerializer(serializers.Serializer):
    """The password of an account, and the one that replaces it."""

    current_password = TextField(trim_whitespace=False, help_text=CURRENT_PASSWORD)
    new_password = TextField(max_length=LONGEST_PASSWORD, trim_whitespace=False, help_text=NEW_PASSWORD)


@examples(
    response={
        "id": "5f0c2b7d9e14a68335d1c07be9f2486a",
        "created": "2026-11-23T22:59:28.310552Z",
        "expiry": "2026-11-24T08:59:28.310552Z",
        "current": True,
    }
)
class LiveSessionSerializer(serializers.Serializer):
    """A token that has not expired. It is shown without any part of its text."""

    id = serializers.SerializerMethodField(help_text="The first 32 hexadecimal digits of the SHA-512 digest of the token")
    created = serializers.DateTimeField(help_text="When the token was issued")
    expiry = serializers.DateTimeField(help_text=EXPIRY)
    current = serializers.SerializerMethodField(help_text="Whether this is the session that sent the request")

    def get_id(self, token) -> str:
        return token.digest[:32]

    def get_current(self, token) -> bool:
        return token == self.context["request"].auth


@examples(
    response={
        "user": {"username": "alice", "email": "alice@example.com"},
        "token": "8f5cb06d2a1e4c8f9be1f0a3d5c7e9b2486a0c2e4f6183a5c7d9ebfd10325476",
        "expiry": "2026-11-24T08:59:26.655107Z",
    }
)
class SessionSerializer(serializers.Serializer):
    """A new token and its user."""

    user = UserSerializer(help_text="The user who is now logged in")
    token = serializers.CharField(help_text="Send it with other requests: `Authorization: Bearer <token>`")
    expiry = serializers.DateTimeField(help_text=EXPIRY)
