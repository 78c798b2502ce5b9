from django.contrib import admin

from accounts.admin import AccountAdmin, ViewOnlyAdmin
from blocking.actions import unblock_user
from blocking.models import Block


@admin.register(Block)
class BlockAdmin(ViewOnlyAdmin):
    """Blocks can be looked at and lifted; only the blocker can create one."""

    list_display = fields = ["created", "blocker", "blocked"]
    search_fields = ["blocker__username__any_case", "blocked__username__any_case"]
    search_help_text = "A whole username."

    has_delete_permission = admin.ModelAdmin.has_delete_permission

    def delete_model(self, request, obj):
        unblock_user(obj)

    def delete_queryset(self, request, queryset):
        for block in queryset:
            unblock_user(block)


AccountAdmin.linked_lists |= {"Blocks": ("admin:blocking_block_changelist", "{}")}
