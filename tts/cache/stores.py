"""Where the phrase cache keeps its entries: files, an S3 bucket, or Redis, as PHRASE_STORE says.

A store takes bytes under a key and gives them back; what they mean is for `tts.cache.phrase_cache`. Keys are
hexadecimal digests,
so the name of a file or an object tells nothing. All stores are synchronous and may be used from several threads.
"""

import math
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import redis
from django.conf import LazySettings
from django.core.files.base import ContentFile, File
from django.core.files.storage import FileSystemStorage, Storage, storages
from redis.backoff import NoBackoff
from redis.retry import Retry

from voicecare.core.errors import VoicecareError

ABANDONED_AFTER_S = 3600.0  # nobody writes for so long: the writer was killed
REDIS_TIMEOUT_S = 0.5
REDIS_PREFIX = "voicecare:phrases:"


class StoreError(VoicecareError):
    """The store refused, or did not answer in time; the cause is the library's own error."""

    code = "phrase_store"
    retryable = True


class Store(Protocol):
    """Every method raises StoreError. A reader gets the whole of an entry or nothing, also while it is replaced."""

    is_local: bool  # reading is so short that it needs no thread

    def read(self, key: str) -> bytes | None:
        """None if there is no such entry."""

    def write(self, key: str, entry: bytes) -> None:
        """Replaces what is there."""

    def delete(self, key: str) -> None:
        """What is not there is no error."""

    def keys(self) -> Iterator[str]:
        """Of all that is there, also of what is no entry; some twice, if others write meanwhile."""


class AtomicFileStorage(FileSystemStorage):
    """Files that are replaced as a whole: Django's own storage never overwrites, or shows the first half of a file."""

    def __init__(self, location: str | os.PathLike[str]) -> None:
        super().__init__(location, allow_overwrite=True)

    def listdir(self, path: str) -> tuple[list[str], list[str]]:
        """Without what is being written at this moment, but with what a killed writer has left."""
        folders, files = super().listdir(path)
        return folders, [name for name in files if "." not in name or self._is_abandoned(f"{path}/{name}")]

    def _is_abandoned(self, name: str) -> bool:
        try:
            return time.time() - Path(self.path(name)).stat().st_mtime > ABANDONED_AFTER_S
        except FileNotFoundError:
            return False

    def _save(self, name: str, content: File) -> str:
        path = Path(self.path(name))
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.writelines(content.chunks())
            Path(temporary).replace(path)
        except OSError:
            Path(temporary).unlink(missing_ok=True)
            raise
        return name


class StorageStore:
    """Entries as files or objects of one of Django's storages, 256 folders of them."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.is_local = isinstance(storage, FileSystemStorage)

    def read(self, key: str) -> bytes | None:
        with _wrap_errors():
            try:
                with self._storage.open(_object_name(key)) as file:
                    return bytes(file.read())
            except Exception as error:
                if isinstance(error, FileNotFoundError) or _is_404(error):
                    return None
                raise

    def write(self, key: str, entry: bytes) -> None:
        with _wrap_errors():
            self._storage.save(_object_name(key), ContentFile(entry))

    def delete(self, key: str) -> None:
        with _wrap_errors():
            self._storage.delete(_object_name(key))

    def keys(self) -> Iterator[str]:
        for folder in self._list("")[0]:
            yield from self._list(folder)[1]

    def _list(self, folder: str) -> tuple[list[str], list[str]]:
        with _wrap_errors():
            try:
                return self._storage.listdir(folder)
            except FileNotFoundError:  # nothing was ever written
                return [], []


class RedisStore:
    """Entries as plain strings that Redis itself forgets when their time is over (`ttl_s`)."""

    is_local = False

    def __init__(self, url: str, ttl_s: float) -> None:
        self._ttl_s = max(1, math.ceil(ttl_s))
        self._client: Any = redis.Redis.from_url(  # its stubs know no bytes
            url,
            socket_timeout=REDIS_TIMEOUT_S,
            socket_connect_timeout=REDIS_TIMEOUT_S,
            # A connection that Redis' restart has cut is made anew at once; a Redis that hangs is not asked twice.
            retry=Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
        )

    def read(self, key: str) -> bytes | None:
        with _wrap_errors():
            entry: bytes | None = self._client.get(REDIS_PREFIX + key)
            return entry

    def write(self, key: str, entry: bytes) -> None:
        with _wrap_errors():
            self._client.set(REDIS_PREFIX + key, entry, ex=self._ttl_s)

    def delete(self, key: str) -> None:
        with _wrap_errors():
            self._client.delete(REDIS_PREFIX + key)

    def keys(self) -> Iterator[str]:
        with _wrap_errors():
            for name in self._client.scan_iter(match=f"{REDIS_PREFIX}*", count=1000):
                yield name.decode().removeprefix(REDIS_PREFIX)


def create_store(settings: LazySettings) -> Store:
    """The store that PHRASE_STORE names; for `file` and `s3` it is the storage "phrases" of STORAGES."""
    if settings.PHRASE_STORE == "redis":
        return RedisStore(settings.REDIS_URL, settings.PHRASE_TTL_S)
    return StorageStore(storages["phrases"])


def _object_name(key: str) -> str:
    return f"{key[:2]}/{key}"


def _is_404(error: Exception) -> bool:
    """S3 reads in three requests, and django-storages expects this answer to the first one alone."""
    response: dict[str, Any] = getattr(error, "response", {})
    return bool(response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 404)


@contextmanager
def _wrap_errors() -> Iterator[None]:
    """Whatever a storage's library raises, it is a store that did not do its work."""
    try:
        yield
    except Exception as error:
        raise StoreError(f"The phrase store failed with {type(error).__name__}.") from error
