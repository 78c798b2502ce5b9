"""Pagination by page number and by cursor."""

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
NO_COUNT = "The response has no `count`"
MAX_PAGE = 10**15


class Listing(Protocol):
    """The rows that a paginator reads, newest first.

    `page` returns the rows from the offset `start`, and the number of all rows. `before` and `after`, only for cursors,
    return the rows next to an id, whether there are more in that direction, and whether there are any in the opposite one.
    The id may be larger than any in the database. Rows for cursors have an `id`.
    """

    def page(self, start: int, size: int) -> tuple[list, int]: ...
    def before(self, pk: int, size: int) -> tuple[list, bool, bool]: ...
    def after(self, pk: int, size: int) -> tuple[list, bool, bool]: ...


def _whole_number(request: Request, name: str, default: int = -1) -> int:
    """Return the value of a URL parameter, or -1 if it is not a whole number. 20 digits are always out of bounds."""
    digits = request.query_params.get(name, str(default))
    return int(digits.lstrip("0")[:20] or 0) if re.fullmatch("[0-9]+", digits) else -1


def page_size(request: Request) -> int:
    """Return the number of rows per page. Raises ValidationError for a `page_size` out of bounds."""
    size = _whole_number(request, "page_size", DEFAULT_PAGE_SIZE)
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
        number, size = _whole_number(request, "page", 1), page_size(request)
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


class PageOrBeforePagination(PagePagination):
    """Pages by number, or of the conversations `before` an id, without a count."""

    parameters = {
        **PagePagination.parameters,
        "before": (f"Return conversations whose last message is older than this id. {NO_COUNT}", {}),
    }

    def paginate_queryset(self, listing: Listing, request, view=None):
        given = [name for name in ("before", "after", "page") if name in request.query_params]
        if given in ([], ["page"]):
            return super().paginate_queryset(listing, request, view)
        if len(given) > 1:
            raise ValidationError({name: [f"Give only one of {', '.join(given)}."] for name in given})
        [direction] = given
        pk = _whole_number(request, direction)
        if pk < 0:
            raise ValidationError({direction: ["Must be a whole number of 0 or more."]})
        self.request = request
        rows, has_next, has_previous = getattr(listing, direction)(pk, page_size(request))
        newest, oldest = (rows[0].id, rows[-1].id) if rows else (max(0, pk - 1), pk + 1)
        older, newer = {"before": oldest, "after": None}, {"after": newest, "before": None}
        following, preceding = (older, newer) if direction == "before" else (newer, older)
        self.envelope = {
            "next": self.link(**following) if has_next else None,
            "previous": self.link(**preceding) if has_previous else None,
        }
        return rows

    def get_paginated_response_schema(self, schema):
        page = super().get_paginated_response_schema(schema)
        page["required"].remove("count")
        page["properties"]["count"]["description"] += "; only in pages by number"
        return page


class PageOrCursorPagination(PageOrBeforePagination):
    """Pages by number, or of the messages `before` or `after` an id, without a count."""

    parameters = {
        **PagePagination.parameters,
        "before": (f"Return messages older than this id. {NO_COUNT}", {}),
        "after": (f"Return messages newer than this id; 0 starts from the first. {NO_COUNT}", {}),
    }
