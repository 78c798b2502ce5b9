"""Every error as JSON: what the views raise, and what breaks before or beside them."""

from django.core.exceptions import (
    DisallowedHost,
    PermissionDenied,
    RequestDataTooBig,
    SuspiciousOperation,
    TooManyFieldsSent,
    TooManyFilesSent,
    ValidationError,
)
from django.db import InterfaceError, InternalError, OperationalError, connection
from django.http import Http404, HttpRequest, JsonResponse
from django.http.multipartparser import MultiPartParserError
from django.http.request import UnreadablePostError
from psycopg.errors import ReadOnlySqlTransaction
from rest_framework import exceptions
from rest_framework.response import Response
from rest_framework.settings import api_settings
from rest_framework.views import exception_handler as framework_handler

from config.api.exceptions import KeyUsedBefore, LimitReached
from config.log import record_error


class TooLarge(exceptions.APIException):
    status_code = 413
    default_detail = "The body is larger than 1 MiB."


class Unprocessable(exceptions.APIException):
    status_code = 422
    default_detail = "This Idempotency-Key was used before, for another message."


class Unforeseen(exceptions.APIException):
    status_code = 500
    default_detail = "Something went wrong"


class DatabaseAway(Unforeseen):
    status_code = 503
    wait = 5  # seconds; the framework's handler turns it into Retry-After


def exception_handler(error: Exception, context: dict) -> Response:
    """The framework's EXCEPTION_HANDLER: `error` as an answer, never as a raised 500."""
    return framework_handler(_as_api_exception(error), context)


def error_response(error: Exception) -> JsonResponse:
    """`error` as an answer where no view of the framework is there to give it."""
    answer = exception_handler(error, {})
    response = JsonResponse(answer.data, status=answer.status_code)
    if "Retry-After" in answer:
        response["Retry-After"] = answer["Retry-After"]
    return response


def error_view(request: HttpRequest, exception: Exception) -> JsonResponse:
    """Django's handler400, 403 and 404."""
    return error_response(exception)


def _as_api_exception(error: Exception) -> Exception:
    match error:
        case ValidationError(error_dict=_):
            return exceptions.ValidationError(error.message_dict)
        case ValidationError():
            return exceptions.ValidationError({api_settings.NON_FIELD_ERRORS_KEY: error.messages})
        case RequestDataTooBig():
            return TooLarge()
        case DisallowedHost():
            return exceptions.ParseError("The Host header names no host of this service.")
        case TooManyFieldsSent() | TooManyFilesSent():
            return exceptions.ParseError("Too many fields.")
        case SuspiciousOperation() | MultiPartParserError():
            return exceptions.ParseError("The request cannot be read.")
        case LimitReached():
            return exceptions.Throttled(error.wait)
        case KeyUsedBefore():
            return Unprocessable()
        case UnreadablePostError():
            return exceptions.ParseError("The body could not be read to its end.")
        case InternalError(__cause__=ReadOnlySqlTransaction()):
            record_error(error)
            connection.close()  # it leads to a primary that was demoted, a new one to its successor
            return DatabaseAway()
        case OperationalError() | InterfaceError():
            record_error(error)
            return DatabaseAway()
        case Http404():
            return exceptions.NotFound()
        case exceptions.APIException() | PermissionDenied():
            return error
    record_error(error)
    return Unforeseen()
