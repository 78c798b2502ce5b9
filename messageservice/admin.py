import re

from django.contrib import admin
from django.core.paginator import Paginator

from accounts.admin import AccountAdmin, ViewOnlyAdmin
from accounts.models import lower_case, user_named
from messageservice.actions import erase_for_operator
from messageservice.listings import MessageListing
from messageservice.models import Message, MessageQuerySet


class AllMessages:
    """The messages of all users, newest first. Each page is a range of ids, so it costs the same at any depth.

    The largest id serves as the number of messages. Ids have few gaps (where a transaction was rolled back), so a page may
    have fewer messages than others.
    """

    def __init__(self, messages: MessageQuerySet) -> None:
        self.messages = messages
        self.newest = messages.newest_first().values_list("pk", flat=True).first() or 0

    def count(self) -> int:
        return self.newest

    def __getitem__(self, rows: slice) -> MessageQuerySet:
        return self.messages.filter(pk__range=(self.newest - rows.stop + 1, self.newest - rows.start)).newest_first()


class SearchResults:
    """The messages `first`, and after them the messages of the listing."""

    def __init__(self, messages: MessageQuerySet, first: list[Message], listing: MessageListing) -> None:
        self.messages = messages
        self.first = first
        self.listing = listing

    def count(self) -> int:
        _, count = self.listing.page(0, 1)
        return len(self.first) + count

    def __getitem__(self, rows: slice) -> list[Message]:
        start = max(rows.start - len(self.first), 0)
        page, _ = self.listing.page(start, rows.stop - len(self.first) - start)
        return [*self.first[rows], *self.messages.filter(pk__in=[row.id for row in page]).newest_first()]


DIRECTIONS = {"": "involving", "from": "sent_by", "to": "received_by"}  # methods of MessageQuerySet and MessageListing


def find_messages(messages: MessageQuerySet, words: list[str]) -> tuple[MessageQuerySet, MessageListing] | None:
    """Return the results for `alice`, `from:alice`, `to:alice` or `alice bob`, or None if there is no such user."""
    direction, _, name = words[0].rpartition(":")
    users = [user_named(name) for name in (name, *words[1:3])]
    if None in users or len(users) > (1 if direction else 2) or direction not in DIRECTIONS:
        return None
    if len(users) == 2:
        return messages.between(*users), MessageListing.involving(users[0]).exchanged_with(users[1])
    method = DIRECTIONS[direction]
    return getattr(messages, method)(*users), getattr(MessageListing, method)(*users)


@admin.action(description="Erase selected users", permissions=["delete"])
def erase_users(model_admin, request, queryset):
    """Delete accounts for good. An operator who selects all users keeps their own."""
    others = queryset.exclude(pk=request.user.pk)
    model_admin.act_on_each(request, others, erase_for_operator, "Erased", model_admin.has_delete_permission)


AccountAdmin.actions = [*AccountAdmin.actions, erase_users]


@admin.register(Message)
class MessageAdmin(ViewOnlyAdmin):
    """Shows messages. No page of the list counts, sorts or scans the whole table."""

    list_display = ["id", "created", "sender", "receiver", "beginning", "read"]
    fields = ["id", "created", "sender", "receiver", "content", "read"]
    list_select_related = []  # or Django joins all users, and PostgreSQL reads them whole
    list_per_page = 50
    sortable_by = []
    search_fields = ["id", "sender", "receiver"]  # shows the search box; get_search_results searches
    search_help_text = (
        "The id of a message. A whole username: all that they sent or received; from:name or to:name: what they sent or "
        "received. Two usernames: their conversation."
    )

    def get_queryset(self, request):
        return super().get_queryset(request).prefetch_related("sender", "receiver")

    @admin.display(description="content")
    def beginning(self, message):
        return message.content if len(message.content) <= 80 else f"{message.content[:79]}…"

    def get_search_results(self, request, queryset, search_term):
        """Return the messages found, and pass their rows to get_paginator in `request.rows`."""
        words = [*{lower_case(word) for word in search_term.split()}]  # each word once
        if not words:
            request.rows = AllMessages(queryset)
            return queryset, False
        is_id = len(words) == 1 and re.fullmatch("[0-9]{1,18}", words[0])
        with_id = queryset.filter(pk=words[0]) if is_id else queryset.none()
        results = find_messages(queryset, words)
        if results is None:
            request.rows = list(with_id)
            return with_id, False
        messages, listing = results  # and the message with this id, if the name of a user is a number
        others = [message for message in with_id if listing.with_id(message.pk) is None]
        request.rows = SearchResults(queryset, others, listing)
        return with_id | messages, False

    def get_paginator(self, request, queryset, per_page, **kwargs):
        rows = getattr(request, "rows", queryset)  # the page of a message's history has only its queryset
        return Paginator(rows, per_page)


AccountAdmin.linked_lists |= {
    "Messages sent": ("admin:messageservice_message_changelist", "from:{}"),
    "Messages received": ("admin:messageservice_message_changelist", "to:{}"),
}
