"""What the pages of the console have in common: the site's context, and numbered pages of long lists."""

from typing import Any

from django.contrib import admin
from django.core.paginator import Page, Paginator
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

ROWS_PER_PAGE = 25


def render(request: HttpRequest, template: str, context: dict[str, Any]) -> HttpResponse:
    without_sidebar = {**admin.site.each_context(request), "is_nav_sidebar_enabled": False}
    return TemplateResponse(request, template, {**without_sidebar, **context})


def numbered_page(request: HttpRequest, rows: QuerySet[Any], per_page: int = ROWS_PER_PAGE) -> Page[Any]:
    """The page of the list that the query parameter `page` names. Another value is the first or the last page."""
    return Paginator(rows, per_page).get_page(request.GET.get("page"))
