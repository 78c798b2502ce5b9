"""Rejects requests when the bridge is overloaded, with the request id, log line and headers of every response."""

from django.http import HttpRequest, HttpResponse
from django.utils.deprecation import MiddlewareMixin

from config.api.errors import api_exception, error_response

OVERLOADED = api_exception(503, "The service is busy. Try again in a moment.", wait=1)


class OverloadMiddleware(MiddlewareMixin):
    def process_request(self, request: HttpRequest) -> HttpResponse | None:
        """Reject a request before anything was done for it."""
        return error_response(request, OVERLOADED) if "server.is_overloaded" in request.META else None

    def process_response(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        """Reject a GET, which has changed nothing, if there is no memory for its response."""
        may_send = request.META.get("server.may_send")  # missing under another server
        size = int(response.headers.get("Content-Length", 0)) if response.streaming else len(response.content)
        if may_send and request.method == "GET" and not may_send(size):
            return error_response(request, OVERLOADED)
        return response
