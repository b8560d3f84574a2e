"""The ledger of speech: one event per attempt, counted once (the contract, section 2, rule 9).

`characters` and `credits` count once the 2xx headers of a request have arrived, however it ends. A request whose
answer was never seen stays `unknown` and counts nothing. What the cache or the offline voice spoke is `saved`.
"""

import uuid
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from django.db.models import Q

from usage.models import UsageEvent
from voicecare.elevenlabs.errors import ProviderError, Unreachable

Kind = UsageEvent.Kind
Outcome = UsageEvent.Outcome


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
    at: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def key(self) -> tuple[uuid.UUID, int, int]:
        return self.source, self.segment, self.attempt

    def answered(self, request_id: str | None, cost: int | None) -> None:
        """The 2xx headers came: from here on it is billed. Without a stated cost the characters stand for it."""
        self.outcome = Outcome.COMPLETED.value
        self.characters = self.asked
        self.credits = self.asked if cost is None else cost
        self.request_id = request_id or ""

    def failed(self, error: ProviderError) -> None:
        """It came to nothing. Without an answer nobody knows whether it was billed, unless it was never sent."""
        is_known = error.status is not None or isinstance(error, Unreachable)
        self.outcome = (Outcome.FAILED if is_known else Outcome.UNKNOWN).value
        self.code = error.code


_UPDATED = [
    "outcome", "code", "characters", "credits", "saved", "request_id", "first_byte_ms",
]  # fmt: skip


def book(attempts: Sequence[Attempt]) -> dict[uuid.UUID, int]:
    """Writes the attempts and returns how many characters are new, by conversation.

    Two statements, inside the caller's transaction. Idempotent: what an earlier call has already counted is not new,
    so a batch whose commit was not seen to succeed can be written again. One attempt has one writer at a time, the
    process that makes it, so nothing can change between the two statements.
    """
    attempts = list({attempt.key: attempt for attempt in attempts}.values())  # a statement may touch a row only once
    counted = _counted(attempts)
    UsageEvent.objects.bulk_create(
        [_event(attempt) for attempt in attempts],
        update_conflicts=True,
        unique_fields=["source", "segment", "attempt"],
        update_fields=_UPDATED,
    )
    new: dict[uuid.UUID, int] = defaultdict(int)
    for attempt in attempts:
        if attempt.conversation is not None:
            new[attempt.conversation] += attempt.characters - counted.get(attempt.key, 0)
    return {conversation: characters for conversation, characters in new.items() if characters}


def _counted(attempts: Sequence[Attempt]) -> dict[tuple[uuid.UUID, int, int], int]:
    mine = Q(source__in={attempt.source for attempt in attempts})
    rows = UsageEvent.objects.filter(mine).values_list("source", "segment", "attempt", "characters")
    return {(source, segment, attempt): characters for source, segment, attempt, characters in rows}


def _event(attempt: Attempt) -> UsageEvent:
    return UsageEvent(
        source=attempt.source,
        segment=attempt.segment,
        attempt=attempt.attempt,
        conversation=attempt.conversation,
        patient=attempt.patient,
        voice=attempt.voice,
        model=attempt.model,
        kind=attempt.kind,
        outcome=attempt.outcome,
        code=attempt.code,
        asked=attempt.asked,
        characters=attempt.characters,
        credits=attempt.credits,
        saved=attempt.saved,
        request_id=attempt.request_id,
        first_byte_ms=attempt.first_byte_ms,
        at=attempt.at,
    )
