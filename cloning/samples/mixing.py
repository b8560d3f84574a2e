"""Mixes decoded audio frames to one channel at one sample rate, and measures what cannot be measured after mixing."""

from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

import av
import numpy as np
from numpy.typing import NDArray

from cloning.samples.formats import UnreadableAudio

RATE = 16000

_RATES_HZ = range(8000, 192_001)
_MAX_CHANNELS = 8
_MAX_READABLE_PLANES = 7  # PyAV reads beyond the planes of a frame with eight or more, which kills the process
# Value of silence, and distance to full scale, by sample format. Floats have 0 and 1.
_SCALES = {"u8": (128.0, 128.0), "s16": (0.0, 2.0**15), "s32": (0.0, 2.0**31)}
_CLIPPING_LEVEL = 0.99  # of full scale; samples of eight bits cannot be higher
_DEAD_CHANNEL_POWER_RATIO = 1e-4  # relative to the loudest channel, which is 40 dB louder
_CANCELLATION_POWER_RATIO = 0.05  # power of the mix relative to the mean power of the channels
_MIN_AUDIBLE_POWER = 1e-8  # mean square, relative to full scale
_LEVEL_SAMPLES = RATE // 10
_MIN_RANGE_GAIN_DB = 3.0  # one channel is used if its voice stands out of its noise by this much more than in the mix
_MIN_LEVEL_GAIN_DB = 8.0  # or if it is this much louder; half of two channels is 6 dB

_LOW_AND_HIGH = (10, 95)  # percentiles of the levels: pauses and voice
_MAX_STEADY_RANGE_DB = 10.0
_MAX_FAINT_DB = 25.0
_MIN_CORRELATION = 0.5

Samples = NDArray[np.float32]  # channels by samples; full scale is 1
Levels = NDArray[np.float32]


class Mix(NamedTuple):
    """One channel of sound at RATE.

    `channel` is the index of the channel that was used, or None for the mean of all channels. `channels_cancel` is true
    if the channels have opposite phase, so that their mean is nearly silent.
    """

    sound: NDArray[np.int16]
    channel: int | None
    channels_cancel: bool


def read_samples(frame: av.AudioFrame) -> Samples:
    """Returns the samples of a frame of any sample format, with the shape (channels, samples). Full scale is 1.

    A frame with a float format can contain NaN and infinity.
    """
    if frame.format.is_planar and frame.layout.nb_channels > _MAX_READABLE_PLANES:
        (frame,) = av.AudioResampler(frame.format.packed).resample(frame)
    silence, scale = _SCALES.get(frame.format.name.removesuffix("p"), (0.0, 1.0))
    with np.errstate(invalid="ignore", over="ignore"):
        sound: Samples = ((frame.to_ndarray() - silence) / scale).astype(np.float32)
    return sound if frame.format.is_planar else sound.reshape(-1, frame.layout.nb_channels).T


class MonoResampler:
    """Resamples one channel to a sample rate and a sample format.

    The sample rate of the input can change between calls.
    """

    def __init__(self, sample_format: str, rate: int) -> None:
        self._format, self._rate = sample_format, rate
        self._source_rate = 0
        self._resampler: av.AudioResampler | None = None

    def resample(self, mono: Samples, rate: int) -> Iterator[av.AudioFrame]:
        """Yields resampled frames. `mono` has the next samples of the channel, `rate` is their sample rate in Hz.

        The last samples are kept back until the next call, or until `flush`.
        """
        if self._resampler is None or rate != self._source_rate:
            yield from self.flush()
            self._resampler, self._source_rate = av.AudioResampler(self._format, "mono", self._rate), rate
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(mono)[None], format="fltp", layout="mono")
        frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), None
        yield from self._resampler.resample(frame)

    def flush(self) -> Iterator[av.AudioFrame]:
        """Yields the samples that earlier calls have kept back."""
        if self._resampler is not None:
            yield from self._resampler.resample(None)
        self._resampler = None


class Downmixer:
    """Mixes the frames of one recording, in their order, to one channel.

    `channels` and `rate` are those of the first frame. If the recording was joined from several files, later frames can
    have others: then `changes_shape` becomes true.
    """

    def __init__(self, first: av.AudioFrame) -> None:
        self.rate, self.channels = first.sample_rate, first.layout.nb_channels
        self.duration_s = 0.0
        self.changes_shape = False
        self._pending: list[Samples] = []
        self._pending_shape = 0, 0
        self._pending_samples = self._samples = self._clipped_samples = 0
        self._power = np.zeros(self.channels)  # sums of squares
        self._resamplers = [MonoResampler("s16", RATE) for _ in range(self.channels)]
        self._resampled = [bytearray() for _ in range(self.channels)]

    def add(self, frame: av.AudioFrame) -> None:
        """Adds the next frame.

        Raises UnreadableAudio for an unusual sample rate or number of channels, and for samples that are NaN or
        infinity.
        """
        shape = frame.sample_rate, frame.layout.nb_channels
        if shape != self._pending_shape:
            if shape[0] not in _RATES_HZ or not 1 <= shape[1] <= _MAX_CHANNELS:
                raise UnreadableAudio("odd_shape")
            self._process_pending()
            self.changes_shape |= shape != (self.rate, self.channels)
            self._pending_shape = shape
        self.duration_s += frame.samples / frame.sample_rate
        self._pending.append(read_samples(frame))
        self._pending_samples += frame.samples
        # Frames are processed a second at a time. With a thousand samples, calls would cost more than arithmetic.
        if self._pending_samples >= frame.sample_rate:
            self._process_pending()

    def finish(self) -> Mix:
        """Returns the whole recording as one channel. Call this after the last `add`.

        It is the mean of all channels, or the channel in which the voice is clearest. Raises UnreadableAudio for
        samples that are NaN or infinity.
        """
        self._process_pending()
        for resampler, stored in zip(self._resamplers, self._resampled, strict=True):
            _store(resampler.flush(), stored)
        channels = [np.frombuffer(stored, np.int16) for stored in self._resampled]
        return _best_mix(channels)

    @property
    def clipping_ratio(self) -> float:
        return self._clipped_samples / max(self._samples * self.channels, 1)

    @property
    def dead_channels(self) -> int:
        """The number of silent channels. Zero if all channels are silent."""
        return int(np.sum(self._power <= self._power.max() * _DEAD_CHANNEL_POWER_RATIO)) if self._power.any() else 0

    def _process_pending(self) -> None:
        if not self._pending:
            return
        sound = np.concatenate(self._pending, axis=1)
        rate, channels = self._pending_shape
        self._pending, self._pending_samples = [], 0
        if not np.isfinite(sound).all():
            raise UnreadableAudio("damaged")
        sound = np.clip(sound, -1, 1)
        if channels != self.channels:
            sound = np.broadcast_to(sound.mean(axis=0), (self.channels, sound.shape[1]))
        self._samples += sound.shape[1]
        self._clipped_samples += _count_clipped(sound)
        self._power += np.sum(np.square(sound, dtype=np.float64), axis=1)
        for channel, resampler, stored in zip(sound, self._resamplers, self._resampled, strict=True):
            _store(resampler.resample(channel, rate), stored)


def _store(frames: Iterator[av.AudioFrame], stored: bytearray) -> None:
    for frame in frames:
        stored += frame.to_ndarray().astype(np.int16).tobytes()


def _best_mix(channels: list[NDArray[np.int16]]) -> Mix:
    """Returns the mean of all channels, or a single channel if the voice is clearer in it.

    The voice can be lost in the mean if the channels cancel each other out, or it can be covered by the noise of
    another channel. A single channel is never used if another channel has different sound, as in an interview with a
    microphone for each person. `channels` have the same length and the rate RATE.
    """
    mixed = np.zeros(len(channels[0]), np.float32)
    for channel in channels:
        mixed += channel
    mixed /= len(channels)
    power = [float(np.mean(np.square(channel, dtype=np.float32))) for channel in channels] if len(mixed) else [0.0]
    mix_power = float(np.mean(np.square(mixed))) if len(mixed) else 0.0
    is_audible = np.mean(power) > _MIN_AUDIBLE_POWER * 2**30
    mix = Mix(mixed.astype(np.int16), None, bool(is_audible and mix_power < np.mean(power) * _CANCELLATION_POWER_RATIO))
    if len(channels) == 1 or len(mixed) < 2 * _LEVEL_SAMPLES:
        return mix
    levels = [_levels(channel) for channel in channels]
    mix_levels = _levels(mix.sound)
    best = max(range(len(channels)), key=lambda index: np.ptp(np.percentile(levels[index], _LOW_AND_HIGH)))
    low, high = np.percentile(levels[best], _LOW_AND_HIGH)
    mix_low, mix_high = np.percentile(mix_levels, _LOW_AND_HIGH)
    is_clearer = high - low > mix_high - mix_low + _MIN_RANGE_GAIN_DB or high > mix_high + _MIN_LEVEL_GAIN_DB
    if (mix.channels_cancel or is_clearer) and not any(_has_own_sound(level, levels[best]) for level in levels):
        return mix._replace(sound=channels[best], channel=best)
    return mix


def _has_own_sound(levels: Levels, chosen: Levels) -> bool:
    """Whether a channel has sound that comes and goes at other times than the sound of the chosen channel.

    Faint or steady sound does not count. Both arguments are results of `_levels`.
    """
    low, high = np.percentile(levels, _LOW_AND_HIGH)
    is_faint = high < np.percentile(chosen, _LOW_AND_HIGH[1]) - _MAX_FAINT_DB
    is_steady = high - low < _MAX_STEADY_RANGE_DB
    return not is_faint and not is_steady and float(np.corrcoef(levels, chosen)[0, 1]) < _MIN_CORRELATION


def _levels(sound: NDArray[np.int16]) -> Levels:
    """Returns the level of each tenth of a second in dB relative to full scale. Digital silence counts as -90 dB.

    A constant offset of the samples does not count.
    """
    parts = sound[: len(sound) // _LEVEL_SAMPLES * _LEVEL_SAMPLES].reshape(-1, _LEVEL_SAMPLES)
    return np.asarray(10 * np.log10(parts.var(axis=1, dtype=np.float32) / 2**30 + 1e-9), np.float32)


def _count_clipped(sound: Samples) -> int:
    """Returns the number of clipped samples, which are those in runs of three or more at full scale.

    Shorter runs do not count, because an undistorted voice can reach full scale for a single sample.
    """
    at_full_scale = np.abs(sound) >= _CLIPPING_LEVEL
    if not at_full_scale.any():
        return 0
    runs = at_full_scale[:, :-2] & at_full_scale[:, 1:-1] & at_full_scale[:, 2:]
    in_run = np.zeros_like(at_full_scale)
    in_run[:, :-2] |= runs
    in_run[:, 1:-1] |= runs
    in_run[:, 2:] |= runs
    return int(in_run.sum())
