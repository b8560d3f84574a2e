"""The API key of the provider: ELEVENLABS_API_KEY, or the content of ELEVENLABS_API_KEY_FILE.

The file may change while the server runs, because keys of service accounts expire after 15 minutes to 90 days.
"""

import os
import time
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from threading import Lock

import structlog
from django.conf import settings

SETTLE_S = 1.0
"""A file that changed less than this time ago may be written in parts, so the key before it stays in use."""

MAX_KEY_BYTES = 4096

log = structlog.get_logger(__name__)


class KeyFile:
    """The key in a file. Thread-safe. White space around the key is ignored."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = Lock()
        self._key = ""
        self._version: tuple[int, ...] = ()
        self._is_unusable = False
        self.changed_at: datetime | None = None
        """When another key was found, for the first time after the start. None if the key has never changed."""

    def read(self) -> str:
        """Return the key. A file that is missing, unreadable, empty or has no key leaves the last key in use.

        Before the first key is found, the result is an empty string, which the provider refuses.
        """
        with self._lock:
            try:
                status = os.stat(self._path)
                version = (status.st_ino, status.st_mtime_ns, status.st_size)
                may_be_partial = bool(self._key) and 0 <= time.time() - status.st_mtime < SETTLE_S
                if version == self._version or may_be_partial:
                    return self._key
                with self._path.open("rb") as file:
                    content = file.read(MAX_KEY_BYTES + 1)
            except OSError as error:
                self._report_unusable(type(error).__name__)
                return self._key
            self._version = version
            key = content.decode(errors="replace").strip()
            if not key or len(content) > MAX_KEY_BYTES or not key.isascii() or not key.isprintable() or " " in key:
                self._report_unusable("no_key")
                return self._key
            self._is_unusable = False
            if self._key and key != self._key:
                self.changed_at = datetime.now(UTC)
                log.info("provider.key_changed")
            self._key = key
            return key

    def _report_unusable(self, reason: str) -> None:
        if not self._is_unusable:  # once, because the file is read again and again
            log.warning("provider.key_file_unusable", reason=reason)
        self._is_unusable = True


def api_key() -> str:
    """Return the API key that is valid now. The sandbox takes any key."""
    if settings.ELEVENLABS_API_KEY_FILE:
        return _key_file(settings.ELEVENLABS_API_KEY_FILE).read()
    return settings.ELEVENLABS_API_KEY or "sandbox"


def key_changed_at() -> datetime | None:
    """Return when this process found another key in ELEVENLABS_API_KEY_FILE, or None if it has not."""
    if settings.ELEVENLABS_API_KEY_FILE:
        return _key_file(settings.ELEVENLABS_API_KEY_FILE).changed_at
    return None


@cache
def _key_file(path: str) -> KeyFile:
    return KeyFile(Path(path))
