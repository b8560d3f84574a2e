"""The queue of waiting speech: requested over REST, queued for the quota, or to be delivered again.

    waiting <-> speaking -> spoken -> heard      `heard` is acknowledged; `spoken` is waiting again when its connection
    queued  <-> speaking                         ends without an acknowledgement, or when it is acknowledged too early;
                                                 `queued` waits for the quota

Every transition is one conditional UPDATE, so exactly one of several processes succeeds. A connection that has claimed
a row holds a lease on it (`tts.outbox.leases`). Only this connection can end the claim, and only in the same attempt. A
patient hears one delivery at a time, on the device that connected last. All functions must run in a thread.
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

from tts.models import Conversation, Utterance
from tts.outbox import webhook_events
from tts.outbox.claim import Claim
from tts.outbox.leases import LEASE, NOT_EXPIRED, PENDING, UNLEASED, end_unspoken, owner_epoch
from tts.queue_reason import QueueReason
from tts.states import Origin, UtteranceState
from voicecare.core import pubsub
from voicecare.core.errors import IdempotencyConflict
from voicecare.patients.models import Device

log = structlog.get_logger(__name__)

BATCH_SIZE = 1000  # rows per statement, so that other writers do not wait long

_DIGEST_SALT = "tts.outbox"  # part of each stored digest: another value would refuse repeated requests
# What somebody said to the patient in the device console for a trial, which no other device of the patient must speak.
_IS_OF_CONSOLE = Q(
    Exists(Conversation.objects.filter(pk=OuterRef("conversation"), device__console_until__isnull=False)),
    origin=Origin.DEVICE,
)
WAITS = (UtteranceState.WAITING, UtteranceState.QUEUED)
_TIME_LEFT = ExpressionWrapper(F("expires_at") - Now(), output_field=DurationField())


# Submitting


def submit(
    patient_id: uuid.UUID, text: str, *, expires_in_s: float, author: User | None, idempotency_key: str = ""
) -> Utterance:
    """Create a waiting row and announce it to the processes. `expires_in_s` is in seconds.

    If the author repeats a request with the same idempotency key, the first row is returned, in any state. Raises
    IdempotencyConflict if the author has used the key for another request, and ValueError if the key is too long or has
    no author.
    """
    if len(idempotency_key) > 255 or (idempotency_key and author is None):
        raise ValueError("an idempotency key has 255 characters at most and belongs to an author")
    request = f"{patient_id} {expires_in_s:g} {text}"
    digest = salted_hmac(_DIGEST_SALT, request, algorithm="sha256").hexdigest() if idempotency_key else ""
    is_connected = receiver(patient_id) is not None
    try:
        with transaction.atomic():
            row = Utterance.objects.create(
                patient_id=patient_id,
                text=text,
                origin=Origin.SERVER,
                state=UtteranceState.WAITING,
                queue_reason="" if is_connected else QueueReason.NO_DEVICE.value,
                author=author,
                received_at=Now(),
                expires_at=Now() + timedelta(seconds=expires_in_s),
                idempotency_key=idempotency_key,
                request_digest=digest,
            )
    except IntegrityError:
        if not idempotency_key:
            raise
        existing = Utterance.objects.get(author=author, idempotency_key=idempotency_key)
        if existing.request_digest != digest:
            raise IdempotencyConflict from None
        return existing
    row.refresh_from_db(fields=["received_at", "expires_at"])
    if not is_connected:
        log.debug("speech.queued", conversation_id=None, utterance_id=str(row.pk), reason=row.queue_reason, ms=0)
    transaction.on_commit(partial(pubsub.publish_patient, patient_id), robust=True)
    return row


def forget_keys(before: datetime) -> None:
    """Delete the idempotency keys of requests that were received before this time."""
    old = Utterance.objects.filter(~Q(idempotency_key=""), received_at__lt=before).order_by()
    while rows := list(old.values_list("pk", flat=True)[:BATCH_SIZE]):
        Utterance.objects.filter(pk__in=rows).update(idempotency_key="", request_digest="")


def receiver(patient_id: uuid.UUID) -> Device | None:
    """Return the device to which a message to the patient would go now: the one that connected last.

    It can be a console that takes messages. Return None if no device is connected that takes them.
    """
    return _online_devices().filter(patient=patient_id).order_by("-last_seen", "-pk").first()


def withdraw(utterance_id: uuid.UUID, patient_id: uuid.UUID) -> bool:
    """End a waiting message as interrupted, before anybody hears it. Return False if it plays, has ended or is unknown.

    Unlike `cancel`, which a device requests, it ends a message that was never delivered, too.
    """
    messages = Utterance.objects.filter(NOT_EXPIRED, pk=utterance_id, patient=patient_id, origin=Origin.SERVER)
    return bool(end_unspoken(messages.filter(state__in=WAITS), UtteranceState.INTERRUPTED))


# Claiming


def patients_with_work(*, quota_exhausted: bool, hold_live: bool) -> set[uuid.UUID]:
    """Return the patients for whom rows wait, connected or not. One query, whose cost depends only on these rows.

    It is much cheaper than `devices_with_work`, so it is asked first: usually nothing waits. For the arguments see
    `claim`.
    """
    rows = _claimable(quota_exhausted, hold_live)
    return set(rows.order_by().values_list("patient", flat=True).distinct())


def devices_with_work(devices: Collection[uuid.UUID], *, quota_exhausted: bool, hold_live: bool) -> set[uuid.UUID]:
    """Return those of these connected devices for which `claim` may find a row. One query.

    A row goes to the device of its patient that connected last, or to the device that continues the conversation of the
    request. A console gets rows only if it takes messages. For the other arguments see `claim`.
    """
    if not devices:
        return set()
    rows = _claimable(quota_exhausted, hold_live).filter(patient=OuterRef("patient"))
    own = rows.filter(origin=Origin.DEVICE, conversation__device=OuterRef("pk"), conversation__ended_at=None)
    idle = Device.objects.connectable().filter(~Exists(_being_delivered(OuterRef("patient"))), pk__in=devices)
    found = idle.filter(Q(~_newer_device(), Exists(rows.filter(~_IS_OF_CONSOLE)), takes_messages=True) | Q(Exists(own)))
    return set(found.values_list("pk", flat=True))


def claim(
    device_id: uuid.UUID,
    owner: str,
    conversation_id: uuid.UUID | None,
    *,
    quota_exhausted: bool,
    hold_live: bool,
    live_only: bool = False,
    exclude: Collection[uuid.UUID] = (),
) -> Claim | None:
    """Claim the oldest row that this connection (`owner`) may deliver now. Three queries.

    Return None if no row is ready, or while another speech of the patient is being delivered. Rows in `exclude`, and
    rows that this connection has played, are skipped. With `live_only`, only speech that a device requested is claimed.

    While the quota is exhausted, server-started speech is claimed once, to find out whether it needs the quota. Queued
    speech of a device is claimed only when `hold_live` is false: the first minute, in which it waits, has passed. If it
    is delivered in another conversation, it becomes server-started speech, which is repeated until the device
    acknowledges it (docs/protocol.md, "Server-started speech").
    """
    with transaction.atomic():
        # The lock on the patient is needed because two devices could otherwise claim one row each at the same time.
        here = Device.objects.connectable().filter(pk=device_id, epoch=owner_epoch(owner))
        here = here.annotate(outranked=_newer_device())
        locked = here.select_related("patient").select_for_update(of=("patient",), no_key=True).first()
        if locked is None:
            return None
        patient_id = locked.patient_id
        rows = _claimable(quota_exhausted, hold_live).filter(~Exists(_being_delivered(patient_id)), patient=patient_id)
        rows = rows.exclude(pk__in=exclude).exclude(played_by=owner)
        if live_only:
            rows = rows.filter(origin=Origin.DEVICE)
        is_own = Q(origin=Origin.DEVICE, conversation=conversation_id)
        rows = rows.filter(is_own if locked.outranked or not locked.takes_messages else is_own | ~_IS_OF_CONSOLE)
        return _claim_first(rows, owner, conversation_id)


def _claim_first(rows: QuerySet[Utterance], owner: str, conversation_id: uuid.UUID | None) -> Claim | None:
    row = rows.annotate(left=_TIME_LEFT).order_by("received_at", "id").first()
    if row is None:
        return None
    stays_own = row.origin == Origin.DEVICE and row.conversation_id == conversation_id
    origin = Origin.DEVICE if stays_own else Origin.SERVER
    won = rows.filter(pk=row.pk, attempts=row.attempts).update(
        origin=origin, state=UtteranceState.SPEAKING, owner=owner, lease_until=LEASE, attempts=F("attempts") + 1
    )
    if not won:  # another connection acknowledged, ended or claimed the row between the two statements
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
    rows = Utterance.objects.filter(PENDING, UNLEASED, NOT_EXPIRED)
    if not quota_exhausted:
        return rows
    untried = Q(origin=Origin.SERVER) & ~Q(state=UtteranceState.QUEUED)
    return rows.filter(untried if hold_live else untried | Q(origin=Origin.DEVICE))


def _being_delivered(patient_id: uuid.UUID | OuterRef) -> QuerySet[Utterance]:
    return Utterance.objects.filter(PENDING, patient=patient_id, state=UtteranceState.SPEAKING, lease_until__gt=Now())


def _newer_device() -> Exists:
    """Return the condition that another device of the patient is online and connected later."""
    later = Q(last_seen__gt=OuterRef("last_seen")) | Q(last_seen=OuterRef("last_seen"), pk__gt=OuterRef("pk"))
    return Exists(_online_devices().filter(later, patient=OuterRef("patient")))


def _online_devices() -> QuerySet[Device]:
    """Return the connected devices that take messages to the patient."""
    return Device.objects.unexpired().filter(revoked_at=None, online_until__gt=Now(), takes_messages=True)


# Ending a claim


def confirm(claim: Claim) -> bool:
    """Renew the claim. Call it before the first frame of the speech is sent.

    Return False if the speech was acknowledged, has ended or was claimed again in the meantime.
    """
    return bool(_owned(claim).update(lease_until=LEASE))


def keep(claim: Claim) -> bool:
    """Renew the claim of a delivery that is playing. Return False if the row was claimed again.

    If the row was acknowledged or has ended during the playback, the result is True.
    """
    return confirm(claim) or not Utterance.objects.filter(pk=claim.id).exclude(attempts=claim.attempt).exists()


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
    conversation_id: uuid.UUID | None,
) -> bool:
    """End the claim as spoken, failed or interrupted. Return False, and write nothing, if the claim was lost.

    A row that was acknowledged during playback stays `heard`. `characters` are added to those of earlier deliveries. A
    spoken delivery of the server stays with its connection until the connection ends. If no acknowledgement has come by
    then, it is repeated. If a doubtful one has come (`doubt_ack`), the row waits again immediately.
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
        measures["conversation"] = conversation_id
    acknowledged = Q(state=UtteranceState.HEARD)
    if not awaits_ack:
        ending: dict[str, object] = {"state": state, "owner": "", "lease_until": None, "played_by": claim.owner}
        ending["state"] = _choose({UtteranceState.HEARD: acknowledged}, state)
    else:
        doubted = Q(doubted_attempt=claim.attempt) & ~acknowledged
        ending = {
            "state": _choose({UtteranceState.HEARD: acknowledged, UtteranceState.WAITING: doubted}, state),
            "owner": _choose({"": acknowledged | doubted}, claim.owner),
            "lease_until": Case(When(doubted, then=Value(None)), default=LEASE),
            "played_by": _choose({"": doubted}, claim.owner),
        }
    with transaction.atomic():
        ended = _owned(claim, UtteranceState.SPEAKING, UtteranceState.HEARD).update(**ending, **measures)
        if ended:
            webhook_events.emit([claim.id], state)
    return bool(ended)


def requeue(claim: Claim, *, queued: bool) -> bool:
    """Let the row wait again, or with `queued` wait for the quota. Return False if the claim was lost."""
    waits = UtteranceState.QUEUED if queued or claim.origin == Origin.DEVICE else UtteranceState.WAITING
    reason = {"queue_reason": QueueReason.QUOTA} if queued else {}
    return bool(_owned(claim).update(state=waits, owner="", lease_until=None, **reason))


def _owned(claim: Claim, *states: str) -> QuerySet[Utterance]:
    """Return the row of a claim, unless a later claim has taken it, even one of the same connection.

    `states` are the states that the row may have, by default only `speaking`.
    """
    return Utterance.objects.filter(
        pk=claim.id, owner=claim.owner, attempts=claim.attempt, state__in=states or [UtteranceState.SPEAKING]
    )


def _choose(values: dict[str, Q], default: str) -> Case:
    """Return the first value whose condition is true for the row, or else the default."""
    return Case(*(When(condition, then=Value(value)) for value, condition in values.items()), default=Value(default))


def expired_among(keys: Collection[uuid.UUID]) -> set[uuid.UUID]:
    """Return the ids of those of these rows that have expired before they were delivered."""
    unsaid = Utterance.objects.filter(
        pk__in=keys, state__in=[UtteranceState.WAITING, UtteranceState.QUEUED, UtteranceState.EXPIRED]
    )
    return set(unsaid.filter(expires_at__lte=Now()).values_list("pk", flat=True))


# Requests of the device


def is_delivery_of(utterance_id: uuid.UUID, patient_id: uuid.UUID) -> bool:
    """Whether the row belongs to the patient and was delivered at least once, so that a device can know its id."""
    return _delivered(utterance_id, patient_id).exists()


def acknowledge(utterance_id: uuid.UUID, patient_id: uuid.UUID) -> bool:
    """Mark the row as heard, so that it is not delivered again. Idempotent. A row that has ended stays unchanged.

    Return False if `is_delivery_of` is false. A row that waits again can be acknowledged, too, because its connection
    may have ended before `finish`.
    """
    owner = Case(When(state=UtteranceState.SPEAKING, then=F("owner")), default=Value(""))  # needed by its `finish`
    pending = _delivered(utterance_id, patient_id).filter(PENDING)
    with transaction.atomic():
        heard = pending.update(state=UtteranceState.HEARD, heard_at=Now(), owner=owner)
        if heard:
            webhook_events.emit([utterance_id], UtteranceState.HEARD)
    return bool(heard) or is_delivery_of(utterance_id, patient_id)


def doubt_ack(utterance_id: uuid.UUID, patient_id: uuid.UUID, owner: str) -> bool:
    """Mark the claim of a row whose acknowledgement came too early, so that the row is delivered once more.

    If the delivery has ended, the row waits again now, otherwise as soon as it ends (`finish`). Return False, and
    change nothing, if the acknowledgement counts: the row was doubted before, in another claim; it may have been played
    before, so that the device knows it; it has expired; or this connection (`owner`) does not play it.
    """
    row = _delivered(utterance_id, patient_id)
    first_time = row.filter(
        NOT_EXPIRED,
        Q(attempts=1) | Q(queue_reason=QueueReason.QUOTA),
        owner=owner,
        doubted_attempt=None,
        state__in=[UtteranceState.SPEAKING, UtteranceState.SPOKEN],
    )
    has_ended = Q(state=UtteranceState.SPOKEN)
    doubted = first_time.update(
        doubted_attempt=F("attempts"),
        state=_choose({UtteranceState.WAITING: has_ended}, UtteranceState.SPEAKING),
        owner=_choose({"": has_ended}, owner),
        lease_until=Case(When(has_ended, then=Value(None)), default=F("lease_until")),
        played_by="",
    )
    return bool(doubted) or row.filter(PENDING, doubted_attempt=F("attempts")).exists()


def cancel(utterance_id: uuid.UUID, patient_id: uuid.UUID) -> bool:
    """End a waiting row as interrupted. Return False if the row is not waiting: it plays, has ended or is unknown."""
    waits = _delivered(utterance_id, patient_id).filter(state__in=WAITS)
    return bool(end_unspoken(waits, UtteranceState.INTERRUPTED))


def _delivered(utterance_id: uuid.UUID, patient_id: uuid.UUID) -> QuerySet[Utterance]:
    return Utterance.objects.filter(pk=utterance_id, patient=patient_id, origin=Origin.SERVER, attempts__gt=0)
