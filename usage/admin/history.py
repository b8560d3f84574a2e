"""The deletions of our requests from the provider's history."""

from django.contrib import admin
from django.utils.html import format_html

from usage.models import HistoryDeletion
from usage.named_rows import NamedRowsAdmin
from voicecare.admin.lists import badge, timestamp
from voicecare.admin.readonly import ReadOnlyAdmin


@admin.register(HistoryDeletion)
class HistoryDeletionAdmin(NamedRowsAdmin, ReadOnlyAdmin):
    list_display = ("result", "reason", "patient_name", "voice_name", "created", "deleted", "next_attempt")
    list_display_links = ("reason",)
    readonly_fields = ("result", "reason", "patient_name", "voice_name", "created", "next_attempt", "done", "failing")
    fieldsets = (
        (None, {"fields": ("result", "reason", "patient_name", "voice_name", "created", "deleted", "done")}),
        ("Attempts", {"fields": ("next_attempt", "failures", "failing", "error")}),
        ("Internals", {"classes": ("collapse",), "fields": ("id", "passes", "covers_until", "cursor", "lease_until")}),
    )

    @admin.display(description="State")
    def result(self, deletion: HistoryDeletion) -> str:
        if deletion.done_at is not None:
            return badge("good", "Nothing left")
        if not deletion.failures:
            return badge("plain", "In progress")
        words = "Refused" if deletion.is_refused else "Failing"
        return format_html('{} <span class="quiet">{}</span>', badge("bad", words), deletion.error)

    @admin.display(description="Reason")
    def reason(self, deletion: HistoryDeletion) -> str:
        return deletion.reason

    @admin.display(description="Since", ordering="created_at")
    def created(self, deletion: HistoryDeletion) -> str:
        return timestamp(deletion.created_at)

    @admin.display(description="Next attempt")
    def next_attempt(self, deletion: HistoryDeletion) -> str:
        return timestamp(None if deletion.done_at else deletion.next_attempt_at)

    @admin.display(description="Done")
    def done(self, deletion: HistoryDeletion) -> str:
        return timestamp(deletion.done_at)

    @admin.display(description="Failing since")
    def failing(self, deletion: HistoryDeletion) -> str:
        return timestamp(deletion.failing_since)
