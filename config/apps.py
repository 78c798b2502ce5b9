from django.contrib.admin.apps import AdminConfig


class OperatorAdminConfig(AdminConfig):
    """Django's admin, on this service's own site."""

    default_site = "accounts.admin_site.OperatorSite"
