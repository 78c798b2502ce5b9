import django_filters
from django.contrib.auth.models import User

from accounts.models import NO_SUCH_USER, user_named


class UsernameFilter(django_filters.CharFilter):
    """Filters rows by a user, given by their username."""

    error_message = NO_SUCH_USER

    def parse(self, value: str) -> User:
        user = user_named(value)
        if user is None:
            raise ValueError
        return user
