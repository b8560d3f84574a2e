"""Which of our unknown attempts are in the provider's history, and which are not (pure).

An attempt whose answer was never seen has no request id. What it has in common with its item in the history is the
voice, the model, the number of characters and the time; an item that is a known attempt's is no candidate.
"""

import uuid
from collections.abc import Iterable
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


def match(attempts: Iterable[UnknownAttempt], items: Iterable[HistoryItem]) -> Matching:
    """Gives each item to at most one attempt and each attempt at most one item, as many as possible.

    All windows are equally long, so the oldest attempt that fits takes the oldest item.
    """
    result = Matching()
    waiting = sorted(attempts, key=lambda attempt: (attempt.at_unix, str(attempt.event_id)))
    lengths = {attempt.requested_characters for attempt in waiting} | {0}
    candidates = (item for item in items if item.characters in lengths)
    unmatched: list[HistoryItem] = []
    for item in sorted(candidates, key=lambda item: (item.created_at_unix or 0, item.item_id)):
        attempt = next((attempt for attempt in waiting if match_key(item) and _fits(attempt, item)), None)
        if attempt is None:
            unmatched.append(item)
        else:
            waiting.remove(attempt)
            result.billed.append((attempt, item))
    vague = [item for item in unmatched if item.created_at_unix is None or not item.characters or not match_key(item)]
    for attempt in waiting:
        possible = (item for item in vague if item.characters in (0, attempt.requested_characters))
        is_ambiguous = any(_is_compatible(attempt, item) for item in possible)
        (result.ambiguous if is_ambiguous else result.not_billed).append(attempt)
    return result


def _fits(attempt: UnknownAttempt, item: HistoryItem) -> bool:
    return (
        item.characters == attempt.requested_characters
        and item.created_at_unix is not None
        and _is_compatible(attempt, item)
    )


def _is_compatible(attempt: UnknownAttempt, item: HistoryItem) -> bool:
    """Nothing that both know of it differs."""
    in_time = (
        item.created_at_unix is None
        or attempt.at_unix - MAX_EARLY_S <= item.created_at_unix <= attempt.at_unix + MAX_LATE_S
    )
    return in_time and _same(attempt.provider_voice_id, item.voice_id) and _same(attempt.model, item.model_id)


def _same(one: str, other: str) -> bool:
    return not one or not other or one == other
