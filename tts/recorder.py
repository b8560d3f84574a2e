"""Writes what this process has said, behind its back: batches, at most 100 ms apart, one transaction each.

Nothing on the road to the first byte waits for the database. What is noted here is written in the order of its
first note; noting the same speech or attempt again before it was written costs nothing. A database that is away
keeps the batch in memory and is tried again; a row that the database refuses is put aside and logged, so that it
cannot hold up the others.
"""

import asyncio
import copy
from collections.abc import Iterable, Sequence
from contextvars import Context

import structlog
from channels.db import database_sync_to_async
from django.db import DataError, IntegrityError, transaction

from tts.models import Conversation, Utterance
from tts.speech import Speech
from usage.ledger import events
from usage.ledger.journal import Journal
from voicecare.core import metrics

FLUSH_INTERVAL_S = 0.1
RETRY_INTERVAL_S = 1.0

log = structlog.get_logger(__name__)

Record = Speech | events.Attempt

# What a row itself is to blame for; drivers raise the last three for values that they cannot pass on.
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
    """One for each process. `note` is called from the event loop; the writing happens in a thread.

    With a journal, what is asked for outlives a process that is killed before it was written.
    """

    def __init__(self, journal: Journal | None = None) -> None:
        self.journal = journal
        self._pending: dict[int, Record] = {}
        self._flusher: asyncio.Task[None] | None = None
        self._write_lock = asyncio.Lock()

    def record(self, record: Record) -> None:
        """This speech or attempt is new or has changed. Returns at once."""
        if self.journal is not None and isinstance(record, events.Attempt) and record.outcome == events.Outcome.UNKNOWN:
            self.journal.append(record)
        self._pending[id(record)] = record
        self._ensure_flusher()

    def _ensure_flusher(self) -> None:
        if self._flusher is None:
            # In a context of its own: in that of a request it would write in the request's thread, which ends.
            self._flusher = asyncio.create_task(self._flush_soon(), context=Context())

    async def flush(self) -> None:
        """Everything noted so far is in the database when this returns. Raises DatabaseError if it is away."""
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
            except BaseException:  # cancelled, too: the batch is of all devices, and writing it twice is harmless
                self._pending = {id(record): record for record in [*batch, *self._pending.values()]}
                self._ensure_flusher()  # the flusher may have found nothing to do while the batch was out
                raise
            finally:
                metrics.RECORDER_BACKLOG.set(len(self._pending))

    async def _flush_soon(self) -> None:
        pause = FLUSH_INTERVAL_S
        while self._pending:
            await asyncio.sleep(pause)
            try:
                await self.flush()
                pause = FLUSH_INTERVAL_S
            except Exception as error:  # whatever it is: what was said stays to be written
                pause = RETRY_INTERVAL_S
                log.warning("recorder.write_failed", waiting=len(self._pending), error=type(error).__name__)
        self._flusher = None


@database_sync_to_async  # the one user of the process' sensitive thread: its connection stays open between batches
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
    # Two connections may have had the same one: a statement may touch a row only once.
    speeches = list({record.utterance_id: record for record in batch if isinstance(record, Speech)}.values())
    attempts = [record for record in batch if isinstance(record, events.Attempt)]
    with transaction.atomic():
        if speeches:
            Utterance.objects.bulk_create(
                [_to_row(speech) for speech in speeches],
                update_conflicts=True,
                unique_fields=["id"],
                update_fields=_UPDATED_FIELDS,
            )
        if attempts:
            Conversation.objects.add_characters(events.record_attempts(attempts))


def _to_row(speech: Speech) -> Utterance:
    progress = speech.progress
    if speech.patient_id is None:
        raise ValueError("Only speech to a patient has a row.")
    return Utterance(
        id=speech.utterance_id,
        conversation_id=speech.conversation_id,
        patient_id=speech.patient_id,
        client_speech_id=speech.id,
        origin=speech.origin,
        text=speech.text_stream.text,
        state=progress.state,
        source=progress.source,
        code=progress.code,
        queue_reason=progress.queue_reason,
        characters=progress.characters,
        bytes_sent=progress.bytes_sent,
        first_chunk_ms=progress.first_chunk_ms,
        received_at=speech.received_at,
        spoken_at=progress.spoken_at,
        expires_at=progress.expires_at,
        owner=progress.owner,
        lease_until=progress.lease_until,
    )
