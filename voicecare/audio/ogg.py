"""Ogg with Opus: whole pages of a stream, several streams as one, and the length of their sound.

The provider sends each segment of a speech as an Ogg stream of its own. A sequence of such streams is legal Ogg
("chained"), but players of small devices and of browsers end at the end of the first stream. So the streams of one
speech are joined: the headers come once, the page numbers and positions are continuous, and each page is short, so that
a device needs little memory for it.
"""

import struct
import zlib
from collections.abc import Iterator

SAMPLE_RATE = 48_000  # of the positions in Ogg pages, whatever the sample rate of the sound was
MAX_PAGE_SAMPLES = SAMPLE_RATE // 10
_MAX_SEGMENTS = 255
_MARK = b"OggS"
_HEADER = struct.Struct("<4sBBqIIIB")  # up to the number of segments, whose sizes follow
_CONTINUED, _FIRST, _LAST = 1, 2, 4
_REVERSED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_FRAME_SAMPLES = (*(480, 960, 1920, 2880) * 3, *(480, 960) * 2, *(120, 240, 480, 960) * 4)  # RFC 6716, table 2


class PageReader:
    """Cuts a stream that arrives in chunks into whole pages. Bytes between pages are dropped."""

    def __init__(self) -> None:
        self._held = b""

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Yield the pages that are complete with this chunk."""
        data, at = self._held + chunk, 0
        self._held = b""
        while at < len(data):
            start = data.find(_MARK, at)
            if start < 0:
                self._held = data[max(at, len(data) - len(_MARK) + 1) :]  # the next mark may have begun
                return
            at = start + _page_size(data, start)
            if at > len(data):
                self._held = data[start:]
                return
            yield data[start:at]


class StreamJoiner:
    """Joins the Ogg streams of one speech to one stream. Feed it whole streams or whole pages, one after another.

    A packet that a stream has begun and not ended is dropped.
    """

    def __init__(self) -> None:
        self._reader = PageReader()
        self._serial: int | None = None  # of the joined stream, which is that of its first stream
        self._headers_left = 0  # header packets of the current stream that are still to come
        self._headers: list[bytes] = []  # of the first stream, until its first audio
        self._partial = b""  # the beginning of a packet that continues on the next page
        self._packets: list[bytes] = []  # of the page that is being written
        self._page_samples = 0
        self._segments = 0
        self._position = 0
        self._number = 0

    def feed(self, chunk: bytes) -> bytes:
        """Return the pages to send for this chunk. They are b"" if it completes no audio."""
        pages = b"".join([made for page in self._reader.feed(chunk) for made in self._join(page)])
        return pages + self._write_audio()

    def finish(self) -> bytes:
        """Return the page that ends the joined stream, or b"" if there was no audio."""
        return self._write(_LAST, [], self._position) if self._number else b""

    def _join(self, page: bytes) -> Iterator[bytes]:
        _, _, flags, _, serial, _, _, _ = _HEADER.unpack_from(page)
        if flags & _FIRST:
            self._headers_left, self._partial = 2, b""
            if self._serial is None:
                self._serial = serial
        if not flags & _CONTINUED:
            self._partial = b""
        for packet in self._packets_of(page):
            if self._headers_left:
                self._headers_left -= 1
                if not self._number and len(self._headers) < 2:
                    self._headers.append(packet)
            elif self._serial is not None and packet:
                yield self._add(packet)

    def _packets_of(self, page: bytes) -> Iterator[bytes]:
        """Yield the packets that end on this page."""
        segments = page[_HEADER.size - 1]
        at = _HEADER.size + segments
        packet = self._partial
        for size in page[_HEADER.size : at]:
            packet += page[at : at + size]
            at += size
            if size < 255:
                yield packet
                packet = b""
        self._partial = packet

    def _add(self, packet: bytes) -> bytes:
        """Add a packet to the page that is being written. Return the page before, if it is full."""
        samples, segments = _samples(packet), len(packet) // 255 + 1
        full = self._page_samples + samples > MAX_PAGE_SAMPLES or self._segments + segments > _MAX_SEGMENTS
        written = self._write_audio() if full else b""
        self._packets.append(packet)
        self._page_samples += samples
        self._segments += segments
        return written

    def _write_audio(self) -> bytes:
        if not self._packets:
            return b""
        written = b""
        for header in self._headers:
            written += self._write(0 if self._number else _FIRST, [header], 0)
        self._headers = []
        self._position += self._page_samples
        written += self._write(0, self._packets, self._position)
        self._packets, self._page_samples, self._segments = [], 0, 0
        return written

    def _write(self, flags: int, packets: list[bytes], position: int) -> bytes:
        sizes = b"".join(b"\xff" * (len(packet) // 255) + bytes((len(packet) % 255,)) for packet in packets)
        head = _HEADER.pack(_MARK, 0, flags, position, self._serial, self._number, 0, len(sizes))
        self._number += 1
        page = b"".join((head, sizes, *packets))
        return page[:22] + struct.pack("<I", _checksum(page)) + page[26:]


class SoundLength:
    """The length of the sound in a joined stream."""

    def __init__(self) -> None:
        self._position = 0

    def feed(self, pages: bytes) -> float:
        """Return the seconds of sound in these whole pages."""
        before, at = self._position, 0
        while at < len(pages):
            self._position = _HEADER.unpack_from(pages, at)[3]
            at += _page_size(pages, at)
        return (self._position - before) / SAMPLE_RATE


def _page_size(data: bytes, at: int) -> int:
    """Return the size of the page at this offset. If its header is incomplete, return more than there is."""
    sizes_at = at + _HEADER.size
    segments = data[sizes_at - 1] if len(data) >= sizes_at else _MAX_SEGMENTS
    if len(data) < sizes_at + segments:
        return len(data) + 1
    return _HEADER.size + segments + sum(data[sizes_at : sizes_at + segments])


def _samples(packet: bytes) -> int:
    """Return the length of an Opus packet in samples at 48 kHz (RFC 6716, section 3)."""
    kind = packet[0] & 3
    frames = 1 if kind == 0 else 2 if kind < 3 else packet[1] & 63 if len(packet) > 1 else 0
    return frames * _FRAME_SAMPLES[packet[0] >> 3]


def _checksum(page: bytes) -> int:
    """Return the CRC of a page with the checksum 0.

    Ogg uses the polynomial of zlib with the bits in the other order, and begins with 0.
    """
    crc = zlib.crc32(page.translate(_REVERSED_BITS), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{crc:032b}"[::-1], 2)
