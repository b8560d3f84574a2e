"""The settings that shape how a text sounds: voice, model, language, speed and format."""

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from voicecare.providers.elevenlabs.requests import SpeechRequest

if TYPE_CHECKING:
    from voicecare.patients.models import Voice

OFFLINE_VOICE_NAME = "Offline voice"


@dataclass(frozen=True, slots=True)
class VoiceRef:
    """The facts about a voice that the speech pipeline needs.

    `provider_id` is the provider's id of the voice. `revision` changes when the voice with this id sounds different.
    `is_gone` means that the provider no longer has the voice. Its cached phrases can still be played.
    """

    id: uuid.UUID
    provider_id: str
    name: str
    revision: int
    is_gone: bool = False

    @classmethod
    def from_voice(cls, voice: "Voice | None") -> "VoiceRef":
        """The facts about this voice. None stands for no voice of the provider: `NO_VOICE`."""
        if voice is None:
            return NO_VOICE
        return cls(voice.id, voice.provider_id, voice.name, voice.revision, is_gone=not voice.is_usable)

    @property
    def is_offline(self) -> bool:
        """Whether the provider cannot speak in this voice, so that the offline voice speaks. No request is made."""
        return self.is_gone or not self.provider_id


NO_VOICE = VoiceRef(uuid.UUID(int=0), "", OFFLINE_VOICE_NAME, 0)
"""Stands for the voice of the provider where none can be used. No request is made for it."""


@dataclass(frozen=True, slots=True)
class SpeechSettings:
    """The settings of a speech request to the provider, apart from the text.

    `language` is an ISO 639-1 code, `speed` a factor from 0.7 to 1.2, and `format` an audio format of docs/protocol.md.
    """

    voice: VoiceRef
    model: str
    language: str
    speed: float
    format: str

    def build_request(self, text: str, before: str | None, after: str | None, *, zero_retention: bool) -> SpeechRequest:
        return SpeechRequest(
            voice_id=self.voice.provider_id,
            text=text,
            model_id=self.model,
            output_format=self.format,
            language_code=self.language,
            speed=self.speed,
            previous_text=before,
            next_text=after,
            zero_retention=zero_retention,
        )
