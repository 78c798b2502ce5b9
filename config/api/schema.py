"""The description of the API: what all operations have in common, so that a view describes only what is its own."""

from collections.abc import Callable

from drf_spectacular.extensions import OpenApiSerializerFieldExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import OpenApiExample, extend_schema_serializer

TAGS = {"accounts": "accounts", "messageservice": "messages", "blocking": "blocking", "config": "service"}

ERROR_SHAPES = {
    "Detail": {
        "type": "object",
        "properties": {"detail": {"type": "string"}},
        "required": ["detail"],
        "additionalProperties": False,
    },
    "FieldErrors": {
        "type": "object",
        "description": "What is wrong, by field or URL parameter; under non_field_errors for the body as a whole.",
        "additionalProperties": {"type": "array", "items": {"type": "string"}, "minItems": 1},
        "minProperties": 1,
    },
}
DETAIL = {"$ref": "#/components/schemas/Detail"}
FIELD_ERRORS = {"$ref": "#/components/schemas/FieldErrors"}

REFUSALS = {
    "400": "A malformed request, or a field or URL parameter that is wrong",
    "401": "No token, or one that is bad, expired or revoked",
    "403": "The receiver blocks the sender",
    "404": "Not there, or not yours",
    "413": "The body is over 1 MiB",
    "415": "A media type that is not read",
    "422": "The Idempotency-Key was used before, for another message",
    "429": "Too many tries",
    "500": "Something unforeseen",
    "503": "The database does not answer",
}
HEADERS = {
    "401": {"WWW-Authenticate": {"schema": {"type": "string", "enum": ["Token"]}}},
    "429": {"Retry-After": {"schema": {"type": "integer", "minimum": 1}, "description": "Seconds"}},
    "503": {"Retry-After": {"schema": {"type": "integer", "minimum": 1}, "description": "Seconds"}},
}
REQUEST_ID = {
    "X-Request-ID": {
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9_.-]{1,64}$"},
        "description": "The id of this request on every line of the logs",
    }
}


def examples(*, request: dict | None = None, response: dict | None = None) -> Callable[[type], type]:
    """A decorator that shows a serializer's request and response by example."""
    shown = []
    if request is not None:
        shown.append(OpenApiExample("request", value=request, request_only=True))
    if response is not None:
        shown.append(OpenApiExample("response", value=response, response_only=True))
    return extend_schema_serializer(examples=shown)


def add_error_shapes(result: dict, **kwargs: object) -> dict:
    result["components"]["schemas"].update(ERROR_SHAPES)
    return result


def refused(*statuses: int) -> dict[int, dict]:
    """For `responses` of extend_schema: the refusals that an operation has beyond those of every operation."""
    return dict.fromkeys(statuses, DETAIL)


class ServiceSchema(AutoSchema):
    def get_tags(self):
        return [TAGS[self.view.__module__.partition(".")[0]]]

    def get_operation(self, *args, **kwargs):
        operation = super().get_operation(*args, **kwargs)
        if operation:
            operation.setdefault("security", [])  # said, not left open, where anybody may call
        return operation

    def get_description(self):
        return ""  # the summary says it; a view's docstring speaks to who reads the code

    def _get_response_bodies(self, direction="response"):
        responses = super()._get_response_bodies(direction)
        for status in self._common_refusals():
            responses[status] = self._get_response_for_code(DETAIL, status, direction=direction)
        for status, response in responses.items():
            response["description"] = REFUSALS.get(status, "Done")
            response["headers"] = {**response.get("headers", {}), **HEADERS.get(status, {}), **REQUEST_ID}
        if "400" in responses:
            content = {"schema": {"oneOf": [FIELD_ERRORS, DETAIL]}}
            responses["400"]["content"] = {"application/json": content}
        return dict(sorted(responses.items()))

    def _common_refusals(self):
        yield from ("400", "413", "500", "503")
        if self.get_auth():
            yield "401"
        if self._get_request_body():
            yield "415"
        if self._is_list_view():
            yield "404"


class StringFieldExtension(OpenApiSerializerFieldExtension):
    """NUL is refused in every text, white space alone in one that has to say something."""

    target_class = "config.api.fields.StringField"
    match_subclasses = True

    def map_serializer_field(self, auto_schema, direction):
        field = self.target
        schema = auto_schema._map_serializer_field(field, direction, bypass_extensions=True)
        auto_schema._insert_field_validators(field, schema)
        schema.setdefault("pattern", field.pattern)
        return schema
