import re
from urllib.parse import urlencode

from django.apps import apps
from django.contrib import admin
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.auth.admin import GroupAdmin, UserAdmin
from django.contrib.auth.forms import (
    AdminPasswordChangeForm,
    ReadOnlyPasswordHashField,
    ReadOnlyPasswordHashWidget,
    UserChangeForm,
)
from django.contrib.auth.models import Group, User
from django.core.exceptions import SuspiciousOperation, ValidationError
from django.db import IntegrityError
from django.db.models import PROTECT
from django.urls import reverse
from django.utils.html import format_html_join

from accounts.actions import deactivate, delete_user, lock_account, revoke_tokens, set_password
from accounts.authentication import AuthToken
from accounts.hashers import OwaspArgon2Hasher
from accounts.models import NAME_IS_TAKEN, is_deleted

LONGEST_SEARCH = 400  # characters: an email address has at most 254

admin.site.unregister([User, Group, AuthToken])
AuthToken._meta.verbose_name, AuthToken._meta.verbose_name_plural = "token", "tokens"
apps.get_app_config("auth").verbose_name, apps.get_app_config("knox").verbose_name = "Accounts", "Tokens"


class StrictParametersMixin:
    """Rejects parameters that no page of the admin sends. Django would run any query with them, or fail."""

    def lookup_allowed(self, lookup, value, request=None):
        """Allow the filters that the list shows. Other filters could reveal a digest letter by letter, or scan a table."""
        return lookup.removesuffix("__exact") in self.list_filter

    def to_field_allowed(self, request, to_field):
        return to_field == self.opts.pk.name

    def get_object(self, request, object_id, from_field=None):
        return super().get_object(request, object_id)

    def get_search_results(self, request, queryset, search_term):
        if len(search_term) > LONGEST_SEARCH:  # each word is a condition, and SQLite allows fewer than 1,000
            raise SuspiciousOperation("The search is too long.")
        return super().get_search_results(request, queryset, search_term)

    def response_action(self, request, queryset):
        if not all(re.fullmatch("[0-9]{1,18}", pk) for pk in request.POST.getlist(ACTION_CHECKBOX_NAME)):
            raise SuspiciousOperation("A selected row has no such key.")
        return super().response_action(request, queryset)


class ViewOnlyAdmin(StrictParametersMixin, admin.ModelAdmin):
    show_full_result_count = False  # a search counts what it finds, not the whole table as well

    def has_add_permission(self, request, obj=None):
        return False

    has_change_permission = has_delete_permission = has_add_permission


class PasswordLink(ReadOnlyPasswordHashWidget):
    """The link to set a password, without the parts of the hash that Django shows. A stored hash may be malformed, too."""

    def get_context(self, name, value, attrs):
        return {**super().get_context(name, OwaspArgon2Hasher.unmatched_hash, attrs), "summary": []}


class ChangeUserForm(UserChangeForm):
    password = ReadOnlyPasswordHashField(label="Password", widget=PasswordLink)


class SetPasswordForm(AdminPasswordChangeForm):
    def save(self, commit=True):
        set_password(self.user, self.cleaned_data["password1"] if self.cleaned_data["set_usable_password"] else None)
        return self.user


@admin.register(User)
class AccountAdmin(StrictParametersMixin, UserAdmin):
    form = ChangeUserForm
    change_password_form = SetPasswordForm
    list_display = ["username", "email", "is_active", "is_staff", "date_joined"]
    list_filter = ["is_active", "is_staff", "is_superuser"]
    search_fields = ["username__part_in_any_case", "first_name", "last_name", "email"]
    actions = ["deactivate_users", "revoke_tokens_of_users"]
    fieldsets = [UserAdmin.fieldsets[0], ("See also", {"fields": ["lists"]}), *UserAdmin.fieldsets[1:]]
    # Links on the page of a user: the label, the list and the search in it. Other apps add their own links.
    linked_lists = {"Tokens": ("admin:knox_authtoken_changelist", "{}")}

    @admin.display(description="Lists")
    def lists(self, user):
        links = (
            (reverse(page), urlencode({"q": search.format(user.username)}), label)
            for label, (page, search) in self.linked_lists.items()
        )
        return format_html_join(" · ", '<a href="{}?{}">{}</a>', links)

    def has_change_permission(self, request, obj=None):
        is_editable = obj is None or not is_deleted(obj)
        return is_editable and super().has_change_permission(request, obj) and self.may_act_on(request.user, obj)

    def has_delete_permission(self, request, obj=None):
        return super().has_delete_permission(request, obj) and self.may_act_on(request.user, obj)

    @staticmethod
    def may_act_on(operator, user):
        """Return whether the operator may change the user's account. Only superusers may change those of other staff."""
        is_staff = user is not None and (user.is_staff or user.is_superuser)
        return operator.is_superuser or not is_staff or operator == user

    def get_readonly_fields(self, request, obj=None):
        """Make the name read-only, because clients identify the user by it. Only superusers can change permissions.

        The times are read-only because a form would show them without their time zone.
        """
        if obj is None:
            return []
        permissions = ["is_staff", "is_superuser", "groups", "user_permissions"]
        return ["username", "lists", "last_login", "date_joined", *([] if request.user.is_superuser else permissions)]

    def get_deleted_objects(self, objs, request):
        """Describe what would be deleted without reading it.

        Django would list every row: tokens with their digests, and up to millions of messages that prevent the deletion.
        """
        protected = {
            relation.related_model._meta.verbose_name_plural
            for relation in User._meta.get_fields(include_hidden=True)
            if getattr(relation, "on_delete", None) is PROTECT
            and relation.related_model.objects.filter(**{f"{relation.field.name}__in": objs}).exists()
        }
        names = [f"{user}, with their tokens and other data" for user in objs]
        is_permitted = all(self.has_delete_permission(request, user) for user in objs)
        return names, {"users": len(objs)}, set() if is_permitted else {"user"}, sorted(protected)

    def save_model(self, request, obj, form, change):
        if not change:
            try:
                super().save_model(request, obj, form, change)
            except IntegrityError:  # another request has just taken the name
                raise ValidationError({"username": [NAME_IS_TAKEN]}) from None
            return
        lock_account(User(pk=obj.pk))
        columns = {field.name for field in obj._meta.concrete_fields}
        obj.save(update_fields=columns.intersection(form.changed_data))  # other columns may have changed since obj was read
        if "is_active" in form.changed_data and not obj.is_active:
            deactivate(obj)

    def delete_model(self, request, obj):
        delete_user(obj)

    def delete_queryset(self, request, queryset):
        for user in queryset:
            delete_user(user)

    @admin.action(description="Deactivate selected users and revoke their tokens", permissions=["change"])
    def deactivate_users(self, request, queryset):
        others = queryset.exclude(pk=request.user.pk)  # an operator who selects all stays active
        self.act_on_each(request, others, deactivate, "Deactivated")

    @admin.action(description="Revoke all tokens of selected users", permissions=["change"])
    def revoke_tokens_of_users(self, request, queryset):
        self.act_on_each(request, queryset, revoke_tokens, "Revoked all tokens")

    def act_on_each(self, request, queryset, act, done, is_permitted=None):
        """Call `act` for each user that the operator may change, and log `done` if it does not return False."""
        is_permitted = is_permitted or self.has_change_permission
        users = [user for user in queryset if is_permitted(request, user) and act(user) is not False]
        for user in users:
            self.log_change(request, user, f"{done}.")
        self.message_user(request, f"{done}: {', '.join(map(str, users)) or 'nobody'}.")


@admin.register(Group)
class SuperusersGroupAdmin(StrictParametersMixin, GroupAdmin):
    """Lets only superusers change groups: other staff could give any permission to a group of their own."""

    def has_add_permission(self, request, obj=None):
        return request.user.is_superuser

    has_change_permission = has_delete_permission = has_add_permission


@admin.register(AuthToken)
class AuthTokenAdmin(ViewOnlyAdmin):
    """Lists the owners of tokens and when each token expires. The list of users has the action that revokes them.

    Each row's primary key is the token's digest, so no checkbox or link may send it to the browser.
    """

    list_display = fields = ["user", "created", "expiry"]
    list_display_links = None
    ordering = ["-created"]
    search_fields = ["user__username__any_case"]
    search_help_text = "A whole username. To revoke tokens, select their users in the list of users."
