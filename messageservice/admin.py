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
    hold a little less than others.
    """

    def __init__(self, messages: MessageQuerySet) -> None:
        self.messages = messages
        self.newest = messages.newest_first().values_list("pk", flat=True).first() or 0

    def count(self) -> int:
        return self.newest

    def __getitem__(self, rows: slice) -> MessageQuerySet:
        return self.messages.filter(pk__range=(self.newest - rows.stop + 1, self.newest - rows.start)).newest_first()


class SearchResults:
    """The messages of a listing."""

    def __init__(self, messages: MessageQuerySet, listing: MessageListing) -> None:
        self.messages = messages
        self.listing = listing

    def count(self) -> int:
        _, count = self.listing.page(0, 1)
        return count

    def __getitem__(self, rows: slice) -> MessageQuerySet:
        found, _ = self.listing.page(rows.start, rows.stop - rows.start)
        return self.messages.filter(pk__in=[row.id for row in found]).newest_first()


@admin.action(description="Erase selected users", permissions=["delete"])
def erase_users(model_admin, request, queryset):
    """Delete accounts for good. An operator who selects all users keeps their own."""
    others = queryset.exclude(pk=request.user.pk)
    model_admin.act_on_each(request, others, erase_for_operator, "Erased", model_admin.has_delete_permission)


AccountAdmin.actions = [*AccountAdmin.actions, erase_users]


@admin.register(Message)
class MessageAdmin(ViewOnlyAdmin):
    """Messages can be looked at. No page of the list counts, sorts or scans, however many there are."""

    list_display = ["created", "sender", "receiver", "beginning", "read"]
    fields = ["created", "sender", "receiver", "content", "read"]
    list_select_related = []  # or Django joins all users, and PostgreSQL reads them whole
    list_per_page = 50
    sortable_by = []
    search_fields = ["sender", "receiver"]  # shows the search box; get_search_results searches
    search_help_text = "A whole username: all that they sent or received. Two usernames: their conversation."
    show_full_result_count = False

    def get_queryset(self, request):
        return super().get_queryset(request).prefetch_related("sender", "receiver")

    @admin.display(description="content")
    def beginning(self, message):
        return message.content if len(message.content) <= 80 else f"{message.content[:79]}…"

    def get_search_results(self, request, queryset, search_term):
        """Return the messages found, and leave the rows to count and page through to get_paginator, in the request."""
        names = {lower_case(name) for name in search_term.split()}
        users = [user_named(name) for name in [*names][:3]]
        if not names:
            request.rows = AllMessages(queryset)
        elif None in users or len(users) > 2:
            queryset = request.rows = queryset.none()
        elif len(users) == 2:
            request.rows = SearchResults(queryset, MessageListing.involving(users[0]).exchanged_with(users[1]))
            queryset = queryset.between(*users)
        else:
            request.rows = SearchResults(queryset, MessageListing.involving(users[0]))
            queryset = queryset.involving(users[0])
        return queryset, False

    def get_paginator(self, request, queryset, per_page, **kwargs):
        return Paginator(request.rows, per_page)
