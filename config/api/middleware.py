"""What happens to every request before and after its view."""

import re
import time

from django.conf import settings
from django.core.exceptions import SuspiciousOperation
from django.http import HttpRequest, HttpResponse, UnreadablePostError
from django.utils.deprecation import MiddlewareMixin
from rest_framework.exceptions import MethodNotAllowed, UnsupportedMediaType

from config.api.errors import api_exception, error_response
from config.log import NOBODY, RequestContext, begin_request, record_request, request_id

ANY_HOST = ("/healthz", "/readyz")  # for load balancers, whose Host header is the address of the machine
NO_SUCH_RANGE = "The file does not have this range of bytes."
LENGTH = re.compile("[0-9]{1,20}")  # Python converts no more than 4,300 digits
WITH_PORT = re.compile(r"^(?:\[([^]]*)\](?::\d+)?|([^:]*):\d+)$")  # some proxies add the port to an address


def client_address(peer: str, forwarded_for: str) -> str:
    """Return the address of the client: the peer's, or the address that the first of TRUSTED_PROXIES proxies recorded.

    Each proxy appends its own peer to X-Forwarded-For, so the client itself may have written everything further left.
    """
    chain = [WITH_PORT.sub(r"\1\2", address.strip()) for address in forwarded_for.split(",") if address.strip()]
    chain.append(peer or NOBODY)
    return chain[max(0, len(chain) - 1 - settings.TRUSTED_PROXIES)]


class RequestMiddleware(MiddlewareMixin):
    """Gives each request its id and writes its line of requests.log. Only MetricsMiddleware runs around it."""

    def __call__(self, request: HttpRequest) -> HttpResponse:
        started = time.perf_counter()
        context = RequestContext(
            id=request_id(request.headers.get("X-Request-ID")),
            method=request.method,
            path=request.path,
            address=client_address(request.META.get("REMOTE_ADDR", ""), request.headers.get("X-Forwarded-For", "")),
        )
        begin_request(context)

        try:
            response = self.get_response(request)
        except Exception as error:  # raised by another middleware; DEBUG_PROPAGATE_EXCEPTIONS lets it through
            response = error_response(request, error)

        if response.status_code in (405, 416) and (response.streaming or not response.content):
            response = _describe_error(request, response)
        response.headers["X-Request-ID"] = context.id
        if not response.streaming:
            _set_content_headers(request, response)
        _set_security_headers(response)
        record_request(response.status_code, (time.perf_counter() - started) * 1000)
        return response

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse:
        """Respond to an exception of a view outside the framework, whether DEBUG is on or off."""
        return error_response(request, error)


def _describe_error(request: HttpRequest, response: HttpResponse) -> HttpResponse:
    """Return in JSON an error without a body: the 405 of a static file or a page of the admin, the 416 of a static file."""
    status = response.status_code
    error = MethodNotAllowed(request.method) if status == 405 else api_exception(status, NO_SUCH_RANGE)
    described = error_response(request, error)
    for name in {"Allow", "Content-Range"} & {*response.headers}:
        described[name] = response[name]
    return described


def _set_content_headers(request: HttpRequest, response: HttpResponse) -> None:
    if response.status_code != 204:
        response.headers.setdefault("Content-Length", str(len(response.content)))
    if not response.content:
        response.headers.pop("Content-Type", None)
    if request.method == "HEAD":
        response.content = b""


def _set_security_headers(response: HttpResponse) -> None:
    if response.headers.get("Content-Type", "").startswith("text/html"):  # the docs page sets its own policy
        response.headers.setdefault("Content-Security-Policy", settings.ADMIN_POLICY)
    for name, value in settings.RESPONSE_HEADERS.items():
        response.headers.setdefault(name, value)


class BodyLimitMiddleware(MiddlewareMixin):
    """Reads the whole body. Rejects a host that is not allowed, and a body that is too large, incomplete or encoded."""

    def process_request(self, request: HttpRequest) -> HttpResponse | None:
        encoding = request.headers.get("Content-Encoding", "identity")
        try:
            if request.path not in ANY_HOST:
                request.get_host()
            length = request.META.get("CONTENT_LENGTH") or "0"
            if not LENGTH.fullmatch(length) or len(request.body) < int(length):
                raise UnreadablePostError  # half a form can look like a whole one
            if request.body and {coding.strip().lower() for coding in encoding.split(",")} - {"identity", ""}:
                raise UnsupportedMediaType(None, f'Unsupported content encoding "{encoding}". Send the body uncompressed.')
        except (SuspiciousOperation, UnreadablePostError, UnsupportedMediaType) as error:
            return error_response(request, error)
        return None
