"""What holds for a whole conversation."""

import uuid
from dataclasses import dataclass

from tts.conversations.voice import Rendering


@dataclass(frozen=True, slots=True)
class Context:
    """What holds for a whole conversation. `backup` differs from `rendering` in the voice alone; `phrases` are in
    the normal form of `tts.text.segmenter.normalise`. `has_budget`: the patient has one; how large it is, the row
    knows.
    """

    conversation_id: uuid.UUID
    patient_id: uuid.UUID
    companion: str
    rendering: Rendering
    backup: Rendering
    voice_source: str
    initiated: str
    phrases: frozenset[str]
    greeting: str | None
    holding: str | None = None
    has_budget: bool = False

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
