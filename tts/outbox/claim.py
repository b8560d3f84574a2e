"""The claim of a connection on a row of the outbox: its right to deliver the row to a device."""

import uuid
from dataclasses import dataclass
from datetime import datetime

from tts.states import SERVER_PREFIX, Origin


@dataclass(frozen=True, slots=True)
class Claim:
    """One attempt of one connection to deliver a row of the outbox. `id` is the id of the row.

    `conversation_id` is the conversation of the request, None for REST. `origin` is `device` in that conversation and
    `server` in any other. `seconds_left` is the time to the expiry, measured by the database's clock. `was_queued`
    means that the speech has waited for the quota.
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
        """The id of the speech on the WebSocket: the device's own id, or a server id that all deliveries of the row
        share.
        """
        return self.client_speech_id if self.origin == Origin.DEVICE else f"{SERVER_PREFIX}{self.id}"

    @property
    def original(self) -> dict[str, str] | None:
        """The original conversation and speech id, if this speech is delivered in another conversation, otherwise None.

        This is the field `of` of the frame `speech.started`.
        """
        if self.origin == Origin.DEVICE or not self.client_speech_id:
            return None
        return {"conversation": str(self.conversation_id), "id": self.client_speech_id}
