"""Decoded frames of any shape into one channel at one rate, with what can only be seen before that is done."""

from fractions import Fraction

import av
import numpy as np
from numpy.typing import NDArray

from cloning.samples.formats import UnreadableAudio

RATE = 16000

_RATES_HZ = range(8000, 192_001)
_MAX_CHANNELS = 8
_SCALES = {"u8": (128.0, 128.0), "s16": (0.0, 2.0**15), "s32": (0.0, 2.0**31)}  # silence and full scale; floats: 0, 1
_CLIPPING_LEVEL = 0.99  # eight bits reach no more
_DEAD_CHANNEL_POWER_RATIO = 1e-4  # of the loudest channel's power: 40 dB below
_CANCELLATION_POWER_RATIO = 0.05  # of the channels' power is left in their mix
_MIN_AUDIBLE_POWER = 1e-8  # of full scale, as power

Samples = NDArray[np.float32]


class Downmixer:
    """Takes one recording's frames in order. Raises UnreadableAudio for a shape that no recorder makes, or that
    changes.
    """

    def __init__(self, first: av.AudioFrame) -> None:
        self.rate, self.channels = _shape(first)
        if self.rate not in _RATES_HZ or not 1 <= self.channels <= _MAX_CHANNELS:
            raise UnreadableAudio("odd_shape")
        self.samples = 0
        self._pending: list[Samples] = []
        self._pending_samples = 0
        self._clipped_samples = 0
        self._power = np.zeros(self.channels)  # sums of squares
        self._mix_power = 0.0
        self._resampler = av.AudioResampler("s16", "mono", RATE)
        self._resampled: list[NDArray[np.int16]] = []

    def add(self, frame: av.AudioFrame) -> None:
        if _shape(frame) != (self.rate, self.channels):
            raise UnreadableAudio("damaged")
        self.samples += frame.samples
        self._pending.append(_to_planar_float(frame))
        self._pending_samples += frame.samples
        # Pieces of a second: a thousand samples at a time would cost more in calls than in arithmetic.
        if self._pending_samples >= self.rate:
            self._mix_pending()

    def finish(self) -> NDArray[np.int16]:
        """All of it, at RATE."""
        if self._pending:
            self._mix_pending()
        self._resample(None)
        return np.concatenate(self._resampled) if self._resampled else np.zeros(0, np.int16)

    @property
    def clipping_ratio(self) -> float:
        return self._clipped_samples / max(self.samples * self.channels, 1)

    @property
    def dead_channels(self) -> int:
        """Channels with nothing in them, while another one has."""
        return int(np.sum(self._power <= self._power.max() * _DEAD_CHANNEL_POWER_RATIO)) if self._power.any() else 0

    @property
    def channels_cancel(self) -> bool:
        """Whether the channels are each other's mirror image: played together, nothing is left."""
        mean = float(self._power.mean())
        return mean > self.samples * _MIN_AUDIBLE_POWER and self._mix_power < mean * _CANCELLATION_POWER_RATIO

    def _mix_pending(self) -> None:
        sound = np.concatenate(self._pending, axis=1)
        self._pending, self._pending_samples = [], 0
        if not np.isfinite(sound).all():
            raise UnreadableAudio("damaged")
        sound = np.clip(sound, -1, 1)
        self._clipped_samples += _count_clipped(sound)
        self._power += np.sum(np.square(sound, dtype=np.float64), axis=1)
        mixed = sound.mean(axis=0)
        self._mix_power += float(np.sum(np.square(mixed, dtype=np.float64)))
        # What is left of mirrored channels is none of the voice: one of them is heard in their place.
        self._resample(sound[int(self._power.argmax())] if self.channels_cancel else mixed)

    def _resample(self, mono: Samples | None) -> None:
        """Resampled; None for what the resampler still holds."""
        frame = None
        if mono is not None:
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(mono)[None], format="fltp", layout="mono")
            frame.sample_rate, frame.time_base, frame.pts = self.rate, Fraction(1, self.rate), None
        frames = self._resampler.resample(frame)
        self._resampled += [resampled.to_ndarray().reshape(-1).astype(np.int16) for resampled in frames]


def _shape(frame: av.AudioFrame) -> tuple[int, int]:
    return frame.sample_rate, frame.layout.nb_channels


def _to_planar_float(frame: av.AudioFrame) -> Samples:
    """Channels by samples, full scale is 1."""
    silence, scale = _SCALES.get(frame.format.name.removesuffix("p"), (0.0, 1.0))
    with np.errstate(invalid="ignore", over="ignore"):  # files of floats can hold anything: `_mix` looks
        array: Samples = ((frame.to_ndarray() - silence) / scale).astype(np.float32)
    return array if frame.format.is_planar else array.reshape(-1, frame.layout.nb_channels).T


def _count_clipped(sound: Samples) -> int:
    """Samples at full scale in a row of three or more: a voice touches it for one at a time."""
    at_full_scale = np.abs(sound) >= _CLIPPING_LEVEL
    if not at_full_scale.any():
        return 0
    runs = at_full_scale[:, :-2] & at_full_scale[:, 1:-1] & at_full_scale[:, 2:]
    in_run = np.zeros_like(at_full_scale)
    in_run[:, :-2] |= runs
    in_run[:, 1:-1] |= runs
    in_run[:, 2:] |= runs
    return int(in_run.sum())
