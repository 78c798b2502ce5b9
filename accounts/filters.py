import django_filters
from django import forms
from django.contrib.auth.models import User
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema_field


class UsernameFormField(forms.ModelChoiceField):
    default_error_messages = {"invalid_choice": "There is no such user."}

    def to_python(self, value):
        if value and not value.isprintable():  # NUL, which databases refuse, stands in no name
            raise forms.ValidationError(self.error_messages["invalid_choice"], code="invalid_choice")
        return super().to_python(value)


@extend_schema_field(OpenApiTypes.STR)
class UsernameFilter(django_filters.ModelChoiceFilter):
    """Rows whose user is the one named."""

    field_class = UsernameFormField

    def __init__(self, **kwargs):
        super().__init__(queryset=User.objects.all(), to_field_name="username", **kwargs)
