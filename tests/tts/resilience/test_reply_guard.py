"""What can still be speech: any pace that a patient can listen to, and no more than the text can be."""

from itertools import repeat

import pytest

from tts.resilience.reply_guard import DEAD_S, LONGEST_S, Plausible
from voicecare.providers.errors import BadRequest, Stalled

RATE = 16_000.0


def feed(reads: list[tuple[int, float]], characters: int = 100) -> None:
    reply = Plausible(characters, RATE)
    for size, waited_s in reads:
        reply.came(size, waited_s)


@pytest.mark.parametrize(
    "reads",
    [
        [(320_000, 0.1)],  # all at once
        [(1_600, 0.1)] * 300,  # as fast as it plays
        [(160_000, 0.1), (1, 9.0), (1, 1.5), (16_000, 1.9)],  # far ahead, then gaps
        [(8_000, 1.0)] * 18,  # half as fast: nine seconds of silence in sum
    ],
)
def test_it_is_speech(reads: list[tuple[int, float]]):
    feed(reads)


@pytest.mark.parametrize("gap_s", [0.02, 0.5, 1.9])
def test_a_trickle_has_stalled_however_often_something_comes(gap_s: float):
    with pytest.raises(Stalled) as caught:
        feed([*repeat((1, gap_s), round(DEAD_S / gap_s * 1.1))])
    assert caught.value.retryable


def test_a_stream_without_end_is_refused():
    with pytest.raises(BadRequest):
        feed([(int(RATE), 0.1)] * round(LONGEST_S + 101))
    feed([(int(RATE), 0.1)] * round(LONGEST_S + 100))
