"""The admin's site, and how operators log in to it."""

from django.contrib.admin import AdminSite
from django.contrib.admin.forms import AdminAuthenticationForm
from django.core.exceptions import ValidationError

from accounts.limits import LoginTries
from config.log import NOBODY, current_request, record_event


class OperatorLoginForm(AdminAuthenticationForm):
    """Counts failures together with those of the API's log-in: the admin is no way round the limits."""

    def clean(self):
        if self.errors:  # a field is missing
            return self.cleaned_data
        username = self.cleaned_data["username"]
        tries = LoginTries(username)
        tries.check()
        try:
            credentials = super().clean()
        except ValidationError:
            tries.count()
            record_event("Invalid Login", who=username)
            raise
        tries.check()
        record_event("Login", who=username)
        return credentials


class OperatorSite(AdminSite):
    site_header = site_title = "Offline Messaging"
    site_url = "/api/docs"
    login_form = OperatorLoginForm

    def has_permission(self, request):
        """Every page asks this first: from here on the logs know who the operator is."""
        current_request().user = request.user.get_username() or NOBODY
        return super().has_permission(request)
