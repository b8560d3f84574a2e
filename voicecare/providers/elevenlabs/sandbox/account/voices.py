"""The voices of the account: stock voices, voices that were added to the account, and cloned voices."""

import hashlib
import time
from dataclasses import dataclass, field
from typing import Any

from voicecare.providers.elevenlabs.sandbox.config import SandboxConfig
from voicecare.providers.elevenlabs.sandbox.errors import preset_error
from voicecare.providers.elevenlabs.sandbox.records import new_provider_id
from voicecare.providers.espeak.client import EspeakVoice

DAY_S = 24 * 3600
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
    """How a voice sounds: the espeak variant, the pitch (0 to 99) and the rate (words per minute)."""

    variant: str
    pitch: int
    rate: int

    def espeak_voice(self, language: str, speed: float) -> EspeakVoice:
        return EspeakVoice(language, self.variant, self.pitch, round(self.rate * speed))


def profile_for(voice_id: str) -> VoiceProfile:
    """Returns a profile computed from the id of a voice, so that the same id always sounds the same."""
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
class Sharing:
    """The sharing data of a voice from the provider's library.

    `disable_at_unix` is the time at which the owner removes the voice, or None. `notice_period` is in days.
    """

    rate: float = 1.0
    notice_period: int = 90
    status: str = "copied"
    disable_at_unix: int | None = None

    def to_json(self, voice: "Voice") -> dict[str, Any]:
        """Returns the JSON that the provider's schema calls `VoiceSharingResponseModel`."""
        return {
            "status": self.status,
            "date_unix": STOCK_SINCE,
            "whitelisted_emails": [],
            "public_owner_id": "sandbox-owner",
            "original_voice_id": voice.voice_id,
            "financial_rewards_enabled": True,
            "free_users_allowed": not voice.needs_plan,
            "live_moderation_enabled": False,
            "rate": self.rate,
            "notice_period": self.notice_period,
            "disable_at_unix": self.disable_at_unix,
            "voice_mixing_allowed": False,
            "featured": False,
            "category": voice.category,
            "liked_by_count": 0,
            "cloned_by_count": 0,
            "name": voice.name,
            "description": voice.description,
            "labels": voice.labels,
            "review_status": "allowed",
            "enabled_in_library": True,
        }


@dataclass
class Voice:
    """A voice. `category` is one of the provider's: premade, cloned, professional and others.

    `needs_plan` is true if the plan of the account does not include the voice. `retires_at` is the Unix time in seconds
    from which on the voice does not exist. A voice with `sharing` is a voice of the provider's library.
    """

    name: str
    profile: VoiceProfile
    voice_id: str
    category: str = "premade"
    labels: dict[str, str] = field(default_factory=dict)
    description: str | None = None
    created_at_unix: int = STOCK_SINCE
    samples: list[Sample] = field(default_factory=list)
    sharing: Sharing | None = None
    needs_plan: bool = False
    retires_at: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Returns the JSON that the provider's schema calls `VoiceResponseModel`."""
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
            "sharing": self.sharing.to_json(self) if self.sharing else None,
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
    """All voices of the account, the stock voices first.

    Retired voices are left out. So are stock voices if the account has none (`SandboxConfig.premade_voices`).
    """

    def __init__(self, config: SandboxConfig) -> None:
        self._config = config
        self._voices = {voice.voice_id: voice for voice in stock_voices()}

    def get(self, voice_id: str) -> Voice:
        """Returns the voice with this id. Raises ApiError (404) if there is none."""
        voice = self._voices.get(voice_id)
        if voice is None or not self._exists(voice):
            raise preset_error(
                "voice_not_found", f"A voice with voice_id '{voice_id}' was not found.", param="voice_id"
            )
        return voice

    def _exists(self, voice: Voice) -> bool:
        is_retired = voice.retires_at is not None and voice.retires_at <= time.time()
        return not is_retired and (voice.category != "premade" or self._config.premade_voices)

    def add(self, name: str, category: str, labels: dict[str, str], *, rate: float, needs_plan: bool) -> Voice:
        """Adds a voice to the account, as the owner of the account does on the provider's web site. Returns the voice.

        `rate` is the price factor of a library voice, which is only part of its sharing data. For `needs_plan` see
        Voice.
        """
        voice_id = new_provider_id()
        sharing = Sharing(rate) if category in ("professional", "famous", "high_quality") else None
        voice = Voice(name, profile_for(voice_id), voice_id, category, labels, sharing=sharing, needs_plan=needs_plan)
        self._voices[voice_id] = voice
        return voice

    def retire(self, voice_id: str, in_days: float) -> Voice:
        """Makes a voice disappear after a number of days. Returns the voice.

        Raises ApiError (404) if there is no such voice. With a positive number, the provider announces the time in the
        data of the voice. With 0 the voice disappears immediately.
        """
        voice = self.get(voice_id)
        voice.retires_at = time.time() + in_days * DAY_S
        if in_days > 0:
            voice.sharing = voice.sharing or Sharing()
            voice.sharing.disable_at_unix = int(voice.retires_at)
        return voice

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
        return [voice for voice in self._voices.values() if self._exists(voice)]

    @property
    def slots_used(self) -> int:
        return sum(voice.category == "cloned" for voice in self.all())
