"""The ledger of speech: one event per attempt, counted once (the contract, section 2, rule 9).

`characters` and `credits` count once the 2xx headers of a request have arrived, however it ends. A request whose
answer was never seen stays `unknown` and counts nothing. What the cache or the offline voice spoke is `saved`. Daily
sums (`usage/ledger/rollup.py`) are written with the events.
"""

import uuid
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import connection, transaction

from usage.ledger import rollup
from usage.models import UsageEvent
from voicecare.providers.errors import ProviderError, Unreachable

Kind = UsageEvent.Kind
Outcome = UsageEvent.Outcome

BILLED, NOT_BILLED = "billed", "not_billed"
MAX_CREDITS_PER_CHARACTER = 100  # more is no price
REQUEST_ID_UNIQUE_WITHIN = timedelta(minutes=10)
RESOLUTION_LOCK = 7_312_026_001  # key of a PostgreSQL advisory lock; no other lock of this database may have it


def billed_credits(characters: int, stated: int | None) -> int:
    """The credits that the provider says it bills for them; the characters, where it says nothing that can be true."""
    return characters if stated is None or stated > characters * MAX_CREDITS_PER_CHARACTER else stated


@dataclass(slots=True)
class Attempt:
    """One attempt as the process that makes it knows it. Booked when it begins and again whenever it has changed.

    (`source`, `segment`, `attempt`) is its identity: booking it again updates the same event.
    """

    source_id: uuid.UUID
    segment: int
    attempt: int
    kind: str
    requested_characters: int
    conversation_id: uuid.UUID | None = None
    patient_id: uuid.UUID | None = None
    voice_id: uuid.UUID | None = None
    model: str = ""
    outcome: str = Outcome.UNKNOWN.value
    code: str = ""
    characters: int = 0
    credits: int = 0
    saved_characters: int = 0
    request_id: str = ""
    first_byte_ms: float | None = None
    first_chunk_ms: float | None = None
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def key(self) -> tuple[uuid.UUID, int, int]:
        return self.source_id, self.segment, self.attempt

    def mark_answered(self, request_id: str | None, cost: int | None) -> None:
        """The 2xx headers came: from here on it is billed. The characters stand for a cost that is not stated, or is
        none: a row that cannot hold it would not be written at all."""
        self.outcome = Outcome.COMPLETED.value
        self.characters = self.requested_characters
        self.credits = billed_credits(self.requested_characters, cost)
        self.request_id = request_id or ""

    def mark_failed(self, error: ProviderError) -> None:
        """It came to nothing. Without an answer nobody knows whether it was billed, unless it was never sent."""
        is_known = error.status is not None or isinstance(error, Unreachable)
        self.outcome = (Outcome.FAILED if is_known else Outcome.UNKNOWN).value
        self.code = error.code


_UPDATED = [
    "outcome",
    "code",
    "characters",
    "credits",
    "saved_characters",
    "request_id",
    "first_byte_ms",
    "first_chunk_ms",
]


@transaction.atomic(savepoint=False)
def record_attempts(attempts: Sequence[Attempt]) -> dict[uuid.UUID, int]:
    """Writes the attempts and their daily sums, and returns how many characters are new, by conversation.

    Three statements. Idempotent: what an earlier call has already counted is not new, so a batch whose commit was not
    seen to succeed can be written again.
    """
    attempts = list({attempt.key: attempt for attempt in attempts}.values())  # a statement may touch a row only once
    recorded = _lock_recorded(attempts)
    attempts = [attempt for attempt in attempts if not _is_resolved(attempt, recorded.get(attempt.key))]
    UsageEvent.objects.bulk_create(
        [_event_from(attempt) for attempt in attempts],
        update_conflicts=True,
        unique_fields=["source", "segment", "attempt"],
        update_fields=_UPDATED,
    )
    new_characters: dict[uuid.UUID, int] = defaultdict(int)
    new_totals: dict[rollup.Key, rollup.Totals] = defaultdict(lambda: rollup.ZERO_TOTALS)
    for attempt in attempts:
        before = recorded.get(attempt.key)
        totals_before = rollup.ZERO_TOTALS if before is None else rollup.totals_of(before)
        added = rollup.subtract_totals(rollup.totals_of(attempt), totals_before)
        key = rollup.key_for(attempt.started_at, attempt.patient_id, attempt.voice_id, attempt.model, attempt.kind)
        new_totals[key] = rollup.add_totals(new_totals[key], added)
        if attempt.conversation_id is not None:
            new_characters[attempt.conversation_id] += attempt.characters - (before.characters if before else 0)
    rollup.add_to_days(new_totals)
    return {conversation_id: characters for conversation_id, characters in new_characters.items() if characters}


@transaction.atomic(savepoint=False)
def resolve_unknown(event_id: uuid.UUID, *, request_id: str = "", credits: int = 0) -> dict[uuid.UUID, int]:
    """Books what reconciliation found out about an unknown attempt: the request that it was billed as, else that it was
    not billed. Returns new characters as `book` does.

    Changes nothing where the attempt is no longer unknown or another one has that request: whoever is first has it,
    however many do this at once.
    """
    _lock_resolution()
    row = UsageEvent.objects.select_for_update().filter(pk=event_id, outcome=Outcome.UNKNOWN).first()
    if row is None:
        return {}
    if request_id:
        start, end = row.started_at - REQUEST_ID_UNIQUE_WITHIN, row.started_at + REQUEST_ID_UNIQUE_WITHIN
        near = UsageEvent.objects.filter(started_at__gte=start, started_at__lte=end)
        if near.filter(request_id=request_id).exists():
            return {}
    attempt = _attempt_from(row)
    # An error was met, else nobody waited for it any more: an interrupt, or a process that died.
    attempt.outcome = (Outcome.FAILED if row.code else Outcome.CANCELLED).value
    attempt.code = BILLED if request_id else NOT_BILLED
    if request_id:
        attempt.characters, attempt.credits, attempt.request_id = attempt.requested_characters, credits, request_id
    return record_attempts([attempt])


def _lock_resolution() -> None:
    """Hold the lock of `resolve_unknown` until the transaction ends.

    Without it, two transactions could match one request to two attempts, because neither sees the other's row. It is
    taken before any row lock. `record_attempts` does not take it. SQLite needs no lock: its write transactions are
    immediate, so only one runs at a time.
    """
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [RESOLUTION_LOCK])


def _lock_recorded(attempts: Sequence[Attempt]) -> dict[tuple[uuid.UUID, int, int], Any]:
    """What is written of them. Locked: reconciliation may be settling one of them at this moment."""
    written = UsageEvent.objects.filter(source__in={attempt.source_id for attempt in attempts}).order_by()
    rows = written.select_for_update().values_list("source", "segment", "attempt", *_UPDATED, named=True)
    return {(row.source, row.segment, row.attempt): row for row in rows}


def _is_resolved(attempt: Attempt, written: Any) -> bool:  # noqa: ANN401 - a named row
    """Reconciliation has found out what became of it, and its process still knows nothing."""
    return attempt.outcome == Outcome.UNKNOWN and written is not None and written.outcome != Outcome.UNKNOWN


def _event_from(attempt: Attempt) -> UsageEvent:
    return UsageEvent(
        source=attempt.source_id,
        segment=attempt.segment,
        attempt=attempt.attempt,
        kind=attempt.kind,
        conversation=attempt.conversation_id,
        patient=attempt.patient_id,
        voice=attempt.voice_id,
        model=attempt.model,
        outcome=attempt.outcome,
        code=attempt.code,
        requested_characters=attempt.requested_characters,
        characters=attempt.characters,
        credits=attempt.credits,
        saved_characters=attempt.saved_characters,
        request_id=attempt.request_id,
        first_byte_ms=attempt.first_byte_ms,
        first_chunk_ms=attempt.first_chunk_ms,
        started_at=attempt.started_at,
    )


def _attempt_from(event: UsageEvent) -> Attempt:
    return Attempt(
        source_id=event.source,
        segment=event.segment,
        attempt=event.attempt,
        kind=event.kind,
        conversation_id=event.conversation,
        patient_id=event.patient,
        voice_id=event.voice,
        model=event.model,
        outcome=event.outcome,
        code=event.code,
        requested_characters=event.requested_characters,
        characters=event.characters,
        credits=event.credits,
        saved_characters=event.saved_characters,
        request_id=event.request_id,
        first_byte_ms=event.first_byte_ms,
        first_chunk_ms=event.first_chunk_ms,
        started_at=event.started_at,
    )


def attempts_of(source_id: uuid.UUID) -> list[Attempt]:
    """All attempts for one utterance, in the order of its text."""
    return [
        _attempt_from(event) for event in UsageEvent.objects.filter(source=source_id).order_by("segment", "attempt")
    ]
