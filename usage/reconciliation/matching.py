"""Which of our unknown attempts are in the provider's history, and which are not (pure).

An attempt whose answer was never seen has no request id. What it has in common with its item in the history is the
voice, the model, the number of characters and the time; an item that is a known attempt's is no candidate.
"""

import uuid
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from voicecare.providers.elevenlabs.requests import printable_id
from voicecare.providers.elevenlabs.responses import HistoryItem

MAX_EARLY_S = 10  # their clock and ours; they tell whole seconds
MAX_LATE_S = 60  # all our time-outs, and their own work on a request that nobody waits for any more


@dataclass(frozen=True, slots=True)
class UnknownAttempt:
    """An unknown attempt. `voice` is the provider's id, "" where the voice's row is gone."""

    event_id: uuid.UUID
    at_unix: float
    provider_voice_id: str
    model: str
    requested_characters: int


@dataclass(frozen=True, slots=True)
class Matching:
    """`billed` are pairs; `doubtful` attempts may be an item that lacks its text or its time; `absent` are in none."""

    billed: list[tuple[UnknownAttempt, HistoryItem]] = field(default_factory=list)
    not_billed: list[UnknownAttempt] = field(default_factory=list)
    ambiguous: list[UnknownAttempt] = field(default_factory=list)


def match_key(item: HistoryItem) -> str:
    """What stands for the item in the ledger; "" where it has no usable id at all."""
    return item.request_id or printable_id(item.item_id) or ""


def match(unsettled: Iterable[UnknownAttempt], items: Iterable[HistoryItem]) -> Matching:
    """Gives each item to at most one attempt and each attempt at most one item, as many as possible.

    All windows are equally long, so the oldest attempt that fits takes the oldest item.
    """
    found = Matching()
    waiting = sorted(unsettled, key=lambda attempt: (attempt.at_unix, str(attempt.event_id)))
    lengths = {attempt.requested_characters for attempt in waiting} | {0}
    left: list[HistoryItem] = []
    for item in sorted(_worth_a_look(items, lengths), key=lambda item: (item.created_at_unix or 0, item.item_id)):
        taken = next((attempt for attempt in waiting if match_key(item) and _fits(attempt, item)), None)
        if taken is None:
            left.append(item)
        else:
            waiting.remove(taken)
            found.billed.append((taken, item))
    vague = [item for item in left if item.created_at_unix is None or not item.characters or not match_key(item)]
    for attempt in waiting:
        (found.ambiguous if _may_be_one_of(attempt, vague) else found.not_billed).append(attempt)
    return found


def _worth_a_look(items: Iterable[HistoryItem], lengths: Container[int]) -> Iterator[HistoryItem]:
    return (item for item in items if item.characters in lengths)


def _fits(attempt: UnknownAttempt, item: HistoryItem) -> bool:
    return (
        item.characters == attempt.requested_characters
        and item.created_at_unix is not None
        and _is_compatible(attempt, item)
    )


def _may_be_one_of(attempt: UnknownAttempt, vague: Sequence[HistoryItem]) -> bool:
    return any(item.characters in (0, attempt.requested_characters) and _is_compatible(attempt, item) for item in vague)


def _is_compatible(attempt: UnknownAttempt, item: HistoryItem) -> bool:
    """Nothing that both know of it differs."""
    in_time = (
        item.created_at_unix is None
        or attempt.at_unix - MAX_EARLY_S <= item.created_at_unix <= attempt.at_unix + MAX_LATE_S
    )
    return in_time and _same(attempt.provider_voice_id, item.voice_id) and _same(attempt.model, item.model_id)


def _same(one: str, other: str) -> bool:
    return not one or not other or one == other
