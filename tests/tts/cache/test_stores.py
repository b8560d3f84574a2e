"""All phrase stores, with real files, a real Redis and a real S3 server, and the failures of each."""

import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis as redis_client
from django.conf import settings
from pytest_django import Settings

from tests.services import RedisProcess, S3Process
from tests.tts.cache.stores import KINDS, configured, file_store, s3_store, storages, store_of
from tts.cache.stores import REDIS_PREFIX, RedisStore, StorageStore, Store, StoreError, create_store

KEY = "ab" * 32
OTHER = "cd" * 32


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisProcess]:
    with RedisProcess() as process:
        yield process


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Process]:
    with S3Process() as process, pytest.MonkeyPatch.context() as patch:
        for name, value in process.environment.items():
            patch.setenv(name, value)
        yield process


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return store_of(request.param, tmp_path, request)


# All stores


@pytest.mark.parametrize("entry", [b"", b"\0", bytes(range(256)) * 2400], ids=["nothing", "a byte", "600 KB"])
def test_reading_returns_what_was_written(store: Store, entry: bytes):
    store.write(KEY, entry)
    assert store.read(KEY) == entry


def test_an_unknown_key_reads_as_none(store: Store):
    assert store.read(KEY) is None
    assert list(store.keys()) == []


def test_a_new_entry_replaces_the_old_one(store: Store):
    store.write(KEY, b"a long old one")
    store.write(KEY, b"new")
    assert store.read(KEY) == b"new"
    assert list(store.keys()) == [KEY]


def test_a_deleted_entry_reads_as_none(store: Store):
    store.write(KEY, b"one")
    store.write(OTHER, b"other")
    store.delete(KEY)
    assert store.read(KEY) is None
    assert list(store.keys()) == [OTHER]


def test_deleting_a_missing_entry_is_no_error(store: Store):
    store.delete(KEY)


def test_every_key_is_listed(store: Store):
    keys = {f"{number:02x}" * 32 for number in range(0, 256, 5)}
    for key in keys:
        store.write(key, b"x")
    assert set(store.keys()) == keys


def test_a_reader_gets_one_whole_entry_while_two_writers_write(store: Store):
    entries = [bytes([number]) * 200_000 for number in (1, 2)]
    store.write(KEY, entries[0])

    def write(entry: bytes) -> None:
        for _ in range(10):
            store.write(KEY, entry)

    writers = [threading.Thread(target=write, args=(entry,)) for entry in entries]
    for writer in writers:
        writer.start()
    read = set()
    while any(writer.is_alive() for writer in writers):
        read.add(store.read(KEY))
    assert read <= set(entries)
    assert store.read(KEY) in entries


def test_an_entry_deleted_during_a_read_is_whole_or_missing(store: Store):
    entry = bytes(200_000)
    done = threading.Event()

    def come_and_go() -> None:
        for _ in range(20):
            store.write(KEY, entry)
            store.delete(KEY)
        done.set()

    other = threading.Thread(target=come_and_go)
    other.start()
    read = set()
    while not done.is_set():
        read.add(store.read(KEY))
    other.join()
    assert read <= {None, entry}


# Files


def test_files_are_in_the_data_directory_and_only_the_owner_can_read_them(tmp_path: Path):
    file_store(tmp_path).write(KEY, b"sound")
    path = tmp_path / "phrases" / "ab" / KEY
    assert path.read_bytes() == b"sound"
    assert path.stat().st_mode & 0o777 == 0o600


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Limits the size of files, so that a write fails in the middle as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_raises_and_keeps_the_old_entry(tmp_path: Path):
    store = file_store(tmp_path)
    store.write(KEY, b"old")
    with file_size_limit(1000), pytest.raises(StoreError, match="OSError"):
        store.write(KEY, bytes(100_000))
    assert store.read(KEY) == b"old"
    assert [path.name for path in (tmp_path / "phrases").rglob("*") if path.is_file()] == [KEY]


def test_a_folder_without_permission_raises(tmp_path: Path):
    """Uses a child process without root privileges, because root ignores permissions."""
    store = file_store(tmp_path)
    store.write(KEY, b"old")
    code = (
        "import os, sys; import django; django.setup()\n"
        "from tts.cache.stores import AtomicFileStorage, StorageStore, StoreError\n"
        "store = StorageStore(AtomicFileStorage(sys.argv[1]))\n"
        "os.getuid() or os.setuid(65534)\n"
        "for work in (lambda: store.read(sys.argv[2]), lambda: store.write(sys.argv[2], b'x'),\n"
        "             lambda: store.delete(sys.argv[2]), lambda: list(store.keys())):\n"
        "    try: print('done', work())\n"
        "    except StoreError as error: print(error)\n"
    )
    (tmp_path / "phrases").chmod(0)
    try:
        child = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "phrases"), KEY],
            env={**os.environ, "DJANGO_SETTINGS_MODULE": "voicecare.settings"},
            cwd=settings.BASE_DIR,
            capture_output=True,
            text=True,
            check=True,
        )
    finally:
        (tmp_path / "phrases").chmod(0o700)
    assert child.stdout.splitlines() == ["The phrase store failed with PermissionError."] * 4


def test_a_path_that_is_not_a_folder_raises(tmp_path: Path):
    (tmp_path / "phrases").write_bytes(b"a file")
    store = file_store(tmp_path)
    for work in (lambda: store.read(KEY), lambda: store.write(KEY, b"x"), lambda: list(store.keys())):
        with pytest.raises(StoreError, match=r"NotADirectoryError|FileExistsError"):
            work()


@pytest.mark.parametrize(("age_s", "listed"), [(0, False), (3500, False), (3700, True)])
def test_a_temporary_file_is_listed_after_an_hour(tmp_path: Path, age_s: int, listed: bool):
    store = file_store(tmp_path)
    store.write(KEY, b"whole")
    half_written = tmp_path / "phrases" / "ab" / f"{KEY}.x1y2z3"
    half_written.write_bytes(b"half")
    os.utime(half_written, (time.time() - age_s, time.time() - age_s))
    assert set(store.keys()) == ({KEY, half_written.name} if listed else {KEY})
    store.delete(half_written.name)
    assert not half_written.exists()
    assert store.read(KEY) == b"whole"


# Redis


def test_redis_deletes_an_entry_after_its_ttl(redis: RedisProcess):
    RedisStore(redis.url, 100.5).write(KEY, b"sound")
    with redis_client.Redis.from_url(redis.url) as client:
        assert 95 < client.ttl(REDIS_PREFIX + KEY) <= 101
        assert client.get(REDIS_PREFIX + KEY) == b"sound"  # unchanged, not pickled


def test_other_keys_in_redis_are_not_listed(redis: RedisProcess):
    redis.flush()
    with redis_client.Redis.from_url(redis.url) as client:
        client.set("celery", "queue")
        assert list(RedisStore(redis.url, 60).keys()) == []


def write_many(store: Store) -> None:
    for number in range(100):
        store.write(f"{number:02x}" * 32, bytes(100_000))


def test_a_full_redis_raises_and_can_still_be_read():
    with RedisProcess("--maxmemory", "2mb", "--maxmemory-policy", "noeviction") as full:
        store = RedisStore(full.url, 60)
        store.write(KEY, b"old")
        with pytest.raises(StoreError, match="OutOfMemoryError"):
            write_many(store)
        assert store.read(KEY) == b"old"


def test_an_unavailable_redis_raises_and_is_used_again_later():
    with RedisProcess() as process:
        store = RedisStore(process.url, 60)
        store.write(KEY, b"old")
        process.stop()
        for work in (lambda: store.read(KEY), lambda: store.write(KEY, b"x"), lambda: list(store.keys())):
            with pytest.raises(StoreError, match="ConnectionError"):
                work()
        process.start()
        store.write(KEY, b"new")
        process.stop()
        process.start()  # the connection is broken, which the client has not noticed
        assert store.read(KEY) is None


def test_a_hanging_redis_times_out():
    with RedisProcess() as process:
        store = RedisStore(process.url, 60)
        store.write(KEY, b"old")
        process.pause()
        with pytest.raises(StoreError, match="TimeoutError"):
            store.read(KEY)
        process.resume()
        assert store.read(KEY) == b"old"


# S3


def test_objects_are_private_and_in_a_folder_of_the_bucket(s3: S3Process):
    store = s3_store(s3)
    store.write(KEY, b"sound")
    client = storages(PHRASE_STORE="s3", **s3.environment)["phrases"].connection.meta.client
    listed = client.list_objects_v2(Bucket=s3.bucket, Prefix="phrases/ab/")["Contents"]
    assert [item["Key"] for item in listed] == [f"phrases/ab/{KEY}"]
    grants = client.get_object_acl(Bucket=s3.bucket, Key=f"phrases/ab/{KEY}")["Grants"]
    assert all(grant["Grantee"]["Type"] == "CanonicalUser" for grant in grants)


def test_an_s3_server_that_fails_or_hangs_raises(s3: S3Process):
    missing = {**s3.environment, "AWS_STORAGE_BUCKET_NAME": "no-such-bucket"}
    bucketless = StorageStore(storages(PHRASE_STORE="s3", **missing)["phrases"])
    with pytest.raises(StoreError, match="NoSuchBucket"):
        bucketless.write(KEY, b"x")
    unreachable = StorageStore(
        storages(PHRASE_STORE="s3", **{**s3.environment, "AWS_S3_ENDPOINT_URL": "http://127.0.0.1:9"})["phrases"]
    )
    began = time.monotonic()
    for work in (
        lambda: unreachable.read(KEY),
        lambda: unreachable.write(KEY, b"x"),
        lambda: unreachable.delete(KEY),
        lambda: list(unreachable.keys()),
    ):
        with pytest.raises(StoreError, match="EndpointConnectionError"):
            work()
    assert time.monotonic() - began < 10


# Settings


def test_phrase_store_selects_the_store(settings: Settings, redis: RedisProcess):
    settings.PHRASE_STORE, settings.STORAGES = "file", configured(PHRASE_STORE="file")["STORAGES"]
    assert create_store(settings).is_local
    settings.PHRASE_STORE, settings.REDIS_URL = "redis", redis.url
    assert isinstance(create_store(settings), RedisStore)
    settings.PHRASE_STORE = "s3"
    settings.STORAGES = configured(PHRASE_STORE="s3", AWS_STORAGE_BUCKET_NAME="bucket")["STORAGES"]
    assert not create_store(settings).is_local


@pytest.mark.parametrize(
    ("store", "missing"), [("redis", "REDIS_URL"), ("s3", "AWS_STORAGE_BUCKET_NAME"), ("tape", "PHRASE_STORE")]
)
def test_a_missing_setting_of_the_store_stops_the_start_and_is_named(store: str, missing: str):
    with pytest.raises(SystemExit, match=missing):
        configured(PHRASE_STORE=store, REDIS_URL="", AWS_STORAGE_BUCKET_NAME="")


def test_s3_requests_work_with_servers_other_than_aws():
    options = configured(PHRASE_STORE="s3", AWS_STORAGE_BUCKET_NAME="bucket", AWS_S3_ENDPOINT_URL="http://minio:9000")
    config = options["STORAGES"]["phrases"]["OPTIONS"]["client_config"]
    assert config.signature_version == "s3v4"
    assert config.s3["addressing_style"] == "path"
    assert config.request_checksum_calculation == "when_required"
    assert config.connect_timeout + config.read_timeout <= 7
