"""The phrase cache: what is said again and again, kept as sound for seven days (the contract, section 2, rule 2).

An entry is found by a keyed digest of everything that shapes the sound: text, voice and its revision, model, settings,
format. The sound lies in a store (`tts.cache.stores`), in front of it in the memory of each process, and a row of
`Clip` says what it is (`tts.cache.index`).

An entry that is damaged or too old is a miss. A store that fails or hangs is a miss: nobody waits for it. What was
removed from the store for good (an erased patient, a withdrawn voice) has no row any more, and that is how every
process learns of it: `drop_forgotten`, called every few seconds, forgets what is in memory and has no row.
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

READ_TIMEOUT_S = 0.15
READERS = 8
WRITERS = 2  # of their own: a store that hangs must not take the threads that everybody shares
PENDING_ROW_GRACE_S = 60.0  # what could not be stored may still be played from memory for so long

log = structlog.get_logger(__name__)


class PhraseCache:
    """One for each process, used from its event loop; `prune` and `forget` are for threads and Celery.

    `ttl_s` is how long a clip may be played, on the clock of the wall: it is shared between machines. One that was
    made while the clock went ahead is believed to be up to `ttl_s` younger than it can be.
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
        self.failing = False  # the store's latest answer was an error

    def key(self, speech_settings: SpeechSettings, text: str) -> str:
        """The digest under which this text, rendered like this, is kept."""
        shaped_by = (
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
        """The clip, if this process has it in memory: microseconds, no I/O."""
        audio = self._memory.get(key)
        if audio is not None:
            metrics.PHRASE_LOOKUPS.labels("memory").inc()
        return audio

    async def get(self, key: str) -> bytes | None:
        """The clip, or None if there is none that is whole and young enough. Never raises.

        A store that does not answer in `READ_WITHIN_S` is a miss for this caller; its answer still goes into memory.
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
        """All who want the same at the same time share one reading."""
        reading = self._reads.get(key)
        if reading is None:
            if len(self._slow_reads) >= READERS:  # no thread is left: this one could not come in time
                return None
            reading = self._reads[key] = asyncio.create_task(self._read_in_thread(key))
            reading.add_done_callback(lambda done: self._on_read_done(key, done))
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

    def _on_read_done(self, key: str, reading: asyncio.Task[bytes | None]) -> None:
        del self._reads[key]
        self._slow_reads.discard(reading)

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
        """Deletes a damaged entry, unless somebody has put a whole one in its place."""
        try:
            packed = self._store.read(key)
            if packed is not None and unpack(key, packed) is None:
                self._store.delete(key)
        except StoreError as error:
            index.report_store_failure("delete", error)

    def _load_into_memory(self, key: str, entry: Entry | None) -> bytes | None:
        """Into memory, if it is young enough. There the clock that nobody sets decides how long it stays."""
        left = 0.0 if entry is None else entry.expires_at - time.time()
        if entry is None or not 0 < left <= 2 * self._ttl_s:
            return None
        self._memory.put(key, entry.audio, min(left, self._ttl_s))
        return entry.audio

    def keep_in_memory(self, key: str, audio: bytes) -> None:
        """The first step of adding a clip: from now on this process finds it. The second one is `store`.

        The two are apart because the first needs no await: whoever asks next finds the clip, however slow the store is.
        """
        if audio:
            self._memory.put(key, audio, self._ttl_s)
            self._pending_rows[key] = time.monotonic() + PENDING_ROW_GRACE_S

    async def store(
        self, speech_settings: SpeechSettings, text: str, audio: bytes, patient_id: uuid.UUID | None = None
    ) -> None:
        """Writes the whole sound of this text to the store, then its row. `patient_id` is whose greeting it is.

        Never raises.
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
            await run_in_db_thread(index.upsert, clip, text)
        except StoreError as error:
            self.failing = True
            index.report_store_failure("write", error)
        except DatabaseFailure as error:
            _report_database_failure("book", error)
        else:
            self._pending_rows.pop(key, None)

    def record_hit(self, key: str) -> None:
        """Counts a hit; `write_hits` writes it down."""
        self._hits[key] += 1

    async def write_hits(self) -> None:
        """Adds the hits since the last time to the rows. Never raises: where the database is away they wait."""
        hits, self._hits = self._hits, Counter()
        try:
            if hits:
                await run_in_db_thread(index.add_hits, hits)
        except DatabaseFailure as error:
            self._hits.update(hits)
            _report_database_failure("hits", error)

    async def evict_deleted(self) -> None:
        """Forgets from memory what has no row any more. Never raises: where the database is away memory stays.

        A clip of this process whose row is not written yet, or could not be, stays for `WITHOUT_ROW_S`.
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
        """Removes what has expired (`now`: seconds since 1970) and what has no row; returns how many clips.

        Bounded: what one call leaves is for the next one.
        """
        return len(index.delete_expired(self._store, now)) + index.delete_orphans(self._store, now, self._ttl_s)

    def delete(self, forgotten: QuerySet[Clip]) -> int:
        """Removes these clips from the store, then their rows, and from this process' memory; returns how many.

        Other processes play them no more after their next `drop_forgotten`. What the store does not give up keeps its
        row, so the caller finds it again.
        """
        removed = index.delete(forgotten, self._store)
        self._memory.delete(removed)
        return len(removed)


def _report_database_failure(work: str, error: DatabaseFailure) -> None:
    metrics.PHRASE_STORE_ERRORS.labels("row").inc()
    log.warning("phrase_cache.database_failed", work=work, error=type(error).__name__)
