from django.contrib import admin
from django.contrib.auth.models import User
from django.core.paginator import Paginator

from messageservice.listings import MessageListing
from messageservice.models import Message, MessageQuerySet


class Archive:
    """All messages of all users, newest first. Every page of it is a range of ids, at any depth.

    As ids have few gaps (what a sender's rollback leaves), the newest one stands for the number of messages, and a page may
    hold a little less than others.
    """

    def __init__(self, messages: MessageQuerySet) -> None:
        self.messages = messages
        self.newest = messages.newest_first().values_list("pk", flat=True).first() or 0

    def count(self) -> int:
        return self.newest

    def __getitem__(self, rows: slice) -> MessageQuerySet:
        return self.messages.filter(pk__range=(self.newest - rows.stop + 1, self.newest - rows.start)).newest_first()


class Found:
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


@admin.register(Message)
class MessageAdmin(admin.ModelAdmin):
    """Messages can be looked at. No page of the list counts, sorts or scans, however many there are."""

    list_display = ["created", "sender", "receiver", "beginning", "read"]
    fields = ["created", "sender", "receiver", "content", "read"]
    list_select_related = []
    list_per_page = 50
    ordering = ["-pk"]
    sortable_by = []
    search_fields = ["sender", "receiver"]  # shows the search box; what it finds is up to get_search_results
    search_help_text = "A username, exactly: all that they sent or received. Two usernames: their conversation."
    show_full_result_count = False
    actions = None

    def get_queryset(self, request):
        """The users by a query of their own: where PostgreSQL expects more rows than a page has, it would join all users."""
        return super().get_queryset(request).prefetch_related("sender", "receiver")

    @admin.display(description="content")
    def beginning(self, message):
        return message.content if len(message.content) <= 80 else f"{message.content[:79]}…"

    def get_search_results(self, request, queryset, search_term):
        """The messages found; beside them, for get_paginator, the listing that knows how many they are."""
        names = search_term.split()
        users = list(User.objects.filter(username__in=names).order_by("pk"))
        if not names:
            request.listing = Archive(queryset)
        elif len(users) < len(set(names)) or len(users) > 2:
            queryset = request.listing = queryset.none()
        elif len(users) == 2:
            request.listing = Found(queryset, MessageListing.involving(users[0]).exchanged_with(users[1]))
            queryset = queryset.between(*users)
        else:
            request.listing = Found(queryset, MessageListing.involving(users[0]))
            queryset = queryset.involving(users[0])
        return queryset, False

    def get_paginator(self, request, queryset, per_page, **kwargs):
        return Paginator(request.listing, per_page)

    def lookup_allowed(self, lookup, value, request=None):
        return False  # no index serves what else a URL could ask for

    def has_add_permission(self, request):
        return False

    def has_change_permission(self, request, obj=None):
        return False

    def has_delete_permission(self, request, obj=None):
        return False
