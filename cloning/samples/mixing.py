"""Mixes decoded audio frames to one channel at one sample rate, and measures what is only visible before mixing."""

from fractions import Fraction

import av
import numpy as np
from numpy.typing import NDArray

from cloning.samples.formats import UnreadableAudio

RATE = 16000

_RATES_HZ = range(8000, 192_001)
_MAX_CHANNELS = 8
# Value of silence, and distance to full scale, by sample format. Floats have 0 and 1.
_SCALES = {"u8": (128.0, 128.0), "s16": (0.0, 2.0**15), "s32": (0.0, 2.0**31)}
_CLIPPING_LEVEL = 0.99  # of full scale; samples of eight bits do not exceed it
_DEAD_CHANNEL_POWER_RATIO = 1e-4  # relative to the loudest channel, which is 40 dB louder
_CANCELLATION_POWER_RATIO = 0.05  # power of the mix relative to the mean power of the channels
_MIN_AUDIBLE_POWER = 1e-8  # mean square, relative to full scale

Samples = NDArray[np.float32]  # channels by samples; full scale is 1


class Downmixer:
    """Takes the frames of one recording in order.

    Raises UnreadableAudio if the sample rate or the number of channels is unusual or changes.
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
        silence, scale = _SCALES.get(frame.format.name.removesuffix("p"), (0.0, 1.0))
        # A file of floats can contain NaN and infinity. `_mix_pending` checks for them.
        with np.errstate(invalid="ignore", over="ignore"):
            sound: Samples = ((frame.to_ndarray() - silence) / scale).astype(np.float32)
        self._pending.append(sound if frame.format.is_planar else sound.reshape(-1, self.channels).T)
        self._pending_samples += frame.samples
        # Frames are mixed a second at a time. With a thousand samples, calls would cost more than arithmetic.
        if self._pending_samples >= self.rate:
            self._mix_pending()

    def finish(self) -> NDArray[np.int16]:
        """Returns all samples, resampled to RATE."""
        if self._pending:
            self._mix_pending()
        self._resample(None)
        return np.concatenate(self._resampled) if self._resampled else np.zeros(0, np.int16)

    @property
    def clipping_ratio(self) -> float:
        return self._clipped_samples / max(self.samples * self.channels, 1)

    @property
    def dead_channels(self) -> int:
        """Number of silent channels, if another channel is not silent."""
        return int(np.sum(self._power <= self._power.max() * _DEAD_CHANNEL_POWER_RATIO)) if self._power.any() else 0

    @property
    def channels_cancel(self) -> bool:
        """Whether the channels have opposite phase, so that their mix is nearly silent."""
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
        # The mix of channels with opposite phase does not contain the voice. The loudest channel is used instead.
        self._resample(sound[int(self._power.argmax())] if self.channels_cancel else mixed)

    def _resample(self, mono: Samples | None) -> None:
        """Resamples `mono` and stores the result. None flushes the resampler."""
        frame = None
        if mono is not None:
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(mono)[None], format="fltp", layout="mono")
            frame.sample_rate, frame.time_base, frame.pts = self.rate, Fraction(1, self.rate), None
        frames = self._resampler.resample(frame)
        self._resampled += [resampled.to_ndarray().reshape(-1).astype(np.int16) for resampled in frames]


def _shape(frame: av.AudioFrame) -> tuple[int, int]:
    return frame.sample_rate, frame.layout.nb_channels


def _count_clipped(sound: Samples) -> int:
    """Counts samples in runs of three or more at full scale. An undistorted voice reaches it for single samples."""
    at_full_scale = np.abs(sound) >= _CLIPPING_LEVEL
    if not at_full_scale.any():
        return 0
    runs = at_full_scale[:, :-2] & at_full_scale[:, 1:-1] & at_full_scale[:, 2:]
    in_run = np.zeros_like(at_full_scale)
    in_run[:, :-2] |= runs
    in_run[:, 1:-1] |= runs
    in_run[:, 2:] |= runs
    return int(in_run.sum())
