"""Other projects' apps, with the names that the admin shows for them."""

from django.apps import AppConfig
from django.contrib.admin.apps import AdminConfig
from django.contrib.auth.apps import AuthConfig


class OperatorAdminConfig(AdminConfig):
    """Django's admin, on this service's own site."""

    default_site = "accounts.admin_site.OperatorSite"


class AccountsConfig(AuthConfig):
    verbose_name = "Accounts"


class TokensConfig(AppConfig):
    name = "knox"
    verbose_name = "Tokens"
