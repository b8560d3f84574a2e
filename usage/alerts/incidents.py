"""Opens and resolves incidents. There is at most one open incident for each kind and key."""

from datetime import datetime

from django.db.models import QuerySet
from django.utils import timezone

from usage.alerts import dispatcher
from usage.models import Incident

Kind = Incident.Kind


def open_incident(kind: Incident.Kind, key: str = "", detail: str = "", began: datetime | None = None) -> None:
    """Open an incident and send the alert, unless an incident of this kind and key is already open.

    Two processes that do this at the same time create one row. `key` distinguishes incidents of one kind, for example
    by voice. `detail` is part of the alert, so it must not contain a patient's name or a text. It is cut to 300
    characters. `began` is the time when the problem began, by default the current time.
    """
    incident = Incident(kind=kind, key=key, detail=detail[:300], opened_at=began or timezone.now())
    Incident.objects.bulk_create([incident], ignore_conflicts=True)
    dispatcher.notify_async(incident.pk)


def resolve_incident(kind: Incident.Kind, key: str = "") -> bool:
    """Resolve the open incident of this kind and key, and send the alert. Returns False if there was none."""
    return bool(resolve(Incident.objects.filter(kind=kind, key=key)))


def resolve(incidents: QuerySet[Incident]) -> int:
    """Resolve those of `incidents` that are open, and send the alerts. Returns how many were resolved."""
    still_open = incidents.filter(resolved_at=None)
    ids = list(still_open.values_list("pk", flat=True))
    resolved = still_open.filter(pk__in=ids).update(resolved_at=timezone.now())
    dispatcher.notify_async(*ids)
    return resolved
