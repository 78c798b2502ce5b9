from contextlib import suppress

from django.contrib import admin
from django.core.exceptions import PermissionDenied
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

    def has_delete_permission(self, request, obj=None):
        may_act = obj is None or AccountAdmin.may_act_on(request.user, obj.blocker)
        return may_act and admin.ModelAdmin.has_delete_permission(self, request, obj)

    def get_search_results(self, request, queryset, search_term):
        """Search by the user's id: with two joins to search both names, databases would read all blocks."""
        if search_term:
            user = user_named(search_term)
            queryset = queryset.involving(user) if user else queryset.none()
        return queryset, False

    def delete_model(self, request, obj):
        unblock_user(obj)

    def delete_queryset(self, request, queryset):
        blocks = list(queryset.select_related("blocker", "blocked"))
        if not all(self.has_delete_permission(request, block) for block in blocks):
            raise PermissionDenied("Only superusers can delete blocks of other staff.")
        for block in blocks:
            with suppress(Http404):  # the blocker has just deleted it
                unblock_user(block)


# Added here, because accounts must not import blocking.
AccountAdmin.linked_lists |= {"Blocks": ("admin:blocking_block_changelist", "{}")}
