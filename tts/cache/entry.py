"""How a clip lies in a store: a header (how long it holds, that it is whole and under its own key), then the sound."""

import hashlib
import struct
from dataclasses import dataclass

_HEADER = struct.Struct(">4sdI32s")  # magic, expires at (seconds since 1970), length, digest of these, key and audio
_MAGIC = b"VCP2"


@dataclass(frozen=True, slots=True)
class Entry:
    """`expires_at` is in seconds since 1970."""

    audio: bytes
    expires_at: float


def pack(key: str, entry: Entry) -> bytes:
    digest = _digest(key, entry)
    return _HEADER.pack(_MAGIC, entry.expires_at, len(entry.audio), digest) + entry.audio


def unpack(key: str, packed: bytes) -> Entry | None:
    """None if this is not, to the bit, what was packed under this key."""
    if len(packed) < _HEADER.size:
        return None
    magic, expires_at, length, digest = _HEADER.unpack_from(packed)
    entry = Entry(packed[_HEADER.size :], expires_at)
    whole = magic == _MAGIC and len(entry.audio) == length and _digest(key, entry) == digest
    return entry if whole else None


def _digest(key: str, entry: Entry) -> bytes:
    """Over all that makes an entry: one under another's name or with another's age is as damaged as a cut one."""
    return hashlib.sha256(key.encode() + struct.pack(">d", entry.expires_at) + entry.audio).digest()
