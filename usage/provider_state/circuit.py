"""The shared state of the provider's circuit, in the one `ProviderState` row. For the quota, see `quota.py`.

Each transition is one conditional UPDATE, so exactly one of several processes performs it. Times are those of the
database's clock, because processes may run on several machines.
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
    """The provider's state at the moment when `read_status` read the shared row.

    `access_refused` means that the provider refuses our key, plan or permissions. `hold_s` is how many more seconds
    live speech waits for the quota. `poll_due` means that the subscription has to be read. It is only true while access
    is refused or the quota is exhausted. `concurrency_limit` is the limit in force. It differs from
    `plan_concurrency_limit` if the provider's responses have reported another limit since the plan changed.
    """

    circuit_open: bool = False
    probe_due: bool = False
    access_refused: bool = False
    access_changed_at: datetime | None = None
    quota_exhausted: bool = False
    hold_s: float = 0.0
    poll_due: bool = False
    concurrency_limit: int | None = None
    plan_concurrency_limit: int | None = None


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
    is_refused = row.access != ProviderState.Access.GRANTED
    return ProviderStatus(
        circuit_open=is_open,
        probe_due=is_open and (row.next_probe_at is None or row.next_probe_at <= row.now),
        access_refused=is_refused,
        access_changed_at=row.access_changed_at,
        quota_exhausted=is_exhausted,
        hold_s=hold_s,
        poll_due=(is_exhausted or is_refused) and (row.next_poll_at is None or row.next_poll_at <= row.now),
        concurrency_limit=row.concurrency_limit,
        plan_concurrency_limit=row.plan_concurrency_limit,
    )


def set_concurrency_limit(limit: int) -> None:
    """Save the concurrency limit that a response of the provider reported, if it has changed."""
    ProviderState.objects.get_or_create(pk=1)
    ProviderState.objects.filter(pk=1).exclude(concurrency_limit=limit).update(concurrency_limit=limit)


def set_plan_limit(limit: int) -> None:
    """Save the concurrency limit of the account's plan.

    A new plan limit is in force until a response of the provider reports another limit. If the plan limit is the same
    as before, the last reported limit stays in force.
    """
    ProviderState.objects.get_or_create(pk=1)
    row = ProviderState.objects.filter(pk=1)
    row.filter(plan_concurrency_limit=None, concurrency_limit__isnull=False).update(plan_concurrency_limit=limit)
    row.exclude(plan_concurrency_limit=limit).update(plan_concurrency_limit=limit, concurrency_limit=limit)


def open_circuit(started_at: datetime) -> None:
    """Open the circuit and its incident, unless another process did so. `started_at` is the start of the outage."""
    ProviderState.objects.get_or_create(pk=1)
    with transaction.atomic():  # both or neither, if the process dies
        first = ProviderState.objects.filter(pk=1, circuit=State.CLOSED).update(
            circuit=State.OPEN, changed_at=Now(), probes=0, next_probe_at=Now() + timedelta(seconds=PROBE_DELAYS_S[0])
        )
        if first:
            log.warning("circuit.opened")
            incidents.open_incident(incidents.Kind.PROVIDER_DOWN, began=started_at)


def claim_probe() -> bool:
    """Claim the probe for this process if one is due. Returns whether this process makes it.

    After PROBE_LEASE_S seconds without a result, another process may claim it.
    """
    due = ProviderState.objects.filter(pk=1, circuit=State.OPEN, next_probe_at__lte=Now())
    return bool(due.update(next_probe_at=Now() + timedelta(seconds=PROBE_LEASE_S)))


def record_failed_probe() -> None:
    """Record a failed probe and schedule the next one, with a delay from PROBE_DELAYS_S."""
    row = ProviderState.objects.get(pk=1)
    delay_s = PROBE_DELAYS_S[min(row.probes + 1, len(PROBE_DELAYS_S) - 1)]
    ProviderState.objects.filter(pk=1, circuit=State.OPEN).update(
        probes=F("probes") + 1, next_probe_at=Now() + timedelta(seconds=delay_s)
    )


def close_circuit() -> None:
    """Close the circuit after a successful probe, and resolve its incident.

    If an earlier incident was resolved less than STABLE_AFTER ago, this one stays open until `resolve_stable_incident`
    resolves it. So administrators are not alerted each time an unstable provider comes back.
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
    """Resolve the incident that `close_circuit` left open, when the circuit has stayed closed for STABLE_AFTER."""
    stable = ProviderState.objects.filter(pk=1, circuit=State.CLOSED, changed_at__lte=Now() - STABLE_AFTER)
    with transaction.atomic():
        if stable.update(probes=0):  # locks the row, so no process can open the circuit in between
            incidents.resolve_incident(incidents.Kind.PROVIDER_DOWN)
