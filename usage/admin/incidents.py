"""Incidents: their list, and a page that says what happened, whom it affects and who takes care of it.

People acknowledge and mute incidents and write notes. They can mark those as resolved whose end the server cannot
detect. `voicecare.admin.overview.incidents` registers the pages, because other apps know who waits for speech.
"""

import uuid
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.template.loader import render_to_string
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe
from django.utils.text import capfirst
from django.utils.timesince import timesince
from django.utils.translation import ngettext

from usage.admin.incident_filters import IncidentClinicFilter, StatusFilter
from usage.alerts import channels, endings, impact, responses
from usage.alerts import messages as alert_messages
from usage.alerts.impact import Impact
from usage.alerts.notifications import dispatch as notifications
from usage.alerts.timeline import timeline_of
from usage.alerts.visibility import visible_incidents
from usage.models import Incident, IncidentEvent
from voicecare.admin.lists import EMPTY, BadgeKind, badge, timestamp
from voicecare.admin.periods import PeriodAdmin, PeriodFilter
from voicecare.admin.readonly import ReadOnlyAdmin
from voicecare.admin.titles import TitledAdmin
from voicecare.audit import changes
from voicecare.audit.recording import record
from voicecare.patients.models import Patient
from voicecare.patients.models.patient import sees_all_patients

MUTE_HOURS = {1: "1 hour", 4: "4 hours", 24: "1 day", 168: "7 days", 720: "30 days"}
MAX_NOTE_LENGTH = 2000  # characters


class IncidentAdmin(TitledAdmin, PeriodAdmin, ReadOnlyAdmin):
    period_field = "opened_at"
    default_days = 365
    id_fields = ("id", "key")
    id_parameters = ("resolved_at__isnull",)  # open incidents are few
    list_display = ("status", "what", "affected_count", "opened", "duration", "detail")
    list_display_links = ("what",)
    list_filter = (StatusFilter, PeriodFilter, IncidentClinicFilter, "kind")
    search_fields = ("key", "detail")
    actions = ("acknowledge", "resolve")
    readonly_fields = (
        *("status", "summary", "opened", "duration", "patient_impact", "action", "affected", "affected_unnamed"),
        *("alert", "timeline"),
    )
    change_form_template = "admin/usage/incident/change_form.html"

    class Media:
        css = {"all": ["voicecare/incidents.css"]}

    def get_urls(self) -> list[URLPattern]:
        respond = path("<uuid:pk>/respond/", self.admin_site.admin_view(self.respond), name="usage_incident_respond")
        return [respond, *super().get_urls()]

    def needs_no_period(self, request: HttpRequest) -> bool:
        return StatusFilter.shows_open_ones(request) or super().needs_no_period(request)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Incident]:
        return visible_incidents(super().get_queryset(request), request.user)

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Incident | None:
        """Return the incident with `seen_by`, because only patients whom the user may see are named."""
        incident: Incident | None = super().get_object(request, object_id, from_field)
        if incident is not None:
            incident.seen_by = request.user  # type: ignore[attr-defined]
        return incident

    def get_fieldsets(  # type: ignore[override]  # the stubs' own type for it is private
        self, request: HttpRequest, obj: Incident | None = None
    ) -> list[tuple[str | None, dict[str, Any]]]:
        """Return the fields of an incident's page. Only users who may view patients see the patients' names."""
        sees_names = self.admin_site.get_model_admin(Patient).has_view_permission(request)
        affected = "affected" if sees_names else "affected_unnamed"
        facts = ("status", "summary", "opened", "duration", "detail", "patient_impact", "action", affected)
        return [(None, {"fields": facts}), ("Timeline", {"fields": ("alert", "timeline")})]

    def title_of(self, obj: Incident) -> str:
        return capfirst(obj.get_kind_display())

    @admin.display(description="Status")
    def status(self, incident: Incident) -> str:
        if incident.resolved_at is not None:
            return _badge_of("good", "Resolved", incident.resolved_by)
        words = "Open again" if incident.reopened_at else "Open"
        is_acknowledged = incident.acknowledged_at is not None
        shown = [
            _badge_of("warning", "Acknowledged", incident.acknowledged_by) if is_acknowledged else badge("bad", words)
        ]
        if incident.muted_until is not None and incident.muted_until > timezone.now():
            shown.append(badge("plain", "Muted"))
        return mark_safe(" ".join(shown))  # noqa: S308 - all parts are escaped

    @admin.display(description="Incident")
    def what(self, incident: Incident) -> str:
        return self.title_of(incident)

    @admin.display(description="Opened")
    def opened(self, incident: Incident) -> str:
        return timestamp(incident.opened_at)

    @admin.display(description="Duration")
    def duration(self, incident: Incident) -> str:
        if incident.resolved_at is None:
            return f"{timesince(incident.opened_at)} so far"
        return timesince(incident.opened_at, incident.resolved_at)

    @admin.display(description="What happened")
    def summary(self, incident: Incident) -> str:
        return alert_messages.message_for(incident).summary

    @admin.display(description="What patients hear")
    def patient_impact(self, incident: Incident) -> str:
        return alert_messages.message_for(incident).patient_impact

    @admin.display(description="What to do")
    def action(self, incident: Incident) -> str:
        if incident.resolved_at is None:
            return alert_messages.message_for(incident).action
        return f"Nothing. {alert_messages.resolution(incident)}"

    @admin.display(description="Alerts")
    def alert(self, incident: Incident) -> str:
        if incident.resolved_at is None and incident.muted_until is not None:
            return f"Muted until {timestamp(incident.muted_until)}."
        if not (channels.channels_for(incident) or incident.opening_sent_at):
            if not notifications.is_configured():
                return "No alert channel is configured."
            is_sent = incident.events.filter(kind=IncidentEvent.Kind.ALERT).exists()
            return "Sent, see below." if is_sent else "Not sent."
        if incident.sending_failures:
            return f"An alert failed {incident.sending_failures} times and will be retried."
        return "Sent, see below." if incident.opening_sent_at else "Not sent."

    @admin.display(description="Timeline")
    def timeline(self, incident: Incident) -> str:
        return render_to_string("admin/usage/incident/timeline.html", {"entries": timeline_of(incident)})

    def impact_of(self, incident: Incident) -> list[Impact] | None:
        """The patients that the incident affects. None for a kind of incident that patients do not notice."""
        return impact.impact_of(incident)

    @admin.display(description="Affected")
    def affected_count(self, incident: Incident) -> str:
        """The number of patients, if the incident is open and not about a single budget or voice.

        It takes queries for each incident. Of those without a key, one of each kind at most is open.
        """
        is_counted = incident.resolved_at is None and not incident.key
        rows = self.impact_of(incident) if is_counted else None
        if rows is None:
            return EMPTY
        count = len({row.patient_id for row in rows} - {None})
        return ngettext("%d patient", "%d patients", count) % count

    @admin.display(description="Affected patients")
    def affected(self, incident: Incident) -> str:
        rows = self.impact_of(incident)
        user = incident.seen_by  # type: ignore[attr-defined]
        visible, unnamed = Patient.objects.shown_in_admin_to(user), "an erased patient"
        if not sees_all_patients(user):
            unnamed = "another patient"
        patients = visible.in_bulk([row.patient_id for row in rows or ()])

        def link(row: Impact) -> str:
            patient = patients.get(row.patient_id)
            if patient is None:
                return unnamed
            url = reverse("admin:patients_patient_change", args=[patient.pk])
            return format_html('<a href="{}">{}</a>', url, patient)

        return _list_impact(rows, link)

    @admin.display(description="Affected patients")
    def affected_unnamed(self, incident: Incident) -> str:
        return _list_impact(self.impact_of(incident), lambda row: "a patient")

    def render_change_form(
        self,
        request: HttpRequest,
        context: dict[str, Any],
        *args: Any,  # noqa: ANN401 - Django's signature
        **kwargs: Any,  # noqa: ANN401
    ) -> HttpResponse:
        incident = kwargs["obj"]
        muted_until = incident.muted_until
        response = {
            "may_respond": self.has_acknowledge_permission(request),
            "is_open": incident.resolved_at is None,
            "is_muted": muted_until is not None and muted_until > timezone.now(),
            "is_end_detected": endings.is_end_detected(incident),
            "mute_hours": MUTE_HOURS,
            "max_note_length": MAX_NOTE_LENGTH,
        }
        return super().render_change_form(request, {**context, **response}, *args, **kwargs)

    def has_acknowledge_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("usage.change_incident")

    def respond(self, request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
        """Do what a button of the page says, as the user, with the note that the user has written."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        if not self.has_acknowledge_permission(request):
            raise PermissionDenied
        incident = get_object_or_404(self.get_queryset(request), pk=pk)
        with transaction.atomic():  # a change that is rolled back leaves no entry in the audit trail
            if self._respond(request, incident):
                before, after = changes.values_of(incident), changes.values_of(Incident.objects.get(pk=pk))
                record(request, request.POST["action"], incident, changes.differences(Incident, before, after))
        return HttpResponseRedirect(reverse("admin:usage_incident_change", args=[incident.pk]))

    def _respond(self, request: HttpRequest, incident: Incident) -> bool:
        """Returns whether anything was done. `incident` keeps its former values."""
        person, note = request.user.get_username(), request.POST.get("note", "").strip()[:MAX_NOTE_LENGTH]
        hours = request.POST.get("hours", "")
        action = request.POST.get("action")
        if action == "acknowledge":
            done, words = responses.acknowledge(incident.pk, person, note), "Acknowledged."
        elif action == "resolve":
            done, words = responses.mark_resolved(incident.pk, person, note), "Marked as resolved."
        elif action == "mute" and hours.isdecimal() and int(hours) in MUTE_HOURS:
            done = responses.mute(incident.pk, person, timedelta(hours=int(hours)), note)
            words = f"Muted for {MUTE_HOURS[int(hours)]}."
        elif action == "unmute":
            done, words = responses.unmute(incident.pk, person, note), "No longer muted."
        elif action == "note" and note:
            responses.add_note(incident.pk, person, note)
            done, words = True, "The note was added."
        else:
            self.message_user(request, "Nothing was done. A note needs a text.", messages.WARNING)
            return False
        if done:
            self.message_user(request, words)
        else:
            reason = _why_not(Incident.objects.get(pk=incident.pk))
            self.message_user(request, f"Nothing was done. {reason}", messages.WARNING)
        return done

    @admin.action(description="Acknowledge", permissions=["acknowledge"])
    def acknowledge(self, request: HttpRequest, incidents: QuerySet[Incident]) -> None:
        person = request.user.get_username()
        done = [incident for incident in incidents if responses.acknowledge(incident.pk, person)]
        self.message_user(request, f"{len(done)} {_incidents(len(done))} acknowledged.")

    @admin.action(description="Mark as resolved", permissions=["acknowledge"])
    def resolve(self, request: HttpRequest, incidents: QuerySet[Incident]) -> None:
        person, chosen = request.user.get_username(), list(incidents)
        left = [incident for incident in chosen if not responses.mark_resolved(incident.pk, person)]
        done = len(chosen) - len(left)
        self.message_user(request, f"{done} {_incidents(done)} marked as resolved.")
        if detected := [incident for incident in left if incident.resolved_at is None]:
            words = f"{len(detected)} {_incidents(len(detected))} left open. {_why_not(detected[0])}"
            self.message_user(request, words, messages.WARNING)


def _badge_of(kind: BadgeKind, words: str, person: str) -> SafeString:
    """A badge with the name of the person. Without a name it was the server, or an earlier release."""
    return (
        format_html('{} <span class="quiet">by {}</span>', badge(kind, words), person) if person else badge(kind, words)
    )


def _incidents(count: int) -> str:
    return "incident" if count == 1 else "incidents"


def _why_not(incident: Incident) -> str:
    """Why an incident was not changed, as one sentence."""
    if incident.resolved_at is not None:
        return "The incident has ended in the meantime."
    if endings.is_end_detected(incident):
        return "The server resolves it when it detects that the cause has ended. Until then it can be muted."
    return f"{incident.acknowledged_by or 'Somebody else'} was faster."


def _list_impact(rows: Sequence[Impact] | None, patient: Callable[[Impact], str]) -> str:
    if rows is None:
        return "No patients are affected."
    lines = ((patient(row), row.description) for row in rows)
    return format_html_join(mark_safe("<br>"), "{}: {}", lines) or "No patients so far."
