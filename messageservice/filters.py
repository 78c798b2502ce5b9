"""The URL parameters of the lists."""

import re
from dataclasses import replace
from datetime import datetime

import django_filters
from django.core.exceptions import ValidationError
from django_filters.rest_framework import DjangoFilterBackend

from accounts.filters import UsernameFilter
from messageservice.listings import ALL_TIME, MICROSECOND, YEAR_ONE

TIME = "(?:[01][0-9]|2[0-3]):[0-5][0-9]"
INSTANT = re.compile(rf"([0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}T{TIME}:[0-5][0-9])(?:\.([0-9]+))?(Z|[+ -]{TIME})")
INVALID_TIME = "Enter a time as 2026-11-23T22:59:28Z or 2026-11-23T22:59:28+03:00."
ZONE = "It ends with `Z` or an offset from UTC such as `+03:00`"
DAY = 24 * 60 * 60 * 10**6  # microseconds


def position(instant: str) -> int:
    """Return the position in ALL_TIME of an RFC 3339 instant, rounded up, or 0 for an earlier one.

    Raises ValueError if it is malformed. The sign of an offset may be a space: the plus that a client did not escape.
    """
    match = INSTANT.fullmatch(instant)
    if not match:
        raise ValueError
    second, fraction, offset = match.groups("")
    elapsed = datetime.fromisoformat(second + offset.replace(" ", "+")) - YEAR_ONE
    return max(0, elapsed // MICROSECOND + int(f"{fraction[:6]:0<6}") + bool(fraction[6:].strip("0")))


class DayFilter(django_filters.DateFilter):
    error_message = "Enter a date as YYYY-MM-DD."

    def parse(self, value: str) -> range:
        start = position(f"{value}T00:00:00Z")
        return ALL_TIME[start : start + DAY]


class SinceFilter(django_filters.IsoDateTimeFilter):
    error_message = INVALID_TIME

    def parse(self, value: str) -> range:
        return ALL_TIME[position(value) :]


class UntilFilter(django_filters.IsoDateTimeFilter):
    error_message = INVALID_TIME

    def parse(self, value: str) -> range:
        return ALL_TIME[: position(value)]


class UnreadFilter(django_filters.BooleanFilter):
    error_message = "Must be true or false."

    def parse(self, value: str) -> bool:
        if value not in ("true", "false"):
            raise ValueError
        return value == "true"


class ListingFilterBackend(DjangoFilterBackend):
    """Filters a listing: each filter sets the field of the listing that its `field_name` names.

    If several filters set one field, their values are ranges, and the field gets the intersection. Each filter parses its
    parameter, because a FilterSet makes a form of all parameters, which takes as long as the query.
    """

    def filter_queryset(self, request, queryset, view):
        values, errors = {}, {}
        for name, filter_ in view.filterset_class.base_filters.items():
            if name in request.query_params:
                try:
                    value = filter_.parse(request.query_params[name])
                except ValueError:
                    errors[name] = [filter_.error_message]
                    continue
                other = values.get(filter_.field_name, value)
                if isinstance(value, range):
                    value = range(max(value.start, other.start), min(value.stop, other.stop))
                values[filter_.field_name] = value
        if errors:
            raise ValidationError(errors)
        return replace(queryset, **values) if values else queryset


class MessageFilter(django_filters.FilterSet):
    """The filters of all three message lists."""

    date = DayFilter("created", help_text="Return the messages of this day in UTC")
    since = SinceFilter("created", help_text=f"Return the messages created at this time or later. {ZONE}")
    until = UntilFilter("created", help_text=f"Return the messages created before this time. {ZONE}")


class MailboxFilter(MessageFilter):
    user = UsernameFilter("partner", help_text="Return the conversation with this user: both directions")


class SentFilter(MessageFilter):
    receiver = UsernameFilter("partner", help_text="Return the messages sent to this user")


class ReceivedFilter(MessageFilter):
    sender = UsernameFilter("partner", help_text="Return the messages received from this user")
    unread = UnreadFilter(
        "is_unread", help_text="Return the messages that are not marked as read, or with `false` those that are"
    )


class ConversationFilter(django_filters.FilterSet):
    unread = UnreadFilter(
        "is_unread", help_text="Return the conversations with unread messages, or with `false` those without"
    )
