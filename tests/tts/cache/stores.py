"""Phrase stores built from the settings, with real files, a real Redis and a real S3 server."""

import runpy
from pathlib import Path

import pytest
from django.conf import settings
from django.core.files.storage.handler import StorageHandler

from tests.services import RedisProcess, S3Process
from tts.cache.stores import RedisStore, StorageStore, Store

KINDS = ("file", "redis", "s3")
WEEK_S = 7 * 24 * 3600


def file_store(folder: Path) -> StorageStore:
    return StorageStore(storages(PHRASE_STORE="file", VOICECARE_DATA_DIR=str(folder))["phrases"])


def s3_store(server: S3Process) -> StorageStore:
    return StorageStore(storages(PHRASE_STORE="s3", **server.environment)["phrases"])


def storages(**environment: str) -> StorageHandler:
    """Returns the storages that the settings define in this environment."""
    return StorageHandler(configured(**environment)["STORAGES"])


def configured(**environment: str) -> dict[str, object]:
    """Runs the settings module again with these environment variables and returns its names."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VOICECARE_DATA_DIR", str(settings.DATA_DIR))
        for name, value in environment.items():
            patch.setenv(name, value)
        return runpy.run_path(str(settings.BASE_DIR / "voicecare" / "settings.py"))


def store_of(kind: str, folder: Path, request: pytest.FixtureRequest) -> Store:
    """Returns an empty store. Requests the fixtures `redis` and `s3` by name, so that only used servers start."""
    if kind == "file":
        return file_store(folder)
    if kind == "redis":
        server: RedisProcess = request.getfixturevalue("redis")
        server.flush()
        return RedisStore(server.url, WEEK_S)
    store = s3_store(request.getfixturevalue("s3"))
    for key in list(store.keys()):
        store.delete(key)
    return store
