"""The phrase cache: audio of phrases that are spoken often, kept for seven days (docs/protocol.md, rule 2).

The key of a clip is a keyed digest of everything that shapes the audio: text, voice and its revision, model, language,
speed and format. The audio is in a store (`tts.cache.stores`) and in the memory of each process. A `Clip` row describes
it (`tts.cache.index`).

A damaged or expired entry is a miss. A store that fails or hangs is a miss too, so speech never waits for it. Clips of
erased patients and withdrawn voices are deleted from the store together with their rows. Other processes notice the
missing rows: every few seconds, `evict_deleted` drops the clips without a row from memory.
"""

import asyncio
import hashlib
import hmac
import time
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import structlog
from django.db import Error as DatabaseFailure
from django.db.models import QuerySet

from tts.cache import index
from tts.cache.entry import Entry, pack, unpack
from tts.cache.memory import LRUCache
from tts.cache.stores import Store, StoreError
from tts.conversations.voice import SpeechSettings
from tts.models import Clip
from tts.text.segmenter import normalise
from voicecare.core import metrics
from voicecare.core.database import run_in_db_thread

AUDIO_VERSION = 2  # part of every key; version 1 had no checks of the last frame, of tags and of the least length
READ_TIMEOUT_S = 0.15
READERS = 8
WRITERS = 2  # a separate pool, because a hanging store must not use up the shared threads
PENDING_ROW_GRACE_S = 60.0  # a clip that could not be stored is played from memory for this time

log = structlog.get_logger(__name__)


class PhraseCache:
    """The clips that can be played. Each process has one instance, used from its event loop.

    Only `prune` and `delete` are called from threads and Celery tasks. `ttl_s` is how many seconds a clip may be
    played. They are measured by the wall clock, because machines share clips. A clip that was written while that clock
    was ahead is played for up to `ttl_s` longer.
    """

    def __init__(self, store: Store, secret: str, ttl_s: float, memory_bytes: int = 32 * 2**20) -> None:
        self._store = store
        self._secret = hashlib.sha256(f"phrases:{secret}".encode()).digest()
        self._ttl_s = ttl_s
        self._memory = LRUCache(memory_bytes)
        self._readers = ThreadPoolExecutor(READERS, "phrases-read")
        self._writers = ThreadPoolExecutor(WRITERS, "phrases-write")
        self._reads: dict[str, asyncio.Task[bytes | None]] = {}
        self._slow_reads: set[asyncio.Task[bytes | None]] = set()
        self._pending_rows: dict[str, float] = {}
        self._hits: Counter[str] = Counter()
        self.failing = False  # whether the last call to the store failed

    def key(self, speech_settings: SpeechSettings, text: str) -> str:
        """Return the key of the clip with this spoken text and these settings: 64 hexadecimal digits."""
        shaped_by = (
            AUDIO_VERSION,
            normalise(text),
            speech_settings.voice.provider_id,
            speech_settings.voice.revision,
            speech_settings.model,
            speech_settings.language,
            speech_settings.speed,
            speech_settings.format,
        )
        return hmac.digest(self._secret, repr(shaped_by).encode(), "sha256").hex()

    def get_cached(self, key: str) -> bytes | None:
        """Return the audio of the clip if it is in memory, otherwise None. Takes microseconds and does no I/O."""
        audio = self._memory.get(key)
        if audio is not None:
            metrics.PHRASE_LOOKUPS.labels("memory").inc()
        return audio

    async def get(self, key: str) -> bytes | None:
        """Return the audio of the clip, or None if there is no valid clip. Never raises.

        If the store does not answer within READ_TIMEOUT_S, this call returns None. The late answer is still put into
        memory.
        """
        audio = self.get_cached(key)
        if audio is not None:
            return audio
        audio = (
            self._load_into_memory(key, self._read(key)) if self._store.is_local else await self._read_with_timeout(key)
        )
        metrics.PHRASE_LOOKUPS.labels("miss" if audio is None else "store").inc()
        return audio

    async def _read_with_timeout(self, key: str) -> bytes | None:
        """Read the clip from the store in a thread. Return None after READ_TIMEOUT_S.

        Concurrent calls for a key share one read.
        """
        reading = self._reads.get(key)
        if reading is None:
            if len(self._slow_reads) >= READERS:  # all threads hang, so this read would time out
                return None
            reading = self._reads[key] = asyncio.create_task(self._read_in_thread(key))

            def forget(done: asyncio.Task[bytes | None]) -> None:
                del self._reads[key]
                self._slow_reads.discard(done)

            reading.add_done_callback(forget)
        await asyncio.wait({reading}, timeout=READ_TIMEOUT_S)
        if reading.done():
            return None if reading.cancelled() else reading.result()
        self._slow_reads.add(reading)
        metrics.PHRASE_STORE_ERRORS.labels("slow").inc()
        return None

    async def _read_in_thread(self, key: str) -> bytes | None:
        return self._load_into_memory(
            key, await asyncio.get_running_loop().run_in_executor(self._readers, self._read, key)
        )

    def _read(self, key: str) -> Entry | None:
        try:
            packed = self._store.read(key)
        except StoreError as error:
            self.failing = True
            index.report_store_failure("read", error)
            return None
        self.failing = False
        entry = None if packed is None else unpack(key, packed)
        if packed is not None and entry is None:
            metrics.PHRASE_STORE_ERRORS.labels("damaged").inc()
            log.warning("phrase_cache.entry_damaged", size=len(packed))
            self._writers.submit(self._delete_damaged, key)
        return entry

    def _delete_damaged(self, key: str) -> None:
        """Delete a damaged entry, unless a valid one has replaced it."""
        try:
            packed = self._store.read(key)
            if packed is not None and unpack(key, packed) is None:
                self._store.delete(key)
        except StoreError as error:
            index.report_store_failure("delete", error)

    def _load_into_memory(self, key: str, entry: Entry | None) -> bytes | None:
        """Put a valid entry into memory and return its audio. Return None if it is missing or expired.

        In memory, its age is measured with the monotonic clock.
        """
        left = 0.0 if entry is None else entry.expires_at - time.time()
        if entry is None or not 0 < left <= 2 * self._ttl_s:
            return None
        self._memory.put(key, entry.audio, min(left, self._ttl_s))
        return entry.audio

    def keep_in_memory(self, key: str, audio: bytes) -> None:
        """Add a new clip, so that this process can play it immediately. `store` must follow, which makes it permanent.

        This method does not await. So a clip that leaves single-flight is in the cache without a gap.
        """
        if audio:
            self._memory.put(key, audio, self._ttl_s)
            self._pending_rows[key] = time.monotonic() + PENDING_ROW_GRACE_S

    async def store(
        self,
        speech_settings: SpeechSettings,
        text: str,
        audio: bytes,
        patient_id: uuid.UUID | None = None,
        *,
        written: str | None = None,
    ) -> None:
        """Write the complete audio of this text to the store, then its row.

        Never raises for a store or database that fails. `patient_id` is set for a greeting. `written` is the text of
        the phrase, if the spoken text differs from it.
        """
        if not audio:
            log.error("phrase_cache.empty_audio_rejected")
            return
        key = self.key(speech_settings, text)
        made = time.time()
        entry = Entry(audio, made + self._ttl_s)
        clip = Clip(
            digest=key,
            voice_id=speech_settings.voice.id,
            patient_id=patient_id,
            language=speech_settings.language,
            speed=speech_settings.speed,
            format=speech_settings.format,
            characters=len(text),
            size=len(audio),
            created_at=datetime.fromtimestamp(made, UTC),
            expires_at=datetime.fromtimestamp(entry.expires_at, UTC),
        )
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._writers, self._store.write, key, pack(key, entry))
            await run_in_db_thread(index.upsert, clip, text if written is None else written)
        except StoreError as error:
            self.failing = True
            index.report_store_failure("write", error)
        except DatabaseFailure as error:
            _report_database_failure("book", error)
        else:
            self._pending_rows.pop(key, None)

    def record_hit(self, key: str) -> None:
        """Count in memory that the clip was played. `write_hits` writes the count to the database."""
        self._hits[key] += 1

    async def write_hits(self) -> None:
        """Write the numbers of cache hits since the last call to the rows of the clips. Never raises.

        If the database is unavailable, the numbers stay in memory for the next call.
        """
        hits, self._hits = self._hits, Counter()
        try:
            if hits:
                await run_in_db_thread(index.add_hits, hits)
        except DatabaseFailure as error:
            self._hits.update(hits)
            _report_database_failure("hits", error)

    async def evict_deleted(self) -> None:
        """Drop the clips that have no row from memory. If the database is unavailable, they stay. Never raises.

        A clip whose row this process has not written yet, or could not write, stays for PENDING_ROW_GRACE_S.
        """
        now = time.monotonic()
        self._pending_rows = {key: until for key, until in self._pending_rows.items() if until > now}
        kept = self._memory.keys()
        try:
            has_row = await run_in_db_thread(index.existing, kept) if kept else set()
        except DatabaseFailure as error:
            _report_database_failure("look", error)
        else:
            self._memory.delete(key for key in kept if key not in has_row and key not in self._pending_rows)

    def prune(self, now: float) -> int:
        """Delete expired clips and objects without a row, up to a limit, and return how many were deleted.

        `now` is a Unix time in seconds.
        """
        return len(index.delete_expired(self._store, now)) + index.delete_orphans(self._store, now, self._ttl_s)

    def delete(self, clips: QuerySet[Clip]) -> int:
        """Delete these clips from the store, the database and the memory of this process. Return how many were deleted.

        Other processes stop playing them at their next `evict_deleted`. A clip that the store failed to delete keeps
        its row, so the next call can find it.
        """
        removed = index.delete(clips, self._store)
        self._memory.delete(removed)
        return len(removed)


def _report_database_failure(work: str, error: DatabaseFailure) -> None:
    metrics.PHRASE_STORE_ERRORS.labels("row").inc()
    log.warning("phrase_cache.database_failed", work=work, error=type(error).__name__)
