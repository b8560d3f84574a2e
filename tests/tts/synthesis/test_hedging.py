"""When a second request may be sent, and how many characters they take together."""

import random

from tts.synthesis.hedging import MAX_SAVED_CHARACTERS, MIN_ANSWERS, MIN_DELAY_S, HedgePolicy

MODEL = "eleven_flash_v2_5"


def experienced(share: float, *answers: float) -> HedgePolicy:
    policy = HedgePolicy(share)
    for seconds in answers:
        policy.on_answered(MODEL, seconds)
    return policy


def test_too_few_answers_tell_nothing():
    assert experienced(1, *[0.2] * (MIN_ANSWERS - 1)).delay_s(MODEL) is None
    assert experienced(1, *[0.2] * MIN_ANSWERS).delay_s(MODEL) == 0.5
    assert experienced(1, *[0.2] * MIN_ANSWERS).delay_s("another_model") is None


def test_late_answers_do_not_move_the_delay():
    answers = [0.2] * 92 + [2.0] * 8
    random.Random(1).shuffle(answers)
    assert experienced(1, *answers).delay_s(MODEL) == 0.5


def test_a_very_fast_provider_has_a_tenth_of_a_second():
    assert experienced(1, *[0.01] * MIN_ANSWERS).delay_s(MODEL) == MIN_DELAY_S


def test_without_a_share_there_is_no_second_request():
    policy = experienced(0, *[0.2] * MIN_ANSWERS)
    policy.on_requested(1_000_000)
    assert policy.delay_s(MODEL) is None
    assert not policy.take(1)


def test_the_share_holds_at_every_moment():
    policy, chance = HedgePolicy(0.03), random.Random(1)
    requested = twice = 0
    for _ in range(10_000):
        characters = chance.randrange(1, 400)
        requested += characters
        policy.on_requested(characters)
        if chance.random() < 0.2 and policy.take(characters):
            twice += characters
        assert twice <= 0.03 * requested
    assert twice > 0.028 * requested


def test_the_allowance_of_a_quiet_time_is_limited():
    policy = HedgePolicy(0.03)
    for _ in range(10_000):
        policy.on_requested(400)
    assert policy.take(MAX_SAVED_CHARACTERS)
    assert not policy.take(1)
