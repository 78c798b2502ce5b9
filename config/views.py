"""The views that belong to no app."""

from django.db import connection
from rest_framework import exceptions
from rest_framework.response import Response
from rest_framework.views import APIView


class OpenView(APIView):
    """A view for everybody, whatever `Authorization` says."""

    authentication_classes = ()
    permission_classes = ()


class HealthView(OpenView):
    """Whether this process runs."""

    def get(self, request):
        return Response({"status": "ok"})


class ReadinessView(OpenView):
    """Whether the database answers."""

    def get(self, request):
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        return Response({"status": "ok"})


class NotFoundView(OpenView):
    """Every path that no other route knows: with DEBUG on, Django would answer with a page of its own."""

    def initial(self, request, *args, **kwargs):
        raise exceptions.NotFound
