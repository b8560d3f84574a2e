"""The state of the speech provider: whether it answers, and its credits."""

from django.contrib import admin
from django.utils.timesince import timesince

from usage.models import ProviderState
from voicecare.admin.lists import badge
from voicecare.admin.readonly import ReadOnlyAdmin
from voicecare.admin.titles import TitledAdmin


@admin.register(ProviderState)
class ProviderStateAdmin(TitledAdmin, ReadOnlyAdmin):
    list_display = ("provider", "key", "account_credits", "credits", "quota_resets_at", "last_checked")
    readonly_fields = ("provider", "key", "account_credits", "credits", "last_checked")
    fieldsets = (
        (None, {"fields": ("provider", "key", "account_credits", "credits", "quota_resets_at", "last_checked")}),
        (
            "Internals",
            {
                "classes": ("collapse",),
                "fields": (
                    *("changed_at", "probes", "next_probe_at", "access_changed_at", "quota_changed_at", "quota_needed"),
                    *("quota_refusals", "next_poll_at", "concurrency_limit", "plan_concurrency_limit"),
                ),
            },
        ),
    )

    def title_of(self, obj: ProviderState) -> str:
        return f"Provider: {obj.get_circuit_display()}"

    @admin.display(description="Provider")
    def provider(self, state: ProviderState) -> str:
        is_reachable = state.circuit == ProviderState.Circuit.CLOSED
        return badge("good" if is_reachable else "bad", state.get_circuit_display())

    @admin.display(description="API key")
    def key(self, state: ProviderState) -> str:
        is_accepted = state.access == ProviderState.Access.GRANTED
        return badge("good" if is_accepted else "bad", state.get_access_display())

    @admin.display(description="Quota")
    def account_credits(self, state: ProviderState) -> str:
        is_available = state.quota == ProviderState.Quota.AVAILABLE
        return badge("good", "Available") if is_available else badge("bad", "Exhausted")

    @admin.display(description="Credits")
    def credits(self, state: ProviderState) -> str:
        if state.quota_used is None:
            return "not read yet"
        if state.quota_limit is None:
            return f"{state.quota_used:,} used, no limit"
        return f"{state.quota_remaining:,} of {state.quota_limit:,} left"

    @admin.display(description="Last checked", ordering="polled_at", empty_value="never")
    def last_checked(self, state: ProviderState) -> str | None:
        return f"{timesince(state.polled_at)} ago" if state.polled_at else None
