"""Open and resolve incidents. There is one open incident for each cause, even if several processes detect it."""

from datetime import datetime

from django.db.models import QuerySet
from django.utils import timezone

from usage.alerts import dispatcher
from usage.models import Incident

Kind = Incident.Kind


def open_incident(kind: Incident.Kind, key: str = "", detail: str = "", began: datetime | None = None) -> None:
    """Open an incident and send the alert, unless the incident is already open.

    Two processes that do this at the same time create one row. `detail` is sent as it is, so it must not contain a
    patient's name or a text. `began` is the time when the problem began, now by default.
    """
    incident = Incident(kind=kind, key=key, detail=detail[:300], opened_at=began or timezone.now())
    Incident.objects.bulk_create([incident], ignore_conflicts=True)
    dispatcher.notify_async(incident.pk)


def resolve_incident(kind: Incident.Kind, key: str = "") -> bool:
    """Resolve the open incident and send the alert. Returns False if there was none."""
    return bool(resolve(Incident.objects.filter(kind=kind, key=key)))


def resolve(incidents: QuerySet[Incident]) -> int:
    """Resolve the open ones of these incidents and send the alerts. Returns how many were open."""
    still_open = incidents.filter(resolved_at=None)
    ids = list(still_open.values_list("pk", flat=True))
    resolved = still_open.filter(pk__in=ids).update(resolved_at=timezone.now())
    dispatcher.notify_async(*ids)
    return resolved
