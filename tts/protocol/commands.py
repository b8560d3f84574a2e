"""The commands of a session: what the connection must do because of a frame.

`tts.protocol.session` explains each command.
"""

from dataclasses import dataclass, field
from typing import Any

from tts.speech import Speech


@dataclass(frozen=True, slots=True)
class SendFrame:
    frame: dict[str, Any]


@dataclass(frozen=True, slots=True)
class StartConversation:
    format: str | None
    resume: str | None
    greeting: bool | None
    buffer_ms: int | None = None


@dataclass(frozen=True, slots=True)
class StartSpeech:
    speech: Speech


@dataclass(frozen=True, slots=True)
class StopSpeech:
    requeue: bool = False


@dataclass(frozen=True, slots=True)
class DiscardSpeech:
    speech: Speech


@dataclass(frozen=True, slots=True)
class AcknowledgeDelivery:
    speech_id: str
    error_run: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class CancelDelivery:
    speech_id: str
    error_run: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class ReportPlayback:
    speech_id: str
    ms: int


@dataclass(frozen=True, slots=True)
class DiscardAudio:
    speech_id: str | None


@dataclass(frozen=True, slots=True)
class EndConversation:
    pass


@dataclass(frozen=True, slots=True)
class CloseConnection:
    code: int


DeliveryLookup = AcknowledgeDelivery | CancelDelivery
"""The database must be read to know whether such a frame is accepted.

`error_run` is the number of the run of consecutive errors that was current when the frame came. `Session.confirm` and
`Session.reject` ignore the result of a lookup for the count of errors if another run has begun since.
"""

Command = (
    SendFrame
    | StartConversation
    | StartSpeech
    | StopSpeech
    | DiscardSpeech
    | AcknowledgeDelivery
    | CancelDelivery
    | ReportPlayback
    | DiscardAudio
    | EndConversation
    | CloseConnection
)
