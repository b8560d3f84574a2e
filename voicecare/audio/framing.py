"""Padding that completes a stream of encoded audio after it was cut in the middle of a sample or frame."""

import re
from functools import lru_cache

from voicecare.audio.formats import SAMPLE_BYTES, AudioFormat


class FramePadder:
    """Follows a stream of `fmt` while it is forwarded, and computes the padding if the stream is cut.

    PCM is padded to a whole sample and MP3 to a whole frame, with zeros. G.711 needs no padding, because a sample is
    one byte. An Ogg page cannot be completed. An MP3 frame with zeros as side information or as audio data decodes to
    silence of the length of the frame.

    A cut inside the four bytes of an MP3 header is first completed with the rest of the previous frame's header, or
    with a header for the format if there was no frame. Zeros alone do not work here: `FF FB 00 00` is not a valid
    header. FFmpeg then reports an error and loses the next frame, regardless of the number of zeros. `FF FB 90 00` is
    a valid header, but for two channels.

    One case remains: at one position inside a frame, where a change of window is announced but its type is missing, the
    zeros give an unknown type. The decoder then reports an error and loses this frame, but no other frame.
    """

    def __init__(self, fmt: AudioFormat) -> None:
        self._tracker = _Mp3FrameTracker(fmt) if fmt.codec == "mp3" else _SampleTracker(SAMPLE_BYTES.get(fmt.codec, 1))

    def feed(self, chunk: bytes) -> None:
        self._tracker.feed(chunk)

    def padding(self) -> bytes:
        """Return the padding, b"" if the stream ends at a boundary. The stream is at a boundary afterwards."""
        return self._tracker.padding()


class _SampleTracker:
    def __init__(self, size: int) -> None:
        self._size, self._partial_bytes = size, 0

    def feed(self, chunk: bytes) -> None:
        self._partial_bytes = (self._partial_bytes + len(chunk)) % self._size

    def padding(self) -> bytes:
        self._partial_bytes, over = 0, self._partial_bytes
        return bytes(-over % self._size)


_UNIT_START = re.compile(rb"\xff(?=[\xe2\xe3\xf2\xf3\xfa\xfb]|\Z)|I(?=D3|D?\Z)")
_MAX_TAG_BYTES = 256 * 1024
_MPEG1_KBPS = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0)
_MPEG2_KBPS = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0)
_MPEG1_RATES = (44100, 48000, 32000, 0)
_RATE_DIVISORS = {0xF8: 1, 0xF0: 2, 0xE0: 4}  # MPEG 1, 2, 2.5


class _Mp3FrameTracker:
    """Finds the end of each frame. Between two chunks, either `_remaining` bytes of the current frame are missing, or
    `_partial_header` holds the start of a header."""

    def __init__(self, fmt: AudioFormat) -> None:
        self._remaining, self._partial_header = 0, b""
        # Until the first whole header has arrived: a mono header of the format.
        lsf = fmt.sample_rate < 32000  # MPEG 2, low sampling frequencies
        kbps = (_MPEG2_KBPS if lsf else _MPEG1_KBPS).index((fmt.bit_rate or 0) // 1000)
        rates = kbps << 4 | _MPEG1_RATES.index(fmt.sample_rate << lsf) << 2
        self._last_header = bytes((0xFF, 0xF3 if lsf else 0xFB, rates, 0xC4))

    def feed(self, chunk: bytes) -> None:
        data = self._partial_header + chunk
        at = self._remaining
        while at < len(data) and (size := _unit_size(head := data[at : at + 10])) is not None:
            if head[0] == 0xFF and size:
                self._last_header = head[:4]
            if size:
                at += size
            else:
                start = _UNIT_START.search(data, at + 1)
                at = start.start() if start else len(data)
        self._partial_header, self._remaining = data[at:], max(0, at - len(data))

    def padding(self) -> bytes:
        head, left = self._partial_header, self._remaining
        self._partial_header, self._remaining = b"", 0
        if not head:
            return bytes(left)
        whole = head + self._last_header[len(head) :] if head[0] == 0xFF else head.ljust(10, b"\0")
        size = _unit_size(whole) or 0
        return whole.ljust(size, b"\0")[len(head) : size]


def _unit_size(head: bytes) -> int | None:
    """Length in bytes of the frame or ID3v2 tag that starts with `head`. 0: neither. None: more bytes are needed."""
    if not _UNIT_START.match(head):
        return 0
    if head[0] == 0xFF:
        return mp3_frame_size(head[1], head[2]) if len(head) >= 4 else None
    if len(head) < 10:
        return None
    size = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
    # A larger size is not a real tag. It would hide the whole stream and would be padded with megabytes.
    return size if size <= _MAX_TAG_BYTES else 0


@lru_cache(maxsize=256)
def mp3_frame_size(version: int, rates: int) -> int:
    """Size in bytes of a layer III frame, from the second and third byte of its header; 0 if these are invalid."""
    divisor = _RATE_DIVISORS[version & 0xF8]
    kbps = (_MPEG1_KBPS if divisor == 1 else _MPEG2_KBPS)[rates >> 4]
    rate = _MPEG1_RATES[rates >> 2 & 3] // divisor
    if not kbps or not rate:
        return 0
    return (144 if divisor == 1 else 72) * kbps * 1000 // rate + (rates >> 1 & 1)
