"""The shared state of the provider's circuit, in the one `ProviderState` row. For the quota, see `quota.py`.

Each transition is one conditional UPDATE, so exactly one of several processes performs it. Times are the database's,
because processes may run on several machines.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from django.db import transaction
from django.db.models import F
from django.db.models.functions import Now

from usage.alerts import incidents
from usage.models import Incident, ProviderState

PROBE_DELAYS_S = (1, 2, 4, 8, 15)  # delays between two probes; the last one repeats
PROBE_LEASE_S = 15  # after this time another process may probe
STABLE_AFTER = timedelta(minutes=5)  # after repeated outages, recovery is reported when it has lasted this long
HOLD_S = 60.0  # how long live speech waits for the quota (docs/protocol.md, rule 8)

State = ProviderState.Circuit

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ProviderStatus:
    """The state that the row describes. `hold_s` is how long live speech still waits for the quota, in seconds.

    `poll_due` is only true while the quota is exhausted.
    """

    circuit_open: bool = False
    probe_due: bool = False
    quota_exhausted: bool = False
    hold_s: float = 0.0
    poll_due: bool = False
    concurrency_limit: int | None = None


def read_status() -> ProviderStatus:
    """Read the whole state in one query. Every process does so once a second."""
    row = ProviderState.objects.filter(pk=1).annotate(now=Now()).first()
    if row is None:
        return ProviderStatus()
    hold_s = 0.0
    # If the quota is exhausted again right after it appeared to recover, live speech is not held a second time.
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
    """Save the concurrency limit that the provider reported, if it has changed."""
    ProviderState.objects.get_or_create(pk=1)
    ProviderState.objects.filter(pk=1).exclude(concurrency_limit=limit).update(concurrency_limit=limit)


def set_plan_limit(limit: int) -> None:
    """Save the concurrency limit of the plan, until the provider reports its own."""
    ProviderState.objects.get_or_create(pk=1)
    ProviderState.objects.filter(pk=1, concurrency_limit=None).update(concurrency_limit=limit)


def open_circuit(started_at: datetime) -> None:
    """Open the circuit and the incident, unless another process did so. `started_at` is the start of the outage."""
    ProviderState.objects.get_or_create(pk=1)
    with transaction.atomic():  # both or neither, if the process dies
        first = ProviderState.objects.filter(pk=1, circuit=State.CLOSED).update(
            circuit=State.OPEN, changed_at=Now(), probes=0, next_probe_at=Now() + timedelta(seconds=PROBE_DELAYS_S[0])
        )
        if first:
            log.warning("circuit.opened")
            incidents.open_incident(incidents.Kind.PROVIDER_DOWN, began=started_at)


def claim_probe() -> bool:
    """Claim the due probe for this process. Another process may probe when the lease has expired."""
    due = ProviderState.objects.filter(pk=1, circuit=State.OPEN, next_probe_at__lte=Now())
    return bool(due.update(next_probe_at=Now() + timedelta(seconds=PROBE_LEASE_S)))


def record_failed_probe() -> None:
    """Record a failed probe and schedule the next one."""
    row = ProviderState.objects.get(pk=1)
    delay_s = PROBE_DELAYS_S[min(row.probes + 1, len(PROBE_DELAYS_S) - 1)]
    ProviderState.objects.filter(pk=1, circuit=State.OPEN).update(
        probes=F("probes") + 1, next_probe_at=Now() + timedelta(seconds=delay_s)
    )


def close_circuit() -> None:
    """Close the circuit after a successful probe, and resolve the incident.

    If an incident was resolved recently, the new one stays open until `resolve_stable_incident` resolves it. So
    administrators are not alerted each time an unstable provider comes back.
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
    """Resolve the incident of an unstable provider when the circuit has stayed closed for STABLE_AFTER."""
    stable = ProviderState.objects.filter(pk=1, circuit=State.CLOSED, changed_at__lte=Now() - STABLE_AFTER)
    with transaction.atomic():
        if stable.update(probes=0):  # locks the row, so no process can open the circuit in between
            incidents.resolve_incident(incidents.Kind.PROVIDER_DOWN)
