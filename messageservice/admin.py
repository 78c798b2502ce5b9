from django.contrib import admin
from django.contrib.auth.models import User
from django.core.paginator import Paginator

from messageservice.listings import ArchiveListing, Listing, MailboxListing
from messageservice.models import Conversation, Message


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
            request.listing = ArchiveListing(queryset)
        elif len(users) < len(set(names)) or len(users) > 2:
            queryset = request.listing = queryset.none()
        elif len(users) == 2:
            queryset = queryset.between(*users)
            request.listing = Listing(queryset, lambda: Conversation.objects.between(*users).total)
        else:
            request.listing = MailboxListing(users[0], queryset)
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
