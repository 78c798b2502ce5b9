"""Lists, a page at a time."""

import re

from django.db.models import QuerySet
from rest_framework import pagination
from rest_framework.exceptions import NotFound, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.utils.urls import remove_query_param, replace_query_param

DEFAULT_PAGE_SIZE = 20
LARGEST_PAGE_SIZE = 100


def page_size(request: Request) -> int:
    """The rows that a page holds; raises ValidationError for a `page_size` out of bounds."""
    value = request.query_params.get("page_size", str(DEFAULT_PAGE_SIZE))
    if not re.fullmatch("[0-9]{1,3}", value) or not 1 <= int(value) <= LARGEST_PAGE_SIZE:
        raise ValidationError({"page_size": [f"Must be a whole number from 1 to {LARGEST_PAGE_SIZE}."]})
    return int(value)


def page_number(request: Request) -> int:
    """The page asked for, from 1; raises NotFound for what can be none."""
    value = request.query_params.get("page", "1")
    if not re.fullmatch("[0-9]{1,18}", value) or int(value) < 1:
        raise NotFound("Invalid page.")
    return int(value)


class PagePagination(pagination.BasePagination):
    """Pages by number, newest first."""

    parameters = ("page", "page_size")

    def paginate_queryset(self, queryset, request, view=None):
        self.request = request
        self.number = page_number(request)
        size = page_size(request)
        start = (self.number - 1) * size
        self.count = self.get_count(queryset)
        if start >= self.count and self.number > 1:
            raise NotFound("Invalid page.")
        self.is_last = start + size >= self.count
        return list(self.get_rows(queryset, start, start + size))

    def get_count(self, queryset: QuerySet) -> int:
        return queryset.count()

    def get_rows(self, queryset: QuerySet, start: int, stop: int) -> QuerySet:
        return queryset[start:stop]

    def get_paginated_response(self, data):
        return Response(
            {
                "count": self.count,
                "next": None if self.is_last else self.link(self.number + 1),
                "previous": None if self.number == 1 else self.link(self.number - 1),
                "results": data,
            }
        )

    def link(self, number: int) -> str:
        """The full URL of another page of the same list, filters kept."""
        url = self.request.build_absolute_uri()
        return remove_query_param(url, "page") if number == 1 else replace_query_param(url, "page", number)
