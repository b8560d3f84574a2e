"""The ledger, the provider's state and its incidents, to look at: they are written by what happens, never by hand."""

from django.conf import settings
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.html import format_html_join
from django.utils.safestring import mark_safe
from django.utils.timesince import timesince

from usage.alerts import heard_instead, resolve
from usage.models import Incident, ProviderState, Reconciliation, UsageEvent
from voicecare.history import HistoryAdmin
from voicecare.patients.models import Patient

_TOLD = (("told that it began", "opening_sent_at"), ("told that it is over", "resolution_sent_at"))


@admin.register(UsageEvent)
class UsageEventAdmin(HistoryAdmin):
    list_display = (
        "at", "kind", "outcome", "code", "asked", "characters", "credits", "saved", "first_byte_ms", "model",
        "request_id",
    )  # fmt: skip
    list_filter = ("kind", "outcome", "model", "at")
    search_fields = ("=request_id", "=source", "=conversation", "=patient", "=voice")
    date_hierarchy = "at"
    readonly_fields = ("id",)


@admin.register(Reconciliation)
class ReconciliationAdmin(HistoryAdmin):
    list_display = (
        "day", "compared_at", "characters", "provider_characters", "unexplained", "others", "settled", "absent",
        "unknown", "explanation",
    )  # fmt: skip
    date_hierarchy = "day"


@admin.register(ProviderState)
class ProviderStateAdmin(HistoryAdmin):
    list_display = (
        "circuit", "changed_at", "probes", "quota", "quota_changed_at", "credits", "quota_resets_at", "last_read",
    )  # fmt: skip
    readonly_fields = ("credits",)

    @admin.display(description="Credits")
    def credits(self, state: ProviderState) -> str:
        if state.quota_used is None:
            return "not read yet"
        if state.quota_limit is None:
            return f"{state.quota_used:,} used, without a limit"
        return f"{state.quota_remaining:,} of {state.quota_limit:,} left"

    @admin.display(description="Last read", ordering="polled_at", empty_value="never")
    def last_read(self, state: ProviderState) -> str | None:
        return f"{timesince(state.polled_at)} ago" if state.polled_at else None


@admin.register(Incident)
class IncidentAdmin(HistoryAdmin):
    list_display = ("opened_at", "kind", "key", "detail", "acknowledged_at", "resolved_at", "alert")
    list_filter = (
        "kind", ("resolved_at", admin.EmptyFieldListFilter), ("acknowledged_at", admin.EmptyFieldListFilter),
    )  # fmt: skip
    search_fields = ("key", "detail")
    date_hierarchy = "opened_at"
    actions = ("acknowledge", "resolve")
    readonly_fields = ("alert", "who_heard_what")

    @admin.display(description="Alert")
    def alert(self, incident: Incident) -> str:
        if not (settings.ADMIN_EMAILS or settings.ALERT_WEBHOOK_URL or incident.opening_sent_at):
            return "nobody to send it to"
        told = [word for word, at in _TOLD if getattr(incident, at)]
        failed = f"failed {incident.sending_failures} times, is tried again" if incident.sending_failures else ""
        return ", ".join([*told, failed] if failed else told) or "not sent"

    @admin.display(description="Who was affected, and what they heard instead")
    def who_heard_what(self, incident: Incident) -> str:
        rows = list(heard_instead(incident))
        names = Patient.objects.in_bulk([row["patient"] for row in rows])
        lines = ((names.get(row["patient"], "an erased patient"), row["segments"], row["kind"]) for row in rows)
        return format_html_join(mark_safe("<br>"), "{}: {} segments in the {} voice", lines) or "Nobody so far."

    def has_acknowledge_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("usage.change_incident")

    @admin.action(description="Acknowledge: somebody is at it", permissions=["acknowledge"])
    def acknowledge(self, request: HttpRequest, incidents: QuerySet[Incident]) -> None:
        acknowledged = incidents.filter(acknowledged_at=None).update(acknowledged_at=timezone.now())
        self.message_user(request, f"Acknowledged: {acknowledged}.")

    @admin.action(description="Resolve: it is over, and the next one is told anew", permissions=["acknowledge"])
    def resolve(self, request: HttpRequest, incidents: QuerySet[Incident]) -> None:
        resolved = resolve(incidents)
        self.message_user(request, f"Resolved: {resolved}.")
