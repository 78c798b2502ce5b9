"""The endpoints that belong to no app."""

from functools import cache
from typing import Any

from django.db import connection
from django.http import HttpResponse
from django.template.loader import render_to_string
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.utils import extend_schema
from rest_framework import exceptions
from rest_framework.response import Response

from config.api.views import OpenView

HEALTHY = {"type": "object", "properties": {"status": {"type": "string", "enum": ["ok"]}}, "required": ["status"]}


class HealthView(OpenView):
    @extend_schema(operation_id="check_health", summary="Whether this process runs", responses={200: HEALTHY})
    def get(self, request):
        return Response({"status": "ok"})


class ReadinessView(OpenView):
    @extend_schema(operation_id="check_readiness", summary="Whether the database answers", responses={200: HEALTHY})
    def get(self, request):
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        return Response({"status": "ok"})


@cache
def description() -> dict[str, Any]:
    """The OpenAPI description of the service; made once, as it depends on the code alone."""
    return SchemaGenerator().get_schema(request=None, public=True)


class SchemaView(OpenView):
    @extend_schema(exclude=True)
    def get(self, request):
        return Response(description())


class DocsView(OpenView):
    """The page alone is HTML; what is refused is JSON, as everywhere."""

    POLICY = (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )

    @extend_schema(exclude=True)
    def get(self, request):
        return HttpResponse(render_to_string("docs.html"), headers={"Content-Security-Policy": self.POLICY})


@extend_schema(exclude=True)
class NotFoundView(OpenView):
    """Every path that no other route knows: with DEBUG on, Django would answer with a page of its own."""

    def initial(self, request, *args, **kwargs):
        raise exceptions.NotFound
