"""Whether speech begins late: more than one in twenty speeches of ten minutes over half a second to their first sound.

That is their 95th percentile over 500 ms. It is over when it is under 400 ms, so that it does not go to and fro. Where
hardly anybody speaks, the last hour says whether it is over.
"""

from datetime import timedelta
from typing import NamedTuple

from django.db.models import Count, Q
from django.db.models.functions import Now

from usage.alerts import incidents
from usage.models import Incident, UsageEvent

LATE_MS, IN_TIME_MS = 500, 400
FEW = 20  # fewer speeches have no 95th percentile
MINUTES, MINUTES_WHERE_FEW = 10, 60

_Kind = UsageEvent.Kind
HEARD_BY_PATIENTS = (_Kind.LIVE, _Kind.RETRY, _Kind.BACKUP, _Kind.CACHE, _Kind.OFFLINE)


class Seen(NamedTuple):
    """How many speeches began, how many of them over LATE_MS after their turn, and how many over IN_TIME_MS."""

    speeches: int
    late: int
    not_in_time: int

    @property
    def is_late(self) -> bool:
        return self.speeches >= FEW and self.late * 20 > self.speeches

    @property
    def is_in_time(self) -> bool:
        return self.speeches > 0 and self.not_in_time * 20 <= self.speeches


def look() -> None:
    """Opens the incident, or resolves it."""
    seen = _seen(MINUTES)
    if seen.is_late:
        detail = f"{seen.late} of the {seen.speeches} speeches of {MINUTES} minutes began later than {LATE_MS} ms."
        incidents.open_incident(incidents.Kind.SLOW, detail=detail)
    elif _is_open() and (seen if seen.speeches >= FEW else _seen(MINUTES_WHERE_FEW)).is_in_time:
        incidents.resolve_incident(incidents.Kind.SLOW)


def _is_open() -> bool:
    return Incident.objects.filter(kind=incidents.Kind.SLOW, resolved_at=None).exists()


def _seen(minutes: int) -> Seen:
    began = UsageEvent.objects.filter(
        started_at__gt=Now() - timedelta(minutes=minutes), kind__in=HEARD_BY_PATIENTS, first_chunk_ms__isnull=False
    )
    late, not_in_time = (Count("id", filter=Q(first_chunk_ms__gt=edge)) for edge in (LATE_MS, IN_TIME_MS))
    return Seen(**began.aggregate(speeches=Count("id"), late=late, not_in_time=not_in_time))
