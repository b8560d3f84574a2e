"""Audio formats: what they are called, how sound gets into them, and how a stream that was cut is completed.

Sound is mono, signed 16 bit little-endian, everywhere in this module. MP3 comes from `lameenc`: the LAME inside
PyAV's wheel makes the same frames in four times the processor time (14 against 3.4 ms per second of sound), and one
process speaks to 200 listeners at once. PyAV does the rest: resampling, G.711 and Opus.
"""

import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from io import BytesIO
from typing import Literal

import av
import lameenc  # type: ignore[import-not-found]
from av import AudioFrame
from av.audio.codeccontext import AudioCodecContext

Codec = Literal["mp3", "pcm", "ulaw", "alaw", "opus", "wav"]

_MIMES: dict[Codec, str] = {"mp3": "audio/mpeg", "pcm": "audio/pcm", "ulaw": "audio/basic"}
_MIMES |= {"alaw": "audio/x-alaw-basic", "opus": "audio/ogg", "wav": "audio/wav"}
_SAMPLE_BYTES: dict[Codec, int] = {"pcm": 2, "wav": 2, "ulaw": 1, "alaw": 1}


@dataclass(frozen=True, slots=True)
class AudioFormat:
    """One output format of the provider. `sample_rate` is in Hz, `bit_rate` in bit/s (None where the rate says all)."""

    name: str
    codec: Codec
    sample_rate: int
    bit_rate: int | None = None

    @property
    def bytes_per_second(self) -> float:
        """Bytes of one second of playback, container overhead left out."""
        if self.bit_rate is not None:
            return self.bit_rate / 8
        return float(self.sample_rate * _SAMPLE_BYTES[self.codec])

    @property
    def mime(self) -> str:
        return _MIMES[self.codec]


def _named(name: str) -> AudioFormat:
    codec, rate, *kbps = name.split("_")
    return AudioFormat(name, codec, int(rate), int(kbps[0]) * 1000 if kbps else None)  # type: ignore[arg-type]


_NAMES = """
    mp3_22050_32 mp3_24000_48 mp3_44100_32 mp3_44100_64 mp3_44100_96 mp3_44100_128 mp3_44100_192
    pcm_8000 pcm_16000 pcm_22050 pcm_24000 pcm_32000 pcm_44100 pcm_48000 ulaw_8000 alaw_8000
    opus_48000_32 opus_48000_64 opus_48000_96 opus_48000_128 opus_48000_192
    wav_8000 wav_16000 wav_22050 wav_24000 wav_32000 wav_44100 wav_48000
"""
FORMATS: dict[str, AudioFormat] = {name: _named(name) for name in _NAMES.split()}
DEVICE_FORMATS = ("mp3_44100_128", "mp3_22050_32", "pcm_16000", "pcm_22050", "pcm_24000", "ulaw_8000")


class Encoder:
    """Turns sound at `input_rate` into one stream of `fmt`, piece by piece; one use, one thread at a time.

    The stream stands alone: MP3 is bare constant-rate frames (no ID3, no Xing), so that streams can be appended to
    one another; WAV has a header whose sizes are 0xFFFFFFFF, as the length is not known when it is sent.
    """

    def __init__(self, fmt: AudioFormat, input_rate: int = 22050) -> None:
        self._input_rate = input_rate
        self._resampler = None if input_rate == fmt.sample_rate else av.AudioResampler("s16", "mono", fmt.sample_rate)
        self._coder = _coder(fmt)

    def feed(self, pcm: bytes) -> bytes:
        """Takes whole samples; returns what is ready, which may be nothing yet."""
        if self._resampler and pcm:
            pcm = _samples(self._resampler.resample(_frame(pcm, self._input_rate)))
        return self._coder.encode(pcm) if pcm else b""

    def finish(self) -> bytes:
        """The rest of the stream. The encoder is used up afterwards."""
        rest = _samples(self._resampler.resample(None)) if self._resampler else b""
        return (self._coder.encode(rest) if rest else b"") + self._coder.finish()


def _frame(pcm: bytes, rate: int) -> AudioFrame:
    frame = AudioFrame("s16", "mono", len(pcm) // 2)
    frame.sample_rate = rate
    frame.planes[0].update(pcm)
    return frame


def _samples(frames: Iterable[AudioFrame]) -> bytes:
    # A plane is longer than its samples: the allocation is rounded up.
    return b"".join(bytes(frame.planes[0])[: frame.samples * 2] for frame in frames)


class _Coder:
    """PCM as it is; the others take sound at the format's own rate, never an empty piece."""

    def encode(self, pcm: bytes) -> bytes:
        return pcm

    def finish(self) -> bytes:
        return b""


class _Wav(_Coder):
    def __init__(self, rate: int) -> None:
        unknown = 0xFFFFFFFF
        layout = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate, rate * 2, 2, 16)
        self._header = struct.pack("<4sI4s", b"RIFF", unknown, b"WAVE") + layout + struct.pack("<4sI", b"data", unknown)

    def encode(self, pcm: bytes) -> bytes:
        header, self._header = self._header, b""
        return header + pcm

    def finish(self) -> bytes:
        return self._header


class _G711(_Coder):
    def __init__(self, codec: Literal["pcm_mulaw", "pcm_alaw"], rate: int) -> None:
        self._context = AudioCodecContext.create(codec, "w")
        self._context.sample_rate, self._context.format, self._context.layout = rate, "s16", "mono"

    def encode(self, pcm: bytes) -> bytes:
        return b"".join(bytes(packet) for packet in self._context.encode(_frame(pcm, self._context.sample_rate)))


class _Mp3(_Coder):
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
        # LAME refuses to be flushed before it was fed.
        return bytes(self._lame.flush()) if self._fed else b""


class _Opus(_Coder):
    def __init__(self, fmt: AudioFormat) -> None:
        self._sink, self._pts, self._rate = BytesIO(), 0, fmt.sample_rate
        # Pages of 100 ms: with the muxer's own second the first sound would come late.
        self._ogg = av.open(self._sink, "w", format="ogg", options={"page_duration": "100000", "flush_packets": "1"})
        self._stream = self._ogg.add_stream("libopus", fmt.sample_rate, layout="mono", bit_rate=fmt.bit_rate)
        self._stream.codec_context.options = {"application": "voip", "compression_level": "0"}

    def encode(self, pcm: bytes) -> bytes:
        frame = _frame(pcm, self._rate)
        frame.pts, frame.time_base = self._pts, Fraction(1, self._rate)
        self._pts += frame.samples
        self._ogg.mux(self._stream.encode(frame))
        return self._take()

    def finish(self) -> bytes:
        self._ogg.mux(self._stream.encode(None))
        self._ogg.close()
        return self._take()

    def _take(self) -> bytes:
        taken = self._sink.getvalue()
        self._sink.seek(0)
        self._sink.truncate()
        return taken


def _coder(fmt: AudioFormat) -> _Coder:
    match fmt.codec:
        case "mp3":
            return _Mp3(fmt)
        case "opus":
            return _Opus(fmt)
        case "ulaw":
            return _G711("pcm_mulaw", fmt.sample_rate)
        case "alaw":
            return _G711("pcm_alaw", fmt.sample_rate)
        case "wav":
            return _Wav(fmt.sample_rate)
        case "pcm":
            return _Coder()


class Completer:
    """Watches a stream of `fmt` that is forwarded live and knows the bytes that complete what was cut.

    PCM is completed to a whole sample, MP3 to a whole frame, with zeros; G.711 has nothing to cut, and an Ogg page
    cannot be completed. An MP3 frame whose side information or sound is zero decodes as silence of its length.

    A cut inside the four bytes of an MP3 header is completed with the rest of the former frame's header (of the
    format's own, if there was none) before the zeros. Zeros alone do not do: `FF FB 00 00` is no frame, and FFmpeg
    then reports an error and loses the first frame of what follows, however many zeros there are; `FF FB 90 00` is
    one, but of two channels. (In the one place of a frame where a change of window is announced and not yet named,
    the zeros name an unknown one: that frame, and no other, is then lost with an error.)
    """

    def __init__(self, fmt: AudioFormat) -> None:
        self._walker = _Mp3Walker(fmt) if fmt.codec == "mp3" else _SampleWalker(_SAMPLE_BYTES.get(fmt.codec, 1))

    def feed(self, chunk: bytes) -> None:
        self._walker.feed(chunk)

    def missing(self) -> bytes:
        """b"" where nothing is cut; the stream then counts as standing at a boundary."""
        return self._walker.complete()


class _SampleWalker:
    def __init__(self, size: int) -> None:
        self._size, self._over = size, 0

    def feed(self, chunk: bytes) -> None:
        self._over = (self._over + len(chunk)) % self._size

    def complete(self) -> bytes:
        self._over, over = 0, self._over
        return bytes(-over % self._size)


_START = re.compile(rb"\xff(?=[\xe2\xe3\xf2\xf3\xfa\xfb]|\Z)|I(?=D3|D?\Z)")
_LARGEST_TAG = 256 * 1024
_KBPS_1 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0)
_KBPS_2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0)
_RATES = (44100, 48000, 32000, 0)
_RATE_DIVISORS = {0xF8: 1, 0xF0: 2, 0xE0: 4}  # MPEG 1, 2, 2.5


class _Mp3Walker:
    """Steps from frame to frame: `_left` bytes of the present one are still to come, or `_head` is a cut header."""

    def __init__(self, fmt: AudioFormat) -> None:
        self._left, self._head, self._former = 0, b"", _mono_header(fmt)

    def feed(self, chunk: bytes) -> None:
        data = self._head + chunk
        at = self._left
        while at < len(data) and (size := _unit_size(head := data[at : at + 10])) is not None:
            if head[0] == 0xFF and size:
                self._former = head[:4]
            at = at + size if size else _next_start(data, at + 1)
        self._head, self._left = data[at:], max(0, at - len(data))

    def complete(self) -> bytes:
        head, left = self._head, self._left
        self._head, self._left = b"", 0
        if not head:
            return bytes(left)
        whole = head + self._former[len(head) :] if head[0] == 0xFF else head.ljust(10, b"\0")
        size = _unit_size(whole) or 0
        return whole.ljust(size, b"\0")[len(head) : size]


def _mono_header(fmt: AudioFormat) -> bytes:
    lsf = fmt.sample_rate < 32000
    kbps = (_KBPS_2 if lsf else _KBPS_1).index((fmt.bit_rate or 0) // 1000)
    return bytes((0xFF, 0xF3 if lsf else 0xFB, kbps << 4 | _RATES.index(fmt.sample_rate << lsf) << 2, 0xC4))


def _next_start(data: bytes, at: int) -> int:
    found = _START.search(data, at)
    return found.start() if found else len(data)


def _unit_size(head: bytes) -> int | None:
    """Length in bytes of the frame or ID3v2 tag that begins with `head`; 0 for junk, None if more is needed."""
    if not _START.match(head):
        return 0
    if head[0] == 0xFF:
        return _frame_size(head[1], head[2]) if len(head) >= 4 else None
    return _tag_size(head) if len(head) >= 10 else None


def _tag_size(head: bytes) -> int:
    size = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
    # A tag beyond belief is junk: it would hide the whole stream, and be completed with megabytes.
    return size if size <= _LARGEST_TAG else 0


@lru_cache(maxsize=256)
def _frame_size(version: int, rates: int) -> int:
    divisor = _RATE_DIVISORS[version & 0xF8]
    kbps = (_KBPS_1 if divisor == 1 else _KBPS_2)[rates >> 4]
    rate = _RATES[rates >> 2 & 3] // divisor
    if not kbps or not rate:
        return 0
    return (144 if divisor == 1 else 72) * kbps * 1000 // rate + (rates >> 1 & 1)
