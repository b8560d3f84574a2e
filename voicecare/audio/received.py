"""Checks a stream of audio from the provider, and removes what a decoder could not play in the middle of a speech."""

import re

from voicecare.audio.formats import AudioFormat
from voicecare.audio.framing import mp3_frame_size, mp3_sample_rate, mp3_unit_size

_CONTAINERS = {"opus": b"OggS", "wav": b"RIFF"}
_FOREIGN = (b"RIFF", b"RF64", b"OggS", b"fLaC", b"FORM", b"caff", b".snd", b"#!AMR", b"\x1aE\xdf\xa3", b"ID3")
_MP3_HEADER = re.compile(rb"\xff[\xe2\xe3\xf2\xf3\xfa\xfb]")
_INFO_FRAME = re.compile(rb"(?s).{4,42}(?:Xing|Info|VBRI)")
_INFO_HEAD_BYTES = 46  # the header, a checksum, the longest side information, and the mark
_MAX_JUNK_BYTES = 4096
_ID3V1_BYTES = 128


class WrongFormat(Exception):
    """The received stream is not in the format that was requested."""


class ReceivedAudio:
    """Forwards a stream of the format `fmt`, chunk by chunk, so that it can be appended to another stream.

    The first bytes are checked. Everything before the first frame of sound is removed from an MP3: ID3 tags, the frame
    with metadata of the encoder (Xing, Info or VBRI), and bytes that are no frame. In the middle of a speech a decoder
    would report an error for them, or play the metadata as a frame of silence. An ID3v1 tag at the end is removed, too.
    All other bytes are forwarded unchanged.

    The first bytes are held back until the check is complete. For a stream that begins with sound, this takes less than
    50 bytes.
    """

    def __init__(self, fmt: AudioFormat) -> None:
        self._format = fmt
        self._held = b""  # the first bytes, until they are checked; later the last bytes if they may be a tag
        self._skip = 0
        self._has_begun = False

    def feed(self, chunk: bytes) -> bytes:
        """Takes the next chunk and returns the bytes to forward, which can be b"".

        Raises WrongFormat if the stream is not in the requested format.
        """
        data = self._held + chunk if self._held else chunk
        self._held = b""
        if not self._has_begun:
            data = self._begin(data)
        if self._format.codec == "mp3" and (tag := data.rfind(b"TAG", -_ID3V1_BYTES)) >= 0:
            data, self._held = data[:tag], data[tag:]
        return data

    def finish(self) -> bytes:
        """Returns the last bytes to forward. Raises WrongFormat if no audio was found in the whole stream."""
        if not self._has_begun:
            raise WrongFormat
        return b"" if len(self._held) == _ID3V1_BYTES else self._held

    def _begin(self, data: bytes) -> bytes:
        """Takes bytes from the beginning of the stream. Returns the bytes from the first sound on.

        If the first sound cannot be found yet, keeps the bytes that are still needed, and returns b"". Raises
        WrongFormat.
        """
        is_mp3 = self._format.codec == "mp3"
        while self._skip < len(data):
            data, self._skip = data[self._skip :], 0
            size = self._mp3_preamble(data) if is_mp3 else self._other_preamble(data)
            if size is None:
                self._held = data
                return b""
            if not size:
                self._has_begun = True
                return data
            self._skip = size
        self._skip -= len(data)
        return b""

    def _mp3_preamble(self, data: bytes) -> int | None:
        """Returns how many bytes at the start of `data` are no sound.

        They are removed, and the rest is checked in the same way. Returns 0 if sound starts with `data`, and None if
        more bytes are needed to decide. Raises WrongFormat if `data` is not MP3.
        """
        if data.startswith(_FOREIGN[:-1]):
            raise WrongFormat
        if len(data) < 10:
            return None
        if self._is_frame(data, 0):
            if len(data) < _INFO_HEAD_BYTES:
                return None
            return mp3_frame_size(data[1], data[2]) if _INFO_FRAME.match(data) else 0
        if data.startswith(b"ID3") and (size := mp3_unit_size(data[:10])):
            return size
        for match in _MP3_HEADER.finditer(data, 1, _MAX_JUNK_BYTES):  # two in a row, as other bytes may look like one
            at = match.start()
            if self._is_frame(data, at) and self._is_frame(data, at + mp3_frame_size(data[at + 1], data[at + 2])):
                return at
        if len(data) > _MAX_JUNK_BYTES:
            raise WrongFormat
        return None

    def _other_preamble(self, data: bytes) -> int | None:
        """Checks the first bytes of a stream that is not MP3.

        Returns 0 if it is valid, None if more bytes are needed to decide. Raises WrongFormat if `data` is in another
        format.
        """
        container = _CONTAINERS.get(self._format.codec)
        if container is not None:
            if not data.startswith(container[: len(data)]):
                raise WrongFormat
            return 0 if len(data) >= len(container) else None
        if data.startswith(_FOREIGN):
            raise WrongFormat
        if any(mark.startswith(data) for mark in _FOREIGN):
            return None
        if data == b"\xff" or _MP3_HEADER.match(data):  # PCM can look like one header, not like two
            size = mp3_frame_size(data[1], data[2]) if len(data) > 2 else 4
            if len(data) < size + 4:
                return None
            if size and _MP3_HEADER.match(data, size) and mp3_frame_size(data[size + 1], data[size + 2]):
                raise WrongFormat
        return 0

    def _is_frame(self, data: bytes, at: int) -> bool:
        """Whether an MP3 frame of the requested sample rate starts at the offset `at` of `data`."""
        if len(data) < at + 4 or not _MP3_HEADER.match(data, at):
            return False
        version, rates = data[at + 1], data[at + 2]
        return mp3_frame_size(version, rates) > 0 and mp3_sample_rate(version, rates) == self._format.sample_rate
