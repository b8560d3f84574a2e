"""The phrase cache: keys, storage, expiry, damage, store failures, memory, rows and deletion.

The tests use real stores. For faults, `FaultyStore` wraps a real store.
"""

import asyncio
import gc
import struct
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from django.db import connection
from django.utils import timezone
from prometheus_client import REGISTRY

from tests.conftest import Member
from tests.e2e.rows import in_database
from tests.services import RedisProcess, S3Process
from tests.tts.cache.stores import KINDS, file_store, store_of
from tests.tts.examples import OWN_VOICE, RENDERING
from tests.waiting import eventually
from tts.cache import phrase_cache
from tts.cache.entry import Entry, pack
from tts.cache.memory import LRUCache
from tts.cache.phrase_cache import READ_TIMEOUT_S, READERS, PhraseCache
from tts.cache.stores import RedisStore, Store, StoreError
from tts.conversations.voice import SpeechSettings, VoiceRef
from tts.models import Clip, Phrase
from voicecare.patients.models import Voice

TEXT = "That's wonderful!"
SOUND = bytes(range(256)) * 40
WEEK_S = 7 * 24 * 3600


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


@pytest.fixture(scope="module", autouse=True)
def close_connections_of_ended_threads() -> Iterator[None]:
    """Collects ended threads, because PostgreSQL cannot drop a database while their connections are open."""
    yield
    gc.collect()


class FaultyStore:
    """A store that waits for `gate`, or raises `error`, before each call. It counts reads."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.is_local = False
        self.gate = threading.Event()
        self.gate.set()
        self.error: StoreError | None = None
        self.reads = 0

    def _fault(self) -> None:
        self.gate.wait(10)
        if self.error is not None:
            raise self.error

    def read(self, key: str) -> bytes | None:
        self.reads += 1
        self._fault()
        return self.store.read(key)

    def write(self, key: str, entry: bytes) -> None:
        self._fault()
        self.store.write(key, entry)

    def delete(self, key: str) -> None:
        self._fault()
        self.store.delete(key)

    def keys(self) -> Iterator[str]:
        self._fault()
        yield from self.store.keys()


@pytest.fixture
def faulty(tmp_path: Path) -> Iterator[FaultyStore]:
    faulty = FaultyStore(file_store(tmp_path))
    yield faulty
    faulty.gate.set()


def cache_of(store: Store, **changes: object) -> PhraseCache:
    return PhraseCache(store, **{"secret": "secret", "ttl_s": WEEK_S, **changes})


@pytest.fixture
def cache(tmp_path: Path) -> PhraseCache:
    return cache_of(file_store(tmp_path))


@pytest.fixture
def key(cache: PhraseCache) -> str:
    return cache.key(RENDERING, TEXT)


@pytest.fixture
def speech_settings(alice: Member) -> SpeechSettings:
    """Settings with a voice that is in the database."""
    return replace(RENDERING, voice=VoiceRef.from_voice(alice.patient.voice))


async def put(
    cache: PhraseCache, speech_settings: SpeechSettings, text: str, audio: bytes, patient_id: uuid.UUID | None = None
) -> None:
    cache.keep_in_memory(cache.key(speech_settings, text), audio)
    await cache.store(speech_settings, text, audio, patient_id)


def store_entry(store: Store, key: str, sound: bytes = SOUND, *, expires_in_s: float = WEEK_S) -> None:
    """Writes an entry without a row, as another process may have done."""
    store.write(key, pack(key, Entry(sound, time.time() + expires_in_s)))


def metric(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"voicecare_{name}_total", labels) or 0.0


async def eventually_found(cache: PhraseCache, key: str) -> bytes | None:
    """Returns the clip. If the read times out, as it may with S3, waits until the clip is in memory."""
    sound = await cache.get(key)
    if sound is None:
        await eventually(lambda: cache.get_cached(key) is not None)
    return sound or cache.get_cached(key)


# Keys


@pytest.mark.parametrize(
    "other",
    [
        replace(RENDERING, voice=replace(OWN_VOICE, provider_id="another")),
        replace(RENDERING, voice=replace(OWN_VOICE, revision=2)),
        replace(RENDERING, model="eleven_v3"),
        replace(RENDERING, language="de"),
        replace(RENDERING, speed=0.9),
        replace(RENDERING, format="pcm_16000"),
    ],
    ids=["voice", "revision", "model", "language", "speed", "format"],
)
def test_every_setting_that_shapes_the_audio_changes_the_key(cache: PhraseCache, key: str, other: SpeechSettings):
    assert cache.key(other, TEXT) != key


def test_audio_of_another_version_of_the_checks_has_another_key(
    cache: PhraseCache, key: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(phrase_cache, "AUDIO_VERSION", phrase_cache.AUDIO_VERSION - 1)
    assert cache.key(RENDERING, TEXT) != key


@pytest.mark.parametrize(
    "text", ["That's wonderful", "that's wonderful!", "Thats wonderful!", "That's  wonder ful!", ""]
)
def test_different_texts_have_different_keys(cache: PhraseCache, key: str, text: str):
    assert cache.key(RENDERING, text) != key


@pytest.mark.parametrize("text", ["That’s wonderful!", "  That's wonderful!\n", "That's \t  wonderful!"])
def test_typographic_variants_of_a_text_have_the_same_key(cache: PhraseCache, key: str, text: str):
    assert cache.key(RENDERING, text) == key


def test_composed_and_decomposed_letters_have_the_same_key(cache: PhraseCache):
    assert cache.key(RENDERING, "Cafe\u0301?") == cache.key(RENDERING, "Caf\u00e9?")


def test_the_name_of_a_voice_does_not_change_the_key(cache: PhraseCache, key: str):
    assert cache.key(replace(RENDERING, voice=replace(OWN_VOICE, name="Ann")), TEXT) == key


def test_the_boundary_between_two_fields_is_part_of_the_key(cache: PhraseCache):
    one = replace(RENDERING, voice=replace(OWN_VOICE, provider_id="a', 1, 'b"))
    other = replace(RENDERING, voice=replace(OWN_VOICE, provider_id="a"), model="b")
    assert cache.key(one, TEXT) != cache.key(other, TEXT)


def test_the_key_cannot_be_guessed_without_the_secret(key: str, tmp_path: Path):
    assert cache_of(file_store(tmp_path), secret="another secret").key(RENDERING, TEXT) != key


def test_a_key_reveals_no_text_name_or_voice(cache: PhraseCache):
    greeting = cache.key(RENDERING, "Hello Alice Archer.")
    assert len(greeting) == 64
    assert set(greeting) <= set("0123456789abcdef")


# Reading and writing, with every store


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("sound", [SOUND, b"\0", bytes(600_000)], ids=["some", "one byte", "much"])
async def test_another_process_finds_a_stored_clip(store: Store, speech_settings: SpeechSettings, sound: bytes):
    await put(cache_of(store), speech_settings, TEXT, sound)
    other = cache_of(store)
    key = other.key(speech_settings, TEXT)
    assert other.get_cached(key) is None
    assert await eventually_found(other, key) == sound
    assert other.get_cached(key) == sound


async def test_an_unknown_key_is_a_miss(store: Store, key: str):
    before = metric("phrase_lookups", answer="miss")
    assert await cache_of(store).get(key) is None
    assert metric("phrase_lookups", answer="miss") == before + 1


@pytest.mark.django_db(transaction=True)
async def test_storing_a_clip_again_replaces_it(store: Store, speech_settings: SpeechSettings):
    cache = cache_of(store)
    await put(cache, speech_settings, TEXT, SOUND)
    await put(cache, speech_settings, TEXT, b"new")
    assert cache.get_cached(cache.key(speech_settings, TEXT)) == b"new"
    assert await eventually_found(cache_of(store), cache.key(speech_settings, TEXT)) == b"new"


@pytest.mark.django_db(transaction=True)
async def test_a_clip_is_found_in_memory_before_it_is_stored(faulty: FaultyStore, speech_settings: SpeechSettings):
    """A lookup between the end of a flight and the end of the write finds the clip."""
    cache = cache_of(faulty)
    faulty.gate.clear()
    cache.keep_in_memory(cache.key(speech_settings, TEXT), SOUND)
    writing = asyncio.ensure_future(cache.store(speech_settings, TEXT, SOUND))
    assert cache.get_cached(cache.key(speech_settings, TEXT)) == SOUND
    faulty.gate.set()
    await writing


@pytest.mark.django_db(transaction=True)
async def test_empty_audio_is_rejected(cache: PhraseCache, speech_settings: SpeechSettings, tmp_path: Path):
    await put(cache, speech_settings, TEXT, b"")
    assert await cache.get(cache.key(speech_settings, TEXT)) is None
    assert list(file_store(tmp_path).keys()) == []
    assert await in_database(Clip.objects.count) == 0


# Expiry


async def test_an_expired_clip_is_a_miss(store: Store, key: str):
    store_entry(store, key, expires_in_s=-0.1)
    assert await cache_of(store).get(key) is None


async def test_a_clip_in_memory_expires_too(store: Store, key: str):
    cache = cache_of(store)
    store_entry(store, key, expires_in_s=1)
    assert await eventually_found(cache, key) == SOUND
    await asyncio.sleep(1)
    assert cache.get_cached(key) is None
    assert await cache.get(key) is None


@pytest.mark.parametrize(("days", "found"), [(6.9, True), (8, True), (13, True), (15, False), (1000, False)])
async def test_clips_from_a_clock_ahead_are_accepted_up_to_a_limit(
    cache: PhraseCache, key: str, tmp_path: Path, days: float, found: bool
):
    store_entry(file_store(tmp_path), key, expires_in_s=days * 24 * 3600)
    assert (await cache.get(key) is not None) is found


# Damage


def packed(key: str) -> bytes:
    return pack(key, Entry(SOUND, time.time() + WEEK_S))


@pytest.mark.parametrize("length", [0, 1, 47, 48, 49, 1000, -1])
async def test_a_truncated_clip_is_a_miss_and_is_deleted(store: Store, key: str, length: int):
    before = metric("phrase_store_errors", work="damaged")
    store.write(key, packed(key)[:length])
    assert await cache_of(store).get(key) is None
    await eventually(lambda: metric("phrase_store_errors", work="damaged") == before + 1)
    await eventually(lambda: store.read(key) is None)


@pytest.mark.parametrize(
    "content", [b"ID3" + bytes(5000), b"x" * 48, struct.pack(">4sdI32s", b"VCP2", 1e300, 0, b""), packed("x") + b"\0"]
)
async def test_other_bytes_are_a_miss(store: Store, key: str, content: bytes):
    store.write(key, content)
    assert await cache_of(store).get(key) is None


async def test_a_clip_under_another_clips_key_is_a_miss(store: Store, cache: PhraseCache, key: str):
    store.write(key, packed(cache.key(RENDERING, "I see.")))
    assert await cache_of(store).get(key) is None


async def test_a_damaged_clip_that_was_replaced_in_the_meantime_is_not_deleted(faulty: FaultyStore, key: str):
    faulty.store.write(key, b"damaged")
    cache = cache_of(faulty)
    whole = packed(key)
    answers = iter([b"damaged", whole])

    def read(key: str) -> bytes:
        faulty.reads += 1
        return next(answers)

    faulty.store.write(key, whole)
    faulty.read = read
    assert await cache.get(key) is None
    await eventually(lambda: faulty.reads, wanted=lambda seen: seen == 2)
    await asyncio.sleep(0.02)
    assert faulty.store.read(key) == whole


# Store failures


async def test_a_store_error_is_a_miss_and_is_counted(faulty: FaultyStore, key: str):
    store_entry(faulty.store, key)
    before = metric("phrase_store_errors", work="read")
    faulty.error = StoreError("failed")
    cache = cache_of(faulty)
    assert await cache.get(key) is None
    assert metric("phrase_store_errors", work="read") == before + 1
    faulty.error = None
    assert await cache.get(key) == SOUND


async def test_a_slow_read_is_a_miss_at_first_and_a_memory_hit_later(faulty: FaultyStore, key: str):
    store_entry(faulty.store, key)
    faulty.gate.clear()
    cache = cache_of(faulty)
    began = time.monotonic()
    assert await cache.get(key) is None
    assert time.monotonic() - began > READ_TIMEOUT_S * 0.9
    assert await cache.get(key) is None
    faulty.gate.set()
    await eventually(lambda: cache.get_cached(key), wanted=lambda seen: seen == SOUND)
    assert faulty.reads == 1


async def test_no_read_waits_while_all_reader_threads_hang(faulty: FaultyStore):
    """The store is not called while all threads hang, and is called again afterwards."""
    faulty.gate.clear()
    cache = cache_of(faulty)
    keys = [f"{number:02x}" * 32 for number in range(READERS + 1)]
    for each in keys:
        store_entry(faulty.store, each)
    await asyncio.gather(*(cache.get(each) for each in keys[:READERS]))
    assert await cache.get(keys[-1]) is None
    assert faulty.reads == READERS
    faulty.gate.set()
    await eventually(lambda: all(cache.get_cached(each) for each in keys[:READERS]))
    assert await cache.get(keys[-1]) == SOUND


async def test_concurrent_calls_for_one_key_share_one_read(faulty: FaultyStore, key: str):
    store_entry(faulty.store, key)
    cache = cache_of(faulty)
    assert await asyncio.gather(*(cache.get(key) for _ in range(100))) == [SOUND] * 100
    assert faulty.reads == 1


async def test_cancelling_one_caller_does_not_cancel_a_shared_read(faulty: FaultyStore, key: str):
    store_entry(faulty.store, key)
    faulty.gate.clear()
    cache = cache_of(faulty)
    first, second = (asyncio.create_task(cache.get(key)) for _ in range(2))
    await asyncio.sleep(0.01)
    first.cancel()
    faulty.gate.set()
    assert await second == SOUND


@pytest.mark.parametrize("fault", ["paused", "killed"])
async def test_a_hanging_or_dead_redis_is_a_quick_miss_and_recovers(fault: str, key: str):
    with RedisProcess() as process:
        store = RedisStore(process.url, WEEK_S)
        store_entry(store, key)
        process.pause() if fault == "paused" else process.kill()
        cache = cache_of(store)
        assert await cache.get(key) is None
        process.resume() if fault == "paused" else process.start()
        store_entry(store, key)
        for _ in range(100):
            found = await cache.get(key)
            if found is not None:
                break
            await asyncio.sleep(0.02)
        assert found == SOUND


@pytest.mark.django_db(transaction=True)
async def test_a_failed_write_is_counted_and_memory_keeps_the_clip(
    faulty: FaultyStore, speech_settings: SpeechSettings
):
    before = metric("phrase_store_errors", work="write")
    faulty.error = StoreError("full")
    cache = cache_of(faulty)
    await put(cache, speech_settings, TEXT, SOUND)
    assert metric("phrase_store_errors", work="write") == before + 1
    assert await in_database(Clip.objects.count) == 0
    await cache.evict_deleted()
    assert cache.get_cached(cache.key(speech_settings, TEXT)) == SOUND


# Memory


def test_memory_evicts_the_least_recently_used_clip():
    memory = LRUCache(1000)
    for number in range(10):
        memory.put(str(number), bytes(100), 60)
    memory.get("0")
    memory.put("10", bytes(100), 60)
    assert memory.get("0") is not None
    assert memory.get("1") is None
    assert len(memory.keys()) == 10


def test_audio_larger_than_an_eighth_of_the_limit_is_not_kept():
    memory = LRUCache(1000)
    memory.put("a", bytes(125), 60)
    memory.put("b", bytes(126), 60)
    assert (memory.get("a"), memory.get("b")) == (bytes(125), None)
    memory.put("a", bytes(126), 60)
    assert memory.get("a") is None


def test_replaced_deleted_and_expired_clips_use_no_memory():
    memory = LRUCache(800)
    for _ in range(100):
        memory.put("a", bytes(100), 60)
    memory.put("b", bytes(100), -1)
    assert memory.get("b") is None
    memory.delete(["a", "not there"])
    for number in range(8):
        memory.put(str(number), bytes(100), 60)
    assert memory.keys() == [str(number) for number in range(8)]


# Rows


@pytest.mark.django_db(transaction=True)
async def test_the_row_describes_the_clip(cache: PhraseCache, speech_settings: SpeechSettings, phrases: None):
    await put(cache, speech_settings, "That’s  wonderful!", SOUND)
    clip = await in_database(Clip.objects.get)
    phrase = await in_database(Phrase.objects.get, text=TEXT)
    assert clip.digest == cache.key(speech_settings, TEXT)
    assert (clip.voice_id, clip.phrase_id, clip.patient_id) == (speech_settings.voice.id, phrase.id, None)
    assert (clip.language, clip.speed, clip.format) == ("en", 1.0, "mp3_44100_128")
    assert (clip.characters, clip.size, clip.hits, clip.used_at) == (18, len(SOUND), 0, None)
    assert clip.expires_at - clip.created_at == timedelta(days=7)
    assert abs(timezone.now() - clip.created_at) < timedelta(seconds=10)


@pytest.mark.django_db(transaction=True)
async def test_the_row_of_a_greeting_has_its_patient(
    cache: PhraseCache, speech_settings: SpeechSettings, alice: Member, phrases: None
):
    await put(cache, speech_settings, TEXT, SOUND, patient_id=alice.patient.id)
    clip = await in_database(Clip.objects.get)
    assert (clip.patient_id, clip.phrase_id) == (alice.patient.id, None)


@pytest.mark.django_db(transaction=True)
async def test_a_clip_that_is_generated_again_keeps_its_hits(cache: PhraseCache, speech_settings: SpeechSettings):
    await put(cache, speech_settings, TEXT, SOUND)
    await in_database(
        Clip.objects.update, hits=7, created_at=timezone.now() - timedelta(days=6), expires_at=timezone.now()
    )
    await put(cache, speech_settings, TEXT, b"new")
    clip = await in_database(Clip.objects.get)
    assert (clip.hits, clip.size) == (7, 3)
    assert clip.expires_at > timezone.now() + timedelta(days=6)


@pytest.mark.django_db(transaction=True)
async def test_a_deleted_voice_row_is_counted_and_raises_nothing(cache: PhraseCache):
    before = metric("phrase_store_errors", work="row")
    await put(cache, replace(RENDERING, voice=replace(OWN_VOICE, id=uuid.uuid4())), TEXT, SOUND)
    assert metric("phrase_store_errors", work="row") == before + 1
    assert await in_database(Clip.objects.count) == 0


@pytest.mark.django_db(transaction=True)
async def test_hits_of_several_processes_add_up(store: Store, speech_settings: SpeechSettings):
    caches = [cache_of(store) for _ in range(3)]
    for text in (TEXT, "I see."):
        await put(caches[0], speech_settings, text, SOUND)
    key = caches[0].key(speech_settings, TEXT)
    for cache in caches:
        for _ in range(5):
            cache.record_hit(key)
        cache.record_hit("00" * 32)  # has no row
    await asyncio.gather(*(cache.write_hits() for cache in caches))
    await caches[0].write_hits()
    clip = await in_database(Clip.objects.get, digest=key)
    assert clip.hits == 15
    assert clip.used_at is not None
    assert (await in_database(Clip.objects.exclude(digest=key).get)).hits == 0


@pytest.mark.django_db(transaction=True)
async def test_hits_are_kept_while_the_database_is_unavailable(cache: PhraseCache, speech_settings: SpeechSettings):
    await put(cache, speech_settings, TEXT, SOUND)
    cache.record_hit(cache.key(speech_settings, TEXT))
    await rename("tts_clip", "tts_clip_away")
    try:
        await cache.write_hits()
        await cache.evict_deleted()
    finally:
        await rename("tts_clip_away", "tts_clip")
    assert cache.get_cached(cache.key(speech_settings, TEXT)) == SOUND
    await cache.write_hits()
    assert (await in_database(Clip.objects.get)).hits == 1


async def rename(table: str, name: str) -> None:
    def run() -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"ALTER TABLE {table} RENAME TO {name}")

    await in_database(run)


# Deletion


@pytest.mark.django_db(transaction=True)
async def test_a_deleted_clip_is_evicted_by_all_processes(store: Store, speech_settings: SpeechSettings):
    here, there, worker = (cache_of(store) for _ in range(3))
    key, other = here.key(speech_settings, TEXT), here.key(speech_settings, "I see.")
    await put(here, speech_settings, TEXT, SOUND)
    await put(here, speech_settings, "I see.", SOUND)
    for each in (key, other):
        await eventually_found(there, each)
    assert await in_database(worker.delete, Clip.objects.filter(digest=key)) == 1
    assert await asyncio.to_thread(lambda: list(store.keys())) == [other]
    assert (await in_database(Clip.objects.get)).digest == other
    for cache in (here, there, worker):
        await cache.evict_deleted()
        assert await cache.get(key) is None
        assert await eventually_found(cache, other) == SOUND


@pytest.mark.django_db(transaction=True)
async def test_a_clip_that_the_store_fails_to_delete_keeps_its_row(
    faulty: FaultyStore, speech_settings: SpeechSettings
):
    cache = cache_of(faulty)
    await put(cache, speech_settings, TEXT, SOUND)
    faulty.error = StoreError("failed")
    assert await in_database(cache.delete, Clip.objects.all()) == 0
    assert await in_database(Clip.objects.count) == 1
    faulty.error = None
    assert await in_database(cache.delete, Clip.objects.all()) == 1
    assert await in_database(Clip.objects.count) == 0


def put_from_thread(cache: PhraseCache, speech_settings: SpeechSettings, text: str) -> str:
    asyncio.run(put(cache, speech_settings, text, SOUND))
    return cache.key(speech_settings, text)


@pytest.mark.django_db(transaction=True)
def test_a_clip_generated_again_during_its_deletion_keeps_its_row(faulty: FaultyStore, speech_settings: SpeechSettings):
    """The next call finds and deletes it."""
    cache = cache_of(faulty)
    key = put_from_thread(cache, speech_settings, TEXT)
    delete = faulty.store.delete

    def delete_and_made_again(key: str) -> None:
        delete(key)
        faulty.delete = delete
        put_from_thread(cache_of(faulty.store), speech_settings, TEXT)

    faulty.delete = delete_and_made_again
    cache.delete(Clip.objects.all())
    assert Clip.objects.filter(digest=key).exists()
    assert faulty.store.read(key) is not None
    assert cache.delete(Clip.objects.all()) == 1
    assert faulty.store.read(key) is None


@pytest.mark.django_db(transaction=True)
def test_pruning_deletes_expired_clips_and_keeps_the_rest(store: Store, speech_settings: SpeechSettings):
    cache = cache_of(store)
    old, young = put_from_thread(cache, speech_settings, TEXT), put_from_thread(cache, speech_settings, "I see.")
    now = time.time()
    Clip.objects.filter(digest=old).update(expires_at=datetime.fromtimestamp(now - 1, UTC))
    assert cache.prune(now) == 1
    assert list(store.keys()) == [young]
    assert [clip.digest for clip in Clip.objects.all()] == [young]
    assert cache.prune(now) == 0


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("age_s", "left"),
    [(0, True), (3500, True), (3700, False), (WEEK_S + 1, False), (-3600, True), (-2 * WEEK_S, False)],
)
def test_pruning_deletes_an_object_without_a_row_after_an_hour(store: Store, age_s: float, left: bool):
    store_entry(store, "ab" * 32, expires_in_s=WEEK_S - age_s)
    assert cache_of(store).prune(time.time()) == (0 if left else 1)
    assert (store.read("ab" * 32) is not None) is left


@pytest.mark.django_db(transaction=True)
def test_pruning_deletes_damaged_objects(store: Store):
    store.write("ab" * 32, b"damaged")
    assert cache_of(store).prune(time.time()) == 1
    assert list(store.keys()) == []


@pytest.mark.django_db(transaction=True)
def test_pruning_survives_store_errors(faulty: FaultyStore, speech_settings: SpeechSettings):
    cache = cache_of(faulty)
    put_from_thread(cache, speech_settings, TEXT)
    faulty.error = StoreError("failed")
    assert cache.prune(time.time() + 2 * WEEK_S) == 0
    assert Clip.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_an_object_that_cannot_be_deleted_does_not_block_the_others(speech_settings: SpeechSettings, tmp_path: Path):
    store = file_store(tmp_path)
    cache = cache_of(store)
    keys = sorted(put_from_thread(cache, speech_settings, f"Phrase {number}.") for number in range(6))
    stuck = tmp_path / "phrases" / keys[0][:2] / keys[0]
    stuck.unlink()
    (stuck / "in the way").mkdir(parents=True)
    assert cache.prune(time.time() + WEEK_S + 1) == 5
    assert [clip.digest for clip in Clip.objects.all()] == [keys[0]]


@pytest.mark.django_db(transaction=True)
async def test_two_voices_have_two_clips(cache: PhraseCache, speech_settings: SpeechSettings):
    other = await in_database(Voice.objects.create, provider_id="othervoice", name="Other")
    await put(cache, speech_settings, TEXT, b"one")
    await put(cache, replace(speech_settings, voice=VoiceRef.from_voice(other)), TEXT, b"other")
    assert await in_database(Clip.objects.count) == 2
