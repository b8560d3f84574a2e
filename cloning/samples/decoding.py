"""From the bytes of a file to what can be judged: its true duration, and its sound in one channel at one rate.

All of it is decoded once, up to LONGEST_S: what a header says of the duration is not believed. Kept of it are the
samples at 16 kHz, 29 MB for fifteen minutes, and nothing else.
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
_MAX_BAD_PACKET_RATIO = 0.01  # of all: a few damaged ones are heard as a click
_MAX_MISSING_FRAME_RATIO = 0.05  # of the frames that an MP3 announces
# What encoders put in front of the sound. FFmpeg takes it away where the file says how much it is; where not, it must
# be done here, or 59.9 s would count as 60.
_ENCODER_DELAY_SAMPLES = {"mp3": 1105, "aac": 1024}


@dataclass(frozen=True, slots=True)
class DecodedSample:
    """`sound` is at mixing.RATE, signed 16 bit, one channel; with `is_cut_short` there is more than was decoded."""

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
    """Raises UnreadableAudio, and nothing else, whatever `data` is."""
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
    """The first sound track of a container, packet by packet, and how many of them were bad."""

    def __init__(self, container: InputContainer, detected: DetectedAudio) -> None:
        if any(not stream.disposition & Disposition.attached_pic for stream in container.streams.video):
            raise UnreadableAudio("video")
        if not container.streams.audio:
            raise UnreadableAudio("unknown")
        self._container = container
        self._detected = detected
        self._stream = container.streams.audio[0]
        context = self._stream.codec_context  # None where FFmpeg has no decoder
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
        """What the encoder put in front, if it is still there: where FFmpeg took it away, frames came out shorter."""
        has_delay = (self._packets - self._bad_packets) * self._longest_frame <= decoded
        return _ENCODER_DELAY_SAMPLES.get(self.codec, 0) if has_delay else 0
