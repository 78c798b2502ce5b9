"""The parts of the OpenAPI schema that all operations share, so that a view describes only its own."""

from collections.abc import Callable

from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import OpenApiExample, extend_schema_serializer
from rest_framework.serializers import EmailField

from config.api.errors import BODY_LIMIT

TAGS = {"accounts": "accounts", "messageservice": "messages", "blocking": "blocking", "config": "service"}  # by app
WHOLE_NUMBER = {"type": "integer", "format": "int64", "minimum": 0}  # without the format, clients in Java or C# have 32 bits


def object_schema(**properties: dict) -> dict:
    """Return the schema of a JSON object with exactly these properties."""
    return {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}


ERROR_SCHEMAS = {
    "Detail": {
        **object_schema(detail={"type": "string", "description": "What is wrong"}),
        "description": "An error that is not about one field or URL parameter.",
    },
    "FieldErrors": {
        "type": "object",
        "description": "The errors of each field or URL parameter; non_field_errors are about the body as a whole.",
        "additionalProperties": {"type": "array", "items": {"type": "string"}, "minItems": 1},
        "minProperties": 1,
    },
}
DETAIL = {"$ref": "#/components/schemas/Detail"}
FIELD_ERRORS = {"$ref": "#/components/schemas/FieldErrors"}

ERRORS = {
    "400": "Malformed request, or an invalid field or URL parameter",
    "401": "The token is missing, invalid, expired or revoked",
    "403": "The receiver blocks the sender",
    "404": "Not found, or not yours",
    "413": f"The body is larger than {BODY_LIMIT}",
    "415": "Unsupported media type",
    "422": "The Idempotency-Key was already used for another message",
    "429": "Too many attempts",
    "500": "Unexpected error",
    "503": "Temporarily unavailable: the database does not respond or takes no writes, or too many requests wait",
}
RETRY_AFTER = {"Retry-After": {"schema": {"type": "integer", "minimum": 1}, "description": "Seconds to wait"}}
HEADERS = {
    "401": {"WWW-Authenticate": {"schema": {"type": "string", "enum": ["Token"]}, "description": "How to authenticate"}},
    "429": RETRY_AFTER,
    "503": RETRY_AFTER,
}
REQUEST_ID = {"type": "string", "pattern": "^[A-Za-z0-9_.-]{1,64}$"}
EVERY_RESPONSE = {"X-Request-ID": {"schema": REQUEST_ID, "description": "The id of this request, which its log lines carry"}}


def examples(*, request: dict | None = None, response: dict | None = None) -> Callable[[type], type]:
    """Return a decorator that adds an example request and response to a serializer."""
    given = (("request", request), ("response", response))
    return extend_schema_serializer(
        examples=[OpenApiExample(kind, value, **{f"{kind}_only": True}) for kind, value in given if value is not None]
    )


def add_error_schemas(result: dict, **kwargs: object) -> dict:
    """Add the schemas of errors, as a postprocessing hook of drf-spectacular."""
    result["components"]["schemas"].update(ERROR_SCHEMAS)
    return result


def error_responses(*statuses: int) -> dict[int, dict]:
    """Return, for `responses` of extend_schema, the errors that not every operation has."""
    return dict.fromkeys(statuses, DETAIL)


class ServiceSchema(AutoSchema):
    def get_tags(self):
        return [TAGS[self.view.__module__.partition(".")[0]]]

    def get_operation(self, *args, **kwargs):
        operation = super().get_operation(*args, **kwargs)
        if operation:
            operation.setdefault("security", [])  # explicit for operations that need no token
        return operation

    def get_description(self):
        return ""  # the docstring of a view is for developers

    def _insert_field_validators(self, field, schema):
        """Describe an email as a plain string, because generated clients fail at a choice of two formats."""
        super()._insert_field_validators(field, schema)
        if isinstance(field, EmailField):
            [address, _] = schema.pop("oneOf")
            schema.update({"type": "string", "maxLength": address["maxLength"]})

    def _get_response_bodies(self, direction="response"):
        responses = super()._get_response_bodies(direction)
        for status in self._common_errors():
            responses[status] = self._get_response_for_code(DETAIL, status, direction=direction)
        for status, response in responses.items():
            response["description"] = ERRORS.get(status, "Success")
            response["headers"] = {**response.get("headers", {}), **HEADERS.get(status, {}), **EVERY_RESPONSE}
        # Detail first: some generated clients take the first that fits, and any object fits FieldErrors.
        responses["400"]["content"] = {"application/json": {"schema": {"oneOf": [DETAIL, FIELD_ERRORS]}}}
        return dict(sorted(responses.items()))

    def _common_errors(self):
        yield from ("400", "413", "415", "500", "503")
        if self.get_auth():
            yield "401"
        if self._is_list_view():
            yield "404"
