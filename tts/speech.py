"""One utterance on its way through this process: the request, and how far it has come."""

import copy
import time
import uuid
from dataclasses import dataclass, replace
from datetime import datetime

import structlog

from tts.outbox.claim import Claim
from tts.queue_reason import QueueReason
from tts.states import Source, UtteranceState
from tts.text.stream import TextStream

log = structlog.get_logger(__name__)

ATTEMPT_STRIDE = 1000
"""More attempts than one reading of a segment can make, also while it waits for a busy provider."""


def attempt_number(number: int, *, delivery: int = 0, repeats: int = 0, takeovers: int = 0) -> int:
    """Return the number of an attempt in the ledger, which is unique for its utterance and segment.

    `number` counts the attempts of one reading of the text. A text that is spoken again from its beginning is billed
    again, so each reading has its own range of numbers. `delivery` counts the claims of the outbox, `repeats` the
    restarts of the speech, and `takeovers` the connections that have taken over a deferred speech.
    """
    return (takeovers * ATTEMPT_STRIDE + delivery + repeats) * ATTEMPT_STRIDE + number


@dataclass(slots=True, kw_only=True)
class SpeechProgress:
    """How far a speech has come. Only the player and the pipeline change it, through its methods. Other code reads it.

    Times named `_monotonic` are seconds of `time.monotonic`. `first_chunk_ms` is the time from receiving the text to
    the first audio, `response_ms` the time from the start of the speech to the first audio. `characters` are billed.
    `request_id` is that of the provider's latest response. `fallback_reason` is why the first substitute voice spoke.
    `repeats` counts how often the speech began again. `owner` is the connection that has deferred the speech, which
    means that it waits there for the quota. `expires_at_monotonic` is its expiry time if that connection ends.
    """

    received_at_monotonic: float
    started_at_monotonic: float = 0.0
    state: str = UtteranceState.WAITING.value
    source: str = ""
    code: str = ""
    characters: int = 0
    bytes_sent: int = 0
    first_chunk_ms: float | None = None
    response_ms: float | None = None
    spoken_at: datetime | None = None
    queue_reason: str = ""
    fallback_reason: str = ""
    request_id: str = ""
    expires_at_monotonic: float | None = None
    owner: str = ""
    repeats: int = 0
    waited_for_quota: bool = False

    def started(self, now: float) -> None:
        """Record that the speech begins to play. `now` is in monotonic seconds."""
        self.started_at_monotonic = now
        self.state = UtteranceState.SPEAKING.value

    def billed(self, characters: int, request_id: str = "") -> None:
        """Record that the provider has answered the request with this id and bills these characters."""
        self.characters += characters
        self.request_id = request_id

    def sent(self, size: int, source: str, *, now: float, utc_now: datetime) -> None:
        """Record that a chunk of `size` bytes was sent. The first chunk sets the latencies.

        `source` is `cache` only if every chunk so far came from the cache. In a mixed speech, cached audio counts as
        `live`, because it is in the same voice.
        """
        if not self.bytes_sent:
            self.first_chunk_ms = round((now - self.received_at_monotonic) * 1000, 2)
            self.response_ms = round((now - self.started_at_monotonic) * 1000, 2)
            self.spoken_at = utc_now
        cache = Source.CACHE.value
        self.source = Source.LIVE.value if source == cache and self.source not in ("", cache) else source
        self.bytes_sent += size

    def deferred(self, *, owner: str, expires_at_monotonic: float) -> None:
        """Record that the speech waits for the quota. An earlier expiry time stays."""
        self.state = UtteranceState.QUEUED.value
        self.waited_for_quota = True
        self.repeats += 1
        self.owner = owner
        if self.expires_at_monotonic is None:
            self.expires_at_monotonic = expires_at_monotonic

    def repeated(self) -> None:
        """Record that the speech begins again from its first word."""
        self.repeats += 1

    def finished(self, outcome: UtteranceState, code: str = "") -> None:
        """Record that the speech has ended. `code` is the reason of a failure."""
        self.state, self.code = outcome.value, code


@dataclass(frozen=True, slots=True, eq=False)
class Speech:
    """The request for one speech, which never changes, and its progress. `tts.recorder` keeps its row up to date.

    `id` is its id on the WebSocket, `utterance_id` the id of its row. `claim` is set for a delivery from the outbox.
    `takeovers` counts how often a connection has taken over the row of a deferred speech.
    """

    id: str
    text_stream: TextStream
    origin: str
    conversation_id: uuid.UUID | None
    patient_id: uuid.UUID | None
    utterance_id: uuid.UUID
    received_at: datetime
    progress: SpeechProgress
    claim: Claim | None = None
    takeovers: int = 0

    def attempt_number(self, number: int) -> int:
        """Return the number of an attempt in the ledger, where no two attempts of one segment have the same number.

        `number` is 1 for the first attempt, and 1 again when the speech is spoken again from its beginning, for example
        after the quota returned or on another connection.
        """
        delivery = 0 if self.claim is None else self.claim.attempt
        return attempt_number(number, delivery=delivery, repeats=self.progress.repeats, takeovers=self.takeovers)

    def queued(self, reason: QueueReason) -> None:
        """Record why the speech has to wait. Only its first wait is logged."""
        if not self.progress.queue_reason:
            self.log("speech.queued", reason=reason.value)
        self.progress.queue_reason = reason.value

    def fell_back(self, source: Source, reason: str, request_id: str) -> None:
        """Record why a substitute voice speaks. Only the first one is logged. `request_id` is that of the failure."""
        if not self.progress.fallback_reason:
            self.progress.fallback_reason = reason
            self.log("speech.fallback", source=source.value, reason=reason, request_id=request_id)

    def finished(self, outcome: UtteranceState, code: str = "") -> None:
        """Record that the speech has ended, and log everything about it in one line.

        A delivery that was put back, to be spoken again, has not ended.
        """
        progress = self.progress
        progress.finished(outcome, code)
        if outcome is UtteranceState.WAITING:
            self.log("speech.put_back", bytes=progress.bytes_sent)
            return
        log.info(
            "speech.finished",
            **self._ids(),
            outcome=outcome.value,
            origin=self.origin,
            source=progress.source,
            characters=progress.characters,
            first_chunk_ms=progress.first_chunk_ms,
            reason=code,
            queued=progress.queue_reason,
            fallback=progress.fallback_reason,
            request_id=progress.request_id,
            ms=self._age_ms(),
        )

    def log(self, event: str, **fields: object) -> None:
        """Log a detail with the ids of this speech and the milliseconds since its text was received, at level debug.

        `fields` must not contain a text or a name.
        """
        log.debug(event, **self._ids(), **fields, ms=self._age_ms())

    def _ids(self) -> dict[str, str | None]:
        conversation_id = None if self.conversation_id is None else str(self.conversation_id)
        return {"conversation_id": conversation_id, "utterance_id": str(self.utterance_id)}

    def _age_ms(self) -> int:
        return round((time.monotonic() - self.progress.received_at_monotonic) * 1000)

    def snapshot(self) -> "Speech":
        """Return a copy for another thread. The progress of the copy does not change."""
        return replace(self, progress=copy.copy(self.progress))
