"""Which of our unknown attempts are in the provider's history, and which are not (pure).

An attempt whose answer was never seen has no request id. What it has in common with its item in the history is the
voice, the model, the number of characters and the time; an item that is a known attempt's is no candidate.
"""

import uuid
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from voicecare.providers.elevenlabs.requests import printable_id
from voicecare.providers.elevenlabs.responses import HistoryItem

EARLY_S = 10  # their clock and ours; they tell whole seconds
LATE_S = 60  # all our time-outs, and their own work on a request that nobody waits for any more


@dataclass(frozen=True, slots=True)
class Unsettled:
    """An unknown attempt. `voice` is the provider's id, "" where the voice's row is gone."""

    event: uuid.UUID
    at_unix: float
    voice: str
    model: str
    asked: int


@dataclass(frozen=True, slots=True)
class Matching:
    """`billed` are pairs; `doubtful` attempts may be an item that lacks its text or its time; `absent` are in none."""

    billed: list[tuple[Unsettled, HistoryItem]] = field(default_factory=list)
    absent: list[Unsettled] = field(default_factory=list)
    doubtful: list[Unsettled] = field(default_factory=list)


def reference(item: HistoryItem) -> str:
    """What stands for the item in the ledger; "" where it has no usable id at all."""
    return item.request_id or printable_id(item.item_id) or ""


def match(unsettled: Iterable[Unsettled], items: Iterable[HistoryItem]) -> Matching:
    """Gives each item to at most one attempt and each attempt at most one item, as many as possible.

    All windows are equally long, so the oldest attempt that fits takes the oldest item.
    """
    found = Matching()
    waiting = sorted(unsettled, key=lambda attempt: (attempt.at_unix, str(attempt.event)))
    lengths = {attempt.asked for attempt in waiting} | {0}
    left: list[HistoryItem] = []
    for item in sorted(_worth_a_look(items, lengths), key=lambda item: (item.created_at_unix or 0, item.item_id)):
        taken = next((attempt for attempt in waiting if reference(item) and _fits(attempt, item)), None)
        if taken is None:
            left.append(item)
        else:
            waiting.remove(taken)
            found.billed.append((taken, item))
    vague = [item for item in left if item.created_at_unix is None or not item.characters or not reference(item)]
    for attempt in waiting:
        (found.doubtful if _may_be_one_of(attempt, vague) else found.absent).append(attempt)
    return found


def _worth_a_look(items: Iterable[HistoryItem], lengths: Container[int]) -> Iterator[HistoryItem]:
    return (item for item in items if item.characters in lengths)


def _fits(attempt: Unsettled, item: HistoryItem) -> bool:
    return item.characters == attempt.asked and item.created_at_unix is not None and _may_be(attempt, item)


def _may_be_one_of(attempt: Unsettled, vague: Sequence[HistoryItem]) -> bool:
    return any(item.characters in (0, attempt.asked) and _may_be(attempt, item) for item in vague)


def _may_be(attempt: Unsettled, item: HistoryItem) -> bool:
    """Nothing that both know of it differs."""
    in_time = (
        item.created_at_unix is None or attempt.at_unix - EARLY_S <= item.created_at_unix <= attempt.at_unix + LATE_S
    )
    return in_time and _same(attempt.voice, item.voice_id) and _same(attempt.model, item.model_id)


def _same(one: str, other: str) -> bool:
    return not one or not other or one == other
