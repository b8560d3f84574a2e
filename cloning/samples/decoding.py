"""Decodes an audio file into one channel at one sample rate, and measures its true duration.

The whole file is decoded once, up to MAX_DECODED_S, because the duration in a header can be wrong. Only the samples at
16 kHz are kept in memory: 29 MB for fifteen minutes.
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
# Samples of silence that encoders insert before the sound. FFmpeg removes them if the file states their number. If not,
# they are subtracted here. Otherwise a recording of 59.9 s would count as 60 s.
_ENCODER_DELAY_SAMPLES = {"mp3": 1105, "aac": 1024}


@dataclass(frozen=True, slots=True)
class DecodedSample:
    """A decoded recording. `sound` has one channel of signed 16-bit samples at `mixing.RATE`.

    `is_cut_short` is true if the recording is longer than MAX_DECODED_S. The rest was not decoded.
    """

    codec: str
    sample_rate_hz: int
    channels: int
    duration_s: float
    is_cut_short: bool
    clipping_ratio: float
    dead_channels: int
    channels_cancel: bool
    sound: NDArray[np.int16]


def decode(data: bytes) -> DecodedSample:
    """Decodes the bytes of a file. Raises UnreadableAudio, and no other exception, for any invalid data."""
    detected = detect_format(data)
    downmixer, is_cut_short = None, False
    try:
        with av.open(
            BytesIO(detected.audio), "r", format=_CONTAINERS[detected.kind], metadata_errors="replace"
        ) as container:
            decoder = _Decoder(container, detected)
            for frame in decoder.frames():
                downmixer = downmixer or Downmixer(frame)
                downmixer.add(frame)
                if is_cut_short := downmixer.samples >= MAX_DECODED_S * downmixer.rate:
                    break
            if downmixer is None:
                raise UnreadableAudio("damaged")
            if is_cut_short:
                duration_s = float(MAX_DECODED_S)
            else:
                decoder.check_completeness()
                duration_s = (downmixer.samples - decoder.encoder_delay_samples(downmixer.samples)) / downmixer.rate
            return DecodedSample(
                codec=decoder.codec,
                sample_rate_hz=downmixer.rate,
                channels=downmixer.channels,
                duration_s=duration_s,
                is_cut_short=is_cut_short,
                sound=downmixer.finish(),
                clipping_ratio=downmixer.clipping_ratio,
                dead_channels=downmixer.dead_channels,
                channels_cancel=downmixer.channels_cancel,
            )
    except (av.FFmpegError, MemoryError) as error:
        raise UnreadableAudio("damaged") from error


class _Decoder:
    """Decodes the first audio track of a container packet by packet, and counts the damaged packets."""

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
        self._packets = self._bad_packets = self._longest_frame = 0

    def frames(self) -> Iterator[av.AudioFrame]:
        for packet in self._container.demux(self._stream):
            self._packets += packet.size > 0
            try:
                frames = packet.decode()
            except av.InvalidDataError:
                self._bad_packets += 1
                continue
            for frame in frames:
                self._longest_frame = max(self._longest_frame, frame.samples)
                yield frame

    def check_completeness(self) -> None:
        if self._bad_packets > self._packets * _MAX_BAD_PACKET_RATIO:
            raise UnreadableAudio("damaged")
        announced = self._detected.announced_frames or 0
        if self._packets < announced * (1 - _MAX_MISSING_FRAME_RATIO):
            raise UnreadableAudio("truncated")

    def encoder_delay_samples(self, decoded: int) -> int:
        """Number of delay samples that are still part of the `decoded` samples.

        Zero if FFmpeg has removed the delay. In that case some frames are shorter than the longest one.
        """
        has_delay = (self._packets - self._bad_packets) * self._longest_frame <= decoded
        return _ENCODER_DELAY_SAMPLES.get(self.codec, 0) if has_delay else 0
