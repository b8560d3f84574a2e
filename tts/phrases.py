"""The phrase cache: what is said again and again, kept as sound for seven days (the contract, section 2, rule 2).

An entry is found by a keyed digest of everything that shapes the sound: text, voice and its revision, model,
settings, format. No name and no text appears in a file's name. An entry that is damaged or too old is a miss.
"""

import hashlib
import hmac
import os
import struct
import tempfile
import time
from pathlib import Path

from tts.rendering import Rendering
from tts.segments import normalise

_HEADER = struct.Struct(">4sdI32s")  # magic, expires at (seconds since 1970), length, digest of these, key and audio
_MAGIC = b"VCP2"


class PhraseCache:
    """Clips as files under `folder`. Reading is one small file read; writing belongs into a thread."""

    def __init__(self, folder: Path, secret: str, ttl_s: float) -> None:
        self._folder = folder
        self._secret = hashlib.sha256(f"phrases:{secret}".encode()).digest()
        self._ttl_s = ttl_s
        folder.mkdir(parents=True, exist_ok=True)

    def key(self, rendering: Rendering, text: str) -> str:
        """The digest under which this text, rendered like this, is kept."""
        shaped_by = (
            normalise(text), rendering.voice.provider_id, rendering.voice.revision, rendering.model,
            rendering.language, rendering.speed, rendering.format,
        )  # fmt: skip
        return hmac.digest(self._secret, repr(shaped_by).encode(), "sha256").hex()

    def get(self, key: str) -> bytes | None:
        """The clip, or None if there is none that is whole and young enough. Never raises."""
        try:
            entry = self._path(key).read_bytes()
        except OSError:
            return None
        return _audio(key, entry, time.time())

    def put(self, key: str, audio: bytes) -> None:
        """Keeps the clip. Readers see all of it or nothing of it. Raises OSError when the disk does."""
        path = self._path(key)
        path.parent.mkdir(exist_ok=True)
        expires_at = time.time() + self._ttl_s
        header = _HEADER.pack(_MAGIC, expires_at, len(audio), _digest(key, expires_at, audio))
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(header + audio)
            Path(temporary).replace(path)
        except OSError:
            Path(temporary).unlink(missing_ok=True)
            raise

    def prune(self, now: float) -> int:
        """Removes what is too old or damaged, and what a killed writer left behind; returns how many files."""
        removed = 0
        for path in self._folder.glob("*/*"):
            if _expired(path, now):
                path.unlink(missing_ok=True)
                removed += 1
        return removed

    def _path(self, key: str) -> Path:
        return self._folder / key[:2] / key


def _digest(key: str, expires_at: float, audio: bytes) -> bytes:
    """Over all that makes an entry: one under another's name or with another's age is as damaged as a cut one."""
    return hashlib.sha256(key.encode() + struct.pack(">d", expires_at) + audio).digest()


def _audio(key: str, entry: bytes, now: float) -> bytes | None:
    if len(entry) < _HEADER.size:
        return None
    magic, expires_at, length, digest = _HEADER.unpack_from(entry)
    audio = entry[_HEADER.size :]
    whole = magic == _MAGIC and len(audio) == length and _digest(key, expires_at, audio) == digest
    return audio if whole and now < expires_at else None


def _expired(path: Path, now: float) -> bool:
    try:
        if path.name.startswith("."):
            return now - path.stat().st_mtime > 3600
        return _audio(path.name, path.read_bytes(), now) is None
    except OSError:
        return False
