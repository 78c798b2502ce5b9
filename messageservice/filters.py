"""The URL parameters of the message lists."""

import re
from datetime import date

import django_filters
from django import forms
from django.core.exceptions import ValidationError

from accounts.filters import UsernameFilter
from messageservice.models import Message


class DayField(forms.Field):
    """A calendar date as YYYY-MM-DD, nothing looser."""

    def to_python(self, value):
        if value is None:
            return None
        try:
            if not re.fullmatch("[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
                raise ValueError
            return date.fromisoformat(value)
        except ValueError:
            raise ValidationError("Enter a date as YYYY-MM-DD.") from None


class DayFilter(django_filters.Filter):
    field_class = DayField

    def filter(self, queryset, value):
        return queryset if value is None else queryset.on(value)


class SentFilter(django_filters.FilterSet):
    receiver = UsernameFilter()
    date = DayFilter()

    class Meta:
        model = Message
        fields = ["receiver", "date"]


class ReceivedFilter(django_filters.FilterSet):
    sender = UsernameFilter()
    date = DayFilter()

    class Meta:
        model = Message
        fields = ["sender", "date"]
