"""Measures the sound quality of a recording. `acceptance` decides what the results mean.

Recordings of up to ANALYZED_S seconds are analyzed completely. Of a longer recording, windows spread over it are
analyzed. tests/cloning check the results with mixtures of speech, noise of a known level, and other voices.
"""

import numpy as np
from numpy.typing import NDArray

from cloning.samples.analysis import noise, voices
from cloning.samples.analysis.noise import decibels
from cloning.samples.analysis.speech import CHUNK_SAMPLES, speech_probabilities
from cloning.samples.decoding import DecodedSample
from cloning.samples.measurements import AudioMetrics
from cloning.samples.mixing import RATE

ANALYZED_S = 300

_WINDOW_S = 10
_MIN_WINDOW_SAMPLES = 4096
_MIN_SPEECH_PROBABILITY = 0.5
_MAX_SILENCE_PROBABILITY = 0.15  # of speech; silence at the ends is cut off, so a whisper must not be among it
_USUAL_PEAK_POWER = 0.02  # of the loud chunks; the speech detector needs this level
_MAX_GAIN = 300.0

Sound = NDArray[np.float32]


def analyze(sample: DecodedSample) -> AudioMetrics:
    """Measures a decoded recording of any length."""
    windows = [noise.high_passed(window) for window in _select_windows(sample.sound)]
    power_by_window = [noise.chunk_power(window) for window in windows]
    power = np.concatenate(power_by_window)
    gain = np.float32(np.clip(np.sqrt(_USUAL_PEAK_POWER / np.percentile(power, 95)), 1, _MAX_GAIN))
    speech_by_window = [speech_probabilities(np.clip(window * gain, -1, 1)) for window in windows]
    probabilities = np.concatenate(speech_by_window)
    is_speech = probabilities > _MIN_SPEECH_PROBABILITY
    speech_ratio = float(is_speech.mean())
    silent_end_chunks = int(np.argmax(is_speech[::-1])) if is_speech.any() else len(is_speech)
    may_be_speech = probabilities > _MAX_SILENCE_PROBABILITY
    has_ends = len(windows) == 1 and is_speech.any()
    quiet_chunks = [int(np.argmax(chunks)) if has_ends else 0 for chunks in (may_be_speech, may_be_speech[::-1])]
    offset = float(sample.sound.mean()) / 32768 if len(sample.sound) else 0.0
    peak = float(np.abs(sample.sound - np.float32(offset * 32768)).max(initial=0)) / 32768
    loudness = decibels(power[is_speech].mean()) if is_speech.any() else decibels(power.mean())
    tone_ratio, hum_ratio = noise.tone_ratios(windows, speech_by_window)
    other_voice = voices.compare_voices(windows, speech_by_window)
    return AudioMetrics(
        codec=sample.codec,
        sample_rate_hz=sample.sample_rate_hz,
        channels=sample.channels,
        duration_s=sample.duration_s,
        is_cut_short=sample.is_cut_short,
        is_incomplete=sample.is_incomplete,
        clipping_ratio=sample.clipping_ratio,
        dead_channels=sample.dead_channels,
        channels_cancel=sample.channels_cancel,
        offset=offset,
        peak_dbfs=decibels(peak**2),
        speech_ratio=speech_ratio,
        speech_s=speech_ratio * sample.duration_s,
        silent_end_s=sample.duration_s * silent_end_chunks / max(len(is_speech), 1),
        quiet_start_s=quiet_chunks[0] * CHUNK_SAMPLES / RATE,
        quiet_end_s=quiet_chunks[1] * CHUNK_SAMPLES / RATE,
        snr_db=noise.snr_db(power, probabilities),
        loudness_dbfs=loudness,
        crest_db=max(decibels(float(np.square(window).max())) for window in windows) - loudness,
        tone_ratio=tone_ratio,
        hum_ratio=hum_ratio,
        decay_db=noise.decay_db(windows),
        voice_similarity=other_voice.similarity,
        minority_voice_ratio=other_voice.minority_ratio,
        overlap_ratio=voices.overlap_ratio(windows),
    )


def _select_windows(sound: NDArray[np.int16]) -> list[Sound]:
    """Returns the parts of a recording that are analyzed, as floats with full scale 1.

    A recording of up to ANALYZED_S seconds is one window. Of a longer recording, windows of 10 s are taken at regular
    intervals, ANALYZED_S seconds in total.
    """
    size, count = _WINDOW_S * RATE, ANALYZED_S // _WINDOW_S
    if len(sound) <= size * count:
        starts, size = np.zeros(1, dtype=int), max(len(sound), _MIN_WINDOW_SAMPLES)
    else:
        starts = np.linspace(0, len(sound) - size, count).astype(int)
    padded = np.pad(sound, (0, max(0, size - len(sound))))
    return [np.asarray(padded[start : start + size] / 32768, np.float32) for start in starts]
