from django.core.validators import RegexValidator
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from accounts.hashers import LONGEST_PASSWORD
from accounts.models import NO_SUCH_USER, user_named
from config.api.fields import TextField
from config.api.schema import examples

LONGEST_USERNAME = 150  # auth_user's column

# ASCII only, so that no two names look alike; with a letter or digit, so that no name is a path such as `..`.
username_is_plain = RegexValidator(
    r"^(?=.*[A-Za-z0-9])[A-Za-z0-9@.+_-]+\Z",
    "Use ASCII letters, digits and @ . + - _ only, with a letter or digit among them.",
)


@extend_schema_field(OpenApiTypes.STR)
class UsernameField(serializers.Field):
    """A user, named by their username exactly as registered."""

    default_error_messages = {
        "does_not_exist": NO_SUCH_USER,
        "invalid": "Not a valid string.",
    }

    def to_internal_value(self, data):
        if not isinstance(data, str):
            self.fail("invalid")
        user = user_named(data)
        if user is None:
            self.fail("does_not_exist")
        return user

    def to_representation(self, value):
        return value.username


@examples(response={"username": "alice", "email": "alice@example.com"})
class UserSerializer(serializers.Serializer):
    username = serializers.CharField()
    email = serializers.CharField()  # "" where there is none


@examples(request={"username": "alice", "password": "a long secret", "email": "alice@example.com"})
class RegisterSerializer(serializers.Serializer):
    username = TextField(max_length=LONGEST_USERNAME, validators=[username_is_plain])
    password = TextField(max_length=LONGEST_PASSWORD, trim_whitespace=False)
    email = serializers.EmailField(max_length=254, allow_blank=True, required=False)


@examples(request={"username": "alice", "password": "a long secret"})
class LoginSerializer(serializers.Serializer):
    username = TextField()
    password = TextField(trim_whitespace=False)


@examples(request={"current_password": "a long secret", "new_password": "a longer secret"})
class PasswordSerializer(serializers.Serializer):
    current_password = TextField(trim_whitespace=False)
    new_password = TextField(max_length=LONGEST_PASSWORD, trim_whitespace=False)


@examples(
    response={
        "user": {"username": "alice", "email": "alice@example.com"},
        "token": "8f5cb06d2a1e4c8f9be1f0a3d5c7e9b2486a0c2e4f6183a5c7d9ebfd10325476",
        "expiry": "2026-11-24T08:59:26.655107Z",
    }
)
class SessionSerializer(serializers.Serializer):
    user = UserSerializer()
    token = serializers.CharField()
    expiry = serializers.DateTimeField()
