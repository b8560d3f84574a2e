"""What holds for a whole conversation."""

import uuid
from dataclasses import dataclass

from tts.conversations.voice import Rendering


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechContext:
    """What the speech pipeline has to know: how a text sounds, and to whom it is booked.

    `backup` differs from `rendering` in the voice alone. `phrases` are in the normal form of
    `tts.text.segmenter.normalise`. `conversation_id` is None for speech outside of any conversation, `patient_id` for a
    voice that belongs to no patient. `has_budget`: the patient has one; how large it is, the row knows.
    """

    conversation_id: uuid.UUID | None
    patient_id: uuid.UUID | None
    rendering: Rendering
    backup: Rendering
    phrases: frozenset[str]
    has_budget: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Context(SpeechContext):
    """What holds for a whole conversation."""

    conversation_id: uuid.UUID
    patient_id: uuid.UUID
    companion: str
    voice_source: str
    initiated: str
    greeting: str | None
    holding: str | None = None

    def started_frame(self) -> dict[str, object]:
        voice = self.rendering.voice
        return {
            "type": "conversation.started",
            "conversation": str(self.conversation_id),
            "companion": self.companion,
            "voice": {"id": str(voice.id), "name": voice.name, "source": self.voice_source},
            "format": self.rendering.format,
            "initiated": self.initiated,
        }


@dataclass(frozen=True, slots=True)
class Opened:
    """A conversation that may be spoken in: its context, the ids it has used and the characters it has counted.

    `was_held`: its holding phrase has been said.
    """

    context: Context
    used_ids: frozenset[str]
    characters: int
    was_held: bool = False
