"""Pagination of the lists in REST responses."""

from collections.abc import Sequence
from typing import Any

from django.db.models import QuerySet
from rest_framework import pagination
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.views import APIView


class PageNumberPagination(pagination.PageNumberPagination):
    """Divides lists into pages. The parameter `page` counts from 1, and `page_size` is at most 100.

    The rows of a page are in the field `results`. Unknown parameters are refused, because a filter with a typing error
    would return all rows. The other known parameters are the fields of the view's `filter_class`, a serializer.
    """

    page_size = 25
    page_size_query_param = "page_size"
    max_page_size = 100

    def paginate_queryset(
        self, queryset: QuerySet[Any, Any] | Sequence[Any], request: Request, view: APIView | None = None
    ) -> list[Any] | None:
        filters = getattr(view, "filter_class", None)
        known = sorted({self.page_query_param, "page_size", *(filters().fields if filters else ())})
        unknown = request.query_params.keys() - set(known)
        if unknown:
            message = f"Not a parameter of this list. Its parameters are: {', '.join(known)}."
            raise ValidationError({name: [message] for name in sorted(unknown)}, "unknown_parameter")
        return super().paginate_queryset(queryset, request, view)
