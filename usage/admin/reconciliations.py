"""The comparisons of the ledger with the provider's figures, one for each day."""

from django.contrib import admin

from usage.models import Reconciliation
from voicecare.admin.lists import badge, timestamp
from voicecare.admin.readonly import ReadOnlyAdmin


@admin.register(Reconciliation)
class ReconciliationAdmin(ReadOnlyAdmin):
    list_display = ("result", "day", "characters", "provider_characters", "external_characters", "explanation")
    list_display_links = ("day",)
    date_hierarchy = "day"
    readonly_fields = ("checked", "compared")
    fieldsets = (
        (None, {"fields": ("day", "checked", "compared", "explanation")}),
        (
            "Characters",
            {"fields": ("characters", "provider_characters", "unexplained_characters", "external_characters")},
        ),
        ("Credits", {"fields": ("credits", "provider_credits")}),
        (
            "Unconfirmed requests",
            {"fields": ("billed_attempts", "unbilled_attempts", "unknown_attempts", "unknown_characters")},
        ),
        ("Internals", {"classes": ("collapse",), "fields": ("counter", "counter_at", "counter_resets_at")}),
    )

    @admin.display(description="Result")
    def result(self, day: Reconciliation) -> str:
        if day.compared_at is None or day.provider_characters is None:
            return badge("plain", "Not compared yet")
        if day.unexplained_characters:
            return badge("bad", f"{day.unexplained_characters:,} unexplained")
        return badge("good", "Explained")

    @admin.display(description="Last checked")
    def checked(self, day: Reconciliation) -> str:
        return timestamp(day.checked_at)

    @admin.display(description="Compared")
    def compared(self, day: Reconciliation) -> str:
        return timestamp(day.compared_at)
