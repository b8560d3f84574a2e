"""The comparisons of the ledger with the provider's figures, one for each day."""

from django.contrib import admin

from usage.models import Reconciliation
from voicecare.admin.lists import badge, timestamp
from voicecare.admin.readonly import ReadOnlyAdmin


@admin.register(Reconciliation)
class ReconciliationAdmin(ReadOnlyAdmin):
    list_display = (
        "result",
        "day",
        "characters",
        "provider_characters",
        "external_characters",
        "usage_call",
        "explanation",
    )
    list_display_links = ("day",)
    date_hierarchy = "day"
    readonly_fields = ("checked", "compared")
    fieldsets = (
        (None, {"fields": ("day", "checked", "compared", "usage_call", "request_call", "explanation")}),
        (
            "Characters",
            {"fields": ("characters", "provider_characters", "unexplained_characters", "external_characters")},
        ),
        ("Credits", {"fields": ("credits", "provider_credits", "unexplained_credits")}),
        ("Cost", {"fields": ("cost", "provider_cost", "currency")}),
        (
            "Unconfirmed requests",
            {"fields": ("billed_attempts", "unbilled_attempts", "unknown_attempts", "unknown_characters")},
        ),
        ("Internals", {"classes": ("collapse",), "fields": ("counter", "counter_at", "counter_resets_at")}),
    )

    @admin.display(description="Result")
    def result(self, day: Reconciliation) -> str:
        unexplained = [figure for figure in (day.unexplained_characters, day.unexplained_credits) if figure is not None]
        if day.compared_at is None or (not unexplained and day.cost is None):
            return badge("plain", "Not compared yet")
        if any(unexplained):
            return badge("bad", f"{max(unexplained, key=abs):,} unexplained")
        return badge("good", "Explained")

    @admin.display(description="Last checked")
    def checked(self, day: Reconciliation) -> str:
        return timestamp(day.checked_at)

    @admin.display(description="Compared")
    def compared(self, day: Reconciliation) -> str:
        return timestamp(day.compared_at)
