from django.contrib import admin
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.forms import (
    AdminPasswordChangeForm,
    ReadOnlyPasswordHashField,
    ReadOnlyPasswordHashWidget,
    UserChangeForm,
)
from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import PROTECT

from accounts.actions import deactivate, revoke_tokens
from accounts.authentication import AuthToken

admin.site.unregister([User, AuthToken])


class ListedFiltersMixin:
    def lookup_allowed(self, lookup, value, request=None):
        """Refuse in URLs what the list shows no filter for: it could find out a digest letter by letter, or scan a table."""
        return lookup.removesuffix("__exact") in self.list_filter


class ViewOnlyAdmin(ListedFiltersMixin, admin.ModelAdmin):
    def has_add_permission(self, request):
        return False

    def has_change_permission(self, request, obj=None):
        return False

    def has_delete_permission(self, request, obj=None):
        return False


class PasswordLink(ReadOnlyPasswordHashWidget):
    """The link to set a password, without the parts of the hash that Django shows."""

    def get_context(self, name, value, attrs):
        return {**super().get_context(name, value, attrs), "summary": []}


class ChangeUserForm(UserChangeForm):
    password = ReadOnlyPasswordHashField(label="Password", widget=PasswordLink)


class SetPasswordForm(AdminPasswordChangeForm):
    @transaction.atomic
    def save(self, commit=True):
        user = super().save(commit)
        revoke_tokens(user)
        return user


@admin.register(User)
class AccountAdmin(ListedFiltersMixin, UserAdmin):
    form = ChangeUserForm
    change_password_form = SetPasswordForm
    list_display = ["username", "email", "is_active", "is_staff", "date_joined"]
    list_filter = ["is_active", "is_staff", "is_superuser"]
    search_fields = ["username__part_in_any_case", "first_name", "last_name", "email"]
    actions = ["deactivate_users", "revoke_tokens_of_users"]

    def get_readonly_fields(self, request, obj=None):
        """A name never changes: it is how clients identify the user."""
        return ["username"] if obj else []

    def get_deleted_objects(self, objs, request):
        """What would be deleted, without reading it.

        Django would list every row: tokens by their digests, and messages, which forbid the deletion, by the million.
        """
        forbidding = {
            relation.related_model._meta.verbose_name_plural
            for relation in User._meta.get_fields(include_hidden=True)
            if getattr(relation, "on_delete", None) is PROTECT
            and relation.related_model.objects.filter(**{f"{relation.field.name}__in": objs}).exists()
        }
        names = [f"{user}, with their tokens and other data" for user in objs]
        return names, {"users": len(objs)}, set(), sorted(forbidding)

    def save_model(self, request, obj, form, change):
        super().save_model(request, obj, form, change)
        if change and "is_active" in form.changed_data and not obj.is_active:
            deactivate(obj)

    @admin.action(description="Deactivate selected users and revoke their tokens", permissions=["change"])
    def deactivate_users(self, request, queryset):
        others = queryset.exclude(pk=request.user.pk)  # an operator who selects all stays
        self.act_on_each(request, others, deactivate, "Deactivated")

    @admin.action(description="Revoke all tokens of selected users", permissions=["change"])
    def revoke_tokens_of_users(self, request, queryset):
        self.act_on_each(request, queryset, revoke_tokens, "Revoked all tokens")

    def act_on_each(self, request, users, act, done):
        for user in users:
            act(user)
            self.log_change(request, user, f"{done}.")
        self.message_user(request, f"{done}: {', '.join(map(str, users)) or 'nobody'}.")


@admin.register(AuthToken)
class AuthTokenAdmin(ViewOnlyAdmin):
    """Who has tokens, and until when; revoking them is an action on users.

    Each row's primary key is the token's digest, so no checkbox or link may send it to the browser.
    """

    list_display = fields = ["user", "created", "expiry"]
    list_display_links = None
    ordering = ["-created"]
    search_fields = ["user__username__any_case"]
    search_help_text = "A whole username. To revoke tokens, select their users in the list of users."
