"""The frozen facts of a conversation, looked up once when it starts."""

import uuid
from dataclasses import dataclass

from tts.conversations.voice import SpeechSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechContext:
    """The facts that the speech pipeline needs: how a text sounds, and who is billed for it.

    `backup_settings` differs from `speech_settings` only in the voice. `phrases` are normalised with
    `tts.text.segmenter.normalise`. `conversation_id` is None for speech outside of a conversation. `patient_id` is None
    for a voice that belongs to no patient. `has_budget` says whether the patient has a monthly budget.
    """

    conversation_id: uuid.UUID | None
    patient_id: uuid.UUID | None
    speech_settings: SpeechSettings
    backup_settings: SpeechSettings
    phrases: frozenset[str]
    has_budget: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Context(SpeechContext):
    """The facts of a whole conversation."""

    conversation_id: uuid.UUID
    patient_id: uuid.UUID
    companion_name: str
    voice_source: str
    initiated_by: str
    greeting: str | None
    hold_message: str | None = None

    def started_frame(self) -> dict[str, object]:
        """Returns the `conversation.started` message of the device protocol."""
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
    """A started or resumed conversation. `characters` are the billed characters so far."""

    context: Context
    used_speech_ids: frozenset[str]
    characters: int
    hold_message_spoken: bool = False
