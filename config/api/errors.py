"""Turns every error into a JSON response, whether a view raised it or something before the view."""

import time

from django.conf import settings
from django.core import exceptions as django_exceptions
from django.db import DataError, Error, IntegrityError, NotSupportedError, ProgrammingError, connection
from django.http import Http404, HttpRequest, JsonResponse
from django.http.multipartparser import MultiPartParserError
from django.http.request import UnreadablePostError
from psycopg import errors as postgres
from rest_framework import exceptions
from rest_framework.response import Response
from rest_framework.settings import api_settings
from rest_framework.views import exception_handler as framework_handler

from config.api.exceptions import DatabaseIsReadOnly, KeyUsedBefore, LimitReached
from config.database.postgresql.base import DatabaseWrapper
from config.log import record_error
from config.metrics import database_errors

# Database errors that a mistake in this service causes, unless somebody has changed the database.
MISTAKES = (DataError, IntegrityError, NotSupportedError, ProgrammingError)
CHANGED = (postgres.FeatureNotSupported, postgres.InsufficientPrivilege, postgres.UndefinedColumn, postgres.UndefinedTable)
READ_ONLY = "This node only reads at the moment: its database takes no writes. Try again later, or send it to another node."
BODY_LIMIT = f"{settings.DATA_UPLOAD_MAX_MEMORY_SIZE // 2**20} MiB"


def exception_handler(error: Exception, context: dict) -> Response:
    """The framework's EXCEPTION_HANDLER. It has a response for every error, so the framework never re-raises an error."""
    return framework_handler(_as_api_exception(error), context)


def error_response(request: HttpRequest, exception: Exception) -> JsonResponse:
    """Return the response to an error outside the framework's views. Also Django's handler400, handler403 and handler404."""
    response = exception_handler(exception, {})
    headers = {"Retry-After": response["Retry-After"]} if "Retry-After" in response else {}
    return JsonResponse(response.data, status=response.status_code, headers=headers)


def _as_api_exception(error: Exception) -> Exception:
    match error:
        case exceptions.APIException() | django_exceptions.PermissionDenied():
            return error
        case Http404():
            return exceptions.NotFound()
        case django_exceptions.ValidationError(error_dict=_):
            return exceptions.ValidationError(error.message_dict)
        case django_exceptions.ValidationError():
            return exceptions.ValidationError({api_settings.NON_FIELD_ERRORS_KEY: error.messages})
        case LimitReached():
            return api_exception(429, f"Too many attempts. Try again in {error.wait} s.", wait=error.wait)
        case KeyUsedBefore():
            return api_exception(422, "This Idempotency-Key was already used for another message. Use a new key.")
        case django_exceptions.RequestDataTooBig():
            return api_exception(413, f"The body is larger than {BODY_LIMIT}.")
        case django_exceptions.DisallowedHost():
            return exceptions.ParseError("Host not allowed; add it to ALLOWED_HOSTS.")
        case django_exceptions.TooManyFieldsSent() | django_exceptions.TooManyFilesSent():
            return exceptions.ParseError("Too many fields.")
        case UnreadablePostError():
            return exceptions.ParseError("The body is incomplete.")
        case django_exceptions.SuspiciousOperation() | MultiPartParserError():
            return exceptions.ParseError("Malformed request.")
        case DatabaseIsReadOnly() | Error(__cause__=postgres.ReadOnlySqlTransaction()):
            connection.close()  # of several servers, another may be the primary now
            return api_exception(503, READ_ONLY, wait=5)
    record_error(error)
    if isinstance(error, Error):
        database_errors.inc()
    if isinstance(error.__cause__, postgres.FeatureNotSupported):
        DatabaseWrapper.outdated_before = time.monotonic()  # older connections have prepared statements for a changed table
    if not isinstance(error, Error) or (isinstance(error, MISTAKES) and not isinstance(error.__cause__, CHANGED)):
        return api_exception(500, "Something went wrong")
    return api_exception(503, "The service is unavailable. Try again in a moment.", wait=5)


def api_exception(status: int, detail: str, wait: int | None = None) -> exceptions.APIException:
    """Return an exception that becomes a response with this status, and with `wait` as its Retry-After in seconds."""
    error = exceptions.APIException(detail)
    error.status_code, error.wait = status, wait
    return error
