"""The immutable facts of a conversation, which are read from the database once, when the conversation starts."""

import uuid
from dataclasses import dataclass, field

from tts.conversations.voice import NO_VOICE, SpeechSettings, VoiceRef
from tts.text.lexicon import Lexicon
from tts.text.spoken_form import Pronunciation


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechContext:
    """The facts that the speech pipeline needs: how a text sounds, and who is billed for it.

    `backup_settings` differs from `speech_settings` only in the voice. `phrases` are the texts of the phrase cache,
    normalised with `tts.text.segmenter.normalise`. `lexicon` says how words are said. `reserve_voice` speaks if the
    backup voice is refused, until all conversations have another backup voice. `conversation_id` is None for speech
    outside of a conversation.
    `patient_id` is None for a voice that belongs to no patient. `has_budget` says whether the patient or their clinic
    has a budget. `budgeted_clinic_id` is the clinic, if it has one.
    """

    conversation_id: uuid.UUID | None
    patient_id: uuid.UUID | None
    speech_settings: SpeechSettings
    backup_settings: SpeechSettings
    phrases: frozenset[str]
    has_budget: bool = False
    budgeted_clinic_id: uuid.UUID | None = None
    reserve_voice: VoiceRef = NO_VOICE
    lexicon: Lexicon = field(default_factory=Lexicon)

    @property
    def pronunciation(self) -> Pronunciation:
        """How the texts are said, in whatever voice."""
        return Pronunciation(self.speech_settings.language, self.lexicon)

    @property
    def is_background(self) -> bool:
        """Whether the speech belongs to no conversation: a clinician listens to it.

        Such speech must not delay a patient's speech.
        """
        return self.conversation_id is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Context(SpeechContext):
    """The facts of a conversation.

    `companion_name` is the name of the companion. `greeting` and `hold_message` are texts to speak, or None.
    `initiated_by` is "device" or "server". With `own_voice_only` there is no backup voice and no reserve voice: both
    are `NO_VOICE`.
    """

    conversation_id: uuid.UUID
    patient_id: uuid.UUID
    companion_name: str
    voice_source: str
    initiated_by: str
    greeting: str | None
    hold_message: str | None = None
    own_voice_only: bool = False

    def started_frame(self) -> dict[str, object]:
        """Return the `conversation.started` frame of the device protocol."""
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
    """A conversation that was started or resumed, as it is in the database at that time.

    `used_speech_ids` are the ids that the device must not use again. `characters` are the billed characters so far.
    `buffer_ms` is the length of audio that the device can hold, or None if it did not say.
    """

    context: Context
    used_speech_ids: frozenset[str]
    characters: int
    hold_message_spoken: bool = False
    buffer_ms: int | None = None
