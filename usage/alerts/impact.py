"""Whom an incident has touched and how, for the admin alone: alerts name no patient."""

import uuid
from collections.abc import Iterable
from datetime import timedelta
from typing import NamedTuple

from django.db.models import Count, Q, QuerySet

from usage.alerts import incidents
from usage.alerts.latency import PATIENT_KINDS, SLOW_ABOVE_MS, WINDOW_MINUTES
from usage.models import Incident, UsageEvent

Kind = Incident.Kind
OTHER_VOICE = (Kind.QUOTA, Kind.PROVIDER_DOWN, Kind.ACCESS, Kind.REQUEST, Kind.VOICE)


class Impact(NamedTuple):
    """`patient`: None where nobody knows any more whose it was."""

    patient_id: uuid.UUID | None
    description: str


def impact_of(incident: Incident) -> list[Impact] | None:
    """None: an incident of a kind that no patient hears anything of."""
    if incident.kind in OTHER_VOICE:
        rows = incidents.heard_instead(incident)
        return [Impact(row["patient"], f"{row['segments']} segments in the {row['kind']} voice") for row in rows]
    if incident.kind == Kind.NO_VOICE:
        silent = _while(incident).filter(kind=UsageEvent.Kind.OFFLINE, outcome=UsageEvent.Outcome.FAILED)
        return _counted(silent, "segments in silence")
    if incident.kind == Kind.SLOW:
        late = _while(incident, timedelta(minutes=WINDOW_MINUTES)).filter(kind__in=PATIENT_KINDS)
        return _counted(late.filter(first_chunk_ms__gt=SLOW_ABOVE_MS), "speeches that began late")
    if incident.kind == Kind.BUDGET:
        return [Impact(uuid.UUID(incident.key), "what did not fit into the budget was not spoken")]
    return None


def _while(incident: Incident, before: timedelta = incidents.ASKED_BEFORE) -> QuerySet[UsageEvent]:
    lasted = Q(started_at__gte=incident.opened_at - before)
    if incident.resolved_at is not None:
        lasted &= Q(started_at__lte=incident.resolved_at)
    return UsageEvent.objects.filter(lasted)


def _counted(events: QuerySet[UsageEvent], what: str) -> list[Impact]:
    rows: Iterable[tuple[uuid.UUID | None, int]] = (
        events.order_by("patient").values_list("patient").annotate(times=Count("id"))
    )
    return [Impact(patient, f"{times} {what}") for patient, times in rows]
