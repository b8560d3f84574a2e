"""Pagination of lists."""

from rest_framework import pagination


class PageNumberPagination(pagination.PageNumberPagination):
    """`page` from 1, `page_size` up to 100; the rows are under `results`."""

    page_size = 25
    page_size_query_param = "page_size"
    max_page_size = 100
