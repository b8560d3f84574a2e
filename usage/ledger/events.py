"""The ledger of speech: one event per attempt, counted once (the contract, section 2, rule 9).

`characters` and `credits` count once the 2xx headers of a request have arrived, however it ends. A request whose
answer was never seen stays `unknown` and counts nothing. What the cache or the offline voice spoke is `saved`. Daily
sums (`usage/ledger/rollup.py`) are written with the events.
"""

import uuid
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import connection, transaction

from usage.ledger import rollup
from usage.models import Reconciliation, UsageEvent
from voicecare.providers.errors import ProviderError, Unreachable

Kind = UsageEvent.Kind
Outcome = UsageEvent.Outcome

MOST_CREDITS_A_CHARACTER = 100  # more is no price


def priced(characters: int, told: int | None) -> int:
    """The credits that the provider says it bills for them; the characters, where it says nothing that can be true."""
    return characters if told is None or told > characters * MOST_CREDITS_A_CHARACTER else told


@dataclass(slots=True)
class Attempt:
    """One attempt as the process that makes it knows it. Booked when it begins and again whenever it has changed.

    (`source`, `segment`, `attempt`) is its identity: booking it again updates the same event.
    """

    source: uuid.UUID
    segment: int
    attempt: int
    kind: str
    asked: int
    conversation: uuid.UUID | None = None
    patient: uuid.UUID | None = None
    voice: uuid.UUID | None = None
    model: str = ""
    outcome: str = Outcome.UNKNOWN.value
    code: str = ""
    characters: int = 0
    credits: int = 0
    saved: int = 0
    request_id: str = ""
    first_byte_ms: float | None = None
    first_chunk_ms: float | None = None
    at: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def key(self) -> tuple[uuid.UUID, int, int]:
        return self.source, self.segment, self.attempt

    def answered(self, request_id: str | None, cost: int | None) -> None:
        """The 2xx headers came: from here on it is billed. The characters stand for a cost that is not stated, or is
        none: a row that cannot hold it would not be written at all."""
        self.outcome = Outcome.COMPLETED.value
        self.characters = self.asked
        self.credits = priced(self.asked, cost)
        self.request_id = request_id or ""

    def failed(self, error: ProviderError) -> None:
        """It came to nothing. Without an answer nobody knows whether it was billed, unless it was never sent."""
        is_known = error.status is not None or isinstance(error, Unreachable)
        self.outcome = (Outcome.FAILED if is_known else Outcome.UNKNOWN).value
        self.code = error.code


_COLUMNS = [column.name for column in fields(Attempt)]
_UPDATED = [
    "outcome",
    "code",
    "characters",
    "credits",
    "saved",
    "request_id",
    "first_byte_ms",
    "first_chunk_ms",
]


@transaction.atomic(savepoint=False)
def book(attempts: Sequence[Attempt]) -> dict[uuid.UUID, int]:
    """Writes the attempts and their daily sums, and returns how many characters are new, by conversation.

    Three statements. Idempotent: what an earlier call has already counted is not new, so a batch whose commit was not
    seen to succeed can be written again.
    """
    attempts = list({attempt.key: attempt for attempt in attempts}.values())  # a statement may touch a row only once
    known = _known(attempts)
    attempts = [attempt for attempt in attempts if not _is_settled(attempt, known.get(attempt.key))]
    UsageEvent.objects.bulk_create(
        [_event(attempt) for attempt in attempts],
        update_conflicts=True,
        unique_fields=["source", "segment", "attempt"],
        update_fields=_UPDATED,
    )
    new: dict[uuid.UUID, int] = defaultdict(int)
    sums: dict[rollup.Key, rollup.Share] = defaultdict(lambda: rollup.NOTHING)
    for attempt in attempts:
        before = known.get(attempt.key)
        added = rollup.difference(rollup.share(attempt), rollup.NOTHING if before is None else rollup.share(before))
        day = rollup.key_of(attempt.at, attempt.patient, attempt.voice, attempt.model, attempt.kind)
        sums[day] = rollup.total(sums[day], added)
        if attempt.conversation is not None:
            new[attempt.conversation] += attempt.characters - (before.characters if before else 0)
    rollup.add(sums)
    return {conversation: characters for conversation, characters in new.items() if characters}


BILLED, NOT_BILLED = "billed", "not_billed"
SAME_REQUEST_WITHIN = timedelta(minutes=10)


@transaction.atomic(savepoint=False)
def settle(event: uuid.UUID, *, request_id: str = "", credits: int = 0) -> dict[uuid.UUID, int]:
    """Books what reconciliation found out about an unknown attempt: the request that it was billed as, else that it was
    not billed. Returns new characters as `book` does.

    Changes nothing where the attempt is no longer unknown or another one has that request: whoever is first has it,
    however many do this at once.
    """
    _settle_one_at_a_time()
    row = UsageEvent.objects.select_for_update().filter(pk=event, outcome=Outcome.UNKNOWN).first()
    if row is None or (request_id and _is_taken(request_id, row.at)):
        return {}
    attempt = Attempt(**{name: getattr(row, name) for name in _COLUMNS})
    # An error was met, else nobody waited for it any more: an interrupt, or a process that died.
    attempt.outcome = (Outcome.FAILED if row.code else Outcome.CANCELLED).value
    attempt.code = BILLED if request_id else NOT_BILLED
    if request_id:
        attempt.characters, attempt.credits, attempt.request_id = attempt.asked, credits, request_id
    return book([attempt])


def _settle_one_at_a_time() -> None:
    """So that of two who give one request to two attempts the second sees the first; SQLite's immediate transactions
    do so by themselves. Before any row is locked, and nobody who books waits for it."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(f"LOCK TABLE {Reconciliation._meta.db_table} IN SHARE ROW EXCLUSIVE MODE")


def _is_taken(request_id: str, at: datetime) -> bool:
    near = UsageEvent.objects.filter(at__gte=at - SAME_REQUEST_WITHIN, at__lte=at + SAME_REQUEST_WITHIN)
    return near.filter(request_id=request_id).exists()


def _known(attempts: Sequence[Attempt]) -> dict[tuple[uuid.UUID, int, int], Any]:
    """What is written of them. Locked: reconciliation may be settling one of them at this moment."""
    written = UsageEvent.objects.filter(source__in={attempt.source for attempt in attempts}).order_by()
    rows = written.select_for_update().values_list("source", "segment", "attempt", *_UPDATED, named=True)
    return {(row.source, row.segment, row.attempt): row for row in rows}


def _is_settled(attempt: Attempt, written: Any) -> bool:  # noqa: ANN401 - a named row
    """Reconciliation has found out what became of it, and its process still knows nothing."""
    return attempt.outcome == Outcome.UNKNOWN and written is not None and written.outcome != Outcome.UNKNOWN


def _event(attempt: Attempt) -> UsageEvent:
    return UsageEvent(**{name: getattr(attempt, name) for name in _COLUMNS})
