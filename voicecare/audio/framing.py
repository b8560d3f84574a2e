"""Completes a stream of encoded audio that was cut inside a sample or frame, so that another stream can follow.

Also reads the headers of MP3 frames.
"""

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import lru_cache

from voicecare.audio.formats import SAMPLE_BYTES, AudioFormat
from voicecare.audio.ogg import PageReader


async def whole_frames(chunks: AsyncGenerator[bytes, None], fmt: AudioFormat) -> AsyncGenerator[bytes, None]:
    """Yields the chunks of a stream of the format `fmt`, and then padding if the stream has ended inside a frame.

    If `chunks` raises an exception, the padding is yielded first, then the exception is raised again. Each chunk is
    yielded before it is parsed, so that parsing delays no audio. Closes `chunks`.

    Of Ogg, which cannot be padded, only whole pages are yielded: a player cannot use the beginning of a page.
    """
    if fmt.codec == "opus":
        reader = PageReader()
        async with aclosing(chunks):
            async for chunk in chunks:
                if pages := b"".join(reader.feed(chunk)):
                    yield pages
        return
    padder = FramePadder(fmt)
    failure: Exception | None = None
    async with aclosing(chunks):
        try:
            async for chunk in chunks:
                yield chunk
                padder.feed(chunk)
        except Exception as error:  # of any kind; it is raised again
            failure = error
    if padding := padder.padding():
        yield padding
    if failure is not None:
        raise failure


class FramePadder:
    """Follows a stream of the format `fmt` while it is forwarded, and computes the padding if the stream is cut.

    PCM is padded to a whole sample and MP3 to a whole frame, with zeros. G.711 needs no padding, because a sample is
    one byte. An Ogg page cannot be completed. An MP3 frame whose missing part is replaced with zeros decodes to silence
    of the length of the frame.

    If the stream is cut inside the four bytes of an MP3 header, the header is completed first, with the rest of the
    previous frame's header, or with a header for the format if there was no frame. Zeros would not be a valid header:
    FFmpeg would report an error for `FF FB 00 00` and lose the next frame, regardless of the number of zeros. `FF FB 90
    00` is a valid header, but for two channels.

    The side information of an MP3 frame can have a flag that a window type follows. If the stream is cut between the
    flag and the type, a valid type is added, because a decoder would report an error for the type 0, and lose this
    frame.
    """

    def __init__(self, fmt: AudioFormat) -> None:
        self._tracker = _Mp3FrameTracker(fmt) if fmt.codec == "mp3" else _SampleTracker(SAMPLE_BYTES.get(fmt.codec, 1))

    def feed(self, chunk: bytes) -> None:
        self._tracker.feed(chunk)

    def padding(self) -> bytes:
        """Returns the bytes that complete the last sample or frame, or b"" if it is complete."""
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
_MAX_SIDE_END = 38  # header, checksum and the longest side information
_VERSIONS = frozenset(b"\xe2\xe3\xf2\xf3\xfa\xfb")  # the second bytes of the headers of layer III frames
_RATE_DIVISORS = {0xF8: 1, 0xF0: 2, 0xE0: 4}  # MPEG 1, 2, 2.5


class _Mp3FrameTracker:
    """Finds the ends of MP3 frames in a stream that arrives in chunks.

    After a chunk that ends inside a frame, `_remaining` is the number of missing bytes. After a chunk that ends inside
    the header of a frame, `_partial_header` has the received part.
    """

    def __init__(self, fmt: AudioFormat) -> None:
        self._remaining, self._partial_header = 0, b""
        self._frame = b""  # the beginning of the current frame
        # Until the first whole header has arrived: a mono header of the format.
        lsf = fmt.sample_rate < 32000  # MPEG 2, low sampling frequencies
        kbps = (_MPEG2_KBPS if lsf else _MPEG1_KBPS).index((fmt.bit_rate or 0) // 1000)
        rates = kbps << 4 | _MPEG1_RATES.index(fmt.sample_rate << lsf) << 2
        self._last_header = bytes((0xFF, 0xF3 if lsf else 0xFB, rates, 0xC4))

    def feed(self, chunk: bytes) -> None:
        data = self._partial_header + chunk
        at, frame_at = self._remaining, None
        while at < len(data):
            if at < len(data) - 4 and data[at] == 0xFF and data[at + 1] in _VERSIONS:  # true for nearly all frames
                size: int | None = mp3_frame_size(data[at + 1], data[at + 2])
            else:
                size = mp3_unit_size(data[at : at + 10])
            if size is None:
                break
            if size:
                frame_at, at = at, at + size
            else:
                start = _UNIT_START.search(data, at + 1)
                at = start.start() if start else len(data)
        self._partial_header, self._remaining = data[at:], max(0, at - len(data))
        if frame_at is not None:
            if data[frame_at] == 0xFF:
                self._last_header = data[frame_at : frame_at + 4]
            self._frame = data[frame_at : frame_at + _MAX_SIDE_END]
        elif len(self._frame) < _MAX_SIDE_END:
            self._frame += chunk[: _MAX_SIDE_END - len(self._frame)]

    def padding(self) -> bytes:
        head, left = self._partial_header, self._remaining
        self._partial_header, self._remaining = b"", 0
        if left and self._frame[0] == 0xFF:
            return _first_padding_byte(self._frame) + bytes(left - 1)
        if not head:
            return bytes(left)
        whole = head + self._last_header[len(head) :] if head[0] == 0xFF else head.ljust(10, b"\0")
        size = mp3_unit_size(whole) or 0
        return whole.ljust(size, b"\0")[len(head) : size]


def _first_padding_byte(frame: bytes) -> bytes:
    """Returns the byte that follows the bytes `frame`, the received part of an MP3 frame.

    The byte is 0, except if the stream was cut inside a window type, for which 0 is not valid.
    """
    is_mpeg1, is_mono = frame[1] & 0xF8 == 0xF8, frame[3] >> 6 == 3
    channels = 1 if is_mono else 2
    # In bits: the side information's part for all granules, then for each granule and channel.
    if is_mpeg1:
        shared, granules, granule_bits, flag_at = 9 + (5 if is_mono else 3) + 4 * channels, 2 * channels, 59, 33
    else:
        shared, granules, granule_bits, flag_at = 8 + channels, channels, 63, 38
    side_at = 4 if frame[1] & 1 else 6  # after the header and a checksum
    known = len(frame) * 8
    for granule in range(granules):
        flag = side_at * 8 + shared + granule * granule_bits + flag_at
        if flag < known <= flag + 2 and frame[flag // 8] >> (7 - flag % 8) & 1:
            return bytes((0x80 >> (flag + 2 - known),))  # the last of the two bits of the type
    return b"\0"


def mp3_unit_size(head: bytes) -> int | None:
    """Returns the size in bytes of the MP3 frame or ID3v2 tag that starts with `head`.

    Returns 0 if neither of them starts there, and None if `head` is too short to decide.
    """
    if not _UNIT_START.match(head):
        return 0
    if head[0] == 0xFF:
        return mp3_frame_size(head[1], head[2]) if len(head) >= 4 else None
    if len(head) < 10:
        return None
    size = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
    # A larger size is not a real tag. It would hide the whole stream and would be padded with megabytes.
    return size if size <= _MAX_TAG_BYTES else 0


def mp3_sample_rate(version: int, rates: int) -> int:
    """Returns the sample rate in Hz of an MP3 frame, or 0 if the header is invalid.

    `version` and `rates` are the second and the third byte of the frame's header.
    """
    return _MPEG1_RATES[rates >> 2 & 3] // _RATE_DIVISORS[version & 0xF8]


@lru_cache(maxsize=256)
def mp3_frame_size(version: int, rates: int) -> int:
    """Returns the size in bytes of an MP3 frame with its header, or 0 if the header is invalid.

    `version` and `rates` are the second and the third byte of the header. `version` must be that of a layer III frame.
    """
    divisor = _RATE_DIVISORS[version & 0xF8]
    kbps = (_MPEG1_KBPS if divisor == 1 else _MPEG2_KBPS)[rates >> 4]
    rate = mp3_sample_rate(version, rates)
    if not kbps or not rate:
        return 0
    return (144 if divisor == 1 else 72) * kbps * 1000 // rate + (rates >> 1 & 1)
