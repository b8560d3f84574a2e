"""Detects the format of an audio file from its content. The file name and the content type of the upload are ignored.

FFmpeg opens only files that have passed this check, and is given the container format. If FFmpeg guessed the format, it
would also open playlists, which make it read other files and connect to other hosts.
"""

import re
import struct
from typing import NamedTuple

from voicecare.audio.framing import mp3_frame_size

MAX_BYTES = 10_000_000
MIN_SECONDS = 60.0
WAV_SIGNATURES = (b"RIFF", b"RF64", b"BW64")
MAX_DECODED_S = 900  # a limit is needed: ten megabytes can hold eight hours of silence
PCM_CODECS = ("pcm_u8", "pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_f32le", "pcm_f64le")
_COMPRESSED_WAV_CODECS = ("pcm_alaw", "pcm_mulaw", "adpcm_ima_wav", "adpcm_ms", "gsm_ms", "mp3")
CODECS = {
    "mp3": ("mp3",),
    "wav": (*PCM_CODECS, *_COMPRESSED_WAV_CODECS),
    "m4a": ("aac", "alac"),
}

_MAX_MISSING_RATIO = 0.05  # of the size in the header; recorders may round it, but an interrupted upload lacks more
_UNKNOWN_SIZE = 0x7FFFF000  # programs that cannot seek back to the header write a data size of this value or more
_MIN_CONSECUTIVE_FRAMES = 3
_MIN_FRAMES_AFTER_JUNK = 20
_MAX_JUNK_BYTES = 128 * 1024
# Archives, pages and containers that can contain the frames of an MP3, but that no player opens as an MP3.
_OTHER_FORMATS = (
    *(b"PK", b"RIFF", b"OggS", b"fLaC", b"FORM", b"FLV", b"%PDF"),
    *(b"\x1aE\xdf\xa3", b"\0\0\1", b"0&\xb2u", b"G@"),  # Matroska, MPEG program stream, ASF, MPEG transport stream
)
_SYNC = re.compile(rb"\xff[\xe2\xe3\xf2\xf3\xfa\xfb]")  # MPEG 1, 2 and 2.5, layer III, with and without checksum


class UnreadableAudio(Exception):
    """The file cannot be decoded.

    `reason` is empty, too_large, unknown, video, odd_shape, truncated or damaged. `acceptance` has a message for each.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class DetectedAudio(NamedTuple):
    """The detected format of a file, and its audio.

    `kind` is a key of CODECS. `audio` is the content of the file. Of an MP3, it is the content from the first frame on.
    `has_junk` is true if there were bytes before that first frame that other programs may not understand. Normal ID3
    tags are no junk. `is_incomplete` is true if the file is shorter than its own header says. `announced_frames` is the
    frame count in the header of an MP3, or None.
    """

    kind: str
    audio: bytes
    has_junk: bool = False
    is_incomplete: bool = False
    announced_frames: int | None = None


def detect_format(data: bytes) -> DetectedAudio:
    """Returns the format of the file content `data`.

    Raises UnreadableAudio for an unknown format, for more than MAX_BYTES, and for an empty, incomplete or damaged file
    that contains no sound.
    """
    if not data:
        raise UnreadableAudio("empty")
    if len(data) > MAX_BYTES:
        raise UnreadableAudio("too_large")
    if data[:4] in WAV_SIGNATURES and data[8:12] == b"WAVE":
        return DetectedAudio("wav", data, is_incomplete=_is_wav_incomplete(data))
    if data[4:8] == b"ftyp":
        return DetectedAudio("m4a", data, is_incomplete=_is_mp4_incomplete(data))
    return _read_mp3(data)


# WAV


def _is_wav_incomplete(data: bytes) -> bool:
    """Whether the `data` chunk of a WAV file is shorter than its header says.

    Raises UnreadableAudio without a `data` chunk.
    """
    at = 12
    while at + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, at)
        if name == b"data":
            return bool(size < _UNKNOWN_SIZE) and len(data) - (at + 8) < size * (1 - _MAX_MISSING_RATIO)
        at += 8 + size + (size & 1)
    raise UnreadableAudio("truncated")


# M4A


def _is_mp4_incomplete(data: bytes) -> bool:
    """Whether the last top-level box of an MP4 file is cut.

    Raises UnreadableAudio if the file has no `moov` box, which describes the tracks.
    """
    at, names = 0, set()
    while at + 8 <= len(data):
        size, name = struct.unpack_from(">I4s", data, at)
        if size == 1 and at + 16 <= len(data):
            size = struct.unpack_from(">Q", data, at + 8)[0]
        names.add(name)
        at = len(data) if size == 0 else at + max(size, 8)
    if b"moov" not in names:
        raise UnreadableAudio("truncated")
    return at > len(data)


# MP3


def _read_mp3(data: bytes) -> DetectedAudio:
    """Returns the content of an MP3 file from its first frame on. Raises UnreadableAudio if it contains no frames.

    Several consecutive frames are required, because the bytes that mark a frame also occur by chance in other files.
    """
    at, is_tagged = _skip_tags(data)
    audio = data[at:].lstrip(b"\0")
    is_free_format = bool(_SYNC.match(audio)) and audio[2:3] < b"\x10"  # the size of a frame is not known
    if not _has_frames(audio, 0, _MIN_CONSECUTIVE_FRAMES):
        # A tag with a wrong size, the response headers of a download, or the rest of a frame where a file was split.
        start = data if is_tagged else audio
        searched = at + _MAX_JUNK_BYTES if is_tagged else _MAX_JUNK_BYTES
        audio = b"" if audio.startswith(_OTHER_FORMATS) else _from_first_frame(start, searched)
    if not audio:
        is_unknown = not is_tagged or is_free_format
        raise UnreadableAudio("unknown" if is_unknown else "truncated" if at > len(data) else "damaged")
    has_junk = data[:3] != b"ID3" or audio != data[at:] if is_tagged else audio != data
    # Encoders write the number of frames into a Xing or Info header.
    header_at = max(audio.find(b"Xing", 0, 64), audio.find(b"Info", 0, 64))
    if header_at < 0 or header_at + 12 > len(audio) or not audio[header_at + 7] & 1:
        return DetectedAudio("mp3", audio, has_junk)
    return DetectedAudio("mp3", audio, has_junk, announced_frames=struct.unpack_from(">I", audio, header_at + 8)[0])


def _skip_tags(data: bytes) -> tuple[int, bool]:
    """Returns the offset at which the ID3v2 and APE tags at the start of the file end, and whether there are any.

    A tag can be longer than the audio, because it may contain a cover image.
    """
    at = 0
    while True:
        if data[at : at + 3] == b"ID3" and at + 10 <= len(data):
            sizes = zip(data[at + 6 : at + 10], (21, 14, 7, 0), strict=True)
            has_footer = data[at + 5] & 0x10
            at += 10 + sum((byte & 0x7F) << shift for byte, shift in sizes) + (10 if has_footer else 0)
        elif data[at : at + 8] == b"APETAGEX" and at + 32 <= len(data):
            at += 32 + struct.unpack_from("<I", data, at + 12)[0]
        else:
            return at, at > 0


def _has_frames(audio: bytes, at: int, count: int) -> bool:
    """Whether `count` consecutive MP3 frames start at the offset `at`.

    Fewer frames, but at least _MIN_CONSECUTIVE_FRAMES, are enough if they reach the end of the file.
    """
    for number in range(count):
        is_frame = _SYNC.match(audio, at) and at + 4 <= len(audio)
        size = mp3_frame_size(audio[at + 1], audio[at + 2]) if is_frame else 0
        if not size:
            return number >= _MIN_CONSECUTIVE_FRAMES and at >= len(audio)
        at += size
    return True


def _from_first_frame(data: bytes, searched: int) -> bytes:
    """Returns `data` from the first MP3 frame on that is followed by others.

    Returns b"" if no such frame starts in the first `searched` bytes.
    """
    for found in _SYNC.finditer(data, 0, searched):
        if _has_frames(data, found.start(), _MIN_FRAMES_AFTER_JUNK):
            return data[found.start() :]
    return b""
