"""Lists come in pages."""

from rest_framework.pagination import PageNumberPagination


class Pages(PageNumberPagination):
    """`page` from 1, `page_size` up to 100; the rows are under `results`."""

    page_size = 25
    page_size_query_param = "page_size"
    max_page_size = 100
