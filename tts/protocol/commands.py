"""The commands of a session: what the connection must do because of a frame. `tts.protocol.session` explains each."""

from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class CancelDelivery:
    speech_id: str


@dataclass(frozen=True, slots=True)
class ReportPlayback:
    ms: int


@dataclass(frozen=True, slots=True)
class EndConversation:
    pass


@dataclass(frozen=True, slots=True)
class CloseConnection:
    code: int


Command = (
    SendFrame
    | StartConversation
    | StartSpeech
    | StopSpeech
    | DiscardSpeech
    | AcknowledgeDelivery
    | CancelDelivery
    | ReportPlayback
    | EndConversation
    | CloseConnection
)
