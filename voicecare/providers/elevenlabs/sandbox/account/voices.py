"""The voices of the account: the stock voices of every account, and cloned voices."""

import hashlib
import time
from dataclasses import dataclass, field
from typing import Any

from voicecare.providers.elevenlabs.sandbox.errors import preset_error
from voicecare.providers.elevenlabs.sandbox.records import new_provider_id
from voicecare.providers.espeak.client import EspeakVoice

STOCK_SINCE = 1_672_531_200  # before the creation of any account
VARIANTS = ("f1", "f2", "f3", "f4", "f5", "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8")

SETTINGS: dict[str, Any] = {
    "stability": 0.5,
    "similarity_boost": 0.75,
    "style": 0.0,
    "use_speaker_boost": True,
    "speed": 1.0,
}


@dataclass(frozen=True)
class VoiceProfile:
    """The sound of a voice: the espeak variant, the pitch (0 to 99) and the rate (words per minute)."""

    variant: str
    pitch: int
    rate: int

    def espeak_voice(self, language: str, speed: float) -> EspeakVoice:
        return EspeakVoice(language, self.variant, self.pitch, round(self.rate * speed))


def profile_for(voice_id: str) -> VoiceProfile:
    """Derive a profile from the id of a voice. The same id always gives the same profile."""
    digest = hashlib.sha256(voice_id.encode()).digest()
    return VoiceProfile(VARIANTS[digest[0] % len(VARIANTS)], 30 + digest[1] % 41, 150 + digest[2] % 31)


@dataclass
class Sample:
    """The metadata of one recording of a cloned voice. The recording itself is not kept."""

    file_name: str
    mime_type: str
    size_bytes: int
    hash: str
    sample_id: str = field(default_factory=new_provider_id)

    def to_json(self) -> dict[str, Any]:
        return {
            "sample_id": self.sample_id,
            "file_name": self.file_name,
            "mime_type": self.mime_type,
            "size_bytes": self.size_bytes,
            "hash": self.hash,
        }


@dataclass
class Voice:
    """A voice. `category` is premade or cloned."""

    name: str
    profile: VoiceProfile
    voice_id: str
    category: str = "premade"
    labels: dict[str, str] = field(default_factory=dict)
    description: str | None = None
    created_at_unix: int = STOCK_SINCE
    samples: list[Sample] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return a `VoiceResponseModel`."""
        own = self.category == "cloned"
        return {
            "voice_id": self.voice_id,
            "name": self.name,
            "samples": [sample.to_json() for sample in self.samples] if own else None,
            "category": self.category,
            "fine_tuning": {
                "is_allowed_to_fine_tune": False,
                "state": {},
                "verification_failures": [],
                "verification_attempts_count": 0,
                "manual_verification_requested": False,
            },
            "labels": self.labels,
            "description": self.description,
            "preview_url": None,
            "available_for_tiers": [],
            "settings": dict(SETTINGS),
            "sharing": None,
            "high_quality_base_model_ids": [],
            "verified_languages": [],
            "safety_control": None,
            "voice_verification": {
                "requires_verification": False,
                "is_verified": False,
                "verification_failures": [],
                "verification_attempts_count": 0,
                "language": None,
                "verification_attempts": None,
            },
            "permission_on_resource": "admin" if own else None,
            "is_owner": own,
            "is_legacy": False,
            "is_mixed": False,
            "created_at_unix": self.created_at_unix,
        }

    def mentions(self, words: str) -> bool:
        """Whether the name, description, labels or category contain `words`, ignoring case."""
        texts = (self.name, self.description or "", self.category, *self.labels.values())
        return any(words.casefold() in text.casefold() for text in texts)


def _stock_voice(voice_id: str, name: str, timbre: VoiceProfile, character: str) -> Voice:
    gender, accent, tone = character.split()
    labels = {"accent": accent, "descriptive": tone, "age": "middle_aged", "gender": gender, "language": "en"}
    return Voice(name, timbre, voice_id, labels=labels, description=f"A {tone} {accent} voice.")


def stock_voices() -> list[Voice]:
    return [
        _stock_voice("21m00Tcm4TlvDq8ikWAM", "Rachel", VoiceProfile("f2", 50, 165), "female american calm"),
        _stock_voice("EXAVITQu4vr4xnSDxMaL", "Sarah", VoiceProfile("f3", 56, 170), "female american soft"),
        _stock_voice("XB0fDUnXU5powFXDhCwa", "Charlotte", VoiceProfile("f4", 44, 160), "female swedish relaxed"),
        _stock_voice("pFZP5JQG7iQjIQuC4Bku", "Lily", VoiceProfile("f1", 62, 168), "female british warm"),
        _stock_voice("MF3mGyEYCl7XYWbV9V6O", "Elli", VoiceProfile("f5", 68, 175), "female american bright"),
        _stock_voice("pNInz6obpgDQGcFmaJgB", "Adam", VoiceProfile("m1", 38, 160), "male american deep"),
        _stock_voice("ErXwobaYiN019PkySvjV", "Antoni", VoiceProfile("m3", 48, 165), "male american even"),
        _stock_voice("onwK4e9ZLuTAKqWW03F9", "Daniel", VoiceProfile("m7", 42, 158), "male british steady"),
        _stock_voice("TxGEqnHWrfWFTfGW9XjX", "Josh", VoiceProfile("m4", 34, 170), "male american young"),
        _stock_voice("JBFqnCBsd6RMkjVDRZzb", "George", VoiceProfile("m2", 30, 155), "male british warm"),
    ]


class VoiceLibrary:
    """All voices, the stock voices first."""

    def __init__(self) -> None:
        self._voices = {voice.voice_id: voice for voice in stock_voices()}

    def get(self, voice_id: str) -> Voice:
        """Raises a 404 if the voice does not exist."""
        try:
            return self._voices[voice_id]
        except KeyError:
            raise preset_error(
                "voice_not_found", f"A voice with voice_id '{voice_id}' was not found.", param="voice_id"
            ) from None

    def clone(self, name: str, samples: list[Sample], labels: dict[str, str], description: str | None) -> Voice:
        voice_id = new_provider_id()
        voice = Voice(name, profile_for(voice_id), voice_id, "cloned", labels, description, int(time.time()), samples)
        self._voices[voice_id] = voice
        return voice

    def remove(self, voice_id: str) -> None:
        if self.get(voice_id).category == "premade":
            raise preset_error("voice_access_denied")
        del self._voices[voice_id]

    def all(self) -> list[Voice]:
        return list(self._voices.values())

    @property
    def slots_used(self) -> int:
        return sum(voice.category == "cloned" for voice in self._voices.values())
