"""The format of a clip in a store: a header with expiry time, length and digest, followed by the audio."""

import hashlib
import struct
from dataclasses import dataclass

_HEADER = struct.Struct(">4sdI32s")  # magic, expiry time, length of the audio, digest
_MAGIC = b"VCP2"


@dataclass(frozen=True, slots=True)
class Entry:
    """A clip as it is kept in a store. `expires_at` is a Unix time in seconds."""

    audio: bytes
    expires_at: float


def pack(key: str, entry: Entry) -> bytes:
    digest = _digest(key, entry)
    return _HEADER.pack(_MAGIC, entry.expires_at, len(entry.audio), digest) + entry.audio


def unpack(key: str, packed: bytes) -> Entry | None:
    """Return the entry, or None if the bytes are damaged or were packed under another key."""
    if len(packed) < _HEADER.size:
        return None
    magic, expires_at, length, digest = _HEADER.unpack_from(packed)
    entry = Entry(packed[_HEADER.size :], expires_at)
    whole = magic == _MAGIC and len(entry.audio) == length and _digest(key, entry) == digest
    return entry if whole else None


def _digest(key: str, entry: Entry) -> bytes:
    """Return the SHA-256 of key, expiry time and audio.

    So an entry under a wrong key or with a changed expiry time counts as damaged.
    """
    return hashlib.sha256(key.encode() + struct.pack(">d", entry.expires_at) + entry.audio).digest()
