"""The URL parameters of the lists."""

import re
from datetime import date
from functools import cache

import django_filters
from django import forms
from django.core.exceptions import ValidationError
from django_filters.rest_framework import DjangoFilterBackend
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema_field

from accounts.filters import UsernameFilter


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


class TruthField(forms.Field):
    """`true` or `false`."""

    def to_python(self, value):
        if value not in (None, "true", "false"):
            raise ValidationError("Must be true or false.")
        return value and value == "true"


@extend_schema_field(OpenApiTypes.DATE)
class DayFilter(django_filters.Filter):
    field_class = DayField

    def filter(self, listing, value):
        return listing if value is None else listing.on(value)


@extend_schema_field(OpenApiTypes.BOOL)
class UnreadFilter(django_filters.Filter):
    field_class = TruthField

    def filter(self, listing, value):
        return listing if value is None else listing.unread(value)


class PartnerFilter(UsernameFilter):
    """Narrows a list of messages to those exchanged with the user named."""

    def filter(self, listing, value):
        return listing if value is None else listing.exchanged_with(value)


class ListingFilterBackend(DjangoFilterBackend):
    """Leaves alone what no URL parameter filters."""

    def filter_queryset(self, request, queryset, view):
        if not request.query_params.keys() & view.filterset_class.base_filters.keys():
            return queryset
        return super().filter_queryset(request, queryset, view)


class ListingFilter(django_filters.FilterSet):
    """Filters a listing, as others filter a queryset."""

    @property
    def qs(self):
        listing = self.queryset
        for name, value in self.form.cleaned_data.items():
            listing = self.filters[name].filter(listing, value)
        return listing

    def get_form_class(self):
        return _form_class(type(self))


@cache
def _form_class(filterset_class):
    """The form that checks the parameters, made once; django-filter makes a new class for each request."""
    fields = {name: filter_.field for name, filter_ in filterset_class.base_filters.items()}
    return type(f"{filterset_class.__name__}Form", (forms.Form,), fields)


class MessageFilter(ListingFilter):
    """What the three message lists have in common."""

    date = DayFilter(label="A day in UTC, YYYY-MM-DD")


class MailboxFilter(MessageFilter):
    user = PartnerFilter()


class SentFilter(MessageFilter):
    receiver = PartnerFilter()


class ReceivedFilter(MessageFilter):
    sender = PartnerFilter()
    unread = UnreadFilter()


class ConversationFilter(ListingFilter):
    unread = UnreadFilter()
