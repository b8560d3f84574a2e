"""Detects the format of an audio file from its content. The file name and the content type of the upload are ignored.

FFmpeg only opens files that have passed this check, and is given the container format. If FFmpeg guessed the format, it
would also open playlists, and with them other files and hosts.
"""

import re
import struct
from typing import NamedTuple

from voicecare.audio.framing import mp3_frame_size

MAX_BYTES = 10_000_000
MAX_DECODED_S = 900  # a limit is needed: ten megabytes can hold eight hours of silence
CODECS = {
    "mp3": ("mp3",),
    "wav": ("pcm_u8", "pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_f32le", "pcm_f64le"),
    "m4a": ("aac", "alac"),
}

_MAX_MISSING_RATIO = 0.05  # of the size in the header; recorders may round it, but an interrupted upload lacks more
_UNKNOWN_SIZE = 0x7FFFF000  # programs that cannot seek back to the header write a data size of this value or more
_MIN_CONSECUTIVE_FRAMES = 3
_SYNC = re.compile(rb"\xff[\xe2\xe3\xf2\xf3\xfa\xfb]")  # MPEG 1, 2 and 2.5, layer III, with and without checksum


class UnreadableAudio(Exception):
    """The file cannot be decoded. `acceptance` has a message for each `reason`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class DetectedAudio(NamedTuple):
    """`kind` is a key of CODECS. `audio` is the file without leading tags.

    `announced_frames` is the frame count in the header of an MP3, or None if there is no such header.
    """

    kind: str
    audio: bytes
    announced_frames: int | None = None


def detect_format(data: bytes) -> DetectedAudio:
    """Returns the format of `data`.

    Raises UnreadableAudio for an unknown format, and for a file whose own header shows that it is incomplete.
    """
    if not data:
        raise UnreadableAudio("empty")
    if len(data) > MAX_BYTES:
        raise UnreadableAudio("too_large")
    if data[:4] == b"RIFF" and data[8:12] == b"WAVE":
        _check_wav(data)
        return DetectedAudio("wav", data)
    if data[4:8] == b"ftyp":
        _check_mp4_boxes(data)
        return DetectedAudio("m4a", data)
    return _read_mp3(data)


# WAV


def _check_wav(data: bytes) -> None:
    """Raises UnreadableAudio unless the file has a data chunk that is as long as its header says."""
    at = 12
    while at + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, at)
        if name == b"data":
            if size < _UNKNOWN_SIZE and len(data) - (at + 8) < size * (1 - _MAX_MISSING_RATIO):
                break
            return
        at += 8 + size + (size & 1)
    raise UnreadableAudio("truncated")


# M4A


def _check_mp4_boxes(data: bytes) -> None:
    """Raises UnreadableAudio unless all top-level boxes are complete and one of them (`moov`) describes the tracks."""
    at, names = 0, set()
    while at + 8 <= len(data):
        size, name = struct.unpack_from(">I4s", data, at)
        if size == 1 and at + 16 <= len(data):
            size = struct.unpack_from(">Q", data, at + 8)[0]
        names.add(name)
        at = len(data) if size == 0 else at + max(size, 8)
    if at > len(data) or b"moov" not in names:
        raise UnreadableAudio("truncated")


# MP3


def _read_mp3(data: bytes) -> DetectedAudio:
    """Skips leading tags and zeros. Then requires several frames, because one sync pattern occurs in any large file."""
    at = 0
    # ID3v2 tags. With a cover image they can be most of the file.
    while data[at : at + 3] == b"ID3" and at + 10 <= len(data):
        size = sum((byte & 0x7F) << shift for byte, shift in zip(data[at + 6 : at + 10], (21, 14, 7, 0), strict=True))
        has_footer = data[at + 5] & 0x10
        at += 10 + size + (10 if has_footer else 0)
    if at > len(data):
        raise UnreadableAudio("truncated")
    audio = data[at:].lstrip(b"\0")
    frame_at = 0
    for _ in range(_MIN_CONSECUTIVE_FRAMES):
        is_frame = _SYNC.match(audio, frame_at) and frame_at + 4 <= len(audio)
        size = mp3_frame_size(audio[frame_at + 1], audio[frame_at + 2]) if is_frame else 0
        if not size:
            raise UnreadableAudio("damaged" if at else "unknown")
        frame_at += size
    # Encoders write the number of frames into a Xing or Info header.
    header_at = max(audio.find(b"Xing", 0, 64), audio.find(b"Info", 0, 64))
    if header_at < 0 or header_at + 12 > len(audio) or not audio[header_at + 7] & 1:
        return DetectedAudio("mp3", audio)
    return DetectedAudio("mp3", audio, announced_frames=struct.unpack_from(">I", audio, header_at + 8)[0])
