from django.contrib import admin
from django.urls import include, path, re_path, register_converter
from django.views.generic import RedirectView

from accounts.converters import UsernameConverter
from config import views

register_converter(UsernameConverter, "username")

urlpatterns = [
    path("api/", include("accounts.urls")),
    path("api/", include("messageservice.urls")),
    path("api/", include("blocking.urls")),
    path("api/schema", views.SchemaView.as_view(), name="schema"),
    path("api/docs", views.DocsView.as_view(), name="docs"),
    path("healthz", views.HealthView.as_view(), name="healthz"),
    path("readyz", views.ReadinessView.as_view(), name="readyz"),
    path("admin", RedirectView.as_view(pattern_name="admin:index")),
    path("admin/", admin.site.urls),
    re_path("", views.NotFoundView.as_view()),
]

handler400 = handler403 = handler404 = "config.errors.error_view"
