"""The numbers of a speech's attempts in the ledger: no two readings of a text share one."""

import uuid

import pytest

from tests.tts import examples
from tts.outbox.claim import Claim
from tts.speech import ATTEMPT_STRIDE, Speech, attempt_number


@pytest.mark.parametrize(
    ("reading", "first", "second"),
    [
        ({}, 1, 2),
        ({"repeats": 1}, 1_001, 1_002),
        ({"repeats": 2}, 2_001, 2_002),
        ({"delivery": 1}, 1_001, 1_002),
        ({"delivery": 3}, 3_001, 3_002),
        ({"takeovers": 1, "repeats": 1}, 1_001_001, 1_001_002),
        ({"takeovers": 2, "repeats": 1}, 2_001_001, 2_001_002),
        ({"takeovers": 2, "repeats": 3}, 2_003_001, 2_003_002),
    ],
)
def test_each_reading_of_a_text_has_its_own_range_of_numbers(reading: dict[str, int], first: int, second: int):
    assert (attempt_number(1, **reading), attempt_number(2, **reading)) == (first, second)


def test_an_attempt_that_follows_another_speech_has_the_number_before_the_first():
    assert [attempt_number(0, delivery=2), attempt_number(1, delivery=2)] == [
        2 * ATTEMPT_STRIDE,
        2 * ATTEMPT_STRIDE + 1,
    ]


def claimed(attempt: int) -> Speech:
    claim = Claim(
        id=uuid.uuid4(),
        owner="owner",
        attempt=attempt,
        patient_id=uuid.uuid4(),
        text="Tea is ready.",
        origin="server",
        client_speech_id="",
        conversation_id=None,
        expires_at=None,
        seconds_left=None,
        was_queued=False,
    )
    return examples.speech(claim=claim)


def test_a_delivery_is_numbered_by_its_claim():
    assert [claimed(attempt).attempt_number(1) for attempt in (1, 2)] == [1_001, 2_001]


def test_a_speech_that_begins_again_gets_new_numbers():
    speech = examples.speech()
    before = speech.attempt_number(1)
    speech.progress.repeated()
    assert (before, speech.attempt_number(1)) == (1, 1_001)


def test_a_deferred_speech_gets_new_numbers_in_this_connection_and_in_the_next():
    here, there = examples.speech(), examples.speech(takeovers=1)
    for speech in (here, there):
        speech.progress.deferred(owner="", expires_at_monotonic=900.0)
    assert (here.attempt_number(1), there.attempt_number(1)) == (1_001, 1_001_001)


def test_a_new_speech_has_no_progress():
    new = examples.speech().progress
    assert (new.state, new.source, new.code) == ("waiting", "", "")
    assert (new.characters, new.bytes_sent, new.first_chunk_ms, new.spoken_at) == (0, 0, None, None)


def test_two_speeches_are_equal_only_if_they_are_the_same():
    """The recorder and the session tell them apart by identity: two may have the same id, text and times."""
    one, other = examples.speech("greeting"), examples.speech("greeting")
    assert one != other
    assert one.utterance_id != other.utterance_id
