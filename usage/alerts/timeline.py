"""The timeline of an incident: what happened, when, by whom, and through which channels alerts were sent."""

from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

from usage.models import Incident, IncidentEvent

_Kind = IncidentEvent.Kind


class Entry(NamedTuple):
    """One line. `person` is empty if the server did it."""

    at: datetime
    what: str
    person: str = ""
    text: str = ""


def timeline_of(incident: Incident) -> list[Entry]:
    """The lines from the oldest to the newest. Rows of an earlier release have times, but no events and no names."""
    events = list(incident.events.all())
    entries = [*_from_columns(incident, {event.kind for event in events}), *map(_entry, events)]
    return sorted(entries, key=lambda entry: entry.at)


def _entry(event: IncidentEvent) -> Entry:
    if event.kind == _Kind.ALERT:
        return Entry(event.at, f"Alert sent: {event.text}", text=f"By {event.channel}.")
    return Entry(event.at, event.get_kind_display(), event.person, event.text)


def _from_columns(incident: Incident, recorded: set[str]) -> Iterator[Entry]:
    yield Entry(incident.opened_at, "Opened")
    if incident.resolved_at is not None and not incident.resolved_by:
        yield Entry(incident.resolved_at, "Resolved")
    if incident.acknowledged_at is not None and _Kind.ACKNOWLEDGED not in recorded:
        yield Entry(incident.acknowledged_at, "Acknowledged")
    if _Kind.ALERT not in recorded:
        for state, at in (("opened", incident.opening_sent_at), ("resolved", incident.resolution_sent_at)):
            if at is not None:
                yield Entry(at, f"Alert sent: {state}")
