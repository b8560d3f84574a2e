"""Opens and resolves incidents. There is at most one open incident for each kind and key."""

import uuid
from datetime import datetime, timedelta

from django.db import IntegrityError, transaction
from django.db.models import QuerySet
from django.db.models.functions import Now
from django.utils import timezone

from usage.alerts import dispatcher
from usage.models import Incident, IncidentEvent

REGRESSION_WITHIN = timedelta(days=7)
"""If the cause of an incident occurs again this soon after a person has marked it as resolved, it opens again. Later,
another incident opens."""

Kind = Incident.Kind


def open_incident(kind: Incident.Kind, key: str = "", detail: str = "", began: datetime | None = None) -> None:
    """Open an incident and send the alert, unless an incident of this kind and key is already open.

    An incident that a person has marked as resolved opens again as a regression. Two processes that do this at the same
    time open one incident. `key` distinguishes incidents of one kind, for example by voice. `detail` is part of the
    alert, so it must not contain a patient's name or a text. It is cut to 300 characters. `began` is the time when the
    problem began, by default the current time.
    """
    incident = Incident(kind=kind, key=key, detail=detail[:300], opened_at=began or timezone.now())
    incident_id = _reopen(incident)
    if incident_id is None:
        Incident.objects.bulk_create([incident], ignore_conflicts=True)
    dispatcher.notify_async(incident_id or incident.pk)


def resolve_incident(kind: Incident.Kind, key: str = "") -> bool:
    """Resolve the open incident of this kind and key, because its cause has ended, and send the alert.

    Returns False if there was none.
    """
    return bool(resolve(Incident.objects.filter(kind=kind, key=key)))


def resolve(incidents: QuerySet[Incident]) -> int:
    """Resolve those of `incidents` that are open, because their cause has ended, and send the alerts.

    Returns how many were resolved.
    """
    still_open = incidents.filter(resolved_at=None)
    ids = list(still_open.values_list("pk", flat=True))
    resolved = still_open.filter(pk__in=ids).update(resolved_at=timezone.now())
    dispatcher.notify_async(*ids)
    return resolved


def _reopen(occurrence: Incident) -> uuid.UUID | None:
    """Open the incident again that a person has marked as resolved. Returns its id, or None if there is none to open.

    What people did about it before is in its timeline. Its alert is sent again.
    """
    marked = Incident.objects.filter(kind=occurrence.kind, key=occurrence.key, resolved_by__gt="")
    latest = marked.filter(resolved_at__gt=Now() - REGRESSION_WITHIN).order_by("-resolved_at").first()
    if latest is None:
        return None
    try:
        with transaction.atomic():
            reopened = marked.filter(pk=latest.pk, resolved_at__isnull=False).update(
                detail=occurrence.detail,
                reopened_at=Now(),
                resolved_at=None,
                resolved_by="",
                acknowledged_at=None,
                acknowledged_by="",
                muted_until=None,
                opening_sent_at=None,
                resolution_sent_at=None,
                sending_until=None,  # an alert that is being sent now is about the former state
                retry_at=None,
                notified_channels="",
                notified_state="",
                sending_failures=0,
            )
            if reopened:
                IncidentEvent.objects.create(incident=latest, kind=IncidentEvent.Kind.REOPENED, text=occurrence.detail)
    except IntegrityError:  # another process has opened one of this kind and key
        return None
    return latest.pk if reopened else None
