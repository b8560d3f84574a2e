"""Leases: which connection owns a row of the outbox, and until when.

All times are those of the database, because processes may run on several machines. When a connection ends or its
lease expires, its rows wait again. The next connection of the same device gets them without waiting for the expiry.
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

LEASE_S = 15  # a connection that is not renewed for this long loses its rows
LEASE = Now() + timedelta(seconds=LEASE_S)

# The exact condition of the index `utterance_outbox`. PostgreSQL uses a partial index only if the query implies it.
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


def owner_name(device_id: uuid.UUID, epoch: int) -> str:
    """Return the unique name of a connection, 36 characters.

    The names of one device's connections sort by age, so that a later connection can find the rows of earlier ones.
    """
    return f"{base64.b32encode(device_id.bytes).decode().rstrip('=').lower()}.{epoch:09d}"


def take_over(device_id: uuid.UUID, owner: str) -> None:
    """Mark the device of a new connection as online, and release the rows of its earlier connections. Two statements.

    Rows of a later connection are not touched, even if this call is late.
    """
    Device.objects.filter(pk=device_id).update(online_until=LEASE)
    pending_for_devices([device_id]).filter(owner__gte=owner_name(device_id, 0), owner__lt=owner).update(**_RELEASED)


def renew(connections: Mapping[str, uuid.UUID]) -> None:
    """Extend the leases of these owners by LEASE_S. Maps each owner to its device. Two statements."""
    if connections:
        devices = set(connections.values())
        pending_for_devices(devices).filter(owner__in=list(connections)).update(lease_until=LEASE)
        Device.objects.filter(pk__in=devices).update(online_until=LEASE)


def release_all(device_id: uuid.UUID, owner: str) -> None:
    """Release the rows of an ended connection. Its device is offline, unless it has a newer connection."""
    Device.objects.filter(pk=device_id, epoch=owner_epoch(owner)).update(online_until=None)
    pending_for_devices([device_id]).filter(owner=owner).update(**_RELEASED)


def reclaim(conversation_id: uuid.UUID, owner: str) -> list[Utterance]:
    """Take over the live speech of a resumed conversation that waits for the quota, in order. Two statements."""
    waits = Utterance.objects.filter(PENDING, conversation=conversation_id, origin=Origin.DEVICE)
    free = waits.filter(UNLEASED, expires_at__gt=Now())
    free.update(owner=owner, lease_until=LEASE, attempts=F("attempts") + 1)
    return list(waits.filter(owner=owner).order_by("received_at", "id"))


def release(conversation_id: uuid.UUID, owner: str) -> None:
    """Release the conversation's live speech that waits for the quota. Deliveries stay with the connection."""
    held = Utterance.objects.filter(PENDING, conversation=conversation_id, origin=Origin.DEVICE, owner=owner)
    held.update(owner="", lease_until=None)


def owner_epoch(owner: str) -> int:
    return int(owner.rpartition(".")[2])


def pending_for_devices(devices: Collection[uuid.UUID]) -> QuerySet[Utterance]:
    """Return the pending rows of these devices' patients."""
    return Utterance.objects.filter(PENDING, patient__in=Device.objects.filter(pk__in=devices).values("patient"))


def reap_expired() -> None:
    """Clean up rows that no connection owns. Three statements, idempotent.

    Expired leases are released, expired speech ends, and so does speech for archived or erased patients. Rows with a
    lease stay: live speech in the memory of a connection is ended by that connection.
    """
    outbox = Utterance.objects.filter(PENDING)
    outbox.filter(lease_until__lte=Now()).update(**_RELEASED)
    former_patients = Patient.objects.filter(Q(archived_at__isnull=False) | Q(erased_at__isnull=False))
    interrupted = _end(outbox.filter(patient__in=former_patients), UtteranceState.INTERRUPTED)
    expired = _end(outbox.filter(expires_at__lte=Now()), UtteranceState.EXPIRED)
    if expired or interrupted:
        log.info("outbox.reaped", expired=expired, interrupted=interrupted)


def _end(rows: QuerySet[Utterance], state: UtteranceState) -> int:
    """End the rows without a lease and return how many. Expired ones get the code `expired`."""
    code = "expired" if state == UtteranceState.EXPIRED else ""
    ended = rows.filter(UNLEASED).update(state=state, code=code, owner="", lease_until=None)
    metrics.SPEECHES.labels(state.value).inc(ended)
    return ended
