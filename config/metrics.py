"""The metrics for Prometheus. The help text of each metric is the question that it answers."""

import re
import time

from django.http import HttpRequest, HttpResponse
from django.urls import resolve
from django.utils.deprecation import MiddlewareMixin
from django.views import View
from prometheus_client import Counter, Histogram

OTHER = "other"

requests = Counter("messaging_requests", "Which requests are sent, and which of them fail?", ["route", "method", "status"])
durations = Histogram("messaging_request_seconds", "How long does the service work on a request?", ["route", "method"])
rejected_logins = Counter(
    "messaging_rejected_logins", "How many logins do the limits reject: does somebody guess, or is a limit too low?"
)
hash_waits = Histogram("messaging_hash_wait_seconds", "How long do logins and sign-ups wait until a password can be hashed?")
hash_overloads = Counter(
    "messaging_hash_overloads", "How many logins and sign-ups get a 503 because too many others wait for a hash?"
)
database_errors = Counter("messaging_database_errors", "How many requests fail because of the database?")


class MetricsMiddleware(MiddlewareMixin):
    """Counts every request. All values of labels are known in advance, so no client can add to their number."""

    def __call__(self, request: HttpRequest) -> HttpResponse:
        started = time.monotonic()
        if request.META.get("server.is_overloaded") == "hashing":
            hash_overloads.inc()
        if queued_at := request.META.get("server.queued_at"):
            hash_waits.observe(started - queued_at)

        response = self.get_response(request)

        method = request.method if request.method.lower() in View.http_method_names else OTHER
        route = _route(request)
        requests.labels(route, method, response.status_code).inc()
        durations.labels(route, method).observe(time.monotonic() - started)
        return response


def _route(request: HttpRequest) -> str:
    """Return the URL pattern, such as `/api/message/{pk}`; `other` for static files and unknown paths."""
    route = (request.resolver_match or resolve(request.path_info)).route  # a request may be rejected before it is resolved
    return "/" + re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", route) if route else OTHER
