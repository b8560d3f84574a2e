"""What all processes know about the provider: the transitions of the one `ProviderState` row.

Each is one conditional UPDATE, so that of several processes one is the first. Times are the database's: the
processes may run on several machines.
"""

from datetime import datetime, timedelta

import structlog
from django.db.models import F, Q
from django.db.models.functions import Now

from usage import alerts
from usage.models import ProviderState

PROBE_AFTER_S = (1, 2, 4, 8, 15)  # pauses between two probes; the last one repeats
PROBE_LEASE_S = 15  # the longest that a probe may take before another process may probe

State = ProviderState.Circuit

log = structlog.get_logger(__name__)


def circuit() -> tuple[bool, bool]:
    """Whether the circuit is open, and whether a probe is due."""
    row = ProviderState.objects.filter(pk=1, circuit=State.OPEN)
    due = row.annotate(due=Q(next_probe_at__lte=Now())).values_list("due", flat=True).first()
    return due is not None, bool(due)


def opened(began: datetime) -> None:
    """Opens the circuit and the incident, if no other process has; it all began at that time."""
    ProviderState.objects.get_or_create(pk=1)
    first = ProviderState.objects.filter(pk=1, circuit=State.CLOSED).update(
        circuit=State.OPEN, changed_at=Now(), probes=0, next_probe_at=Now() + timedelta(seconds=PROBE_AFTER_S[0])
    )
    if first:
        log.warning("circuit.opened")
        alerts.open_incident(alerts.Kind.PROVIDER_DOWN, began=began)


def claim_probe() -> bool:
    """The due probe is this process's; another may probe when the lease is over."""
    due = ProviderState.objects.filter(pk=1, circuit=State.OPEN, next_probe_at__lte=Now())
    return bool(due.update(next_probe_at=Now() + timedelta(seconds=PROBE_LEASE_S)))


def still_down() -> None:
    """A probe failed: the next one is due later."""
    row = ProviderState.objects.get(pk=1)
    pause = PROBE_AFTER_S[min(row.probes + 1, len(PROBE_AFTER_S) - 1)]
    ProviderState.objects.filter(pk=1, circuit=State.OPEN).update(
        probes=F("probes") + 1, next_probe_at=Now() + timedelta(seconds=pause)
    )


def closed() -> None:
    """A probe was answered: closes the circuit and the incident."""
    first = ProviderState.objects.filter(pk=1, circuit=State.OPEN).update(
        circuit=State.CLOSED, changed_at=Now(), probes=0, next_probe_at=None
    )
    if first:
        log.info("circuit.closed")
        alerts.resolve_incident(alerts.Kind.PROVIDER_DOWN)
