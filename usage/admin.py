"""Admin pages for the ledger, the provider's state and incidents.

They are read-only, except for prices, and for two actions on incidents: to acknowledge them and to mark them as
resolved.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from django.conf import settings
from django.contrib import admin
from django.contrib.admin.views.main import SEARCH_VAR
from django.db import IntegrityError
from django.db.models import Field, Q, QuerySet
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
from usage.models import DailyUsage, Incident, Price, ProviderState, Reconciliation, UsageEvent
from usage.named_rows import NamedRowsAdmin, rows_of
from usage.prices import plain
from voicecare.admin.lists import BadgeKind, badge, timestamp
from voicecare.admin.periods import PeriodAdmin, PeriodFilter
from voicecare.admin.readonly import ReadOnlyAdmin
from voicecare.admin.titles import TitledAdmin
from voicecare.patients.models import Patient

_ALERTS = (("opened", "opening_sent_at"), ("resolved", "resolution_sent_at"))


@admin.register(UsageEvent)
class UsageEventAdmin(TitledAdmin, NamedRowsAdmin, PeriodAdmin, ReadOnlyAdmin):
    """The attempts in the ledger. A search for an id or for a request of the provider finds rows of any date."""

    period_field = "started_at"
    id_fields = ("id", "source", "conversation", "patient", "voice")
    id_parameters = ("source__exact",)
    search_help_text = (
        "The name of a patient or voice, in the chosen period. A request id of the provider, or the id of a message, "
        "conversation, patient or voice, on any date."
    )
    list_display = (
        "result",
        "started",
        "patient_name",
        "voice_name",
        "kind",
        "billed_characters",
        "credits",
        "first_byte",
    )
    list_filter = (PeriodFilter, "kind", "outcome")
    search_fields = ("request_id",)
    readonly_fields = ("started", "patient_name", "voice_name")
    fieldsets = (
        (None, {"fields": ("started", "patient_name", "voice_name", "kind", "outcome", "code")}),
        (
            "Usage",
            {"fields": ("model", "requested_characters", "characters", "credits", "saved_characters")},
        ),
        ("Latency", {"fields": ("first_byte_ms", "first_chunk_ms")}),
        (
            "Internals",
            {
                "classes": ("collapse",),
                "fields": ("id", "source", "conversation", "patient", "voice", "segment", "attempt", "request_id"),
            },
        ),
    )

    def get_readonly_fields(self, request: HttpRequest, obj: UsageEvent | None = None) -> tuple[str, ...]:
        return ("id", *self.readonly_fields)

    def title_of(self, obj: UsageEvent) -> str:
        return f"{obj.get_kind_display()}, {timestamp(obj.started_at)}"

    @admin.display(description="Outcome")
    def result(self, event: UsageEvent) -> str:
        kinds: dict[str, BadgeKind] = {UsageEvent.Outcome.COMPLETED: "good", UsageEvent.Outcome.FAILED: "bad"}
        shown = badge(kinds.get(event.outcome, "warning"), event.get_outcome_display())
        return format_html('{} <span class="quiet">{}</span>', shown, event.code)

    @admin.display(description="Started")
    def started(self, event: UsageEvent) -> str:
        return timestamp(event.started_at)

    @admin.display(description="Characters")
    def billed_characters(self, event: UsageEvent) -> str:
        """The billed characters, or those that the cache or the offline voice has saved."""
        if event.saved_characters and not event.characters:
            return f"{event.saved_characters:,} saved"
        return f"{event.characters:,}"

    @admin.display(description="First byte", empty_value="-")
    def first_byte(self, event: UsageEvent) -> str | None:
        return None if event.first_byte_ms is None else f"{event.first_byte_ms:,.0f} ms"

    def needs_no_period(self, request: HttpRequest) -> bool:
        """Whether the list may show attempts of all times, because an index finds them.

        That is the case for an id, a request of the provider, and the attempts whose outcome is unknown.
        """
        if request.GET.get("outcome__exact") == UsageEvent.Outcome.UNKNOWN:
            return True
        return super().needs_no_period(request) or self._is_request(request.GET.get(SEARCH_VAR, ""))

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[UsageEvent], search_term: str
    ) -> tuple[QuerySet[UsageEvent], bool]:
        term = search_term.strip()
        if self._is_request(term):
            return queryset.filter(request_id=term), False
        if not term or self.parse_id(term) is not None:
            return super().get_search_results(request, queryset, term)
        return queryset.filter(rows_of(term)), False

    def _is_request(self, term: str) -> bool:
        return bool(term.strip()) and UsageEvent.objects.filter(request_id=term.strip()).exists()


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
            "Attempts without an answer",
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


@admin.register(DailyUsage)
class DailyUsageAdmin(TitledAdmin, NamedRowsAdmin, PeriodAdmin, ReadOnlyAdmin):
    period_field = "day"
    id_fields = ("patient", "voice")
    id_parameters = ("patient__exact",)
    search_help_text = "The name of a patient, a voice or a model, in the chosen period. The id of a patient or voice."
    list_display = (
        "day",
        "patient_name",
        "voice_name",
        "kind",
        "characters",
        "credits",
        "saved_characters",
        "events",
        "failed",
    )
    list_filter = (PeriodFilter, "kind")
    search_fields = ("=model",)
    readonly_fields = ("patient_name", "voice_name")
    fieldsets = (
        (None, {"fields": ("day", "patient_name", "voice_name", "model", "kind")}),
        ("Usage", {"fields": ("characters", "credits", "saved_characters", "events", "failed")}),
        ("Internals", {"classes": ("collapse",), "fields": ("patient", "voice")}),
    )

    def title_of(self, obj: DailyUsage) -> str:
        return f"{obj.get_kind_display()}, {date_format(obj.day)}"

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[DailyUsage], search_term: str
    ) -> tuple[QuerySet[DailyUsage], bool]:
        term = search_term.strip()
        if not term or self.parse_id(term) is not None:
            return super().get_search_results(request, queryset, term)
        return queryset.filter(rows_of(term) | Q(model__iexact=term)), False


@admin.register(Price)
class PriceAdmin(admin.ModelAdmin):
    list_display = ("price_model", "valid_from", "price")
    fields = ("model", "valid_from", "per_1000_credits")

    def formfield_for_dbfield(self, db_field: Field, request: HttpRequest, **options: Any) -> Any:  # noqa: ANN401
        formfield = super().formfield_for_dbfield(db_field, request, **options)
        if db_field.name == "per_1000_credits" and formfield:
            formfield.help_text = f"In {settings.PRICE_CURRENCY}. Zero means free."
        return formfield

    @admin.display(description="Model", ordering="model")
    def price_model(self, price: Price) -> str:
        return price.model or "All other models"

    @admin.display(description="Price of 1,000 credits", ordering="per_1000_credits")
    def price(self, price: Price) -> str:
        return f"{plain(price.per_1000_credits)} {settings.PRICE_CURRENCY}"

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Show the error in the form if somebody else has saved a price of this model and day at the same time."""
        try:
            return super().changeform_view(request, object_id, form_url, extra_context)
        except IntegrityError:  # rolled back; the form sees the other price now
            return super().changeform_view(request, object_id, form_url, extra_context)


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
class IncidentAdmin(PeriodAdmin, ReadOnlyAdmin):
    period_field = "opened_at"
    default_days = 365
    id_fields = ("id", "key")
    id_parameters = ("resolved_at__isempty",)  # open incidents are few
    list_display = ("opened_at", "kind", "key", "detail", "acknowledged_at", "resolved_at", "alert")
    list_filter = (
        PeriodFilter,
        "kind",
        ("resolved_at", admin.EmptyFieldListFilter),
        ("acknowledged_at", admin.EmptyFieldListFilter),
    )
    search_fields = ("key", "detail")
    actions = ("acknowledge", "resolve")
    readonly_fields = ("summary", "since", "patient_impact", "action", "affected", "affected_unnamed", "alert")

    def get_fieldsets(  # type: ignore[override]  # the stubs' own type for it is private
        self, request: HttpRequest, obj: Incident | None = None
    ) -> list[tuple[str | None, dict[str, Any]]]:
        """Return the fields of an incident's page. Only users who may view patients see the patients' names."""
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

        def link(row: Impact) -> str:
            patient = patients.get(row.patient_id)
            if patient is None:
                return "an erased patient"
            url = reverse("admin:patients_patient_change", args=[patient.pk])
            return format_html('<a href="{}">{}</a>', url, patient)

        return _list_impact(rows, link)

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
    """Redirect to the page on which the button was: the page of the incident, or the list with its filters."""
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
