"""The pacer against playback that is calculated by hand, and against a simulation in small steps."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tts.synthesis.pacing import MAX_LEAD_BYTES, MAX_LEAD_S, Pacer

RATE = 1000.0  # bytes per second, so a size in bytes is its length in milliseconds


def send_segment(pacer: Pacer, *sizes: int, now: float = 0.0) -> None:
    """Send one segment as the pipeline does."""
    pacer.start_segment()
    for size in sizes:
        pacer.record_sent(size, now)


def test_the_first_two_segments_are_requested_immediately():
    pacer = Pacer(RATE)
    assert pacer.delay_until_next(100.0) == 0.0
    send_segment(pacer, 1500, 1500, now=100.0)
    assert pacer.delay_until_next(100.0) == 0.0


def test_the_third_segment_waits_until_the_second_plays():
    pacer = Pacer(RATE)
    send_segment(pacer, 3000, now=100.0)
    send_segment(pacer, 2000, now=100.5)
    assert pacer.delay_until_next(100.5) == pytest.approx(2.5)
    assert pacer.delay_until_next(102.0) == pytest.approx(1.0)
    assert pacer.delay_until_next(103.0) == 0.0


def test_a_requested_segment_without_audio_delays_the_next_one():
    pacer = Pacer(RATE)
    send_segment(pacer, 3000)
    pacer.start_segment()
    assert pacer.delay_until_next(1.0) == pytest.approx(2.0)


def test_requests_stop_at_eight_seconds_of_lead():
    pacer = Pacer(RATE)
    send_segment(pacer, 20_000)
    assert pacer.buffered_seconds(0.0) == 20.0
    assert pacer.delay_until_next(0.0) == pytest.approx(20.0 - MAX_LEAD_S)
    assert pacer.delay_until_next(12.0) == 0.0


def test_requests_stop_at_half_a_mebibyte_of_lead():
    pacer = Pacer(100_000.0)
    send_segment(pacer, MAX_LEAD_BYTES + 50_000)
    assert pacer.buffered_seconds(0.0) < MAX_LEAD_S
    assert pacer.delay_until_next(0.0) == pytest.approx(0.5)


def test_playback_pauses_without_audio_and_continues_with_the_next_frame():
    pacer = Pacer(RATE)
    send_segment(pacer, 1000, now=0.0)
    assert pacer.buffered_seconds(5.0) == 0.0
    send_segment(pacer, 2000, now=5.0)
    assert pacer.buffered_seconds(5.0) == 2.0
    send_segment(pacer, 1000, now=5.0)
    assert pacer.delay_until_next(5.5) == pytest.approx(1.5)


def test_a_repeated_segment_keeps_its_start():
    pacer = Pacer(RATE)
    send_segment(pacer, 1000)
    send_segment(pacer, 500)
    pacer.record_sent(3000, 0.2)
    assert pacer.delay_until_next(0.2) == pytest.approx(0.8)


def test_progress_corrects_the_estimate_in_both_directions():
    pacer = Pacer(RATE)
    send_segment(pacer, 4000)
    pacer.record_progress(500, 1.0)
    assert pacer.buffered_seconds(1.0) == pytest.approx(3.5)
    assert pacer.buffered_seconds(2.0) == pytest.approx(2.5)
    pacer.record_progress(2500, 2.0)
    assert pacer.buffered_seconds(2.0) == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("ms", "lead"),
    [(9_999_999, 0.0), (10**400, 0.0), (1999, 2.0), (-1, 2.0), (-(10**400), 2.0)],
)
def test_impossible_progress_is_limited(ms: int, lead: float):
    pacer = Pacer(RATE)
    send_segment(pacer, 4000)
    pacer.record_progress(2000, 1.0)
    pacer.record_progress(ms, 1.0)
    assert pacer.buffered_seconds(1.0) == pytest.approx(lead)


def test_progress_before_any_audio_has_no_effect():
    pacer = Pacer(RATE)
    pacer.record_progress(3000, 0.0)
    send_segment(pacer, 2000, now=1.0)
    assert pacer.buffered_seconds(1.0) == 2.0


def test_a_clock_that_goes_back_does_not_undo_playback():
    pacer = Pacer(RATE)
    send_segment(pacer, 2000, now=10.0)
    assert pacer.buffered_seconds(9.0) == 2.0


frames = st.lists(st.tuples(st.integers(0, 3000), st.integers(1, 60_000), st.booleans()), min_size=1, max_size=30)


@given(frames)
def test_the_estimate_equals_a_simulation_in_milliseconds(script: list[tuple[int, int, bool]]):
    """Each row: milliseconds to wait, a frame's size, and whether it starts a segment. One byte plays in 1 ms."""
    pacer, sent, played, now = Pacer(RATE), 0, 0, 0
    for gap, size, begins in script:
        now, played = now + gap, min(played + gap, sent)
        if begins:
            pacer.start_segment()
        pacer.record_sent(size, now / 1000)
        sent += size
        assert pacer.buffered_seconds(now / 1000) == pytest.approx((sent - played) / 1000, abs=1e-6)


@given(frames, st.integers(0, 100_000))
def test_after_the_delay_there_is_no_further_delay(script: list[tuple[int, int, bool]], reported_ms: int):
    pacer, now = Pacer(16_000.0), 0.0
    for gap, size, begins in script:
        now += gap / 1000
        if begins:
            pacer.start_segment()
        pacer.record_sent(size, now)
    pacer.record_progress(reported_ms, now)
    wait = pacer.delay_until_next(now)
    assert wait >= 0.0
    assert pacer.delay_until_next(now + wait) == 0.0
    assert pacer.buffered_seconds(now + wait) <= MAX_LEAD_S + 0.01
