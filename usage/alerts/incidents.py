"""Incidents: one for each cause, however many processes see it."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Count, QuerySet
from django.utils import timezone

from usage.alerts import dispatcher
from usage.models import Incident, UsageEvent

Kind = Incident.Kind
ASKED_BEFORE = timedelta(minutes=1)  # the request that was refused was booked before the incident


def open_incident(kind: Incident.Kind, key: str = "", detail: str = "", began: datetime | None = None) -> None:
    """Opens it unless it is open already, and has administrators told. Two processes at once make one row.

    `detail` is told as it is: it holds no patient's name and no text.
    """
    incident = Incident(kind=kind, key=key, detail=detail[:300], opened_at=began or timezone.now())
    Incident.objects.bulk_create([incident], ignore_conflicts=True)
    dispatcher.notify_async(incident.pk)


def resolve_incident(kind: Incident.Kind, key: str = "") -> bool:
    """Resolves the open one and has that told; false if there was none."""
    return bool(resolve(Incident.objects.filter(kind=kind, key=key)))


def resolve(incidents: QuerySet[Incident]) -> int:
    """Resolves those of them that are open and has that told; returns how many they were."""
    still_open = incidents.filter(resolved_at=None)
    keys = list(still_open.values_list("pk", flat=True))
    resolved = still_open.filter(pk__in=keys).update(resolved_at=timezone.now())
    dispatcher.notify_async(*keys)
    return resolved


def heard_instead(incident: Incident) -> Iterable[Mapping[str, Any]]:
    """Who was affected while it lasted, and what they heard: rows of patient, kind (backup or offline), segments."""
    kinds = (UsageEvent.Kind.BACKUP, UsageEvent.Kind.OFFLINE)
    events = UsageEvent.objects.filter(kind__in=kinds, outcome="completed", started_at__gte=incident.opened_at)
    if incident.kind == Kind.VOICE:  # only those who were to be spoken to in it
        in_it = UsageEvent.objects.filter(voice=incident.key, started_at__gte=incident.opened_at - ASKED_BEFORE)
        events = events.filter(conversation__in=in_it.values("conversation"))
    if incident.resolved_at is not None:
        events = events.filter(started_at__lte=incident.resolved_at)
    return events.order_by("patient", "kind").values("patient", "kind").annotate(segments=Count("id"))
