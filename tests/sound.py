"""Decoding of audio by FFmpeg. The container is given, so that FFmpeg does not guess it."""

from dataclasses import dataclass
from io import BytesIO

import av
import numpy as np

from voicecare.audio.formats import FORMATS

_CONTAINERS = {"pcm": "s16le", "ulaw": "mulaw", "alaw": "alaw", "opus": "ogg"}
_NAMES_ITS_RATE = ("mp3", "ogg", "wav")
MIN_LOUDNESS = 0.02  # fraction of full scale. Speech of espeak-ng is above 0.05, silence is 0.


@dataclass(frozen=True)
class Sound:
    rate: int
    samples: "np.ndarray"

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.rate

    @property
    def loudness(self) -> float:
        """RMS as a fraction of full scale."""
        return float(np.sqrt(np.mean(np.square(self.samples))))


def decode(audio: bytes, format_name: str) -> Sound:
    """Decode audio. Raises av.FFmpegError if it is not in this format."""
    kind = FORMATS[format_name]
    container_name = _CONTAINERS.get(kind.codec, kind.codec)
    raw = container_name not in _NAMES_ITS_RATE
    options = {"sample_rate": str(kind.sample_rate), "ch_layout": "mono"} if raw else {}
    with av.open(BytesIO(audio), format=container_name, options=options) as container:
        resampler = av.AudioResampler("s16", "mono", kind.sample_rate)
        frames = [part for frame in container.decode(audio=0) for part in resampler.resample(frame)]
        frames += resampler.resample(None)
    samples = np.concatenate([frame.to_ndarray().reshape(-1) for frame in frames])
    return Sound(kind.sample_rate, samples.astype(np.float64) / 32768)


def decode_strictly(audio: bytes) -> int:
    """Decode MP3 as a player that accepts no fault, and return the number of samples.

    Raises AssertionError for a fault that FFmpeg reports, and for a frame that is not decoded.
    """
    frame_sizes = 0
    with av.logging.Capture(local=False) as reports:
        try:
            with av.open(BytesIO(audio), format="mp3") as container:
                stream = container.streams.audio[0]
                stream.codec_context.options = {"err_detect": "explode"}
                samples = 0
                for packet in container.demux(stream):
                    frame_sizes += packet.size
                    samples += sum(frame.samples for frame in packet.decode())
        except av.FFmpegError as error:
            raise AssertionError(str(error)) from error
    assert not reports
    assert frame_sizes == len(audio), "FFmpeg has skipped bytes between frames"
    return samples
