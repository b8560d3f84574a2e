"""Voiceprints: vectors that represent how a voice sounds. Sounds of the same voice have similar vectors.

The network is CAM++ (https://arxiv.org/abs/2303.00332), trained on many thousand voices. `models/README.md` says where
its weights come from. It reads the spectra that Kaldi computes: 80 mel bands of a frame of 25 ms, every 10 ms.
"""

from functools import cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from cloning.samples.analysis import networks

RATE = 16000
WINDOW_SAMPLES = 2 * RATE

_FRAME_SAMPLES, _HOP_SAMPLES, _FFT_SAMPLES = 400, 160, 512
_BANDS, _LOWEST_HZ, _HIGHEST_HZ = 80, 20.0, 8000.0
_PREEMPHASIS = 0.97
_FULL_SCALE = 32768.0  # the network was trained with 16-bit samples
_MIN_POWER = 1.2e-7
_WINDOWS_AT_ONCE = 4  # limits the memory for intermediate results

Floats = NDArray[np.float32]


def voiceprints(windows: Floats) -> Floats:
    """Returns the voiceprint of each row, a vector with the Euclidean length 1.

    A row of `windows` is WINDOW_SAMPLES samples of speech at RATE.
    """
    network = networks.load("campplus")
    batches = np.array_split(windows, range(_WINDOWS_AT_ONCE, len(windows), _WINDOWS_AT_ONCE))
    vectors = np.concatenate([network.run(None, {"features": _mel_spectra(batch)})[0] for batch in batches])
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6))


def _mel_spectra(windows: Floats) -> Floats:
    """Returns the logarithmic power in mel bands, with the shape (windows, frames, bands). The mean of a band is 0."""
    frames = sliding_window_view(windows * _FULL_SCALE, _FRAME_SAMPLES, axis=1)[:, ::_HOP_SAMPLES]
    frames = frames - frames.mean(axis=2, keepdims=True)
    previous = np.concatenate([frames[..., :1], frames[..., :-1]], axis=2)
    shape = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(_FRAME_SAMPLES) / (_FRAME_SAMPLES - 1))) ** 0.85
    spectra = np.abs(np.fft.rfft((frames - _PREEMPHASIS * previous) * shape, _FFT_SAMPLES)) ** 2
    levels = np.log(np.maximum(spectra @ _mel_filters(), _MIN_POWER))
    return np.asarray(levels - levels.mean(axis=1, keepdims=True), np.float32)


@cache
def _mel_filters() -> NDArray[np.float64]:
    """Returns the weight of each frequency bin in each mel band, with the shape (bins, bands)."""
    edges = np.linspace(_mel(np.array(_LOWEST_HZ)), _mel(np.array(_HIGHEST_HZ)), _BANDS + 2)
    bins = _mel(np.fft.rfftfreq(_FFT_SAMPLES, 1 / RATE))[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return np.maximum(0, np.minimum(rising, falling))


def _mel(hertz: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.asarray(1127 * np.log(1 + hertz / 700), np.float64)
