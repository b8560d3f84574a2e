"""One attempt to speak a row."""

import uuid
from dataclasses import dataclass
from datetime import datetime

from tts.states import SERVER_PREFIX, Origin


@dataclass(frozen=True, slots=True)
class Claim:
    """One attempt to speak a row, by one connection. `conversation` is where it was asked for, None for REST; `origin`
    is `device` in that conversation and `server` in any other. `seconds_left` is by the database's clock; `was_queued`:
    it has waited for the quota.
    """

    id: uuid.UUID
    owner: str
    attempt: int
    patient_id: uuid.UUID
    text: str
    origin: str
    client_speech_id: str
    conversation_id: uuid.UUID | None
    expires_at: datetime | None
    seconds_left: float | None
    was_queued: bool

    @property
    def speech_id(self) -> str:
        """Its id on the WebSocket: the device's own, or one that all its deliveries share."""
        return self.client_speech_id if self.origin == Origin.DEVICE else f"{SERVER_PREFIX}{self.id}"

    @property
    def original(self) -> dict[str, str] | None:
        """What it was called where it was asked for, when it is spoken in another conversation."""
        if self.origin == Origin.DEVICE or not self.client_speech_id:
            return None
        return {"conversation": str(self.conversation_id), "id": self.client_speech_id}
