"""The estimated playback of one device: its small buffer, what was heard, and acknowledgements that come too early."""

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tts.devices.playback import FILL, FIRST_PART_FILL, FIRST_PART_S, KEPT_SPEECHES, Playback

A, B = uuid.uuid4(), uuid.uuid4()


class Rig:
    """A playback, and what was saved of it."""

    def __init__(self, buffer_s: float | None = 2.4) -> None:
        self.saved: list[tuple[uuid.UUID, int]] = []
        self.playback = Playback(lambda utterance, ms: self.saved.append((utterance, ms)))
        self.playback.buffer_s = buffer_s

    def speech(
        self, speech_id: str, seconds: float, now: float, utterance: uuid.UUID = A, *, ends: bool = True
    ) -> None:
        self.playback.begin(speech_id, utterance)
        self.playback.record_sent(seconds, now)
        if ends:
            self.playback.end(speech_id, now, is_discarded=False)


def test_there_is_room_for_everything_without_a_buffer():
    rig = Rig(None)
    rig.speech("a", 60, 0.0)
    assert rig.playback.room_s(0.0, is_first=False) == float("inf")


def test_the_buffer_is_filled_to_a_part_and_drains_in_real_time():
    rig = Rig()
    assert rig.playback.room_s(0.0, is_first=True) == pytest.approx(2.4 * FILL)
    rig.speech("a", 2.4 * FILL, 0.0, ends=False)
    assert rig.playback.room_s(0.0, is_first=False) == 0.0
    assert rig.playback.room_s(0.5, is_first=False) == pytest.approx(0.5)
    assert rig.playback.room_s(60.0, is_first=False) == pytest.approx(2.4 * FILL)


def test_the_buffer_is_shared_by_the_speeches_of_the_device():
    rig = Rig()
    rig.speech("a", 1.5, 0.0)
    rig.speech("b", 0.4, 0.0)
    assert rig.playback.room_s(0.0, is_first=False) == pytest.approx(2.4 * FILL - 1.9)


def test_the_next_speech_begins_immediately_but_many_short_ones_do_not_overflow():
    rig = Rig()
    rig.speech("a", 2.4 * FILL, 0.0)
    for number in range(20):
        room_s = rig.playback.room_s(0.0, is_first=True)
        assert room_s <= FIRST_PART_S
        if number == 0:
            assert room_s == pytest.approx(FIRST_PART_S)
        rig.speech(f"b{number}", room_s, 0.0)
    assert rig.playback.buffered_seconds(0.0) == pytest.approx(2.4 * FIRST_PART_FILL)


def test_progress_of_an_earlier_speech_corrects_the_estimate():
    rig = Rig()
    rig.speech("a", 1.0, 0.0)
    rig.speech("b", 0.8, 0.0)
    rig.playback.record_progress("a", 200, 0.5)  # it began late
    assert rig.playback.buffered_seconds(0.5) == pytest.approx(1.6)
    rig.playback.record_progress("b", 100, 0.6)
    assert rig.playback.buffered_seconds(0.6) == pytest.approx(0.7)
    rig.playback.record_progress("a", 900, 0.6)  # overtaken by the report before
    assert rig.playback.buffered_seconds(0.6) == pytest.approx(0.7)


@pytest.mark.parametrize("ms", [0, 1001, 10**400])
def test_impossible_progress_is_limited(ms: int):
    rig = Rig()
    rig.speech("a", 1.0, 0.0)
    rig.playback.record_progress("a", ms, 0.0)
    assert 0.0 <= rig.playback.buffered_seconds(0.0) <= 1.0


def test_an_interruption_makes_room():
    rig = Rig()
    rig.speech("srv-1", 0.5, 0.0)
    rig.speech("a", 1.2, 0.0, ends=False)
    rig.playback.end("a", 0.1, is_discarded=True)
    assert rig.playback.buffered_seconds(0.1) == pytest.approx(0.4)
    rig.speech("b", 0.3, 0.1)
    rig.playback.discard(lambda speech_id: speech_id == "srv-1", 0.2)
    assert rig.playback.buffered_seconds(0.2) == pytest.approx(0.3)
    rig.playback.record_progress("b", 100, 0.3)
    assert rig.playback.buffered_seconds(0.3) == pytest.approx(0.2)


actions = st.lists(
    st.tuples(st.integers(0, 2000), st.sampled_from(["send", "send", "new", "interrupt"])), min_size=1, max_size=60
)


@given(actions, st.integers(500, 5000))
def test_a_device_that_plays_immediately_never_overflows_and_the_estimate_is_its_playback(
    script: list[tuple[int, str]], buffer_ms: int
):
    rig, now, buffered, number = Rig(buffer_ms / 1000), 0.0, 0.0, 0
    rig.playback.begin("s0", A)
    has_audio = False
    for gap_ms, action in script:
        now += gap_ms / 1000
        buffered = max(0.0, buffered - gap_ms / 1000)
        if action == "send":
            room_s = rig.playback.room_s(now, is_first=not has_audio)
            rig.playback.record_sent(room_s, now)
            buffered, has_audio = buffered + room_s, True
        elif action == "new":
            rig.playback.end(f"s{number}", now, is_discarded=False)
            number, has_audio = number + 1, False
            rig.playback.begin(f"s{number}", A)
        else:
            rig.playback.discard(lambda _: True, now)
            buffered = 0.0
        assert buffered <= buffer_ms / 1000 * FIRST_PART_FILL + 1e-6
        if number < KEPT_SPEECHES:
            assert rig.playback.buffered_seconds(now) == pytest.approx(buffered, abs=1e-6)


# How much was heard


def test_what_was_heard_is_saved_once_when_it_was_heard_to_its_end():
    rig = Rig()
    rig.speech("a", 2.0, 0.0)
    for ms in (500, 1000, 1500):
        rig.playback.record_progress("a", ms, ms / 1000)
    assert rig.saved == []
    rig.playback.record_progress("a", 1900, 1.9)
    rig.playback.save_all()
    assert rig.saved == [(A, 1900)]


def test_what_was_heard_is_saved_when_the_next_speech_is_heard():
    rig = Rig()
    rig.speech("a", 2.0, 0.0)
    rig.playback.record_progress("a", 700, 0.7)
    rig.speech("b", 1.0, 0.8, B)
    assert rig.saved == []
    rig.playback.record_progress("b", 10, 0.9)
    assert rig.saved == [(A, 700)]


@pytest.mark.parametrize("how", ["interrupted", "connection ended", "forgotten"])
def test_what_was_heard_is_saved_at_the_end(how: str):
    rig = Rig()
    rig.speech("a", 5.0, 0.0, ends=False)
    rig.playback.record_progress("a", 700, 0.7)
    if how == "interrupted":
        rig.playback.end("a", 0.8, is_discarded=True)
    elif how == "connection ended":
        rig.playback.save_all()
    else:
        for number in range(KEPT_SPEECHES):
            rig.speech(f"b{number}", 1.0, 1.0, B)
    assert rig.saved == [(A, 700)]


def test_nothing_is_saved_of_a_device_without_progress():
    rig = Rig()
    rig.speech("a", 1.0, 0.0)
    rig.playback.record_progress("unknown", 5, 0.0)
    rig.playback.save_all()
    assert rig.saved == []


# Acknowledgements


def test_an_ack_before_half_of_the_sound_is_doubtful():
    rig = Rig()
    rig.speech("srv-1", 4.0, 10.0)
    assert rig.playback.is_doubtful_ack("srv-1", 11.9)
    assert not rig.playback.is_doubtful_ack("srv-1", 12.1)


def test_an_ack_before_the_end_was_sent_is_doubtful():
    rig = Rig()
    rig.speech("srv-1", 2.0, 0.0, ends=False)
    assert rig.playback.is_doubtful_ack("srv-1", 60.0)


def test_a_device_that_knows_nothing_of_playback_is_not_doubted():
    """It may acknowledge what it has received, as before."""
    rig = Rig(None)
    rig.speech("srv-1", 4.0, 0.0)
    assert not rig.playback.is_doubtful_ack("srv-1", 0.0)
    rig.playback.record_progress("srv-1", 0, 0.0)
    assert rig.playback.is_doubtful_ack("srv-1", 0.0)


def test_a_speech_that_is_not_played_here_is_not_doubted():
    rig = Rig()
    rig.playback.begin("srv-1", A)
    assert not rig.playback.is_doubtful_ack("srv-1", 0.0)  # no audio yet: it was heard over an earlier connection
    assert not rig.playback.is_doubtful_ack("srv-2", 0.0)


def test_the_last_delivery_of_an_id_counts():
    rig = Rig()
    rig.speech("srv-1", 4.0, 0.0)
    rig.speech("srv-1", 4.0, 10.0)
    assert rig.playback.is_doubtful_ack("srv-1", 11.0)
