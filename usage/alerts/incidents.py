"""Incidents: one for each cause, however many processes see it."""

from datetime import datetime

from django.db.models import QuerySet
from django.utils import timezone

from usage.alerts import dispatcher
from usage.models import Incident

Kind = Incident.Kind


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
    ids = list(still_open.values_list("pk", flat=True))
    resolved = still_open.filter(pk__in=ids).update(resolved_at=timezone.now())
    dispatcher.notify_async(*ids)
    return resolved
