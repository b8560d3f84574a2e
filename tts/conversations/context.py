"""What holds for a whole conversation."""

import uuid
from dataclasses import dataclass

from tts.conversations.voice import SpeechSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechContext:
    """What the speech pipeline has to know: how a text sounds, and to whom it is booked.

    `backup` differs from `speech_settings` in the voice alone. `phrases` are in the normal form of
    `tts.text.segmenter.normalise`. `conversation_id` is None for speech outside of any conversation, `patient_id` for a
    voice that belongs to no patient. `has_budget`: the patient has one; how large it is, the row knows.
    """

    conversation_id: uuid.UUID | None
    patient_id: uuid.UUID | None
    speech_settings: SpeechSettings
    backup_settings: SpeechSettings
    phrases: frozenset[str]
    has_budget: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Context(SpeechContext):
    """What holds for a whole conversation."""

    conversation_id: uuid.UUID
    patient_id: uuid.UUID
    companion_name: str
    voice_source: str
    initiated_by: str
    greeting: str | None
    hold_message: str | None = None

    def started_frame(self) -> dict[str, object]:
        voice = self.speech_settings.voice
        return {
            "type": "conversation.started",
            "conversation": str(self.conversation_id),
            "companion": self.companion_name,
            "voice": {"id": str(voice.id), "name": voice.name, "source": self.voice_source},
            "format": self.speech_settings.format,
            "initiated": self.initiated_by,
        }


@dataclass(frozen=True, slots=True)
class OpenConversation:
    """A conversation that may be spoken in: its context, the ids it has used and the characters it has counted.

    `was_held`: its holding phrase has been said.
    """

    context: Context
    used_speech_ids: frozenset[str]
    characters: int
    hold_message_spoken: bool = False
