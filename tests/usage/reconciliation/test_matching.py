"""Matching of unknown attempts and history items: one to one, only without differences."""

import uuid

import pytest

from usage.reconciliation.matching import MAX_EARLY_S, MAX_LATE_S, UnknownAttempt, match, match_key
from voicecare.providers.elevenlabs.responses import HistoryItem

NOON = 1_772_366_400


def attempt(at: float = NOON, voice: str = "v", model: str = "flash", asked: int = 40) -> UnknownAttempt:
    return UnknownAttempt(uuid.uuid4(), at, voice, model, asked)


def item(at: int | None = NOON, *, id: str = "i", request: str | None = "r", **fields: object) -> HistoryItem:
    plain = {"voice_id": "v", "model_id": "flash", "characters": 40, "credits": 20}
    return HistoryItem(**{"item_id": id, "request_id": request, "created_at_unix": at, **plain, **fields})


@pytest.mark.parametrize("late_s", [-MAX_EARLY_S, 0, 1, MAX_LATE_S])
def test_an_item_with_equal_voice_model_length_and_time_matches(late_s: int):
    one, other = attempt(), item(NOON + late_s)
    found = match([one], [other])
    assert (found.billed, found.not_billed, found.ambiguous) == ([(one, other)], [], [])


@pytest.mark.parametrize(
    "fields",
    [
        {"at": NOON - MAX_EARLY_S - 1},
        {"at": NOON + MAX_LATE_S + 1},
        {"voice_id": "another"},
        {"model_id": "another"},
        {"characters": 41},
        {"characters": 39},
    ],
)
def test_an_item_with_a_difference_does_not_match(fields: dict):
    one = attempt()
    found = match([one], [item(**fields)])
    assert (found.billed, found.not_billed, found.ambiguous) == ([], [one], [])


def test_with_an_empty_history_nothing_was_billed():
    one = attempt()
    assert match([one], []).not_billed == [one]


@pytest.mark.parametrize("fields", [{"voice_id": ""}, {"model_id": ""}, {"voice_id": "", "model_id": ""}])
def test_missing_values_of_the_history_do_not_differ(fields: dict):
    assert len(match([attempt()], [item(**fields)]).billed) == 1


def test_a_deleted_voice_matches_any_voice():
    assert len(match([attempt(voice="")], [item()]).billed) == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"at": None},
        {"characters": 0},
        {"at": None, "characters": 0},
        {"request": None, "id": "\n"},
    ],
    ids=["no time", "no text", "neither", "no id"],
)
def test_an_incomplete_item_makes_an_attempt_ambiguous(fields: dict):
    one = attempt()
    found = match([one], [item(**fields)])
    assert (found.billed, found.not_billed, found.ambiguous) == ([], [], [one])


def test_an_incomplete_item_in_another_voice_does_not():
    assert len(match([attempt()], [item(characters=0, voice_id="another")]).not_billed) == 1


def test_items_and_attempts_match_one_to_one():
    first, second = attempt(NOON), attempt(NOON + 2)
    assert match([second, first], [item()]).billed == [(first, item())]
    assert match([second, first], [item()]).not_billed == [second]
    assert len(match([first], [item(id="a", request="a"), item(id="b", request="b")]).billed) == 1


def test_as_many_attempts_as_possible_are_matched():
    """The older attempt must not take the only item that fits the younger one."""
    old, young = attempt(NOON), attempt(NOON + 40)
    early, late = item(NOON + 35, id="a", request="a"), item(NOON + 90, id="b", request="b")
    assert match([young, old], [late, early]).billed == [(old, early), (young, late)]


def test_a_hundred_thousand_items_are_matched():
    attempts = [attempt(NOON + 100 * number) for number in range(100)]
    items = [
        item(NOON + number % 10_000, id=str(number), request=str(number), characters=41) for number in range(10**5)
    ]
    items += [item(NOON + 100 * number + 1, id=f"ours {number}", request=f"ours {number}") for number in range(100)]
    assert len(match(attempts, items).billed) == 100


@pytest.mark.parametrize(
    ("request_id", "item_id", "expected"),
    [("r", "i", "r"), (None, "i", "i"), (None, "x" * 500, "x" * 128), (None, "\0", "")],
)
def test_the_match_key_fits_into_the_ledger(request_id: str | None, item_id: str, expected: str):
    assert match_key(item(request=request_id, id=item_id)) == expected
