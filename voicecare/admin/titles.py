"""Titles of admin pages in words, for rows whose `str()` must not name a patient, because it can get into logs."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse


class TitledAdmin(admin.ModelAdmin):
    """Shows `title_of` the row in the heading, the breadcrumbs and the title of its page."""

    def title_of(self, obj: Any) -> str:  # noqa: ANN401 - a row of any model
        raise NotImplementedError

    def render_change_form(
        self,
        request: HttpRequest,
        context: dict[str, Any],
        *args: Any,  # noqa: ANN401 - Django's signature
        **kwargs: Any,  # noqa: ANN401
    ) -> HttpResponse:
        if kwargs.get("obj") is not None:
            context = {**context, "subtitle": self.title_of(kwargs["obj"])}
        return super().render_change_form(request, context, *args, **kwargs)
