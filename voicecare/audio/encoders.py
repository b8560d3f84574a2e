"""Encodes PCM in the audio formats of `formats`.

MP3 is encoded by `lameenc`. The LAME in PyAV's wheel makes the same frames but needs four times the processor time (14
instead of 3.4 ms per second of audio), and one process serves 200 devices at the same time. PyAV does the resampling
and encodes G.711 and Opus.
"""

import struct
from collections.abc import Iterable
from fractions import Fraction
from io import BytesIO
from typing import Literal

import av
import lameenc  # type: ignore[import-not-found]
from av import AudioFrame
from av.audio.codeccontext import AudioCodecContext

from voicecare.audio.formats import AudioFormat


class Encoder:
    """Encodes PCM with the sample rate `input_rate` (Hz) as one stream of the format `fmt`, piece by piece.

    Each stream needs its own encoder. An encoder is not thread-safe. MP3 streams are plain frames of constant bit rate
    without ID3 or Xing headers, so one stream can be appended to another. The header of a WAV stream gives the size as
    0xFFFFFFFF, because the length is not known when the header is sent.
    """

    def __init__(self, fmt: AudioFormat, input_rate: int = 22050) -> None:
        self._input_rate = input_rate
        self._resampler = None if input_rate == fmt.sample_rate else av.AudioResampler("s16", "mono", fmt.sample_rate)
        match fmt.codec:
            case "mp3":
                self._codec: _Codec = _Mp3(fmt)
            case "opus":
                self._codec = _Opus(fmt)
            case "ulaw":
                self._codec = _G711("pcm_mulaw", fmt.sample_rate)
            case "alaw":
                self._codec = _G711("pcm_alaw", fmt.sample_rate)
            case "wav":
                self._codec = _Wav(fmt.sample_rate)
            case "pcm":
                self._codec = _Codec()

    def feed(self, pcm: bytes) -> bytes:
        """Encodes some PCM, which must consist of whole samples.

        Returns the encoded bytes that are ready, which can be b"".
        """
        if self._resampler and pcm:
            pcm = _to_bytes(self._resampler.resample(_to_frame(pcm, self._input_rate)))
        return self._codec.encode(pcm) if pcm else b""

    def finish(self) -> bytes:
        """Returns the last encoded bytes of the stream. The encoder cannot be used afterwards."""
        rest = _to_bytes(self._resampler.resample(None)) if self._resampler else b""
        return (self._codec.encode(rest) if rest else b"") + self._codec.finish()


def _to_frame(pcm: bytes, rate: int) -> AudioFrame:
    frame = AudioFrame("s16", "mono", len(pcm) // 2)
    frame.sample_rate = rate
    frame.planes[0].update(pcm)
    return frame


def _to_bytes(frames: Iterable[AudioFrame]) -> bytes:
    # A plane can be longer than its samples, because the allocation is rounded up.
    return b"".join(bytes(frame.planes[0])[: frame.samples * 2] for frame in frames)


class _Codec:
    """The codec for raw PCM, which leaves the bytes unchanged, and the base class of the other codecs.

    `encode` gets whole samples at the sample rate of the format, never b"".
    """

    def encode(self, pcm: bytes) -> bytes:
        return pcm

    def finish(self) -> bytes:
        return b""


class _Wav(_Codec):
    def __init__(self, rate: int) -> None:
        unknown = 0xFFFFFFFF
        layout = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate, rate * 2, 2, 16)
        self._header = struct.pack("<4sI4s", b"RIFF", unknown, b"WAVE") + layout + struct.pack("<4sI", b"data", unknown)

    def encode(self, pcm: bytes) -> bytes:
        header, self._header = self._header, b""
        return header + pcm

    def finish(self) -> bytes:
        return self._header


class _G711(_Codec):
    def __init__(self, codec: Literal["pcm_mulaw", "pcm_alaw"], rate: int) -> None:
        self._context = AudioCodecContext.create(codec, "w")
        self._context.sample_rate, self._context.format, self._context.layout = rate, "s16", "mono"

    def encode(self, pcm: bytes) -> bytes:
        return b"".join(bytes(packet) for packet in self._context.encode(_to_frame(pcm, self._context.sample_rate)))


class _Mp3(_Codec):
    def __init__(self, fmt: AudioFormat) -> None:
        self._lame = lameenc.Encoder()
        self._lame.silence()
        self._lame.set_channels(1)
        self._lame.set_in_sample_rate(fmt.sample_rate)
        self._lame.set_out_sample_rate(fmt.sample_rate)
        self._lame.set_bit_rate((fmt.bit_rate or 0) // 1000)
        self._lame.set_quality(9)
        self._fed = False

    def encode(self, pcm: bytes) -> bytes:
        self._fed = True
        return bytes(self._lame.encode(pcm))

    def finish(self) -> bytes:
        # LAME raises an error if it is flushed before the first samples.
        return bytes(self._lame.flush()) if self._fed else b""


class _Opus(_Codec):
    def __init__(self, fmt: AudioFormat) -> None:
        self._sink, self._pts, self._rate = BytesIO(), 0, fmt.sample_rate
        # Pages of 100 ms. The default page of one second would delay the first audio.
        self._ogg = av.open(self._sink, "w", format="ogg", options={"page_duration": "100000", "flush_packets": "1"})
        self._stream = self._ogg.add_stream("libopus", fmt.sample_rate, layout="mono", bit_rate=fmt.bit_rate)
        self._stream.codec_context.options = {"application": "voip", "compression_level": "0"}

    def encode(self, pcm: bytes) -> bytes:
        frame = _to_frame(pcm, self._rate)
        frame.pts, frame.time_base = self._pts, Fraction(1, self._rate)
        self._pts += frame.samples
        self._ogg.mux(self._stream.encode(frame))
        return self._drain()

    def finish(self) -> bytes:
        self._ogg.mux(self._stream.encode(None))
        self._ogg.close()
        return self._drain()

    def _drain(self) -> bytes:
        taken = self._sink.getvalue()
        self._sink.seek(0)
        self._sink.truncate()
        return taken
