"""Stores for the clips of the phrase cache: files, an S3 bucket or Redis. The setting PHRASE_STORE selects one.

A store keeps bytes under a key. `tts.cache.entry` defines the format of the bytes. Keys are hexadecimal digests, so
names of files and objects reveal nothing. All stores are synchronous and thread-safe.
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

ABANDONED_AFTER_S = 3600.0  # a temporary file of this age belongs to a killed writer
REDIS_TIMEOUT_S = 0.5
REDIS_PREFIX = "voicecare:phrases:"


class StoreError(VoicecareError):
    """The store failed or timed out. `__cause__` is the exception of the storage library."""

    code = "phrase_store"
    retryable = True


class Store(Protocol):
    """The interface of all stores. Every method may raise StoreError.

    A reader never gets a part of an entry, even while the entry is being replaced.
    """

    is_local: bool  # reads are fast enough to run on the event loop

    def read(self, key: str) -> bytes | None:
        """Return the entry, or None if it does not exist."""

    def write(self, key: str, entry: bytes) -> None:
        """Create or replace the entry."""

    def delete(self, key: str) -> None:
        """Delete the entry. A missing entry is no error."""

    def keys(self) -> Iterator[str]:
        """Yield the keys of all entries, including damaged ones. A key may come twice while other processes write."""


class AtomicFileStorage(FileSystemStorage):
    """A file storage that replaces files atomically.

    Django's own storage either does not overwrite a file, or shows readers the first part of the new content.
    """

    def __init__(self, location: str | os.PathLike[str]) -> None:
        super().__init__(location, allow_overwrite=True)

    def listdir(self, path: str) -> tuple[list[str], list[str]]:
        """List folders and files.

        Temporary files of a running writer are left out, those of a killed writer are included.
        """
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
    """Keeps entries as files or objects of a Django storage, in 256 folders."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.is_local = isinstance(storage, FileSystemStorage)

    def read(self, key: str) -> bytes | None:
        with _wrap_errors():
            try:
                with self._storage.open(_object_name(key)) as file:
                    return bytes(file.read())
            except FileNotFoundError:
                return None
            except Exception as error:  # of botocore, which is slow to import and used for S3 only
                # A read from S3 takes three requests. django-storages handles "not found" only for the first.
                response: dict[str, Any] = getattr(error, "response", {})
                if response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 404:
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
            except FileNotFoundError:  # nothing has been written yet
                return [], []


class RedisStore:
    """Keeps entries as Redis strings, which Redis deletes after `ttl_s` seconds."""

    is_local = False

    def __init__(self, url: str, ttl_s: float) -> None:
        self._ttl_s = max(1, math.ceil(ttl_s))
        self._client: Any = redis.Redis.from_url(  # its type stubs do not cover bytes
            url,
            socket_timeout=REDIS_TIMEOUT_S,
            socket_connect_timeout=REDIS_TIMEOUT_S,
            # One immediate retry reconnects after a Redis restart. A timeout is not retried, because Redis hangs then.
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
    """Return the store that the setting PHRASE_STORE selects.

    For `file` and `s3`, it uses the storage "phrases" of STORAGES.
    """
    if settings.PHRASE_STORE == "redis":
        return RedisStore(settings.REDIS_URL, settings.PHRASE_TTL_S)
    return StorageStore(storages["phrases"])


def _object_name(key: str) -> str:
    return f"{key[:2]}/{key}"


@contextmanager
def _wrap_errors() -> Iterator[None]:
    """Raise StoreError in place of any exception of a storage library."""
    try:
        yield
    except Exception as error:  # storage libraries raise exceptions of many types
        raise StoreError(f"The phrase store failed with {type(error).__name__}.") from error
