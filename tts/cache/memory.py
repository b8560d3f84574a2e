"""A cache of audio in the memory of a process."""

import threading
import time
from collections import OrderedDict
from collections.abc import Iterable


class LRUCache:
    """Keeps the most recently used audio in memory, at most `limit` bytes. Each entry has its own lifetime.

    Thread-safe.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self._entries: OrderedDict[str, tuple[bytes, float]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str) -> bytes | None:
        with self._lock:
            audio, until = self._entries.get(key, (None, 0.0))
            if audio is not None and time.monotonic() >= until:
                self._remove(key)
                return None
            if audio is not None:
                self._entries.move_to_end(key)
            return audio

    def put(self, key: str, audio: bytes, seconds: float) -> None:
        """Keep the audio for `seconds`.

        Audio larger than an eighth of the limit is not kept, because it would evict too many other entries.
        """
        with self._lock:
            self._remove(key)
            if len(audio) > self._limit // 8:
                return
            self._entries[key] = (audio, time.monotonic() + seconds)
            self._size += len(audio)
            while self._size > self._limit:
                self._remove(next(iter(self._entries)))

    def delete(self, keys: Iterable[str]) -> None:
        with self._lock:
            for key in keys:
                self._remove(key)

    def keys(self) -> list[str]:
        with self._lock:
            return list(self._entries)

    def _remove(self, key: str) -> None:
        audio, _ = self._entries.pop(key, (b"", 0.0))
        self._size -= len(audio)
