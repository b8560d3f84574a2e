"""The sounds used last, in memory."""

import threading
import time
from collections import OrderedDict
from collections.abc import Iterable


class Memory:
    """The sounds used last, at most `limit` bytes of them. May be used from several threads."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self._kept: OrderedDict[str, tuple[bytes, float]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str) -> bytes | None:
        with self._lock:
            audio, until = self._kept.get(key, (None, 0.0))
            if audio is not None and time.monotonic() >= until:
                self._drop(key)
                return None
            if audio is not None:
                self._kept.move_to_end(key)
            return audio

    def keep(self, key: str, audio: bytes, seconds: float) -> None:
        """One that would take more than an eighth of the room is not kept: it would push out too many others."""
        with self._lock:
            self._drop(key)
            if len(audio) > self._limit // 8:
                return
            self._kept[key] = (audio, time.monotonic() + seconds)
            self._size += len(audio)
            while self._size > self._limit:
                self._drop(next(iter(self._kept)))

    def drop(self, keys: Iterable[str]) -> None:
        with self._lock:
            for key in keys:
                self._drop(key)

    def keys(self) -> list[str]:
        with self._lock:
            return list(self._kept)

    def _drop(self, key: str) -> None:
        audio, _ = self._kept.pop(key, (b"", 0.0))
        self._size -= len(audio)
