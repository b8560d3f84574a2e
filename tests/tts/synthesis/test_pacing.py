"""Pacing against a playback that is worked out by hand, and against one simulated in small steps."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tts.synthesis.pacing import MAX_LEAD_BYTES, MAX_LEAD_S, Pacer

RATE = 1000.0  # bytes per second, so a size in bytes is its length in milliseconds


def handed_over(pacing: Pacer, *sizes: int, now: float = 0.0) -> None:
    """One segment, as the road hands it over."""
    pacing.start_segment()
    for size in sizes:
        pacing.record_sent(size, now)


def test_the_first_two_segments_are_requested_immediately():
    pacing = Pacer(RATE)
    assert pacing.delay_until_next(100.0) == 0.0
    handed_over(pacing, 1500, 1500, now=100.0)
    assert pacing.delay_until_next(100.0) == 0.0


def test_the_third_segment_waits_until_the_second_plays():
    pacing = Pacer(RATE)
    handed_over(pacing, 3000, now=100.0)
    handed_over(pacing, 2000, now=100.5)
    assert pacing.delay_until_next(100.5) == pytest.approx(2.5)
    assert pacing.delay_until_next(102.0) == pytest.approx(1.0)
    assert pacing.delay_until_next(103.0) == 0.0


def test_a_requested_segment_without_audio_delays_the_next_one():
    pacing = Pacer(RATE)
    handed_over(pacing, 3000)
    pacing.start_segment()
    assert pacing.delay_until_next(1.0) == pytest.approx(2.0)


def test_requests_stop_at_eight_seconds_of_lead():
    pacing = Pacer(RATE)
    handed_over(pacing, 20_000)
    assert pacing.buffered_seconds(0.0) == 20.0
    assert pacing.delay_until_next(0.0) == pytest.approx(20.0 - MAX_LEAD_S)
    assert pacing.delay_until_next(12.0) == 0.0


def test_requests_stop_at_half_a_mebibyte_of_lead():
    pacing = Pacer(100_000.0)
    handed_over(pacing, MAX_LEAD_BYTES + 50_000)
    assert pacing.buffered_seconds(0.0) < MAX_LEAD_S
    assert pacing.delay_until_next(0.0) == pytest.approx(0.5)


def test_playback_pauses_without_audio_and_continues_with_the_next_frame():
    pacing = Pacer(RATE)
    handed_over(pacing, 1000, now=0.0)
    assert pacing.buffered_seconds(5.0) == 0.0
    handed_over(pacing, 2000, now=5.0)
    assert pacing.buffered_seconds(5.0) == 2.0
    handed_over(pacing, 1000, now=5.0)
    assert pacing.delay_until_next(5.5) == pytest.approx(1.5)


def test_a_repeated_segment_keeps_its_start():
    pacing = Pacer(RATE)
    handed_over(pacing, 1000)
    handed_over(pacing, 500)
    pacing.record_sent(3000, 0.2)
    assert pacing.delay_until_next(0.2) == pytest.approx(0.8)


def test_progress_corrects_the_estimate_in_both_directions():
    pacing = Pacer(RATE)
    handed_over(pacing, 4000)
    pacing.record_progress(500, 1.0)
    assert pacing.buffered_seconds(1.0) == pytest.approx(3.5)
    assert pacing.buffered_seconds(2.0) == pytest.approx(2.5)
    pacing.record_progress(2500, 2.0)
    assert pacing.buffered_seconds(2.0) == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("ms", "lead"),
    [(9_999_999, 0.0), (10**400, 0.0), (1999, 2.0), (-1, 2.0), (-(10**400), 2.0)],
)
def test_impossible_progress_is_limited(ms: int, lead: float):
    pacing = Pacer(RATE)
    handed_over(pacing, 4000)
    pacing.record_progress(2000, 1.0)
    pacing.record_progress(ms, 1.0)
    assert pacing.buffered_seconds(1.0) == pytest.approx(lead)


def test_progress_before_any_audio_has_no_effect():
    pacing = Pacer(RATE)
    pacing.record_progress(3000, 0.0)
    handed_over(pacing, 2000, now=1.0)
    assert pacing.buffered_seconds(1.0) == 2.0


def test_a_clock_that_goes_back_does_not_undo_playback():
    pacing = Pacer(RATE)
    handed_over(pacing, 2000, now=10.0)
    assert pacing.buffered_seconds(9.0) == 2.0


frames = st.lists(st.tuples(st.integers(0, 3000), st.integers(1, 60_000), st.booleans()), min_size=1, max_size=30)


@given(frames)
def test_the_estimate_equals_a_simulation_in_milliseconds(script: list[tuple[int, int, bool]]):
    """Each row: milliseconds to wait, a frame's size, and whether it begins a segment. One byte plays in 1 ms."""
    pacing, sent, played, now = Pacer(RATE), 0, 0, 0
    for gap, size, begins in script:
        now, played = now + gap, min(played + gap, sent)
        if begins:
            pacing.start_segment()
        pacing.record_sent(size, now / 1000)
        sent += size
        assert pacing.buffered_seconds(now / 1000) == pytest.approx((sent - played) / 1000, abs=1e-6)


@given(frames, st.integers(0, 100_000))
def test_after_the_delay_there_is_no_further_delay(script: list[tuple[int, int, bool]], told_ms: int):
    pacing, now = Pacer(16_000.0), 0.0
    for gap, size, begins in script:
        now += gap / 1000
        if begins:
            pacing.start_segment()
        pacing.record_sent(size, now)
    pacing.record_progress(told_ms, now)
    wait = pacing.delay_until_next(now)
    assert wait >= 0.0
    assert pacing.delay_until_next(now + wait) == 0.0
    assert pacing.buffered_seconds(now + wait) <= MAX_LEAD_S + 0.01
