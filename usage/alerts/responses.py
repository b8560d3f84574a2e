"""What people do about an incident: acknowledge it, mute it, note something, and mark it as resolved.

Each function records who did it in the timeline of the incident, and returns whether it was done: it is not if somebody
else was faster, or if the incident has ended in the meantime. `person` is a user name. `note` is optional text for the
timeline. It is not sent with alerts.
"""

import uuid
from datetime import timedelta

from django.db import transaction
from django.db.models import QuerySet
from django.db.models.functions import Now

from usage.alerts import dispatcher, endings
from usage.models import Incident, IncidentEvent

_Kind = IncidentEvent.Kind


def acknowledge(incident_id: uuid.UUID, person: str, note: str = "") -> bool:
    """Record that this person takes care of the incident. Of several people at the same time, one does."""
    free = _open(incident_id).filter(acknowledged_at=None)
    return _change(free, _Kind.ACKNOWLEDGED, person, note, acknowledged_at=Now(), acknowledged_by=person)


def mute(incident_id: uuid.UUID, person: str, duration: timedelta, note: str = "") -> bool:
    """Send no alert about the incident for this time, except that it has ended. If it has not, an alert says so."""
    words = f"For {_in_words(duration)}."
    return _change(_open(incident_id), _Kind.MUTED, person, f"{words} {note}".rstrip(), muted_until=Now() + duration)


def unmute(incident_id: uuid.UUID, person: str, note: str = "") -> bool:
    """Send alerts about the incident again."""
    muted = _open(incident_id).filter(muted_until__gt=Now())
    return _change(muted, _Kind.UNMUTED, person, note, muted_until=None)


def mark_resolved(incident_id: uuid.UUID, person: str, note: str = "") -> bool:
    """Resolve an incident whose end the server cannot detect, and send the alert, which names the person.

    Incidents that the server ends itself stay open.
    """
    incident = _open(incident_id).first()
    if incident is None or endings.is_end_detected(incident):
        return False
    done = _change(
        _open(incident_id), _Kind.RESOLVED, person, note, resolved_at=Now(), resolved_by=person, muted_until=None
    )
    if done:
        dispatcher.notify_async(incident_id)
    return done


def add_note(incident_id: uuid.UUID, person: str, note: str) -> None:
    IncidentEvent.objects.create(incident_id=incident_id, kind=_Kind.NOTE, person=person, text=note)


def _open(incident_id: uuid.UUID) -> QuerySet[Incident]:
    return Incident.objects.filter(pk=incident_id, resolved_at=None)


def _change(row: QuerySet[Incident], kind: IncidentEvent.Kind, person: str, text: str, **columns: object) -> bool:
    """Change the incident, if the conditions of `row` still hold, and record it."""
    with transaction.atomic():
        incident = row.first()
        if incident is None or not row.update(**columns):
            return False
        IncidentEvent.objects.create(incident=incident, kind=kind, person=person, text=text)
    return True


def _in_words(duration: timedelta) -> str:
    hours = duration // timedelta(hours=1)
    return f"{hours // 24} days" if hours > 24 else f"{hours} hours" if hours > 1 else "1 hour"
