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

SLOW_ABOVE_MS, RECOVERED_BELOW_MS = 500, 400
MIN_SAMPLES = 20  # fewer speeches have no 95th percentile
WINDOW_MINUTES, LOW_TRAFFIC_WINDOW_MINUTES = 10, 60

_Kind = UsageEvent.Kind
PATIENT_KINDS = (_Kind.LIVE, _Kind.RETRY, _Kind.BACKUP, _Kind.CACHE, _Kind.OFFLINE)


class LatencyWindow(NamedTuple):
    """How many speeches began, how many of them over LATE_MS after their turn, and how many over IN_TIME_MS."""

    speeches: int
    slow: int
    not_recovered: int

    @property
    def is_slow(self) -> bool:
        return self.speeches >= MIN_SAMPLES and self.slow * 20 > self.speeches

    @property
    def is_recovered(self) -> bool:
        return self.speeches > 0 and self.not_recovered * 20 <= self.speeches


def check() -> None:
    """Opens the incident, or resolves it."""
    window = _measure(WINDOW_MINUTES)
    if window.is_slow:
        share = f"{window.slow} of the {window.speeches} speeches of {WINDOW_MINUTES} minutes"
        detail = f"{share} began later than {SLOW_ABOVE_MS} ms."
        incidents.open_incident(incidents.Kind.SLOW, detail=detail)
    elif Incident.objects.filter(kind=incidents.Kind.SLOW, resolved_at=None).exists():
        if window.speeches < MIN_SAMPLES:
            window = _measure(LOW_TRAFFIC_WINDOW_MINUTES)
        if window.is_recovered:
            incidents.resolve_incident(incidents.Kind.SLOW)


def _measure(minutes: int) -> LatencyWindow:
    speeches = UsageEvent.objects.filter(
        started_at__gt=Now() - timedelta(minutes=minutes), kind__in=PATIENT_KINDS, first_chunk_ms__isnull=False
    )
    slow, not_recovered = (
        Count("id", filter=Q(first_chunk_ms__gt=edge)) for edge in (SLOW_ABOVE_MS, RECOVERED_BELOW_MS)
    )
    return LatencyWindow(**speeches.aggregate(speeches=Count("id"), slow=slow, not_recovered=not_recovered))
