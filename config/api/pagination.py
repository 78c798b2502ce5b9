"""Lists, a page at a time."""

import re
from urllib.parse import urlencode

from rest_framework import pagination
from rest_framework.exceptions import NotFound, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

DEFAULT_PAGE_SIZE = 20
LARGEST_PAGE_SIZE = 100
LARGEST_ID = 10**18  # below what a database takes for an id, with room for the next one


def page_size(request: Request) -> int:
    """The rows that a page holds; raises ValidationError for a `page_size` out of bounds."""
    value = request.query_params.get("page_size", str(DEFAULT_PAGE_SIZE))
    if not re.fullmatch("[0-9]{1,3}", value) or not 1 <= int(value) <= LARGEST_PAGE_SIZE:
        raise ValidationError({"page_size": [f"Must be a whole number from 1 to {LARGEST_PAGE_SIZE}."]})
    return int(value)


def page_number(request: Request) -> int:
    """The page asked for, from 1; raises NotFound for what can be none."""
    value = request.query_params.get("page", "1")
    if not re.fullmatch("[0-9]{1,15}", value) or int(value) < 1:
        raise NotFound("Invalid page.")
    return int(value)


def cursor(request: Request) -> tuple[str, int] | None:
    """`before` or `after` with its id, or None for a page by number; raises ValidationError for what cannot be either."""
    given = [name for name in ("before", "after", "page") if name in request.query_params]
    if given in ([], ["page"]):
        return None
    if len(given) > 1:
        raise ValidationError({name: ["Give one of before, after and page alone."] for name in given})
    direction = given[0]
    digits = request.query_params[direction]
    if not re.fullmatch("[0-9]+", digits):
        raise ValidationError({direction: ["Must be a whole number of 0 or more."]})
    digits = digits.lstrip("0") or "0"
    return direction, LARGEST_ID if len(digits) >= len(str(LARGEST_ID)) else int(digits)


def _parameter(name: str, description: str, **schema: int) -> dict:
    return {"name": name, "in": "query", "description": description, "schema": {"type": "integer", **schema}}


class PagePagination(pagination.BasePagination):
    """Pages by number, newest first, of a list that has `page(start, size)`: its rows from there on, and how many it has."""

    parameters = ("page", "page_size")

    def paginate_queryset(self, queryset, request, view=None):
        self.request = request
        self.number = page_number(request)
        size = page_size(request)
        start = (self.number - 1) * size
        rows, self.count = queryset.page(start, size)
        if not rows and self.number > 1:
            raise NotFound("Invalid page.")
        self.is_last = start + size >= self.count
        return rows

    def get_paginated_response(self, data):
        return Response(
            {
                "count": self.count,
                "next": None if self.is_last else self.link(page=self.number + 1),
                "previous": None if self.number == 1 else self.link(page=self.number - 1 if self.number > 2 else None),
                "results": data,
            }
        )

    def get_paginated_response_schema(self, schema):
        link = {"type": "string", "format": "uri", "nullable": True, "example": None}
        return {
            "type": "object",
            "required": ["count", "next", "previous", "results"],
            "properties": {
                "count": {"type": "integer", "minimum": 0, "example": 1},
                "next": link,
                "previous": link,
                "results": schema,
            },
            "additionalProperties": False,
        }

    def get_schema_operation_parameters(self, view):
        return [
            _parameter("page", "The page, counted from 1", minimum=1),
            _parameter("page_size", "Rows of a page", minimum=1, maximum=LARGEST_PAGE_SIZE, default=DEFAULT_PAGE_SIZE),
        ]

    def link(self, **changed: int | None) -> str:
        """The full URL of the same list, with some parameters changed, or left out where they are None."""
        parameters = {**self.request.query_params.dict(), **changed}
        query = urlencode(sorted((name, value) for name, value in parameters.items() if value is not None))
        url = self.request.build_absolute_uri(self.request.path)
        return f"{url}?{query}" if query else url


class PageOrCursorPagination(PagePagination):
    """Pages by number, or from an id on: `before=<id>` what is older, `after=<id>` what is newer, newest first in the page.

    A list that takes cursors has `before(id, size)` and `after(id, size)` as well: the rows next to an id, newest first,
    whether `more` follow, and whether any stand `behind`, on the other side of the id.
    """

    parameters = (*PagePagination.parameters, "before", "after")

    def paginate_queryset(self, queryset, request, view=None):
        self.cursor = cursor(request)
        if self.cursor is None:
            return super().paginate_queryset(queryset, request, view)
        self.request = request
        direction, start = self.cursor
        if direction == "before":
            rows, more, behind = queryset.before(start, page_size(request))
            self.older = rows[-1].id if more else None
            newest = rows[0].id if rows else max(0, start - 1)
            self.newer = newest if behind else None
        else:
            rows, more, behind = queryset.after(start, page_size(request))
            self.newer = rows[0].id if more else None
            oldest = rows[-1].id if rows else start + 1
            self.older = oldest if behind else None
        return rows

    def get_paginated_response(self, data):
        if self.cursor is None:
            return super().get_paginated_response(data)
        older = None if self.older is None else self.link(before=self.older, after=None)
        newer = None if self.newer is None else self.link(after=self.newer, before=None)
        onward, back = (older, newer) if self.cursor[0] == "before" else (newer, older)
        return Response({"next": onward, "previous": back, "results": data})

    def get_paginated_response_schema(self, schema):
        page = super().get_paginated_response_schema(schema)
        page["required"].remove("count")
        page["properties"]["count"]["description"] = "All rows of the list; not in a page from an id on"
        return page

    def get_schema_operation_parameters(self, view):
        return [
            *super().get_schema_operation_parameters(view),
            _parameter("before", "The rows next older than this id, without a count", minimum=0),
            _parameter("after", "The rows next newer than this id, without a count; 0 begins with the first", minimum=0),
        ]
