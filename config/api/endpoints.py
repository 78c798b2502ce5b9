"""The endpoints that belong to no app."""

from functools import cache

from django.apps import apps
from django.db import DatabaseError, OperationalError, connection
from django.http import HttpResponse
from django.template.loader import render_to_string
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.utils import extend_schema
from rest_framework import exceptions
from rest_framework.response import Response

from config.api.schema import object_schema
from config.api.views import OpenView
from config.database.sql import execute, is_writable

OK = {"type": "string", "enum": ["ok"], "description": "Always `ok`"}
WRITABLE = {"type": "boolean", "example": True, "description": "false where the database is a standby: the node only reads"}
DOCS_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class HealthView(OpenView):
    @extend_schema(
        operation_id="check_health",
        summary="Check that the process runs",
        description="Returns 200 while the process runs. It does not use the database.",
        responses={200: object_schema(status=OK)},
    )
    def get(self, request):
        return Response({"status": "ok"})


class ReadinessView(OpenView):
    @extend_schema(
        operation_id="check_readiness",
        summary="Check that the database is ready",
        description="Returns 200 if the database responds and has all tables, otherwise 503.",
        responses={200: object_schema(status=OK, writable=WRITABLE)},
    )
    def get(self, request):
        tables = {connection.ops.quote_name(model._meta.db_table) for model in apps.get_models(include_auto_created=True)}
        try:
            execute(" UNION ALL ".join(f"SELECT 1 FROM {table} WHERE 1 = 0" for table in sorted(tables)))  # noqa: S608
        except DatabaseError as error:  # a missing table, too, is a 503
            raise OperationalError from error
        return Response({"status": "ok", "writable": is_writable()})


@cache
def schema() -> dict:
    """Return the OpenAPI schema of the service. It depends only on the code, so it is generated once."""
    return SchemaGenerator().get_schema(request=None, public=True)


@extend_schema(exclude=True)
class SchemaView(OpenView):
    def get(self, request):
        return Response(schema())


@extend_schema(exclude=True)
class DocsView(OpenView):
    """The only HTML page under /api. Its errors are JSON."""

    def get(self, request):
        return HttpResponse(render_to_string("docs.html"), headers={"Content-Security-Policy": DOCS_POLICY})


@extend_schema(exclude=True)
class NotFoundView(OpenView):
    """Responds to every unknown path. With DEBUG on, Django would respond with an HTML page."""

    def initial(self, request, *args, **kwargs):
        raise exceptions.NotFound
