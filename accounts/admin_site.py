"""The site of the admin, and how operators log in to it."""

from functools import wraps

from django.contrib.admin import AdminSite
from django.contrib.admin.forms import AdminAuthenticationForm, AdminPasswordChangeForm
from django.contrib.auth.views import PasswordChangeView
from django.core.exceptions import PermissionDenied, SuspiciousOperation, ValidationError
from django.http import Http404
from django.urls import reverse

from accounts.actions import log_in, set_password, verify_password
from config.log import NOBODY, current_request, record_event


class OperatorLoginForm(AdminAuthenticationForm):
    """Checks credentials as the API does, with the same limits."""

    def clean(self):
        if self.errors:  # a field is missing
            return self.cleaned_data
        self.user_cache = log_in(**self.cleaned_data, on_success=lambda user: user if user.is_staff else None)
        return self.cleaned_data


class OperatorPasswordForm(AdminPasswordChangeForm):
    """Counts wrong current passwords together with those of the API, and revokes the user's tokens."""

    def clean_old_password(self):
        old_password = self.cleaned_data["old_password"]
        if not verify_password(self.user, old_password):
            raise ValidationError(self.error_messages["password_incorrect"], code="password_incorrect")
        return old_password

    def save(self, commit=True):
        set_password(self.user, self.cleaned_data["new_password1"])
        record_event("Change Password", who=self.user.get_username())
        return self.user


class OperatorSite(AdminSite):
    site_header = site_title = "Offline Messaging"
    site_url = "/api/docs"
    login_form = OperatorLoginForm

    def admin_view(self, view, cacheable=False):
        """Respond with 400 (404 for a path) to values that databases reject and Django does not check."""

        @wraps(view)
        def checked_view(request, *args, **kwargs):
            if "\0" in request.path:
                raise Http404
            if "%00" in request.META["QUERY_STRING"]:
                raise SuspiciousOperation("A parameter holds a NUL.")
            try:
                return view(request, *args, **kwargs)
            except OverflowError:  # SQLite's, for a key of more than 64 bits
                raise SuspiciousOperation("A number is too large.") from None

        return super().admin_view(checked_view, cacheable)

    def has_permission(self, request):
        """Name the operator in the logs. Every page calls this method first."""
        if "\0" in "".join(request.COOKIES.values()):  # PostgreSQL would reject it as the key of a session
            raise SuspiciousOperation("A cookie holds a NUL.")
        current_request().user = request.user.get_username() or NOBODY
        return super().has_permission(request)

    def autocomplete_view(self, request):
        """Reject every request: no page uses it, and it fails for some names of fields."""
        raise PermissionDenied("There is no autocompletion here.")

    def password_change(self, request, extra_context=None):
        """Use OperatorPasswordForm, which is the only difference from Django's own method."""
        view = PasswordChangeView.as_view(
            form_class=OperatorPasswordForm,
            success_url=reverse("admin:password_change_done"),
            extra_context=self.each_context(request),
        )
        return view(request)
