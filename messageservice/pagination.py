"""Pagination by cursor: the rows next to an id, at the same cost at any depth."""

from typing import Protocol

from rest_framework.exceptions import ValidationError

from config.api.pagination import Listing, PagePagination, page_size, whole_number

NO_COUNT = "The response has no `count`"


class CursorListing(Listing, Protocol):
    """A Listing whose rows have an `id`.

    `before` and `after` return the rows next to an id, whether there are more in that direction, and whether there are any
    in the opposite direction. The id may be larger than any in the database.
    """

    def before(self, pk: int, size: int) -> tuple[list, bool, bool]: ...
    def after(self, pk: int, size: int) -> tuple[list, bool, bool]: ...


class PageOrBeforePagination(PagePagination):
    """Pages by number or, without a `count`, the conversations `before` an id. Subclasses may also offer `after`."""

    parameters = {
        **PagePagination.parameters,
        "before": (f"Return conversations whose last message is older than this id. {NO_COUNT}", {}),
    }

    def paginate_queryset(self, listing: CursorListing, request, view=None):
        given = [name for name in ("before", "after", "page") if name in request.query_params]
        if given in ([], ["page"]):
            return super().paginate_queryset(listing, request, view)
        if len(given) > 1:
            raise ValidationError({name: [f"Give only one of {', '.join(given)}."] for name in given})
        [direction] = given
        pk = whole_number(request, direction)
        if pk < 0:
            raise ValidationError({direction: ["Must be a whole number of 0 or more."]})
        self.request = request
        rows, has_next, has_previous = getattr(listing, direction)(pk, page_size(request))
        # The links of an empty page include the message with this id itself.
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
    """Pages by number or, without a `count`, the messages `before` or `after` an id."""

    parameters = {
        **PagePagination.parameters,
        "before": (f"Return messages older than this id. {NO_COUNT}", {}),
        "after": (f"Return messages newer than this id; 0 starts from the first. {NO_COUNT}", {}),
    }
