"""The URL parameters of the lists."""

import re
from datetime import date

import django_filters
from django import forms
from django.core.exceptions import ValidationError
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema_field

from accounts.filters import UsernameFilter
from messageservice.listings import Listing, MailboxListing
from messageservice.models import Conversation, Mailbox


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

    def filter(self, queryset, value):
        return queryset if value is None else queryset.on(value)


@extend_schema_field(OpenApiTypes.BOOL)
class UnreadFilter(django_filters.Filter):
    field_class = TruthField

    def filter(self, queryset, value):
        return queryset if value is None else queryset.unread(value)


class PartnerFilter(UsernameFilter):
    """Narrows a list of messages to those exchanged with the user named."""

    def filter(self, queryset, value):
        return queryset if value is None else queryset.between(self.parent.request.user, value)


class MessageFilter(django_filters.FilterSet):
    """What the three message lists have in common: a day, and a listing whose count stands in a mailbox or conversation."""

    date = DayFilter(label="A day in UTC, YYYY-MM-DD")

    partner_parameter: str
    counter: str

    def filter_queryset(self, queryset):
        return Listing(super().filter_queryset(queryset), self.stored_count)

    def stored_count(self) -> int | None:
        """How many messages the list holds, as counted when they were sent; None for those of a day."""
        return None if self.form.cleaned_data["date"] else self.count_in(self.counted())

    def counted(self) -> Mailbox | Conversation:
        partner = self.form.cleaned_data[self.partner_parameter]
        if partner is None:
            return Mailbox.objects.of(self.request.user)
        return Conversation.objects.between(self.request.user, partner)

    def count_in(self, counted: Mailbox | Conversation) -> int:
        return getattr(counted, self.counter)


class MailboxFilter(MessageFilter):
    user = PartnerFilter()

    partner_parameter = "user"
    counter = "total"

    def filter_queryset(self, queryset):
        if any(value is not None for value in self.form.cleaned_data.values()):
            return super().filter_queryset(queryset)
        return MailboxListing(self.request.user, queryset)


class SentFilter(MessageFilter):
    receiver = UsernameFilter()

    partner_parameter = "receiver"
    counter = "sent"


class ReceivedFilter(MessageFilter):
    sender = UsernameFilter()
    unread = UnreadFilter()

    partner_parameter = "sender"
    counter = "received"

    def count_in(self, counted):
        match self.form.cleaned_data["unread"]:
            case True:
                return counted.unread
            case False:
                return counted.received - counted.unread
        return super().count_in(counted)


class ConversationFilter(django_filters.FilterSet):
    unread = UnreadFilter()
