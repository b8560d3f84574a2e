"""Pagination of the lists in REST responses."""

from rest_framework import pagination


class PageNumberPagination(pagination.PageNumberPagination):
    """Divides lists into pages. The parameter `page` counts from 1, and `page_size` is at most 100.

    The rows of a page are in the field `results`.
    """

    page_size = 25
    page_size_query_param = "page_size"
    max_page_size = 100
