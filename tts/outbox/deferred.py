"""Deferred speech: speech of a device that waits for the quota in the memory of a connection, which its row names.

The row decides which connection may speak it. `attempts` is the fencing token: each takeover by another connection adds
one. A connection may start, end or write such a speech only while `attempts` has the number that the connection knows.
So a process that was suspended for longer than its lease finds out that it has lost the speech.
"""

import uuid
from collections.abc import Collection, Mapping
from enum import StrEnum

from django.db import transaction
from django.db.models import Exists, F, Q, QuerySet
from django.db.models.functions import Now

from tts.models import Utterance
from tts.outbox import webhook_events
from tts.outbox.leases import LEASE, NOT_EXPIRED, PENDING, UNLEASED, owner_epoch
from tts.states import UNFINISHED_STATES, Origin, UtteranceState
from voicecare.patients.models import Device


class Fate(StrEnum):
    """What a connection has to do with a deferred speech in its memory."""

    OWNED = "owned"  # speak it
    MOVED = "moved"  # forget the speech: another connection continues it under the same id
    EXPIRED = "expired"  # end it: it has expired
    ENDED = "ended"  # end it: it has ended, or it is spoken in another conversation under another id


def take(utterance_id: uuid.UUID, device_id: uuid.UUID, owner: str, attempts: int) -> Fate:
    """Mark the deferred speech as speaking if this connection still owns it. Return what has to be done with it.

    `attempts` is the number of takeovers that this connection knows. A higher number in the row means that another
    connection has taken over the speech. An expired lease alone does not matter. A connection that was replaced by a
    newer one of its device takes nothing. Idempotent.
    """
    is_current = Exists(Device.objects.filter(pk=device_id, epoch=owner_epoch(owner)))
    waits = Q(Q(owner=owner) | UNLEASED, state=UtteranceState.QUEUED)
    rows = Utterance.objects.filter(pk=utterance_id, attempts=attempts)
    # The second state is that of a repeated call whose first answer was lost. Speech that plays needs no lease, because
    # no other connection can claim it.
    startable = rows.filter(waits & NOT_EXPIRED | Q(state=UtteranceState.SPEAKING), is_current)
    if startable.update(state=UtteranceState.SPEAKING, owner="", lease_until=None):
        return Fate.OWNED
    expired = rows.filter(waits, expires_at__lte=Now())
    with transaction.atomic():
        if expired.update(state=UtteranceState.EXPIRED, code="expired", owner="", lease_until=None):
            webhook_events.emit([utterance_id], UtteranceState.EXPIRED)
    row = Utterance.objects.filter(pk=utterance_id).first()
    if row is None:  # the database has refused the row, so no other connection can have it
        return Fate.OWNED
    return _fate(row, attempts)


def _fate(row: Utterance, attempts: int) -> Fate:
    if row.attempts != attempts:
        return Fate.MOVED if row.origin == Origin.DEVICE else Fate.ENDED
    if row.state in UNFINISHED_STATES:
        return Fate.MOVED
    return Fate.EXPIRED if row.state == UtteranceState.EXPIRED else Fate.ENDED


def release(utterance_id: uuid.UUID, attempts: int) -> None:
    """Undo `take`: the connection has ended before it could play the speech, so another connection may play it."""
    taken = Utterance.objects.filter(pk=utterance_id, attempts=attempts, state=UtteranceState.SPEAKING)
    taken.update(state=UtteranceState.QUEUED)


def end_all(speeches: Mapping[uuid.UUID, int]) -> dict[uuid.UUID, Fate]:
    """End deferred speeches as interrupted, unless another connection has taken them over.

    `speeches` maps ids to `attempts`. Returns the fate of each speech: ENDED or EXPIRED if this connection must report
    its end, MOVED if another one does.
    """
    with transaction.atomic():
        rows = {row.pk: row for row in _locked(speeches)}
        own = [key for key, row in rows.items() if row.attempts == speeches[key] and row.state in UNFINISHED_STATES]
        ended = {"state": UtteranceState.INTERRUPTED, "owner": "", "lease_until": None}
        Utterance.objects.filter(pk__in=own).update(**ended)
    fates = {key: _fate(row, speeches[key]) for key, row in rows.items() if key not in own}
    return dict.fromkeys(speeches, Fate.ENDED) | fates


def overtaken(speeches: Mapping[uuid.UUID, tuple[int, bool]]) -> set[uuid.UUID]:
    """Return the speeches whose rows must not be written, because another connection or process has changed them.

    `speeches` maps each id to the `attempts` that the connection knows, and to whether the speech has ended there. A
    row that has ended never becomes unfinished again. Call this in the transaction that writes the rows, because it
    locks them.
    """
    return {
        row.pk
        for row in _locked(speeches).only("attempts", "state")
        if row.attempts != speeches[row.pk][0] or not (row.state in UNFINISHED_STATES or speeches[row.pk][1])
    }


def _locked(speeches: Collection[uuid.UUID]) -> QuerySet[Utterance]:
    """Return the rows, locked in the order of their ids: two transactions that lock the same rows cannot deadlock."""
    return Utterance.objects.select_for_update().filter(pk__in=speeches).order_by("pk")


def reclaim(conversation_id: uuid.UUID, owner: str) -> list[Utterance]:
    """Make `owner` the owner of the deferred speech of a resumed conversation, and return the rows in order.

    Three statements. The device that had the conversation loses this speech even while its lease is valid. Expired
    speech is not taken over.
    """
    waits = Utterance.objects.filter(PENDING, conversation=conversation_id, origin=Origin.DEVICE)
    others = waits.filter(NOT_EXPIRED).exclude(owner=owner)
    others.update_in_order(owner=owner, lease_until=LEASE, attempts=F("attempts") + 1)
    return list(waits.filter(owner=owner).order_by("received_at", "id"))
