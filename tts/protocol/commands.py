"""What a session wants done: the commands that follow from a frame."""

from dataclasses import dataclass
from typing import Any

from tts.speech import Speech


@dataclass(frozen=True, slots=True)
class Reply:
    frame: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Start:
    format: str | None
    resume: str | None
    greeting: bool | None


@dataclass(frozen=True, slots=True)
class Play:
    pass


@dataclass(frozen=True, slots=True)
class Stop:
    back: bool = False


@dataclass(frozen=True, slots=True)
class Drop:
    speech: Speech


@dataclass(frozen=True, slots=True)
class Ack:
    speech_id: str


@dataclass(frozen=True, slots=True)
class Withdraw:
    speech_id: str


@dataclass(frozen=True, slots=True)
class Heard:
    ms: int


@dataclass(frozen=True, slots=True)
class End:
    pass


@dataclass(frozen=True, slots=True)
class Close:
    code: int


Command = Reply | Start | Play | Stop | Drop | Ack | Withdraw | Heard | End | Close
