"""Who has a row of the outbox, and until when: leases of connections, and what happens when time is up.

All times are the database's: processes may run on several machines. A connection that is gone, in whatever way, holds
nothing; what it had waits again, and the next connection of its device need not even wait for the lease to end.
"""

import base64
import uuid
from collections.abc import Collection, Mapping
from datetime import timedelta

import structlog
from django.db.models import Case, F, Q, QuerySet, Value, When
from django.db.models.functions import Now

from tts.models import Utterance
from tts.states import Origin, UtteranceState
from voicecare.core import metrics
from voicecare.patients.models import Device, Patient

LEASE_S = 15  # without a sign of life of its process, a connection has lost what it had
LEASE = Now() + timedelta(seconds=LEASE_S)

# The condition of the index `utterance_outbox`, word for word: PostgreSQL uses it only where it sees that it applies.
PENDING = Q(origin="server", state__in=["waiting", "queued", "speaking", "spoken"]) | Q(origin="device", state="queued")
UNLEASED = Q(lease_until=None) | Q(lease_until__lte=Now())
_RELEASED = {
    "state": Case(
        When(state__in=[UtteranceState.SPEAKING, UtteranceState.SPOKEN], then=Value(UtteranceState.WAITING)),
        default=F("state"),
    ),
    "owner": Value(""),
    "lease_until": Value(None),
}

log = structlog.get_logger(__name__)


def owner_name(device: uuid.UUID, epoch: int) -> str:
    """The connection's name as an owner, 36 characters: no other connection ever has it, and the names of one device's
    connections sort by age, so that a later one can tell what an earlier one has left behind.
    """
    return f"{base64.b32encode(device.bytes).decode().rstrip('=').lower()}.{epoch:09d}"


def take_over(device: uuid.UUID, owner: str) -> None:
    """The connection is there: its device is online, and what earlier ones of this device still held is free at once.

    Two statements. Nothing of a later connection is touched, however late this one gets here.
    """
    Device.objects.filter(pk=device).update(online_until=LEASE)
    pending_for_devices([device]).filter(owner__gte=owner_name(device, 0), owner__lt=owner).update(**_RELEASED)


def renew(connections: Mapping[str, uuid.UUID]) -> None:
    """These owners, each with its device, are alive: for another LEASE_S theirs is what they hold. Two statements."""
    if connections:
        devices = set(connections.values())
        pending_for_devices(devices).filter(owner__in=list(connections)).update(lease_until=LEASE)
        Device.objects.filter(pk__in=devices).update(online_until=LEASE)


def release_all(device: uuid.UUID, owner: str) -> None:
    """The connection has ended: what it held waits again. Its device is offline, unless it has a newer connection."""
    Device.objects.filter(pk=device, epoch=owner_epoch(owner)).update(online_until=None)
    pending_for_devices([device]).filter(owner=owner).update(**_RELEASED)


def reclaim(conversation: uuid.UUID, owner: str) -> list[Utterance]:
    """The live speech that waited for the quota when this conversation's last connection ended, the new one's from now
    on; in order. Two statements.
    """
    waits = Utterance.objects.filter(PENDING, conversation=conversation, origin=Origin.DEVICE)
    free = waits.filter(UNLEASED, expires_at__gt=Now())
    free.update(owner=owner, lease_until=LEASE, attempts=F("attempts") + 1)
    return list(waits.filter(owner=owner).order_by("received_at", "id"))


def release(conversation: uuid.UUID, owner: str) -> None:
    """What the quota holds in this conversation may be said by another connection; deliveries stay."""
    held = Utterance.objects.filter(PENDING, conversation=conversation, origin=Origin.DEVICE, owner=owner)
    held.update(owner="", lease_until=None)


def owner_epoch(owner: str) -> int:
    return int(owner.rpartition(".")[2])


def pending_for_devices(devices: Collection[uuid.UUID]) -> QuerySet[Utterance]:
    """The outbox of these devices' patients."""
    return Utterance.objects.filter(PENDING, patient__in=Device.objects.filter(pk__in=devices).values("patient"))


def reap_expired() -> None:
    """What no connection sees to: claims of processes that are gone, what was not heard in time, speech for patients
    who are not ours any more. Three statements, idempotent.

    Not what somebody holds: live speech in a connection's memory is that connection's to end.
    """
    outbox = Utterance.objects.filter(PENDING)
    outbox.filter(lease_until__lte=Now()).update(**_RELEASED)
    left = Patient.objects.filter(Q(archived_at__isnull=False) | Q(erased_at__isnull=False))
    interrupted = _end(outbox.filter(patient__in=left), UtteranceState.INTERRUPTED)
    expired = _end(outbox.filter(expires_at__lte=Now()), UtteranceState.EXPIRED)
    if expired or interrupted:
        log.info("outbox.tidied", expired=expired, interrupted=interrupted)


def _end(rows: QuerySet[Utterance], state: UtteranceState) -> int:
    """Ends those that nobody holds, and returns how many; `code` is said for what expired."""
    code = "expired" if state == UtteranceState.EXPIRED else ""
    ended = rows.filter(UNLEASED).update(state=state, code=code, owner="", lease_until=None)
    metrics.SPEECHES.labels(state.value).inc(ended)
    return ended
