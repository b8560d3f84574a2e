"""Measures the noise behind a voice: its level, steady tones and hum, and the echo of the room."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from cloning.samples.analysis.speech import CHUNK_SAMPLES

RATE = 16000
MIN_POWER = 1e-10  # -100 dBFS; avoids the logarithm of zero for digital silence
MAX_SNR_DB = 60.0

_HIGH_PASS_HZ, _HIGH_PASS_ORDER = 80.0, 4
_MIN_SPEECH, _MAX_PAUSE = 0.5, 0.3  # probabilities
_PAUSE_RUN_CHUNKS = 3  # shorter pauses are inside words; longer ones are rare in a room with echo
_MIN_PAUSE_CHUNKS = 6
_LOUDEST_PAUSES = 0.05  # breath and the ends of words, which are not noise
_SILENCE_DB = -45.0  # relative to the voice; quieter pauses do not show the noise during speech ...
_SILENCE_DBFS = -85.0  # ... if they are below this level, too, because a noise gate or an editor has made them
_PERCENTILE_RANGE_EXCESS_DB = 4.0  # the level difference of loud and quiet chunks exceeds the SNR by this
_SPECTRUM_SAMPLES = 2048
_TONE_TO_MEDIAN_RATIO = 3.0  # a tone has at least this power, relative to the median of its neighbours
_MAINS_HZ = (50, 60)
_HARMONICS = 10
_MAINS_TOLERANCE_HZ = 10.0  # the resolution of a spectrum
_DECAY_S = 0.1

Floats = NDArray[np.floating]
Sound = NDArray[np.float32]


def high_passed(sound: Sound) -> Sound:
    """Returns the sound without the frequencies below about 80 Hz, which do not belong to a voice.

    The phase does not change. This removes a constant offset, drift and rumble. `sound` is mono at 16 kHz, full scale
    is 1.
    """
    if not len(sound):
        return sound
    ratio = np.fft.rfftfreq(len(sound), 1 / RATE) / _HIGH_PASS_HZ
    gain = (ratio**_HIGH_PASS_ORDER / np.sqrt(1 + ratio ** (2 * _HIGH_PASS_ORDER))).astype(np.float32)
    return np.fft.irfft(np.fft.rfft(sound - sound.mean()) * gain, len(sound)).astype(np.float32)


def chunk_power(sound: Sound) -> Floats:
    """Returns the mean square of each chunk of CHUNK_SAMPLES samples. A chunk of silence has MIN_POWER."""
    chunks = sound[: len(sound) // CHUNK_SAMPLES * CHUNK_SAMPLES].reshape(-1, CHUNK_SAMPLES)
    return np.asarray(np.mean(np.square(chunks, dtype=np.float64), axis=1) + MIN_POWER)


def snr_db(power: Floats, probabilities: Floats) -> float:
    """Returns how many dB the level of the speech is above the level of the noise in the pauses, at most MAX_SNR_DB.

    `power` and `probabilities` (of speech) have one value for each chunk. The noise level is the mean of all pauses,
    and not of the quietest ones, because noise that comes and goes can be heard, too. If there are no pauses, the
    result is estimated from the quietest and the loudest chunks.
    """
    is_speech = probabilities > _MIN_SPEECH
    is_pause = sliding_window_view(np.pad(probabilities < _MAX_PAUSE, 1), _PAUSE_RUN_CHUNKS).all(axis=1)
    if is_pause.sum() < _MIN_PAUSE_CHUNKS or not is_speech.any():
        low, high = np.percentile(10 * np.log10(power), (10, 90))
        return float(min(high - low - _PERCENTILE_RANGE_EXCESS_DB, MAX_SNR_DB))
    pauses = np.sort(power[is_pause])
    noise = float(pauses[: max(1, int(len(pauses) * (1 - _LOUDEST_PAUSES)))].mean())
    speech = float(power[is_speech].mean())
    if decibels(noise) < min(_SILENCE_DBFS, decibels(speech) + _SILENCE_DB):
        # During speech the noise is not louder than the quietest speech.
        noise = max(noise, float(np.percentile(power[is_speech], 2)))
    voice = max(speech - noise, noise / 100)
    return min(decibels(voice) - decibels(noise), MAX_SNR_DB)


def tone_ratios(windows: list[Sound], speech_by_window: list[Floats]) -> tuple[float, float]:
    """Returns two parts (0..1) of the noise power: of steady tones, and of mains hum (50 or 60 Hz and its harmonics).

    Both are 0 if there are no pauses in which the noise can be measured. `speech_by_window` has the probability of
    speech of each chunk of each window.
    """
    count = _SPECTRUM_SAMPLES // CHUNK_SAMPLES
    pauses = []  # sections without speech, each as long as one spectrum
    for window, probabilities in zip(windows, speech_by_window, strict=True):
        if len(probabilities) >= count:
            is_pause = sliding_window_view(probabilities < _MAX_PAUSE, count).all(axis=1)
            pauses += [window[at * CHUNK_SAMPLES :][:_SPECTRUM_SAMPLES] for at in np.flatnonzero(is_pause)]
    if not pauses:
        return 0.0, 0.0
    shape = np.hanning(_SPECTRUM_SAMPLES)
    spectrum = np.mean([np.abs(np.fft.rfft(pause * shape)) ** 2 for pause in pauses], axis=0)
    hertz = np.fft.rfftfreq(_SPECTRUM_SAMPLES, 1 / RATE)
    neighbours = sliding_window_view(np.pad(spectrum, 10, mode="edge"), 21)
    tones = np.maximum(spectrum - _TONE_TO_MEDIAN_RATIO * np.median(neighbours, axis=1), 0)
    hum = 0.0
    for mains in _MAINS_HZ:
        harmonics = mains * np.arange(1, _HARMONICS + 1)
        is_harmonic = (np.abs(hertz[:, None] - harmonics) <= _MAINS_TOLERANCE_HZ).any(axis=1)
        hum = max(hum, float(tones[is_harmonic].sum()))
    total = max(float(spectrum.sum()), MIN_POWER)
    return float(tones.sum()) / total, hum / total


def decay_db(windows: list[Sound]) -> float:
    """Returns by how many dB the level falls within the 100 ms after loud sound, where it falls fastest.

    The result is low in a room with echo. It is the second percentile of all level changes after loud sound, so that
    single gaps do not count. Speech without echo falls by 20 dB or more. In a hall with a reverberation time of 0.6 s
    it falls by 12 dB. The result is 0 if there is no loud sound.
    """
    step = RATE // 100
    parts = [window[: len(window) // step * step].reshape(-1, step) for window in windows]
    levels = [10 * np.log10(np.mean(np.square(part), axis=1) + MIN_POWER) for part in parts]
    decay_steps = int(_DECAY_S * 100)
    loud = np.percentile(np.concatenate(levels), 90) - 12
    changes = [(level[decay_steps:] - level[:-decay_steps])[level[:-decay_steps] > loud] for level in levels]
    changes_after_loud = np.concatenate(changes)
    return -float(np.percentile(changes_after_loud, 2)) if len(changes_after_loud) else 0.0


def decibels(power: float) -> float:
    return 10 * float(np.log10(max(power, MIN_POWER)))
