"""The views that all endpoints are built on."""

from rest_framework.exceptions import ValidationError
from rest_framework.generics import GenericAPIView
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.response import Response


class AlwaysJSON(DefaultContentNegotiation):
    """Responses are JSON, whatever `Accept` says."""

    def select_renderer(self, request, renderers, format_suffix=None):
        return renderers[0], renderers[0].media_type


class BaseView(GenericAPIView):
    """Rejects a URL parameter that is unknown, empty or given twice: a typo must never show an unfiltered list."""

    content_negotiation_class = AlwaysJSON

    def initial(self, request, *args, **kwargs):
        super().initial(request, *args, **kwargs)
        if not hasattr(self, request.method.lower()):
            return  # a 405 follows
        known = self.known_parameters() if request.method in ("GET", "HEAD") else ()
        wrong = {}
        for name, values in request.query_params.lists():
            if name not in known:
                wrong[name] = ["There is no such parameter here."]
            elif len(values) > 1:
                wrong[name] = ["This parameter is given more than once."]
            elif not values[0]:
                wrong[name] = ["This parameter is empty."]
        if wrong:
            raise ValidationError(wrong)

    def options(self, request, *args, **kwargs):
        """The `Allow` header alone: the schema is the description."""
        return Response()

    def known_parameters(self) -> set[str]:
        """The parameters of the view's filters and of its pages."""
        filterset = getattr(self, "filterset_class", None)
        paginator = self.paginator
        return {*(filterset.base_filters if filterset else ()), *(paginator.parameters if paginator else ())}


class OpenView(BaseView):
    """A view that needs no token and ignores the `Authorization` header."""

    authentication_classes = ()
    permission_classes = ()
