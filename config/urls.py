from django.contrib import admin
from django.urls import include, path, re_path, register_converter
from django.views.generic import RedirectView

from accounts.converters import UsernameConverter
from config.api import endpoints

register_converter(UsernameConverter, "username")

urlpatterns = [
    path("api/", include("accounts.urls")),
    path("api/", include("messageservice.urls")),
    path("api/", include("blocking.urls")),
    path("api/schema", endpoints.SchemaView.as_view(), name="schema"),
    path("api/docs", endpoints.DocsView.as_view(), name="docs"),
    path("healthz", endpoints.HealthView.as_view(), name="healthz"),
    path("readyz", endpoints.ReadinessView.as_view(), name="readyz"),
    path("admin", RedirectView.as_view(pattern_name="admin:index")),
    path("admin/", admin.site.urls),
    re_path("", endpoints.NotFoundView.as_view()),
]

handler400 = handler403 = handler404 = "config.api.errors.error_response"
