"""Pagination of the lists in REST responses."""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from django.core import signing
from django.db.models import Q, QuerySet
from rest_framework import pagination
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.utils.urls import replace_query_param
from rest_framework.views import APIView

_PAGE_SIZE = re.compile(r"0*[1-9][0-9]{0,9}")


def refuse_unknown(request: Request, known: Collection[str]) -> None:
    """Raises ValidationError with the code `unknown_parameter` for query parameters that are not `known`.

    Otherwise a filter with a typing error would return all rows.
    """
    unknown = request.query_params.keys() - set(known)
    if unknown:
        message = f"Not a parameter of this call. Its parameters are: {', '.join(sorted(known))}."
        raise ValidationError({name: [message] for name in sorted(unknown)}, "unknown_parameter")


class PageNumberPagination(pagination.PageNumberPagination):
    """Divides lists into pages. The parameter `page` counts from 1, and `page_size` is at most 100.

    The rows of a page are in the field `results`. Unknown parameters are refused. The other known parameters are the
    fields of the view's `filter_class`, a serializer.
    """

    page_size = 25
    page_size_query_param = "page_size"
    max_page_size = 100
    own_parameters: tuple[str, ...] = ("page", "page_size")

    def paginate_queryset(
        self, queryset: QuerySet[Any, Any] | Sequence[Any], request: Request, view: APIView | None = None
    ) -> list[Any] | None:
        filters = getattr(view, "filter_class", None)
        refuse_unknown(request, {*self.own_parameters, *(filters().fields if filters else ())})
        return super().paginate_queryset(queryset, request, view)

    def get_page_size(self, request: Request) -> int | None:
        """Raises ValidationError for a size that is not a positive number. DRF would use the default."""
        size = request.query_params.get("page_size")
        if size is not None and not _PAGE_SIZE.fullmatch(size):
            raise ValidationError({"page_size": [f"Enter a number from 1 to {self.max_page_size}."]})
        return super().get_page_size(request)


class CursorPagination(PageNumberPagination):
    """Pages of a list that grows, by number or by `cursor`.

    A cursor is the position after a row, so no row is left out or repeated when rows are inserted meanwhile. An empty
    cursor is the beginning. `next_cursor` is the position after the last row of a page, null after the last page. Rows
    are not counted for a cursor, because that takes long for a large table. So `count` is null.

    The order of the queryset must be unique, as with the primary key at its end. It must not contain names, because a
    cursor contains the values of a row. A cursor is signed. It is valid for its own list in the same order.
    """

    own_parameters = ("cursor", "page", "page_size")
    _next_cursor: str | None = None

    def paginate_queryset(  # type: ignore[override]  # these lists are querysets
        self, queryset: QuerySet[Any, Any], request: Request, view: APIView | None = None
    ) -> list[Any]:
        order = [str(name) for name in queryset.query.order_by]
        salt = f"{__name__} {request.path_info} {','.join(order)}"
        cursor = request.query_params.get("cursor")
        if cursor is None:
            rows = super().paginate_queryset(queryset, request, view) or []
            has_next = self.page is not None and self.page.has_next()
        else:
            if "page" in request.query_params:
                raise ValidationError({"cursor": ["Send either `cursor` or `page`."]})
            super().paginate_queryset(queryset.none(), request, view)  # checks the parameters
            size = self.get_page_size(request) or 0
            rows = list((queryset.filter(_after(cursor, order, salt)) if cursor else queryset)[: size + 1])
            has_next, rows = len(rows) > size, rows[:size]
        if has_next:
            self._next_cursor = signing.dumps([_value(rows[-1], name.lstrip("-")) for name in order], salt=salt)
        return rows

    def get_paginated_response(self, data: Any) -> Response:  # noqa: ANN401 - DRF's signature
        response = super().get_paginated_response(data)
        body = {**response.data, "next_cursor": self._next_cursor}
        if self.request is not None and "cursor" in self.request.query_params:
            url = self.request.build_absolute_uri()
            next_url = replace_query_param(url, "cursor", self._next_cursor) if self._next_cursor else None
            body |= {"count": None, "next": next_url, "previous": None}
        return Response(body)

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        described = super().get_paginated_response_schema(schema)
        properties = described["properties"]
        properties["count"] = {**properties["count"], "nullable": True, "description": "Null with a `cursor`."}
        properties["next_cursor"] = {
            "type": "string",
            "nullable": True,
            "description": "The `cursor` of the next page. Null after the last one.",
            "example": "WyIyMDI2LTExLTIzVDExOjU4OjAwIl0:1vPq3Y:8m2…",
        }
        return {**described, "required": [*described["required"], "next_cursor"]}

    def get_schema_operation_parameters(self, view: APIView) -> list[dict[str, Any]]:
        parameter = {
            "name": "cursor",
            "required": False,
            "in": "query",
            "description": "The `next_cursor` of the page before. Empty for the first page. Not together with `page`.",
            "schema": {"type": "string"},
        }
        return [parameter, *super().get_schema_operation_parameters(view)]


def _value(row: Any, name: str) -> str:  # noqa: ANN401 - a model or a dict
    value = row[name] if isinstance(row, Mapping) else getattr(row, name)
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _after(cursor: str, order: Sequence[str], salt: str) -> Q:
    """Returns the condition for the rows after `cursor`. Raises ValidationError with the code `invalid_cursor`."""
    try:
        values: list[str] = signing.loads(cursor, salt=salt)
    except signing.BadSignature as error:
        message = "Not a cursor of this list. Send the `next_cursor` of the page before, with the same parameters."
        raise ValidationError({"cursor": [message]}, "invalid_cursor") from error
    behind: Q | None = None
    for name, value in reversed(list(zip(order, values, strict=True))):
        field, is_behind = name.lstrip("-"), "lt" if name.startswith("-") else "gt"
        beyond = Q(**{f"{field}__{is_behind}": value})
        behind = beyond if behind is None else beyond | (Q(**{field: value}) & behind)
    # With the first value alone, too, because only this condition can use an index.
    first, within = order[0].lstrip("-"), "lte" if order[0].startswith("-") else "gte"
    return Q(**{f"{first}__{within}": values[0]}) & (behind or Q())
