"""Leases: which connection owns a row of the outbox, and until when.

All times are those of the database's clock, because processes may run on several machines. When a connection ends or
its lease expires, its rows wait again. A new connection of the same device does not have to wait for the expiry.
"""

import base64
import uuid
from collections.abc import Collection, Mapping
from datetime import timedelta

import structlog
from django.db import transaction
from django.db.models import Case, DurationField, ExpressionWrapper, F, Q, QuerySet, Value, When
from django.db.models.functions import Now

from tts.models import Utterance, UtteranceQuerySet
from tts.outbox import webhook_events
from tts.states import UtteranceState
from voicecare.core import metrics
from voicecare.core.batches import process_each, run_steps
from voicecare.patients.models import Device, Patient

LEASE_S = 15  # a connection that is not renewed for this long loses its rows
LEASE = Now() + timedelta(seconds=LEASE_S)

# The exact condition of the index `utterance_outbox`. PostgreSQL uses a partial index only if the query implies it.
PENDING = Q(origin="server", state__in=["waiting", "queued", "speaking", "spoken"]) | Q(origin="device", state="queued")
UNLEASED = Q(lease_until=None) | Q(lease_until__lte=Now())
NOT_EXPIRED = Q(expires_at=None) | Q(expires_at__gt=Now())
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
    """Return the unique name of a connection, 36 characters. `epoch` is its number in `Device.epoch`.

    The names of one device's connections sort by age, so that a later connection can find the rows of earlier ones.
    """
    return f"{base64.b32encode(device_id.bytes).decode().rstrip('=').lower()}.{epoch:09d}"


def take_over(device_id: uuid.UUID, owner: str) -> None:
    """Mark the device of a new connection as online, and release the rows of its earlier connections.

    Rows of a later connection are not touched, even if this call comes late.
    """
    Device.objects.filter(pk=device_id).update(online_until=LEASE)
    earlier = pending_for_devices([device_id]).filter(owner__gte=owner_name(device_id, 0), owner__lt=owner)
    earlier.update_in_order(**_RELEASED)


def renew(connections: Mapping[str, uuid.UUID]) -> None:
    """Extend the leases of all rows of these owners by LEASE_S. Three statements.

    `connections` maps each owner to its device, which stays online for the same time.
    """
    if connections:
        devices = set(connections.values())
        pending_for_devices(devices).filter(owner__in=list(connections)).update_in_order(lease_until=LEASE)
        Device.objects.filter(pk__in=devices).update(online_until=LEASE)


def release_all(device_id: uuid.UUID, owner: str) -> None:
    """Release the rows of a connection that has ended. Mark its device as offline, unless it has a newer connection."""
    Device.objects.filter(pk=device_id, epoch=owner_epoch(owner)).update(online_until=Now())
    pending_for_devices([device_id]).filter(owner=owner).update_in_order(**_RELEASED)


def owner_epoch(owner: str) -> int:
    return int(owner.rpartition(".")[2])


def pending_for_devices(devices: Collection[uuid.UUID]) -> UtteranceQuerySet:
    """Return the rows of the outbox that belong to the patients of these devices."""
    return Utterance.objects.filter(PENDING, patient__in=Device.objects.filter(pk__in=devices).values("patient"))


def reap_expired() -> None:
    """Clean up the rows of the outbox that no connection owns. Idempotent. Raises RowsFailed or DatabaseError.

    Expired leases are released. Expired speech ends, and so does speech for archived or erased patients. Rows with a
    lease stay, because their connection ends speech that it has in memory.
    """
    run_steps(_release_expired_leases, _end_speech_for_former_patients, _end_expired_speech)


def _release_expired_leases() -> None:
    Utterance.objects.filter(PENDING, lease_until__lte=Now()).update_in_order(**_RELEASED)


def _end_speech_for_former_patients() -> None:
    is_former = Q(archived_at__isnull=False) | Q(erases_at__isnull=False) | Q(erased_at__isnull=False)
    former_patients = Patient.objects.filter(is_former)
    end_unspoken(Utterance.objects.filter(PENDING, UNLEASED, patient__in=former_patients), UtteranceState.INTERRUPTED)


def _end_expired_speech() -> None:
    end_unspoken(Utterance.objects.filter(PENDING, UNLEASED, expires_at__lte=Now()), UtteranceState.EXPIRED)


def end_unspoken(rows: QuerySet[Utterance], state: UtteranceState) -> int:
    """End these rows in the given state, one by one, and return how many. Each end is logged.

    A row that no longer matches the query when its turn comes is left out. A row that fails is logged and left out, and
    RowsFailed is raised after the last row.
    """
    code = "expired" if state == UtteranceState.EXPIRED else ""

    def end(row: tuple[uuid.UUID, uuid.UUID | None, str, str, int, timedelta]) -> bool:
        utterance_id, conversation_id, origin, queue_reason, characters, age = row
        with transaction.atomic():
            if not rows.filter(pk=utterance_id).update(state=state, code=code, owner="", lease_until=None):
                return False
            webhook_events.emit([utterance_id], state)
        metrics.SPEECHES.labels(state.value).inc()
        log.info(
            "speech.finished",
            conversation_id=None if conversation_id is None else str(conversation_id),
            utterance_id=str(utterance_id),
            outcome=state.value,
            origin=origin,
            source="",
            characters=characters,
            first_chunk_ms=None,
            reason=code,
            queued=queue_reason,
            fallback="",
            request_id="",
            ms=round(age.total_seconds() * 1000),
        )
        return True

    age = ExpressionWrapper(Now() - F("received_at"), output_field=DurationField())
    facts = rows.values_list("pk", "conversation", "origin", "queue_reason", "characters", age)
    return process_each("outbox.end", list(facts), end)
