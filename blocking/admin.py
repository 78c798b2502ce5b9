from contextlib import suppress

from django.contrib import admin
from django.http import Http404

from accounts.admin import AccountAdmin, ViewOnlyAdmin
from accounts.models import user_named
from blocking.actions import unblock_user
from blocking.models import Block


@admin.register(Block)
class BlockAdmin(ViewOnlyAdmin):
    """Shows and deletes blocks. Only a blocker can create a block."""

    list_display = fields = ["created", "blocker", "blocked"]
    search_fields = ["blocker", "blocked"]  # shows the search box; get_search_results searches
    search_help_text = "A whole username."

    has_delete_permission = admin.ModelAdmin.has_delete_permission

    def get_search_results(self, request, queryset, search_term):
        """Search by the user's id: with two joins to search both names, databases would read all blocks."""
        if search_term:
            user = user_named(search_term)
            queryset = queryset.involving(user) if user else queryset.none()
        return queryset, False

    def delete_model(self, request, obj):
        unblock_user(obj)

    def delete_queryset(self, request, queryset):
        for block in queryset:
            with suppress(Http404):  # the blocker has just deleted it
                unblock_user(block)


AccountAdmin.linked_lists |= {"Blocks": ("admin:blocking_block_changelist", "{}")}
