"""Speech that waits in the database: started over REST, queued for the quota, or to be delivered again.

    waiting <-> speaking -> spoken -> heard (acknowledged)      spoken, and the connection ended: waiting again
    queued  <-> speaking                                        queued: for the quota

The row is the truth and every transition is one conditional UPDATE, so of several processes one wins. A claim is a
lease (`tts.outbox.leases`); who ends it must still be its owner, in the same attempt. A patient hears one delivery at
a time,
on the device that connected last. Everything here belongs into a thread.
"""

import uuid
from collections.abc import Collection
from datetime import datetime, timedelta
from functools import partial

import structlog
from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.db.models import Case, DurationField, Exists, ExpressionWrapper, F, OuterRef, Q, QuerySet, Value, When
from django.db.models.functions import Now
from django.utils.crypto import salted_hmac

from tts.models import Utterance
from tts.outbox.claim import Claim
from tts.outbox.leases import LEASE, PENDING, UNLEASED, owner_epoch
from tts.states import Origin, QueueReason, UtteranceState
from voicecare.core import pubsub
from voicecare.core.errors import VoicecareError
from voicecare.patients.models import Device

log = structlog.get_logger(__name__)

_NOT_EXPIRED = Q(expires_at=None) | Q(expires_at__gt=Now())
_TIME_LEFT = ExpressionWrapper(F("expires_at") - Now(), output_field=DurationField())


class IdempotencyConflict(VoicecareError):
    code = "idempotency_conflict"


# Coming in


def submit(
    patient_id: uuid.UUID, text: str, *, expires_in_s: float, author: User | None, idempotency_key: str = ""
) -> Utterance:
    """A new row that waits. The same key, author and request again: the row of the first time, in whatever state.

    Raises IdempotencyConflict for the author's key with another request, ValueError for a key that no row can hold.
    """
    if len(idempotency_key) > 255 or (idempotency_key and author is None):
        raise ValueError("an idempotency key has 255 characters at most and belongs to an author")
    request = f"{patient_id} {expires_in_s:g} {text}"
    digest = salted_hmac(__name__, request, algorithm="sha256").hexdigest() if idempotency_key else ""
    is_connected = _online_devices().filter(patient=patient_id).exists()
    try:
        with transaction.atomic():
            row = Utterance.objects.create(
                patient_id=patient_id,
                text=text,
                origin=Origin.SERVER,
                state=UtteranceState.WAITING,
                queue_reason="" if is_connected else QueueReason.NO_DEVICE,
                author=author,
                expires_at=Now() + timedelta(seconds=expires_in_s),
                idempotency_key=idempotency_key,
                request_digest=digest,
            )
    except IntegrityError:
        if not idempotency_key:
            raise
        return _existing_submission(author, idempotency_key, digest)
    row.refresh_from_db(fields=["expires_at"])
    if not is_connected:
        log.info("speech.queued", conversation_id=None, utterance_id=str(row.pk), reason=row.queue_reason, ms=0)
    transaction.on_commit(partial(pubsub.publish_patient, patient_id), robust=True)
    return row


def _existing_submission(author: User | None, key: str, digest: str) -> Utterance:
    row = Utterance.objects.get(author=author, idempotency_key=key)
    if row.request_digest != digest:
        raise IdempotencyConflict("This Idempotency-Key came with another request before: use a new one.")
    return row


# What may be spoken now


def devices_with_work(devices: Collection[uuid.UUID], *, quota_exhausted: bool, hold_live: bool) -> set[uuid.UUID]:
    """Those of these connected devices for which `claim` would find something. One query.

    A row goes to the device of its patient that connected last, and also to the one that goes on with the conversation
    in which it was asked for.
    """
    if not devices:
        return set()
    rows = _claimable(quota_exhausted, hold_live).filter(patient=OuterRef("patient"))
    own = rows.filter(origin=Origin.DEVICE, conversation__device=OuterRef("pk"), conversation__ended_at=None)
    idle = _connectable().filter(~Exists(_being_delivered(OuterRef("patient"))), pk__in=devices)
    found = idle.filter(Q(~_newer_device(), Exists(rows)) | Q(Exists(own)))
    return set(found.values_list("pk", flat=True))


def claim(
    device: uuid.UUID,
    owner: str,
    conversation: uuid.UUID | None,
    *,
    quota_exhausted: bool,
    hold_live: bool,
    live_only: bool = False,
    exclude: Collection[uuid.UUID] = (),
) -> Claim | None:
    """The oldest row that this connection may speak now, in this conversation, from here on its own; never one of
    `exclude`, and with `live_only` one that a device has asked for. Three queries. None too while another speech of the
    patient is being delivered.

    While the quota is spent, what the server started is taken once, to see whether it needs the quota at all; queued
    live speech is taken when live speech is not held back any more (`hold_live`). Live speech that is spoken outside
    its conversation becomes, by the contract, server-started speech: delivered again until it is acknowledged.
    """
    with transaction.atomic():
        # Under the patient's lock: two devices that claim two different rows would each see the patient idle.
        here = _connectable().filter(pk=device, epoch=owner_epoch(owner)).annotate(outranked=_newer_device())
        locked = here.select_related("patient").select_for_update(of=("patient",), no_key=True).first()
        if locked is None:
            return None
        patient = locked.patient_id
        rows = _claimable(quota_exhausted, hold_live).filter(~Exists(_being_delivered(patient)), patient=patient)
        rows = rows.exclude(pk__in=exclude)
        if live_only:
            rows = rows.filter(origin=Origin.DEVICE)
        if locked.outranked:
            rows = rows.filter(origin=Origin.DEVICE, conversation=conversation)
        return _claim_first(rows, owner, conversation)


def _claim_first(rows: QuerySet[Utterance], owner: str, conversation: uuid.UUID | None) -> Claim | None:
    row = rows.annotate(left=_TIME_LEFT).order_by("received_at", "id").first()
    if row is None:
        return None
    stays_own = row.origin == Origin.DEVICE and row.conversation_id == conversation
    origin = Origin.DEVICE if stays_own else Origin.SERVER
    won = rows.filter(pk=row.pk, attempts=row.attempts).update(
        origin=origin, state=UtteranceState.SPEAKING, owner=owner, lease_until=LEASE, attempts=F("attempts") + 1
    )
    if not won:  # acknowledged, ended or renewed between the two statements
        return None
    return Claim(
        id=row.pk,
        owner=owner,
        attempt=row.attempts + 1,
        patient_id=row.patient_id,
        text=row.text,
        origin=origin.value,
        client_speech_id=row.client_speech_id,
        conversation_id=row.conversation_id,
        expires_at=row.expires_at,
        seconds_left=None if row.left is None else row.left.total_seconds(),
        was_queued=row.state == UtteranceState.QUEUED,
    )


def _claimable(quota_exhausted: bool, hold_live: bool) -> QuerySet[Utterance]:
    rows = Utterance.objects.filter(PENDING, UNLEASED, _NOT_EXPIRED)
    if not quota_exhausted:
        return rows
    untried = Q(origin=Origin.SERVER) & ~Q(state=UtteranceState.QUEUED)
    return rows.filter(untried if hold_live else untried | Q(origin=Origin.DEVICE))


def _being_delivered(patient: uuid.UUID | OuterRef) -> QuerySet[Utterance]:
    return Utterance.objects.filter(PENDING, patient=patient, state=UtteranceState.SPEAKING, lease_until__gt=Now())


def _connectable() -> QuerySet[Device]:
    return Device.objects.filter(revoked_at=None, patient__archived_at=None, patient__erased_at=None)


def _newer_device() -> Exists:
    """Another device of the patient is online and connected later."""
    later = Q(last_seen__gt=OuterRef("last_seen")) | Q(last_seen=OuterRef("last_seen"), pk__gt=OuterRef("pk"))
    return Exists(_online_devices().filter(later, patient=OuterRef("patient")))


def _online_devices() -> QuerySet[Device]:
    return Device.objects.filter(revoked_at=None, online_until__gt=Now())


# The claim's end


def confirm(claim: Claim) -> bool:
    """Asked just before the first frame: whether it is still this claim's, and neither heard nor ended meanwhile."""
    return bool(_owned(claim).update(lease_until=LEASE))


def finish(
    claim: Claim,
    *,
    state: str,
    source: str,
    code: str,
    queue_reason: str,
    characters: int,
    bytes_sent: int,
    first_chunk_ms: float | None,
    spoken_at: datetime | None,
    conversation: uuid.UUID | None,
) -> bool:
    """Ends the claim as spoken, failed or interrupted; False if it was lost, and then nothing is written.

    What was acknowledged meanwhile stays heard. `characters` are added: each delivery counts. A spoken delivery stays
    with its connection until that ends, and is delivered again if no `ack` came.
    """
    awaits_ack = state == UtteranceState.SPOKEN and claim.origin == Origin.SERVER
    measures: dict[str, object] = {
        "source": source,
        "code": code,
        "bytes_sent": bytes_sent,
        "first_chunk_ms": first_chunk_ms,
        "characters": F("characters") + characters,
    }
    if spoken_at is not None:
        measures["spoken_at"] = spoken_at
    if queue_reason:
        measures["queue_reason"] = queue_reason
    if claim.origin == Origin.SERVER and not claim.client_speech_id:
        measures["conversation"] = conversation
    ended = _owned(claim, UtteranceState.SPEAKING, UtteranceState.HEARD).update(
        state=_unless_acknowledged(state, UtteranceState.HEARD),
        owner=_unless_acknowledged(claim.owner if awaits_ack else "", ""),
        lease_until=LEASE if awaits_ack else None,
        **measures,
    )
    return bool(ended)


def requeue(claim: Claim, *, queued: bool) -> bool:
    """Not spoken after all: waits again, `queued` for the quota. False if the claim was lost."""
    waits = UtteranceState.QUEUED if queued or claim.origin == Origin.DEVICE else UtteranceState.WAITING
    reason = {"queue_reason": QueueReason.QUOTA} if queued else {}
    return bool(_owned(claim).update(state=waits, owner="", lease_until=None, **reason))


def _owned(claim: Claim, *states: str) -> QuerySet[Utterance]:
    """The fence: whoever took the row since, even in this connection, has changed one of these."""
    return Utterance.objects.filter(
        pk=claim.id, owner=claim.owner, attempts=claim.attempt, state__in=states or [UtteranceState.SPEAKING]
    )


def _unless_acknowledged(value: str, heard: str) -> Case:
    return Case(When(state=UtteranceState.HEARD, then=Value(heard)), default=Value(value))


def expired_among(keys: Collection[uuid.UUID]) -> set[uuid.UUID]:
    """Those of them that were of use for too short a time to be said."""
    unsaid = Utterance.objects.filter(
        pk__in=keys, state__in=[UtteranceState.WAITING, UtteranceState.QUEUED, UtteranceState.EXPIRED]
    )
    return set(unsaid.filter(expires_at__lte=Now()).values_list("pk", flat=True))


# What the device says


def is_delivery_of(utterance_id: uuid.UUID, patient_id: uuid.UUID) -> bool:
    """Whether a device can know this `srv-` number: it is this patient's, and a connection has taken it."""
    return _delivered(utterance_id, patient_id).exists()


def acknowledge(utterance_id: uuid.UUID, patient_id: uuid.UUID) -> bool:
    """The device has played it: it is heard, and nobody takes it again. Idempotent; what has ended stays as it ended.

    False if it is not `known`. One that waits again counts too: its connection may have ended before `finish`.
    """
    who_speaks = Case(
        When(state=UtteranceState.SPEAKING, then=F("owner")), default=Value("")
    )  # its `finish` is still to come
    waiting_for_it = _delivered(utterance_id, patient_id).filter(PENDING)
    heard = waiting_for_it.update(state=UtteranceState.HEARD, heard_at=Now(), owner=who_speaks)
    return bool(heard) or is_delivery_of(utterance_id, patient_id)


def cancel(utterance_id: uuid.UUID, patient_id: uuid.UUID) -> bool:
    """Ends it if it waits; False if it does not, because it is being spoken, has ended or is not `known`."""
    waits = _delivered(utterance_id, patient_id).filter(state__in=[UtteranceState.WAITING, UtteranceState.QUEUED])
    return bool(waits.update(state=UtteranceState.INTERRUPTED, owner="", lease_until=None))


def _delivered(utterance_id: uuid.UUID, patient_id: uuid.UUID) -> QuerySet[Utterance]:
    return Utterance.objects.filter(pk=utterance_id, patient=patient_id, origin=Origin.SERVER, attempts__gt=0)
