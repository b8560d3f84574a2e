"""Base class for the admin of rows that record what has happened. Users can view these rows but cannot change them."""

from django.contrib import admin
from django.db.models import Model
from django.http import HttpRequest


class ReadOnlyAdmin(admin.ModelAdmin):
    """Denies adding, changing and deleting to every user."""

    show_full_result_count = False  # a second count of a large table is the slowest part of its list

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False
