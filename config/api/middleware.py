"""What happens to every request before and after its view."""

import re
import time
from collections.abc import Callable

from django.conf import settings
from django.core.exceptions import SuspiciousOperation
from django.http import HttpRequest, HttpResponse, UnreadablePostError

from config.api.errors import error_response
from config.log import NOBODY, RequestContext, begin_request, record_request, request_id

WITH_PORT = re.compile(r"^(?:\[([^]]*)\](?::\d+)?|([^:]*):\d+)$")  # as some proxies write an address


def client_address(peer: str, forwarded_for: str) -> str:
    """The address of the client: the peer's, or the one that the first of TRUSTED_PROXIES proxies wrote down.

    Each proxy appends its own peer to X-Forwarded-For, so what stands further left was written by the client itself.
    """
    chain = [WITH_PORT.sub(r"\1\2", address.strip()) for address in forwarded_for.split(",") if address.strip()]
    chain.append(peer or NOBODY)
    return chain[max(0, len(chain) - 1 - settings.TRUSTED_PROXIES)]


class RequestMiddleware:
    """Gives each request its id and writes its line of requests.log. The outermost middleware."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        began = time.perf_counter()
        context = RequestContext(
            id=request_id(request.headers.get("X-Request-ID")),
            method=request.method,
            path=request.path,
            address=client_address(request.META.get("REMOTE_ADDR", ""), request.headers.get("X-Forwarded-For", "")),
        )
        begin_request(context)

        try:
            response = self.get_response(request)
        except Exception as error:  # what breaks in another middleware, let through by DEBUG_PROPAGATE_EXCEPTIONS
            response = error_response(error)

        response.headers["X-Request-ID"] = context.id
        if not response.streaming:
            _describe_body(request, response)
        _protect(response)
        record_request(response.status_code, (time.perf_counter() - began) * 1000)
        return response

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse:
        """What a view beside the framework's raises: JSON as well, with DEBUG on or off."""
        return error_response(error)


def _describe_body(request: HttpRequest, response: HttpResponse) -> None:
    """Set the headers that tell of the body; a HEAD gets them alone."""
    if response.status_code != 204:
        response.headers.setdefault("Content-Length", str(len(response.content)))
    if not response.content:
        response.headers.pop("Content-Type", None)
    if request.method == "HEAD":
        response.content = b""


def _protect(response: HttpResponse) -> None:
    """Set the headers that tell a browser what it must not do with the answer."""
    if response.headers.get("Content-Type", "").startswith("text/html"):  # the docs page has a policy of its own
        response.headers.setdefault("Content-Security-Policy", settings.ADMIN_POLICY)
    for name, value in settings.ANSWER_HEADERS.items():
        response.headers.setdefault(name, value)


class IntakeMiddleware:
    """Reads the body whole, and refuses what no view may see: a foreign host, a body too large or cut short."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        try:
            request.get_host()
            declared = request.META.get("CONTENT_LENGTH") or "0"
            if not declared.isdecimal() or len(request.body) < int(declared):
                raise UnreadablePostError  # half a form would be read as a whole one
        except (SuspiciousOperation, UnreadablePostError) as error:
            return error_response(error)
        return self.get_response(request)
