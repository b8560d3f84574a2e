"""Matches unknown attempts with items of the provider's history. Pure.

An attempt whose response was never seen has no request id. It is matched by voice, model, number of characters and
time. The caller leaves out items that belong to known attempts.
"""

import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field

from voicecare.providers.elevenlabs.requests import printable_id
from voicecare.providers.elevenlabs.responses import HistoryItem

MAX_EARLY_S = 10  # clocks differ, and the provider reports whole seconds
MAX_LATE_S = 60  # our timeouts, and the time that the provider needs after we have given up


@dataclass(frozen=True, slots=True)
class UnknownAttempt:
    """A request whose outcome is unknown, because its process ended or no response came.

    `provider_voice_id` is empty if the voice's row was deleted.
    """

    event_id: uuid.UUID
    at_unix: float
    provider_voice_id: str
    model: str
    requested_characters: int


@dataclass(frozen=True, slots=True)
class Matching:
    """The attempts that match an item of the history, those that match none, and those for which it cannot be decided.

    An attempt is ambiguous if it may belong to an item that lacks its number of characters, its time or its id.
    """

    billed: list[tuple[UnknownAttempt, HistoryItem]] = field(default_factory=list)
    not_billed: list[UnknownAttempt] = field(default_factory=list)
    ambiguous: list[UnknownAttempt] = field(default_factory=list)


def match_key(item: HistoryItem) -> str:
    """Return the id of this request in the ledger, or an empty string if the item has no usable id."""
    return item.request_id or printable_id(item.item_id) or ""


def match(attempts: Iterable[UnknownAttempt], items: Iterable[HistoryItem]) -> Matching:
    """Match each item with at most one attempt and each attempt with at most one item, as many as possible.

    All time windows have the same length, so the oldest item is matched with the oldest attempt that fits.
    """
    result = Matching()
    waiting = sorted(attempts, key=lambda attempt: (attempt.at_unix, str(attempt.event_id)))
    lengths = {attempt.requested_characters for attempt in waiting} | {0}
    candidates = (item for item in items if item.characters in lengths)
    unmatched: list[HistoryItem] = []
    for item in sorted(candidates, key=lambda item: (item.created_at_unix or 0, item.item_id)):
        of_length = (attempt for attempt in waiting if attempt.requested_characters == item.characters)
        fitting = (attempt for attempt in of_length if _is_compatible(attempt, item))
        attempt = next(fitting, None) if match_key(item) and item.created_at_unix is not None else None
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


def _is_compatible(attempt: UnknownAttempt, item: HistoryItem) -> bool:
    """Return whether attempt and item agree in time, voice and model. A value that is missing in one of them agrees."""
    in_time = (
        item.created_at_unix is None
        or attempt.at_unix - MAX_EARLY_S <= item.created_at_unix <= attempt.at_unix + MAX_LATE_S
    )
    return in_time and _same(attempt.provider_voice_id, item.voice_id) and _same(attempt.model, item.model_id)


def _same(one: str, other: str) -> bool:
    return not one or not other or one == other
