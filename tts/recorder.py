"""Writes speeches, ledger attempts and what was heard to the database, in batches at most 200 ms apart.

Speech never waits for the database. Records are written in the order of their first `record` call. Recording the same
speech or attempt again before it is written costs nothing. If the database is unavailable, the batch stays in memory
and is retried. A row that the database rejects is logged and dropped, so that it does not block the others.
"""

import asyncio
import copy
import time
import uuid
from collections.abc import Iterable, Sequence
from contextvars import Context
from dataclasses import dataclass, field
from datetime import timedelta

import structlog
from django.conf import settings
from django.db import DataError, IntegrityError, transaction
from django.db.models import Case, Value, When
from django.db.models.functions import Now

from tts.models import Conversation, Utterance
from tts.outbox import deferred, webhook_events
from tts.outbox.leases import LEASE
from tts.speech import Speech
from tts.states import UNFINISHED_STATES, UtteranceState
from tts.text.digest import text_digest
from tts.text.tags import strip_tags
from usage.ledger import events
from usage.ledger.journal import Journal
from voicecare.core import languages, metrics
from voicecare.core.database import DatabaseCall

FLUSH_INTERVAL_S = 0.2
RETRY_INTERVAL_S = 1.0

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class SpokenAttempt(events.Attempt):
    """An attempt whose text may be counted as a repetition.

    `text` is the segment as it is written, or empty if it is not counted. It is not stored: when the attempt is
    written, `text_digest` is computed from it and from the `language` of the text.
    """

    text: str = field(default="", repr=False)
    language: str = ""


@dataclass(frozen=True, slots=True)
class Heard:
    """How many milliseconds of an utterance its device has played."""

    utterance_id: uuid.UUID
    ms: int


Record = Speech | events.Attempt | Heard

# Errors that the row itself causes. Database drivers raise the last three for values that they cannot convert.
_ROW_ERRORS = (IntegrityError, DataError, ValueError, TypeError, OverflowError)

_UPDATED_FIELDS = [
    "state",
    "text",
    "source",
    "code",
    "queue_reason",
    "characters",
    "bytes_sent",
    "first_chunk_ms",
    "spoken_at",
    "expires_at",
    "owner",
    "lease_until",
]


class Recorder:
    """Collects records and writes them. Each process has one.

    Call `record` from the event loop; a thread does the writing. With a journal, attempts survive if the process is
    killed before they are written.
    """

    def __init__(self, journal: Journal | None = None) -> None:
        self.journal = journal
        self._pending: dict[int, Record] = {}
        self._flusher: asyncio.Task[None] | None = None
        self._write_lock = asyncio.Lock()

    def record(self, record: Record) -> None:
        """Schedule a new or changed speech or attempt for writing. Never waits."""
        if self.journal is not None and isinstance(record, events.Attempt) and record.outcome == events.Outcome.UNKNOWN:
            self.journal.append(record)
        self._pending[id(record)] = record
        self._ensure_flusher()

    def _ensure_flusher(self) -> None:
        if self._flusher is None:
            # In a new context, because the context of a request would bind the writing to the request's thread.
            self._flusher = asyncio.create_task(self._flush_soon(), context=Context())

    async def flush(self) -> None:
        """Write everything that was recorded so far. Raises DatabaseError if the database is unavailable."""
        async with self._write_lock:
            batch = list(self._pending.values())
            if not batch:
                return
            self._pending.clear()
            position = self.journal.position() if self.journal else 0
            try:
                await _write(
                    [record.snapshot() if isinstance(record, Speech) else copy.copy(record) for record in batch]
                )
                if self.journal is not None:
                    self.journal.truncate(position)
            except BaseException:
                # Also after a cancellation: the batch belongs to all devices, and writing it twice is harmless.
                self._pending = {id(record): record for record in [*batch, *self._pending.values()]}
                self._ensure_flusher()  # the flusher may have ended while the batch was being written
                raise
            finally:
                metrics.RECORDER_BACKLOG.set(len(self._pending))

    async def close(self) -> None:
        """Write everything and delete the journal. Raises DatabaseError.

        In that case, the next process recovers the journal. Call it at shutdown, when no request is running. A later
        record is still written, and is kept in a new journal.
        """
        try:
            await self.flush()  # also waits for a batch in progress, whose records are not pending
            while self._pending:
                await self.flush()
        finally:
            if self.journal is not None:
                self.journal.close()

    async def _flush_soon(self) -> None:
        pause = FLUSH_INTERVAL_S
        while self._pending:
            await asyncio.sleep(pause)
            try:
                await self.flush()
                pause = FLUSH_INTERVAL_S
            except Exception as error:  # after any error the records have to be written later
                pause = RETRY_INTERVAL_S
                log.warning("recorder.write_failed", waiting=len(self._pending), error=type(error).__name__)
        self._flusher = None


@DatabaseCall  # only this uses the process's thread-sensitive thread, so its connection stays open
def _write(batch: Sequence[Record]) -> None:
    try:
        _write_rows(batch)
    except _ROW_ERRORS:
        for record in batch:
            try:
                _write_rows([record])
            except _ROW_ERRORS as error:
                metrics.RECORDER_REFUSED.inc()
                log.error("recorder.row_rejected", kind=type(record).__name__, error=type(error).__name__)


def _write_rows(batch: Iterable[Record]) -> None:
    # Two connections may have recorded the same utterance, and a statement may touch a row only once.
    speeches = {record.utterance_id: record for record in batch if isinstance(record, Speech)}
    attempts = [record for record in batch if isinstance(record, events.Attempt)]
    heard = {record.utterance_id: record.ms for record in batch if isinstance(record, Heard)}
    with transaction.atomic():
        # What the process knows of deferred speech: how often its row was taken over, and whether it has ended.
        claims = {
            key: (speech.takeovers, speech.progress.state not in UNFINISHED_STATES)
            for key, speech in speeches.items()
            if speech.progress.owner
        }
        if claims:
            for key in deferred.overtaken(claims):
                del speeches[key]
        if speeches:
            Utterance.objects.bulk_create(
                [_to_row(speech) for speech in speeches.values()],
                update_conflicts=True,
                unique_fields=["id"],
                update_fields=_UPDATED_FIELDS,
            )
            for state in (UtteranceState.EXPIRED, UtteranceState.FAILED):
                webhook_events.emit([key for key, row in speeches.items() if row.progress.state == state], state)
        if heard:
            changes = Case(*(When(pk=key, then=Value(ms)) for key, ms in heard.items()))
            Utterance.objects.filter(pk__in=heard).update_in_order(played_ms=changes)
        if attempts:
            for attempt in attempts:
                if isinstance(attempt, SpokenAttempt) and attempt.text:
                    language = languages.code_of(attempt.language)
                    attempt.text_digest = text_digest(attempt.text, language, settings.PHRASE_SECRET)
            Conversation.objects.add_characters(events.record_attempts(attempts))


def _to_row(speech: Speech) -> Utterance:
    progress = speech.progress
    is_leased = progress.owner and progress.state == UtteranceState.QUEUED
    expires_at = progress.expires_at_monotonic
    if speech.patient_id is None:
        raise ValueError("Only speech to a patient has a row.")
    return Utterance(
        id=speech.utterance_id,
        conversation_id=speech.conversation_id,
        patient_id=speech.patient_id,
        client_speech_id=speech.id,
        origin=speech.origin,
        text=strip_tags(speech.text_stream.text),
        state=progress.state,
        source=progress.source,
        code=progress.code,
        queue_reason=progress.queue_reason,
        characters=progress.characters,
        bytes_sent=progress.bytes_sent,
        first_chunk_ms=progress.first_chunk_ms,
        received_at=speech.received_at,
        spoken_at=progress.spoken_at,
        # Computed by the database's clock, because leases and expiry times are compared with it.
        expires_at=None if expires_at is None else Now() + timedelta(seconds=expires_at - time.monotonic()),
        owner=progress.owner if is_leased else "",
        lease_until=LEASE if is_leased else None,
    )
