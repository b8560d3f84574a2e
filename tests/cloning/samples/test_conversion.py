"""The file for the provider: the uploaded one if the provider can read it, else what was inspected."""

from collections.abc import Callable

import numpy as np
import pytest

from cloning.samples.conversion import media_type, replacement
from cloning.samples.decoding import decode
from cloning.samples.formats import MAX_BYTES, MAX_DECODED_S
from cloning.samples.repair import NO_REPAIRS
from tests.cloning.samples.recordings import encoded, id3, mixed, pink, speech, white
from tests.cloning.samples.test_decoding import (
    APE_TAG,
    LOW_RATE,
    RESPONSE_HEADERS,
    SECONDS,
    bare_mp3,
    fragmented,
    id3_with_wrong_size,
    mp3,
    tone,
)

UNCHANGED = {
    "mp3": mp3,
    "mp3 with a cover": lambda: id3(300_000) + mp3(id3v2_version="0"),
    "wav": tone,
    "wav of two channels": lambda: tone(channels=2),
    "m4a": lambda: tone("aac"),
    "alac": lambda: tone("alac"),
    "fragmented": fragmented,
}
STRIPPED = {
    "zeros": bytes(500),
    "response headers": RESPONSE_HEADERS,
    "ape tag": APE_TAG,
    "tag with a wrong size": id3_with_wrong_size(106),
}
CONVERTED = {
    "a-law": lambda: tone("pcm_alaw", container="wav"),
    "ms adpcm": lambda: tone("adpcm_ms", container="wav"),
    "mp3 in wav": lambda: tone("libmp3lame", container="wav"),
    "64 bits of size": lambda: tone(container="wav", rf64="always"),
    "joined mp3": lambda: bare_mp3(seconds=3) + bare_mp3(seconds=3, channels=2, rate=44100),
}


@pytest.mark.parametrize("name", UNCHANGED)
def test_a_usual_file_is_sent_unchanged(name: str):
    sample = decode(UNCHANGED[name]())
    assert replacement(sample, NO_REPAIRS) == b""
    assert media_type(sample, NO_REPAIRS) == f"audio/{'mpeg' if 'mp3' in name else 'wav' if 'wav' in name else 'mp4'}"


@pytest.mark.parametrize("name", STRIPPED)
def test_what_was_skipped_before_an_mp3_is_not_sent(name: str):
    sample = decode(STRIPPED[name] + bare_mp3())
    assert replacement(sample, NO_REPAIRS) == bare_mp3()
    assert media_type(sample, NO_REPAIRS) == "audio/mpeg"


@pytest.mark.parametrize("name", CONVERTED)
def test_a_file_that_the_provider_may_not_read_becomes_an_mp3(name: str):
    make: Callable[[], bytes] = CONVERTED[name]
    sample = decode(make())
    sent = decode(replacement(sample, NO_REPAIRS))
    assert media_type(sample, NO_REPAIRS) == "audio/mpeg"
    assert (sent.codec, sent.channels) == ("mp3", 1)
    assert sent.duration_s == pytest.approx(SECONDS, abs=0.3)
    assert sent.sound.std() == pytest.approx(sample.sound.std(), rel=0.1)


def test_the_rest_of_an_incomplete_recording_is_sent_as_a_whole_file():
    whole = encoded(0.1 * white(90 * LOW_RATE), "libmp3lame", LOW_RATE)
    sample = decode(whole[: int(len(whole) * 0.8)])
    assert sample.is_incomplete
    sent = decode(replacement(sample, NO_REPAIRS))
    assert not sent.is_incomplete
    assert sent.duration_s == pytest.approx(72, abs=1)


def test_only_the_channel_with_the_voice_is_used_and_sent():
    voice = mixed(speech(12, rate=LOW_RATE), pink(12 * LOW_RATE), 40)
    sample = decode(encoded(np.stack([voice, 0.05 * white(len(voice))]), "pcm_s16le", LOW_RATE))
    assert sample.channel == 0
    assert sample.sound.std() == pytest.approx(32768 * voice.std(), rel=0.02)
    assert decode(replacement(sample, NO_REPAIRS)).sound.std() == pytest.approx(32768 * voice.std(), rel=0.1)


def test_a_voice_in_the_centre_of_six_channels_is_not_quiet():
    voice = mixed(speech(12, rate=LOW_RATE), pink(12 * LOW_RATE), 40)
    channels = np.zeros((6, len(voice)))
    channels[2] = voice
    assert decode(encoded(channels, "pcm_s16le", LOW_RATE)).sound.std() == pytest.approx(32768 * voice.std(), rel=0.02)


def test_no_channel_is_chosen_if_each_has_its_own_voice():
    times = np.arange(12 * LOW_RATE) / LOW_RATE
    voices = [mixed(speech(12, rate=LOW_RATE, variant=variant), pink(len(times)), 40) for variant in ("f2", "m3")]
    turns = np.stack([voices[0] * (times % 6 < 3), voices[1] * (times % 6 >= 3)])
    assert decode(encoded(turns, "pcm_s16le", LOW_RATE)).channel is None


def test_a_converted_recording_of_fifteen_minutes_fits():
    """A-law of 8 kHz is the longest format that is converted."""
    long = encoded(0.1 * white(910 * 8000), "pcm_alaw", 8000, container="wav")
    assert len(replacement(decode(long), NO_REPAIRS)) < MAX_BYTES


def test_only_the_checked_part_of_a_recording_over_fifteen_minutes_is_sent():
    sample = decode(encoded(0.1 * white(930 * 8000), "pcm_u8", 8000))
    assert sample.is_cut_short
    assert media_type(sample, NO_REPAIRS) == "audio/mpeg"
    assert len(replacement(sample, NO_REPAIRS)) == pytest.approx(MAX_DECODED_S * 64_000 / 8, rel=0.001)


@pytest.mark.parametrize(("samples", "is_empty"), [(1, True), (2000, False)])
def test_a_recording_of_a_moment_can_be_converted(samples: int, is_empty: bool):
    """The resampler keeps nothing of a single sample."""
    moment = encoded(0.1 * white(samples), "pcm_alaw", 8000, container="wav")
    assert (replacement(decode(moment), NO_REPAIRS) == b"") is is_empty
