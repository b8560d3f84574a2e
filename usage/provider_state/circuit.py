"""What all processes know about the provider: the one `ProviderState` row, and the transitions of its circuit (those
of its quota are in `usage.provider_state.quota`).

Each is one conditional UPDATE, so that of several processes one is the first. Times are the database's: the
processes may run on several machines.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from django.db import transaction
from django.db.models import F
from django.db.models.functions import Now

from usage.alerts import incidents
from usage.models import Incident, ProviderState

PROBE_DELAYS_S = (1, 2, 4, 8, 15)  # pauses between two probes; the last one repeats
PROBE_LEASE_S = 15  # the longest that a probe may take before another process may probe
STABLE_AFTER = timedelta(minutes=5)  # so long must last what comes and goes, before it is told as back again
HOLD_S = 60.0  # the contract, section 2, rule 8: so long does live speech wait for the quota

State = ProviderState.Circuit

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ProviderStatus:
    """What the row says. `hold_s` are the seconds left of those in which live speech waits for the quota; `poll_due`
    is never true while the quota is available."""

    circuit_open: bool = False
    probe_due: bool = False
    quota_exhausted: bool = False
    hold_s: float = 0.0
    poll_due: bool = False
    concurrency_limit: int | None = None


def read_status() -> ProviderStatus:
    """All of it in one query; every process asks each second."""
    row = ProviderState.objects.filter(pk=1).annotate(now=Now()).first()
    if row is None:
        return ProviderStatus()
    hold_s = 0.0
    # If the quota is refused again right after it seemed to be back, live speech is not held a second time.
    if row.quota == ProviderState.Quota.EXHAUSTED and row.quota_changed_at is not None and not row.quota_refusals:
        hold_s = max(HOLD_S - (row.now - row.quota_changed_at).total_seconds(), 0.0)
    is_open, is_exhausted = row.circuit == State.OPEN, row.quota == ProviderState.Quota.EXHAUSTED
    return ProviderStatus(
        circuit_open=is_open,
        probe_due=is_open and _is_past(row.next_probe_at, row.now),
        quota_exhausted=is_exhausted,
        hold_s=hold_s,
        poll_due=is_exhausted and _is_past(row.next_poll_at, row.now),
        concurrency_limit=row.concurrency_limit,
    )


def _is_past(at: datetime | None, now: datetime) -> bool:
    return at is None or at <= now


def set_concurrency_limit(limit: int) -> None:
    """The provider says how many streams it serves at a time. Writes only what is new."""
    ProviderState.objects.get_or_create(pk=1)
    ProviderState.objects.filter(pk=1).exclude(concurrency_limit=limit).update(concurrency_limit=limit)


def set_plan_limit(limit: int) -> None:
    """The same by the plan's table: only until the provider has said it itself."""
    ProviderState.objects.get_or_create(pk=1)
    ProviderState.objects.filter(pk=1, concurrency_limit=None).update(concurrency_limit=limit)


def open_circuit(started_at: datetime) -> None:
    """Opens the circuit and the incident, if no other process has; it all began at that time."""
    ProviderState.objects.get_or_create(pk=1)
    with transaction.atomic():  # who dies in between has done neither
        first = ProviderState.objects.filter(pk=1, circuit=State.CLOSED).update(
            circuit=State.OPEN, changed_at=Now(), probes=0, next_probe_at=Now() + timedelta(seconds=PROBE_DELAYS_S[0])
        )
        if first:
            log.warning("circuit.opened")
            incidents.open_incident(incidents.Kind.PROVIDER_DOWN, began=started_at)


def claim_probe() -> bool:
    """The due probe is this process's; another may probe when the lease is over."""
    due = ProviderState.objects.filter(pk=1, circuit=State.OPEN, next_probe_at__lte=Now())
    return bool(due.update(next_probe_at=Now() + timedelta(seconds=PROBE_LEASE_S)))


def record_failed_probe() -> None:
    """A probe failed: the next one is due later."""
    row = ProviderState.objects.get(pk=1)
    delay_s = PROBE_DELAYS_S[min(row.probes + 1, len(PROBE_DELAYS_S) - 1)]
    ProviderState.objects.filter(pk=1, circuit=State.OPEN).update(
        probes=F("probes") + 1, next_probe_at=Now() + timedelta(seconds=delay_s)
    )


def close_circuit() -> None:
    """A probe was answered: closes the circuit and, unless that had just been so before, the incident.

    Of a provider that comes and goes administrators are told once, and of its end by `settle`.
    """
    with transaction.atomic():
        first = ProviderState.objects.filter(pk=1, circuit=State.OPEN).update(
            circuit=State.CLOSED, changed_at=Now(), probes=0, next_probe_at=None
        )
        if first:
            log.info("circuit.closed")
        recent = Incident.objects.filter(kind=incidents.Kind.PROVIDER_DOWN, resolved_at__gt=Now() - STABLE_AFTER)
        if first and not recent.exists():
            incidents.resolve_incident(incidents.Kind.PROVIDER_DOWN)


def resolve_stable_incident() -> None:
    """What had come and gone has now lasted: the incident is over."""
    stable = ProviderState.objects.filter(pk=1, circuit=State.CLOSED, changed_at__lte=Now() - STABLE_AFTER)
    with transaction.atomic():
        if stable.update(probes=0):  # holds the row: nobody opens the circuit and its incident in between
            incidents.resolve_incident(incidents.Kind.PROVIDER_DOWN)
