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

from cloning.samples.formats import CODECS, LONGEST_S, Content, Unreadable, recognise
from cloning.samples.mixing import Mixer

_CONTAINERS = {"mp3": "mp3", "wav": "wav", "m4a": "mov"}
_BAD_PACKETS = 0.01  # of all: a few damaged ones are heard as a click
_SHORTFALL = 0.05  # of the frames that an MP3 announces
# What encoders put in front of the sound. FFmpeg takes it away where the file says how much it is; where not, it must
# be done here, or 59.9 s would count as 60.
_DELAY_SAMPLES = {"mp3": 1105, "aac": 1024}


@dataclass(frozen=True, slots=True)
class Recording:
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


def decode(data: bytes) -> Recording:
    """Raises Unreadable, and nothing else, whatever `data` is."""
    content = recognise(data)
    mixer, is_cut_short = None, False
    try:
        with av.open(
            BytesIO(content.audio), "r", format=_CONTAINERS[content.kind], metadata_errors="replace"
        ) as container:
            decoder = _Decoder(container, content)
            for frame in decoder.frames():
                mixer = mixer or Mixer(frame)
                mixer.add(frame)
                if is_cut_short := mixer.samples >= LONGEST_S * mixer.rate:
                    break
            if mixer is None:
                raise Unreadable("damaged")
            if is_cut_short:
                duration_s = float(LONGEST_S)
            else:
                decoder.check_completeness()
                duration_s = (mixer.samples - decoder.delay_samples(mixer.samples)) / mixer.rate
            return Recording(
                codec=decoder.codec,
                sample_rate_hz=mixer.rate,
                channels=mixer.channels,
                duration_s=duration_s,
                is_cut_short=is_cut_short,
                sound=mixer.finish(),
                clipping_ratio=mixer.clipping_ratio,
                dead_channels=mixer.dead_channels,
                channels_cancel=mixer.channels_cancel,
            )
    except (av.FFmpegError, MemoryError) as error:
        raise Unreadable("damaged") from error


class _Decoder:
    """The first sound track of a container, packet by packet, and how many of them were bad."""

    def __init__(self, container: InputContainer, content: Content) -> None:
        if any(not stream.disposition & Disposition.attached_pic for stream in container.streams.video):
            raise Unreadable("video")
        if not container.streams.audio:
            raise Unreadable("unknown")
        self._container = container
        self._content = content
        self._stream = container.streams.audio[0]
        context = self._stream.codec_context  # None where FFmpeg has no decoder
        self.codec = context.name.removesuffix("float") if context else ""  # `mp3float` is the decoder of `mp3`
        if self.codec not in CODECS[content.kind]:
            raise Unreadable("unknown")
        self._packets = self._bad = self._longest_frame = 0

    def frames(self) -> Iterator[av.AudioFrame]:
        for packet in self._container.demux(self._stream):
            self._packets += packet.size > 0
            try:
                made = packet.decode()
            except av.InvalidDataError:
                self._bad += 1
                continue
            for frame in made:
                self._longest_frame = max(self._longest_frame, frame.samples)
                yield frame

    def check_completeness(self) -> None:
        if self._bad > self._packets * _BAD_PACKETS:
            raise Unreadable("damaged")
        if (announced := self._content.frames_announced) and self._packets < announced * (1 - _SHORTFALL):
            raise Unreadable("truncated")

    def delay_samples(self, decoded: int) -> int:
        """What the encoder put in front, if it is still there: where FFmpeg took it away, frames came out shorter."""
        untouched = (self._packets - self._bad) * self._longest_frame <= decoded
        return _DELAY_SAMPLES.get(self.codec, 0) if untouched else 0
