"""The base views of all endpoints."""

from rest_framework.exceptions import ValidationError
from rest_framework.generics import GenericAPIView
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.permissions import SAFE_METHODS
from rest_framework.response import Response

from config.api.exceptions import DatabaseIsReadOnly
from config.database.sql import is_writable


class ContentNegotiation(BaseContentNegotiation):
    """Chooses the parser by the exact media type, and JSON for the response, whatever `Accept` says."""

    def select_parser(self, request, parsers):
        media_type = request.content_type.partition(";")[0].strip().lower()
        return next((parser for parser in parsers if parser.media_type == media_type), None)

    def select_renderer(self, request, renderers, format_suffix=None):
        return renderers[0], renderers[0].media_type


class BaseView(GenericAPIView):
    """Rejects a URL parameter that is unknown, empty or repeated: a typo must never return an unfiltered list."""

    content_negotiation_class = ContentNegotiation

    def initial(self, request, *args, **kwargs):
        is_allowed = request.method in self.allowed_methods  # otherwise a 405 follows
        if is_allowed and request.method not in SAFE_METHODS and not is_writable():
            raise DatabaseIsReadOnly  # before the token: a standby may not know it yet
        super().initial(request, *args, **kwargs)
        if not is_allowed:
            return
        known = set()
        if request.method in SAFE_METHODS:
            filterset = getattr(self, "filterset_class", None)
            known = {*getattr(filterset, "base_filters", ()), *getattr(self.paginator, "parameters", ())}
        errors = {}
        for name, values in request.query_params.lists():
            if name not in known:
                errors[name] = ["Unknown parameter."]
            elif len(values) > 1:
                errors[name] = ["Give this parameter only once."]
            elif not values[0]:
                errors[name] = ["This parameter may not be empty."]
        if errors:
            raise ValidationError(errors)
        if request.method == "POST":
            request.data  # noqa: B018 - a body that cannot be read is an error also where none is needed

    def options(self, request, *args, **kwargs):
        """Respond with only the `Allow` header: the schema describes the endpoint."""
        return Response()

    def list(self, request, *args, **kwargs):
        """Return a page without the framework's ListSerializer, whose reference cycle would keep the rows in memory."""
        represent = self.get_serializer().to_representation
        page = self.paginate_queryset(self.filter_queryset(self.get_queryset()))
        return self.get_paginated_response([represent(row) for row in page])

    def finalize_response(self, request, response, *args, **kwargs):
        response = super().finalize_response(request, response, *args, **kwargs)
        if isinstance(response, Response):  # not for the docs page
            response.add_post_render_callback(_break_reference_cycle)
        return response


def _break_reference_cycle(response: Response) -> None:
    """Break the reference cycle of view and response, which would keep both in memory until a garbage collection."""
    vars(response.renderer_context["view"]).clear()
    response.renderer_context.clear()


class OpenView(BaseView):
    """A view that needs no token and ignores the `Authorization` header."""

    authentication_classes = ()
    permission_classes = ()
