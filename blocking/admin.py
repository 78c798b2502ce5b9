from django.contrib import admin

from blocking.actions import unblock_user
from blocking.models import Block


@admin.register(Block)
class BlockAdmin(admin.ModelAdmin):
    """Blocks can be looked at and lifted; to set one up is its blocker's alone."""

    list_display = fields = ["created", "blocker", "blocked"]
    list_select_related = ["blocker", "blocked"]
    ordering = ["-pk"]
    search_fields = ["blocker__username__exact", "blocked__username__exact"]
    search_help_text = "A username, exactly."

    def has_add_permission(self, request):
        return False

    def has_change_permission(self, request, obj=None):
        return False

    def delete_model(self, request, obj):
        unblock_user(obj)

    def delete_queryset(self, request, queryset):
        for block in queryset:
            unblock_user(block)
