"""Admin pages for the ledger, the provider's state and incidents. Read-only, except for two incident actions."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.html import format_html, format_html_join
from django.utils.safestring import mark_safe
from django.utils.timesince import timesince

from usage.alerts import channels, impact, messages
from usage.alerts.impact import Impact
from usage.alerts.incidents import resolve
from usage.models import DailyUsage, Incident, ProviderState, Reconciliation, UsageEvent
from voicecare.admin.readonly import ReadOnlyAdmin
from voicecare.patients.models import Patient

_ALERTS = (("opened", "opening_sent_at"), ("resolved", "resolution_sent_at"))


@admin.register(UsageEvent)
class UsageEventAdmin(ReadOnlyAdmin):
    """The table has millions of rows. A date hierarchy or a filter by model would read all of them for every page."""

    list_display = (
        "started_at",
        "kind",
        "outcome",
        "code",
        "requested_characters",
        "characters",
        "credits",
        "saved_characters",
        "first_byte_ms",
        "model",
        "request_id",
    )
    list_filter = ("kind", "outcome", "started_at")
    search_fields = ("=request_id", "=source", "=conversation", "=patient", "=voice")
    readonly_fields = ("id",)


@admin.register(Reconciliation)
class ReconciliationAdmin(ReadOnlyAdmin):
    list_display = (
        "day",
        "compared_at",
        "characters",
        "provider_characters",
        "unexplained_characters",
        "external_characters",
        "billed_attempts",
        "unbilled_attempts",
        "unknown_attempts",
        "explanation",
    )
    date_hierarchy = "day"


@admin.register(DailyUsage)
class DailyUsageAdmin(ReadOnlyAdmin):
    list_display = (
        "day",
        "kind",
        "patient",
        "voice",
        "model",
        "characters",
        "credits",
        "saved_characters",
        "events",
        "failed",
    )
    list_filter = ("kind", "model", "day")
    search_fields = ("=patient", "=voice")
    date_hierarchy = "day"


@admin.register(ProviderState)
class ProviderStateAdmin(ReadOnlyAdmin):
    list_display = (
        "circuit",
        "changed_at",
        "probes",
        "quota",
        "quota_changed_at",
        "credits",
        "quota_resets_at",
        "last_checked",
    )
    readonly_fields = ("credits",)

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


@admin.register(Incident)
class IncidentAdmin(ReadOnlyAdmin):
    list_display = ("opened_at", "kind", "key", "detail", "acknowledged_at", "resolved_at", "alert")
    list_filter = (
        "kind",
        ("resolved_at", admin.EmptyFieldListFilter),
        ("acknowledged_at", admin.EmptyFieldListFilter),
    )
    search_fields = ("key", "detail")
    date_hierarchy = "opened_at"
    actions = ("acknowledge", "resolve")
    readonly_fields = ("summary", "since", "patient_impact", "action", "affected", "affected_unnamed", "alert")

    def get_fieldsets(  # type: ignore[override]  # the stubs' own type for it is private
        self, request: HttpRequest, obj: Incident | None = None
    ) -> list[tuple[str | None, dict[str, Any]]]:
        """Only users who may view patients see names."""
        sees_names = self.admin_site.get_model_admin(Patient).has_view_permission(request)
        affected = "affected" if sees_names else "affected_unnamed"
        return [
            (None, {"fields": ("summary", "since", "detail", "patient_impact", "action", affected)}),
            ("Response", {"fields": ("acknowledged_at", "resolved_at", "alert")}),
        ]

    @admin.display(description="What happened")
    def summary(self, incident: Incident) -> str:
        return messages.message_for(incident).summary

    @admin.display(description="Since")
    def since(self, incident: Incident) -> str:
        began, ended = _utc(incident.opened_at), incident.resolved_at
        if ended is None:
            return f"{began}, {timesince(incident.opened_at)} ago"
        return f"{began}, until {_utc(ended)}: {timesince(incident.opened_at, ended)}"

    @admin.display(description="What patients hear")
    def patient_impact(self, incident: Incident) -> str:
        return messages.message_for(incident).patient_impact

    @admin.display(description="What to do")
    def action(self, incident: Incident) -> str:
        message = messages.message_for(incident)
        return message.action if incident.resolved_at is None else f"Nothing. {message.resolved}"

    @admin.display(description="Alert")
    def alert(self, incident: Incident) -> str:
        if not (channels.channels_for(incident) or incident.opening_sent_at):
            return "no alert channel configured"
        parts = [f"{state} alert sent {_utc(at)}" for state, name in _ALERTS if (at := getattr(incident, name))]
        if incident.sending_failures:
            parts.append(f"failed {incident.sending_failures} times, will be retried")
        return ", ".join(parts) or "not sent"

    @admin.display(description="Affected patients")
    def affected(self, incident: Incident) -> str:
        rows = impact.impact_of(incident)
        patients = Patient.objects.in_bulk([row.patient_id for row in rows or ()])
        return _list_impact(rows, lambda row: _link(patients.get(row.patient_id)))

    @admin.display(description="Affected patients")
    def affected_unnamed(self, incident: Incident) -> str:
        return _list_impact(impact.impact_of(incident), lambda row: "a patient")

    def has_acknowledge_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("usage.change_incident")

    @admin.action(description="Acknowledge", permissions=["acknowledge"])
    def acknowledge(self, request: HttpRequest, incidents: QuerySet[Incident]) -> HttpResponse:
        acknowledged = incidents.filter(acknowledged_at=None).update(acknowledged_at=timezone.now())
        self.message_user(request, f"{acknowledged} {_incidents(acknowledged)} acknowledged.")
        return _redirect_back(request, incidents)

    @admin.action(description="Mark as resolved", permissions=["acknowledge"])
    def resolve(self, request: HttpRequest, incidents: QuerySet[Incident]) -> HttpResponse:
        resolved = resolve(incidents)
        self.message_user(request, f"{resolved} {_incidents(resolved)} marked as resolved.")
        return _redirect_back(request, incidents)


def _incidents(count: int) -> str:
    return "incident" if count == 1 else "incidents"


def _redirect_back(request: HttpRequest, incidents: QuerySet[Incident]) -> HttpResponse:
    """Redirect to the incident's page if the button was there, otherwise to the list with its filters."""
    incident = incidents.first() if "page" in request.POST else None
    url = reverse("admin:usage_incident_change", args=[incident.pk]) if incident else request.get_full_path()
    return HttpResponseRedirect(url)


def _list_impact(rows: Sequence[Impact] | None, patient: Callable[[Impact], str]) -> str:
    if rows is None:
        return "No patients are affected."
    lines = ((patient(row), row.description) for row in rows)
    return format_html_join(mark_safe("<br>"), "{}: {}", lines) or "No patients so far."


def _utc(at: datetime) -> str:
    return f"{date_format(at, 'DATETIME_FORMAT')} UTC"


def _link(patient: Patient | None) -> str:
    if patient is None:
        return "an erased patient"
    return format_html('<a href="{}">{}</a>', reverse("admin:patients_patient_change", args=[patient.pk]), patient)
