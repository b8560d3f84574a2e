"""How a text sounds: everything but the text that shapes its audio."""

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from voicecare.providers.elevenlabs.requests import SpeechRequest

if TYPE_CHECKING:
    from voicecare.patients.models import Voice


@dataclass(frozen=True, slots=True)
class VoiceRef:
    """The facts about a voice that the pipeline needs. `revision` changes when `provider_id` sounds different."""

    id: uuid.UUID
    provider_id: str
    name: str
    revision: int

    @classmethod
    def from_voice(cls, voice: "Voice") -> "VoiceRef":
        return cls(voice.id, voice.provider_id, voice.name, voice.revision)


@dataclass(frozen=True, slots=True)
class SpeechSettings:
    """The settings of a speech request.

    `language` is ISO 639-1, `speed` a factor from 0.7 to 1.2, `format` a format of docs/protocol.md.
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
