"""Base class for the admin of rows that two people can save at the same time, where a constraint allows only one."""

from typing import Any

from django.contrib import admin
from django.db import IntegrityError
from django.http import HttpRequest, HttpResponse


class ConflictAdmin(admin.ModelAdmin):
    """Shows the violated constraint in the form if somebody else has just saved a conflicting row."""

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        try:
            return super().changeform_view(request, object_id, form_url, extra_context)
        except IntegrityError:  # rolled back; the form is validated again and sees the other row now
            return super().changeform_view(request, object_id, form_url, extra_context)
