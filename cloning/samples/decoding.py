"""Decodes an audio file into one channel at one sample rate, and measures its true duration.

The duration in the header of a file can be wrong. So the whole file is decoded once, up to MAX_DECODED_S. Only the
result with 16,000 samples per second is kept in memory: 29 MB for fifteen minutes of one channel.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO

import av
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from numpy.typing import NDArray

from cloning.samples.formats import CODECS, MAX_DECODED_S, DetectedAudio, UnreadableAudio, detect_format
from cloning.samples.mixing import Downmixer

_CONTAINERS = {"mp3": "mp3", "wav": "wav", "m4a": "mov"}
_MAX_BAD_PACKET_RATIO = 0.01  # of all packets; a few damaged packets are heard as clicks
_MAX_MISSING_FRAME_RATIO = 0.05  # of the frames that an MP3 announces
_MIN_INCOMPLETE_S = 60.0  # the rest of an incomplete recording is enough if it is this long
# Samples of silence that encoders insert before the sound. FFmpeg removes them if the file states their number. If not,
# they are subtracted here. Otherwise a recording of 59.9 s would count as 60 s.
_ENCODER_DELAY_SAMPLES = {"mp3": 1105, "aac": 1024}


@dataclass(frozen=True, slots=True)
class DecodedSample:
    """A decoded recording. `sound` has one channel of signed 16-bit samples at `mixing.RATE`.

    `channel` is the index of the channel that was used, or None for the mean of all channels. `is_cut_short` is true if
    the recording is longer than MAX_DECODED_S, so that its end was not decoded. `is_incomplete` is true if the end of
    the file is missing. `changes_shape` is true if the sample rate or the number of channels changes within the file.
    For `dead_channels` and `channels_cancel` see `mixing`.
    """

    codec: str
    sample_rate_hz: int
    channels: int
    duration_s: float
    is_cut_short: bool
    is_incomplete: bool
    changes_shape: bool
    clipping_ratio: float
    dead_channels: int
    channels_cancel: bool
    channel: int | None
    sound: NDArray[np.int16]
    detected: DetectedAudio


def decode(data: bytes) -> DecodedSample:
    """Decodes the content of an audio file. Raises UnreadableAudio, and no other exception, for any invalid data."""
    detected = detect_format(data)
    downmixer, is_cut_short = None, False
    try:
        with open_container(detected) as container:
            decoder = Decoder(container, detected)
            for frame in decoder.frames():
                downmixer = downmixer or Downmixer(frame)
                downmixer.add(frame)
                if is_cut_short := downmixer.duration_s >= MAX_DECODED_S:
                    break
            if downmixer is None:
                raise UnreadableAudio("damaged")
            mix = downmixer.finish()
            duration_s = float(MAX_DECODED_S)
            is_incomplete = False
            if not is_cut_short:
                duration_s = downmixer.duration_s - decoder.encoder_delay_s(downmixer)
                is_incomplete = decoder.is_incomplete()
            if is_incomplete and duration_s < _MIN_INCOMPLETE_S:
                raise UnreadableAudio("truncated")
            return DecodedSample(
                codec=decoder.codec,
                sample_rate_hz=downmixer.rate,
                channels=downmixer.channels,
                duration_s=duration_s,
                is_cut_short=is_cut_short,
                is_incomplete=is_incomplete,
                changes_shape=downmixer.changes_shape,
                clipping_ratio=downmixer.clipping_ratio,
                dead_channels=downmixer.dead_channels,
                channels_cancel=mix.channels_cancel,
                channel=mix.channel,
                sound=mix.sound,
                detected=detected,
            )
    except (av.FFmpegError, MemoryError) as error:
        raise UnreadableAudio("truncated" if detected.is_incomplete else "damaged") from error


def open_container(detected: DetectedAudio) -> InputContainer:
    """Opens the file with FFmpeg, which is given the container format so that it does not guess one.

    Raises av.FFmpegError.
    """
    return av.open(BytesIO(detected.audio), "r", format=_CONTAINERS[detected.kind], metadata_errors="replace")


class Decoder:
    """Decodes the first audio track of a container packet by packet, and counts the damaged packets.

    The constructor raises UnreadableAudio for a video, and for a file without an audio track in a supported codec.
    """

    def __init__(self, container: InputContainer, detected: DetectedAudio) -> None:
        if any(not stream.disposition & Disposition.attached_pic for stream in container.streams.video):
            raise UnreadableAudio("video")
        if not container.streams.audio:
            raise UnreadableAudio("unknown")
        self._container = container
        self._detected = detected
        self._stream = container.streams.audio[0]
        context = self._stream.codec_context  # None if FFmpeg has no decoder
        self.codec = context.name.removesuffix("float") if context else ""  # `mp3float` is the decoder of `mp3`
        if self.codec not in CODECS[detected.kind]:
            raise UnreadableAudio("unknown")
        self._packets = self._bad_packets = self._longest_frame = self._samples = 0

    def frames(self) -> Iterator[av.AudioFrame]:
        """Yields the decoded frames of the recording. Damaged packets are counted and left out."""
        for packet in self._container.demux(self._stream):
            self._packets += packet.size > 0
            try:
                frames = packet.decode()
            except av.InvalidDataError:
                self._bad_packets += 1
                continue
            for frame in frames:
                self._longest_frame = max(self._longest_frame, frame.samples)
                self._samples += frame.samples
                yield frame

    def is_incomplete(self) -> bool:
        """Whether the end of the file is missing. Call this when all frames have been decoded.

        Raises UnreadableAudio if too many of the existing packets are damaged.
        """
        if self._bad_packets > self._packets * _MAX_BAD_PACKET_RATIO:
            raise UnreadableAudio("truncated" if self._detected.is_incomplete else "damaged")
        announced = self._detected.announced_frames or 0
        return self._detected.is_incomplete or self._packets < announced * (1 - _MAX_MISSING_FRAME_RATIO)

    def encoder_delay_s(self, downmixer: Downmixer) -> float:
        """Returns how many seconds of the decoded sound are the silence that encoders insert at the start.

        The result is 0 if FFmpeg has removed this silence. That is the case if some frames are shorter than the longest
        one. Call this when all frames have been decoded.
        """
        has_delay = (self._packets - self._bad_packets) * self._longest_frame <= self._samples
        return _ENCODER_DELAY_SAMPLES.get(self.codec, 0) / downmixer.rate if has_delay else 0.0
