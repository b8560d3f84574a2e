"""Monitors the time to first audio (p95) and opens or resolves the latency incident.

The incident opens when more than one in twenty speeches of the last ten minutes took over 500 ms. It is resolved when
at most one in twenty takes over 400 ms, so that it is not opened and resolved again and again. If there are few
speeches, the last hour decides.
"""

from datetime import timedelta
from typing import NamedTuple

from django.db.models import Count, Q
from django.db.models.functions import Now

from usage.alerts import incidents
from usage.models import Incident, UsageEvent

SLOW_ABOVE_MS, RECOVERED_BELOW_MS = 500, 400
MIN_SAMPLES = 20  # a 95th percentile needs at least 20 speeches
WINDOW_MINUTES, LOW_TRAFFIC_WINDOW_MINUTES = 10, 60

_Kind = UsageEvent.Kind
PATIENT_KINDS = (_Kind.LIVE, _Kind.RETRY, _Kind.HEDGE, _Kind.BACKUP, _Kind.CACHE, _Kind.OFFLINE)


class LatencyWindow(NamedTuple):
    """Counts of the speeches in a period, by their time to first audio.

    `slow` are those over SLOW_ABOVE_MS, `not_recovered` those over RECOVERED_BELOW_MS.
    """

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
    """Measure the recent speeches, and open or resolve the latency incident."""
    window = _measure(WINDOW_MINUTES)
    if window.is_slow:
        share = f"{window.slow} of {window.speeches} speeches"
        detail = f"In {WINDOW_MINUTES} minutes, {share} took over {SLOW_ABOVE_MS} ms to first audio."
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
