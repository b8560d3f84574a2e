"""What a file is, by its content: its name and what the sender calls it are never looked at.

FFmpeg is only asked about a file that has passed here, and is told which container it is: left to guess, it opens
playlists, and with them other files and hosts.
"""

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

from voicecare.audio.framing import mp3_frame_size

MAX_BYTES = 10_000_000
LONGEST_S = 900  # more is not decoded: ten megabytes can hold eight hours of silence
CODECS = {
    "mp3": ("mp3",),
    "wav": ("pcm_u8", "pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_f32le", "pcm_f64le"),
    "m4a": ("aac", "alac"),
}

_SHORTFALL = 0.05  # of what the header announces; a recorder may round, an upload that broke off lacks more
_OPEN_END = 0x7FFFF000  # a data size of this or more is what programs write that cannot go back to the header
_FRAMES_IN_A_ROW = 3
_SYNC = re.compile(rb"\xff[\xe2\xe3\xf2\xf3\xfa\xfb]")  # MPEG 1, 2 and 2.5, layer III, with and without checksum


class Unreadable(Exception):
    """Nothing to listen to. `samples` has the words for each `reason`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Content(NamedTuple):
    """`kind` is a key of CODECS; `audio` the file without tags in front; `frames_announced` by an MP3."""

    kind: str
    audio: bytes
    frames_announced: int | None = None


def recognise(data: bytes) -> Content:
    """Raises Unreadable for what is none of the formats, and for what its own header proves to be incomplete."""
    if not data:
        raise Unreadable("empty")
    if len(data) > MAX_BYTES:
        raise Unreadable("too_large")
    if data[:4] == b"RIFF" and data[8:12] == b"WAVE":
        _check_wav(data)
        return Content("wav", data)
    if data[4:8] == b"ftyp":
        _check_boxes(data)
        return Content("m4a", data)
    return _mp3(data)


# WAV


def _check_wav(data: bytes) -> None:
    """A data chunk must be there, and hold what it announces."""
    for name, begin, size in _chunks(data):
        if name == b"data":
            held = len(data) - begin
            if size < _OPEN_END and held < size * (1 - _SHORTFALL):
                raise Unreadable("truncated")
            return
    raise Unreadable("truncated")


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, place and announced size of each chunk's body."""
    at = 12
    while at + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, at)
        yield name, at + 8, size
        at += 8 + size + (size & 1)


# M4A


def _check_boxes(data: bytes) -> None:
    """All boxes of the outermost level must be there to their end, and one of them describe the tracks."""
    at, names = 0, set()
    while at + 8 <= len(data):
        size, name = struct.unpack_from(">I4s", data, at)
        if size == 1 and at + 16 <= len(data):
            size = struct.unpack_from(">Q", data, at + 8)[0]
        names.add(name)
        at = len(data) if size == 0 else at + max(size, 8)
    if at > len(data) or b"moov" not in names:
        raise Unreadable("truncated")


# MP3


def _mp3(data: bytes) -> Content:
    """Frames must follow one another: a sync pattern alone stands in any large file."""
    at = _after_tags(data)
    if at > len(data):
        raise Unreadable("truncated")
    audio = data[at:].lstrip(b"\0")  # padding; anything else in front would be another kind of file
    if not _is_chain(audio):
        raise Unreadable("damaged" if at else "unknown")
    return Content("mp3", audio, _frames_announced(audio))


def _after_tags(data: bytes) -> int:
    """Where the ID3v2 tags in front end; covers can make them most of a file."""
    at = 0
    while data[at : at + 3] == b"ID3" and at + 10 <= len(data):
        size = sum((byte & 0x7F) << shift for byte, shift in zip(data[at + 6 : at + 10], (21, 14, 7, 0), strict=True))
        has_footer = data[at + 5] & 0x10
        at += 10 + size + (10 if has_footer else 0)
    return at


def _is_chain(data: bytes) -> bool:
    at = 0
    for _ in range(_FRAMES_IN_A_ROW):
        if not _SYNC.match(data, at) or at + 4 > len(data):
            return False
        if not (size := mp3_frame_size(data[at + 1], data[at + 2])):
            return False
        at += size
    return True


def _frames_announced(audio: bytes) -> int | None:
    """From the Xing or Info header, in which encoders write how many frames follow."""
    at = max(audio.find(b"Xing", 0, 64), audio.find(b"Info", 0, 64))
    if at < 0 or at + 12 > len(audio) or not audio[at + 7] & 1:
        return None
    frames: int = struct.unpack_from(">I", audio, at + 8)[0]
    return frames
