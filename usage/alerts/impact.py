"""Finds out which patients an incident affected, and how. Only the admin shows this. Alerts name no patient."""

import uuid
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any, NamedTuple

from django.conf import settings
from django.db.models import Count, Q, QuerySet

from usage.alerts import region
from usage.alerts.endings import REFUSED
from usage.alerts.latency import PATIENT_KINDS, SLOW_ABOVE_MS, WINDOW_MINUTES
from usage.alerts.voices import ending
from usage.models import HistoryDeletion, Incident, UsageEvent
from voicecare.patients.models import Clinic, Patient, Voice

Kind = Incident.Kind
OTHER_VOICE_KINDS = (
    Kind.QUOTA,
    Kind.PROVIDER_DOWN,
    Kind.ACCESS,
    Kind.REQUEST,
    Kind.VOICE,
    Kind.DEFAULT_VOICE,
    Kind.NO_USABLE_VOICE,
)

RECORDED_BEFORE = timedelta(minutes=1)  # the failed request was recorded before the incident was opened


class Impact(NamedTuple):
    """A patient and how an incident affected them. `patient_id` is None for usage without a patient."""

    patient_id: uuid.UUID | None
    description: str


def impact_of(incident: Incident) -> list[Impact] | None:
    """Return the patients that the incident affected, or None for a kind of incident that patients do not notice."""
    if incident.kind in OTHER_VOICE_KINDS:
        rows = substituted_segments(incident)
        heard = [Impact(row["patient"], f"{row['segments']} segments in the {row['kind']} voice") for row in rows]
        if incident.kind == Kind.VOICE and incident.resolved_at is None:  # also patients who have heard nothing since
            patients = Patient.objects.remaining().filter(voice__in=_voices(incident)).order_by("name", "pk")
            heard += [Impact(patient, "has this voice") for patient in patients.values_list("pk", flat=True)]
        return heard
    if incident.kind == Kind.VOICE_ENDING:
        voices = ending.voices_ending_on(incident.key) if incident.resolved_at is None else set()
        heard_next = ending.patients_by_voice().items()
        return [Impact(patient.pk, f"hears {voice}") for patient, voice in heard_next if voice in voices]
    if incident.kind == Kind.HISTORY:
        waiting = HistoryDeletion.objects.filter(done_at=None).order_by("patient").values_list("patient", flat=True)
        return [Impact(patient, "requests are still in the provider's history") for patient in waiting.distinct()]
    if incident.kind == Kind.BUDGET:
        return _over_budget(uuid.UUID(incident.key))
    return _counted(incident)


def substituted_segments(incident: Incident) -> Iterable[Mapping[str, Any]]:
    """Count the segments that were spoken in the backup or offline voice during the incident.

    Returns rows with `patient` (an id or None), `kind` ("backup" or "offline") and `segments`.
    """
    kinds = (UsageEvent.Kind.BACKUP, UsageEvent.Kind.OFFLINE)
    events = UsageEvent.objects.filter(kind__in=kinds, outcome="completed", started_at__gte=incident.opened_at)
    if incident.kind == Kind.VOICE and incident.key != REFUSED:  # only conversations that used this voice
        voices = _voices(incident).values("pk")
        in_it = UsageEvent.objects.filter(voice__in=voices, started_at__gte=incident.opened_at - RECORDED_BEFORE)
        events = events.filter(conversation__in=in_it.values("conversation"))
    if incident.resolved_at is not None:
        events = events.filter(started_at__lte=incident.resolved_at)
    return events.order_by("patient", "kind").values("patient", "kind").annotate(segments=Count("id"))


def _counted(incident: Incident) -> list[Impact] | None:
    """Return the patients of the events that the incident is about, with their number, or None for other incidents."""
    if incident.kind == Kind.NO_VOICE:
        failed = _events_during(incident).filter(kind=UsageEvent.Kind.OFFLINE, outcome=UsageEvent.Outcome.FAILED)
        return _count_by_patient(failed, "segments without sound")
    if incident.kind == Kind.SLOW:
        speeches = _events_during(incident, timedelta(minutes=WINDOW_MINUTES)).filter(kind__in=PATIENT_KINDS)
        return _count_by_patient(speeches.filter(first_chunk_ms__gt=SLOW_ABOVE_MS), "speeches with high latency")
    if incident.kind == Kind.REGION:
        recent = _events_during(incident, timedelta(minutes=region.WINDOW_MINUTES))
        elsewhere = recent.exclude(region__in=["", *settings.ELEVENLABS_REGIONS])
        return _count_by_patient(elsewhere, "requests outside of the promised region")
    return None


def _over_budget(key: uuid.UUID) -> list[Impact]:
    """Return the patient, or the patients of the clinic, with this id."""
    if not Clinic.objects.filter(pk=key).exists():
        return [Impact(key, "speech over the budget was not spoken")]
    patients = Patient.objects.remaining().filter(clinic=key).order_by("name", "pk")
    return [Impact(patient, "belongs to this clinic") for patient in patients.values_list("pk", flat=True)]


def _voices(incident: Incident) -> QuerySet[Voice]:
    """Return the voice that the incident is about. An incident without a key is about all voices that are marked as
    gone. It is not known which ones are concerned by an incident about refused voices.
    """
    if incident.key == REFUSED:
        return Voice.objects.none()
    return Voice.objects.filter(pk=incident.key) if incident.key else Voice.objects.filter(state=Voice.State.GONE)


def _events_during(incident: Incident, before: timedelta = RECORDED_BEFORE) -> QuerySet[UsageEvent]:
    lasted = Q(started_at__gte=incident.opened_at - before)
    if incident.resolved_at is not None:
        lasted &= Q(started_at__lte=incident.resolved_at)
    return UsageEvent.objects.filter(lasted)


def _count_by_patient(events: QuerySet[UsageEvent], what: str) -> list[Impact]:
    rows: Iterable[tuple[uuid.UUID | None, int]] = (
        events.order_by("patient").values_list("patient").annotate(times=Count("id"))
    )
    return [Impact(patient, f"{times} {what}") for patient, times in rows]
