import django_filters
from django import forms

from accounts.models import NO_SUCH_USER, user_named


class UsernameFormField(forms.Field):
    def to_python(self, value):
        user = user_named(value)
        if user is None:
            raise forms.ValidationError(NO_SUCH_USER)
        return user


class UsernameFilter(django_filters.CharFilter):
    """Filters rows by a user, given by their username."""

    field_class = UsernameFormField
