"""Admin pages of rows that must not always be deleted."""

from typing import Any

from django.contrib import admin, messages
from django.db import transaction
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect


class DeletionRefused(Exception):
    """Rows must not be deleted now. The message says what to do."""


class GuardedDeletionAdmin(admin.ModelAdmin):
    """Deletes in one transaction, and shows DeletionRefused as an error after it was rolled back."""

    def check_deletion(self, rows: QuerySet[Any]) -> None:
        """Raises DeletionRefused if these rows must not be deleted."""
        raise NotImplementedError

    def delete_model(self, request: HttpRequest, obj: Model) -> None:
        self.check_deletion(self.model._default_manager.filter(pk=obj.pk))
        super().delete_model(request, obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        self.check_deletion(queryset)
        super().delete_queryset(request, queryset)

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        try:
            return super().delete_view(request, object_id, extra_context)
        except DeletionRefused as error:
            return self._refused(request, error)

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        if request.method != "POST":
            return super().changelist_view(request, extra_context)
        try:
            with transaction.atomic():  # the action logs the deletions before it deletes
                return super().changelist_view(request, extra_context)
        except DeletionRefused as error:
            return self._refused(request, error)

    def _refused(self, request: HttpRequest, error: DeletionRefused) -> HttpResponse:
        self.message_user(request, str(error), messages.ERROR)
        return HttpResponseRedirect(request.get_full_path())
