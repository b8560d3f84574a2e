"""Pings against devices that play while they read, and against devices that are gone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tts.protocol.heartbeat import Heartbeat

INTERVAL_S, TIMEOUT_S = 20.0, 30.0  # as in `Procfile`
GONE_WITHIN_S = 60.0


def heartbeat() -> Heartbeat:
    return Heartbeat(INTERVAL_S, TIMEOUT_S, 0.0)


def test_an_idle_device_is_pinged_once_in_an_interval():
    beats = heartbeat()
    assert not beats.is_ping_due(19.9)
    assert beats.is_ping_due(20.0)
    beats.next_ping(20.0)
    assert not beats.is_ping_due(39.9)
    assert beats.is_ping_due(40.0)


def test_pings_are_spread_over_the_audio():
    beats = heartbeat()
    assert not beats.is_ping_due_before_audio(4.9)
    assert beats.is_ping_due_before_audio(5.0)
    beats.next_ping(5.0)
    beats.record_audio(4.9)
    assert not beats.is_ping_due_before_audio(5.0)
    beats.record_audio(0.2)
    assert beats.is_ping_due_before_audio(5.0)


def test_a_device_that_answers_nothing_is_gone_after_the_timeout():
    beats = heartbeat()
    beats.next_ping(20.0)
    beats.next_ping(40.0)
    assert not beats.is_gone(49.9)
    assert beats.is_gone(50.0)


def test_an_answer_counts_for_all_earlier_pings():
    beats = heartbeat()
    beats.next_ping(20.0)
    beats.record_pong(beats.next_ping(40.0), 41.0)
    assert not beats.is_gone(1000.0)


def test_an_unknown_pong_answers_no_ping_but_shows_that_the_device_is_there():
    beats = heartbeat()
    beats.next_ping(20.0)
    beats.record_frame(25.0)
    beats.record_pong(b"unasked", 25.0)
    assert not beats.is_gone(54.9)
    assert beats.is_gone(55.0)


def test_a_device_has_the_time_of_the_audio_in_front_of_a_ping():
    beats = heartbeat()
    beats.record_audio(25.0)
    beats.next_ping(20.0)
    assert not beats.is_gone(54.9)
    assert beats.is_gone(55.0)


def test_the_next_check_is_at_the_next_ping_or_at_the_timeout():
    beats = heartbeat()
    assert beats.next_check_at() == 20.0
    beats.next_ping(20.0)
    assert beats.next_check_at() == 40.0
    beats.next_ping(40.0)
    assert beats.next_check_at() == 50.0


class Simulation:
    """A server that sends audio in chunks and a device that reads frames in order, while it plays, from time 0 on.

    All frames are handed over `lead_s` ahead of a playback in real time. The device plays at `speed`, and it begins
    `late_s` after the first audio. From `gone_at` on it does nothing.
    """

    def __init__(self, chunk_s: float, lead_s: float, *, speed: float, late_s: float, gone_at: float) -> None:
        self.beats = heartbeat()
        self.chunk_s, self.lead_s = chunk_s, lead_s
        self.speed, self.late_s, self.gone_at = speed, late_s, gone_at
        self.sent_s = 0.0
        self.pings: list[tuple[float, bytes]] = []  # position in the audio, payload

    def gone_after(self, seconds: float) -> float | None:
        """Run for so long. Return the time at which the device counted as gone."""
        now = 0.0
        while now < seconds:
            while self.sent_s < now + self.lead_s:
                if self.beats.is_ping_due_before_audio(now):
                    self._ping(now)
                self.beats.record_audio(self.chunk_s)
                self.sent_s += self.chunk_s
            if self.beats.is_ping_due(now):
                self._ping(now)
            if now < self.gone_at:
                self._read(now)
            if self.beats.is_gone(now):
                return now
            now += 0.25
        return None

    def _ping(self, now: float) -> None:
        self.pings.append((self.sent_s, self.beats.next_ping(now)))

    def _read(self, now: float) -> None:
        played_s = max(now - self.late_s, 0.0) * self.speed
        while self.pings and self.pings[0][0] <= played_s:
            self.beats.record_frame(now)
            self.beats.record_pong(self.pings.pop(0)[1], now)


@given(
    chunk_s=st.floats(0.05, 30.0),
    lead_s=st.floats(1.0, 300.0),
    speed=st.floats(0.9, 1.0),
    late_s=st.floats(0.0, 10.0),
)
def test_a_device_that_reads_at_the_pace_of_playback_never_counts_as_gone(
    chunk_s: float, lead_s: float, speed: float, late_s: float
):
    simulation = Simulation(chunk_s, lead_s, speed=speed, late_s=late_s, gone_at=1000.0)
    assert simulation.gone_after(600.0) is None


@given(chunk_s=st.floats(0.05, 5.0), lead_s=st.floats(1.0, 300.0), gone_at=st.floats(0.0, 300.0))
def test_a_device_that_is_gone_is_noticed_within_a_minute(chunk_s: float, lead_s: float, gone_at: float):
    simulation = Simulation(chunk_s, lead_s, speed=1.0, late_s=0.0, gone_at=gone_at)
    noticed_at = simulation.gone_after(400.0)
    assert noticed_at is not None
    assert gone_at < noticed_at <= gone_at + GONE_WITHIN_S


@pytest.mark.parametrize("chunk_s", [10.0, 25.0])
def test_a_reply_in_one_piece_delays_the_notice_by_its_length_at_most(chunk_s: float):
    simulation = Simulation(chunk_s, 36.0, speed=1.0, late_s=0.0, gone_at=100.0)
    noticed_at = simulation.gone_after(400.0)
    assert noticed_at is not None
    assert noticed_at <= 100.0 + TIMEOUT_S + chunk_s + INTERVAL_S / 4
