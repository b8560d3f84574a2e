"""One speech on its way through this process."""

import uuid
from dataclasses import dataclass
from datetime import datetime

from tts.outbox.claim import Claim
from tts.states import UtteranceState
from tts.text.stream import Script


@dataclass(slots=True, eq=False)
class Speech:
    """One utterance on its way through this process; `tts.recorder` keeps its row up to date.

    `received_at_monotonic` and `started_at_monotonic` (its turn came) are seconds of `time.monotonic`. From the former
    to the first frame passed `first_chunk_ms`, from the latter `response_ms`. `claim` is set for one that came from the
    outbox. `attempt_offset` is the number below its ledger attempts: a text that is spoken again is booked again.
    """

    id: str
    script: Script
    origin: str
    conversation_id: uuid.UUID | None
    patient_id: uuid.UUID | None
    received_at: datetime
    received_at_monotonic: float
    utterance_id: uuid.UUID
    started_at_monotonic: float = 0.0
    state: str = UtteranceState.WAITING.value
    source: str = ""
    code: str = ""
    characters: int = 0
    bytes_sent: int = 0
    first_chunk_ms: float | None = None
    response_ms: float | None = None
    spoken_at: datetime | None = None
    expires_at: datetime | None = None
    owner: str = ""
    lease_until: datetime | None = None
    claim: Claim | None = None
    attempt_offset: int = 0
    waited_for_quota: bool = False
