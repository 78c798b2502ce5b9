"""Pagination by page number."""

import re
from typing import Protocol
from urllib.parse import urlencode

from rest_framework import pagination
from rest_framework.exceptions import NotFound, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from config.api.schema import WHOLE_NUMBER, object_schema

DEFAULT_PAGE_SIZE = 20
MAX_PAGE_SIZE = 100
MAX_PAGE = 10**15


class Listing(Protocol):
    """The rows that a paginator reads, newest first."""

    def page(self, start: int, size: int) -> tuple[list, int]:
        """Return up to `size` rows from the offset `start`, and the number of all rows."""


def whole_number(request: Request, name: str, default: int = -1) -> int:
    """Return the value of a URL parameter, or -1 if it is not a whole number. 20 digits are always out of bounds."""
    digits = request.query_params.get(name, str(default))
    return int(digits.lstrip("0")[:20] or 0) if re.fullmatch("[0-9]+", digits) else -1


def page_size(request: Request) -> int:
    """Return the number of rows per page. Raises ValidationError for a `page_size` out of bounds."""
    size = whole_number(request, "page_size", DEFAULT_PAGE_SIZE)
    if not 1 <= size <= MAX_PAGE_SIZE:
        raise ValidationError({"page_size": [f"Must be a whole number from 1 to {MAX_PAGE_SIZE}."]})
    return size


class PagePagination(pagination.BasePagination):
    """Pages of a Listing, by number."""

    parameters = {
        "page": ("The number of the page, from 1", {"minimum": 1}),
        "page_size": ("The number of rows per page", {"minimum": 1, "maximum": MAX_PAGE_SIZE, "default": DEFAULT_PAGE_SIZE}),
    }

    def paginate_queryset(self, listing: Listing, request, view=None):
        self.request = request
        number, size = whole_number(request, "page", 1), page_size(request)
        if not 1 <= number <= MAX_PAGE:
            raise NotFound("Invalid page.")
        rows, count = listing.page((number - 1) * size, size)
        if not rows and number > 1:
            raise NotFound("Invalid page.")
        self.envelope = {
            "count": count,
            "next": self.link(page=number + 1) if number * size < count else None,
            "previous": self.link(page=number - 1 if number > 2 else None) if number > 1 else None,
        }
        return rows

    def get_paginated_response(self, data):
        return Response({**self.envelope, "results": data})

    def link(self, **changes: int | None) -> str:
        """Return the full URL of this list with some parameters changed, or removed if they are None."""
        parameters = {**self.request.query_params.dict(), **changes}
        query = urlencode(sorted((name, value) for name, value in parameters.items() if value is not None))
        return self.request.build_absolute_uri(self.request.path) + (f"?{query}" if query else "")

    def get_paginated_response_schema(self, schema):
        link = {"type": "string", "format": "uri", "nullable": True, "example": None}
        if isinstance(schema, dict):  # drf-spectacular also passes a placeholder, to make examples
            schema["description"] = "The rows of this page, newest first"
        return object_schema(
            count={**WHOLE_NUMBER, "example": 1, "description": "The number of rows in the whole list"},
            next={**link, "description": "The full URL of the next page, or null if there is none"},
            previous={**link, "description": "The full URL of the previous page, or null if there is none"},
            results=schema,
        )

    def get_schema_operation_parameters(self, view):
        return [
            {"name": name, "in": "query", "description": description, "schema": {**WHOLE_NUMBER, **schema}}
            for name, (description, schema) in self.parameters.items()
        ]
