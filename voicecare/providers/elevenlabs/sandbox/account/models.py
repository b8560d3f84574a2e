"""The provider's models, with their price, their limits, and what they refuse."""

from dataclasses import dataclass
from typing import Any, Literal

Group = Literal["standard", "turbo"]

LANGUAGES = {
    "en": "English",
    "ja": "Japanese",
    "zh": "Chinese",
    "de": "German",
    "hi": "Hindi",
    "fr": "French",
    "ko": "Korean",
    "pt": "Portuguese",
    "it": "Italian",
    "es": "Spanish",
    "id": "Indonesian",
    "nl": "Dutch",
    "tr": "Turkish",
    "fil": "Filipino",
    "pl": "Polish",
    "sv": "Swedish",
    "bg": "Bulgarian",
    "ro": "Romanian",
    "ar": "Arabic",
    "cs": "Czech",
    "el": "Greek",
    "fi": "Finnish",
    "hr": "Croatian",
    "ms": "Malay",
    "sk": "Slovak",
    "da": "Danish",
    "ta": "Tamil",
    "uk": "Ukrainian",
    "ru": "Russian",
    "hu": "Hungarian",
    "no": "Norwegian",
    "vi": "Vietnamese",
}


@dataclass(frozen=True)
class Model:
    """A text-to-speech model. `max_characters` is the longest text of one request.

    An `is_expressive` model performs audio tags, reads no setting but the stability, and can speak dialogues. The
    sources disagree whether a model with `is_newer` also speaks over text to speech (`SandboxConfig.newer_models`).
    With `refuses_context`, a request with the text before or after is refused.
    """

    model_id: str
    name: str
    description: str
    max_characters: int
    credits_per_character: float
    group: Group
    languages: tuple[str, ...] = tuple(LANGUAGES)
    is_expressive: bool = False
    is_newer: bool = False
    refuses_context: bool = False

    def to_json(self) -> dict[str, Any]:
        """Returns the JSON that the provider's schema calls `ModelResponseModel`."""
        return {
            "model_id": self.model_id,
            "name": self.name,
            "can_be_finetuned": self.group == "standard",
            "can_do_text_to_speech": True,
            "can_do_voice_conversion": False,
            "can_use_style": self.group == "standard" and not self.is_expressive,
            "can_use_speaker_boost": self.group == "standard" and not self.is_expressive,
            "serves_pro_voices": False,
            "token_cost_factor": self.credits_per_character,
            "description": self.description,
            "requires_alpha_access": False,
            "max_characters_request_free_user": self.max_characters,
            "max_characters_request_subscribed_user": self.max_characters,
            "maximum_text_length_per_request": self.max_characters,
            "languages": [{"language_id": code, "name": LANGUAGES[code]} for code in self.languages],
            "model_rates": {"character_cost_multiplier": self.credits_per_character, "cost_discount_multiplier": 1.0},
            "concurrency_group": self.group,
        }


_ENGLISH = ("en",)

MODELS = {
    model.model_id: model
    for model in (
        Model("eleven_v4", "Eleven v4", "Most expressive.", 10_000, 1.0, "standard", is_expressive=True, is_newer=True),
        Model(
            "eleven_v4_turbo",
            "Eleven v4 Turbo",
            "Expressive, low latency.",
            10_000,
            0.5,
            "turbo",
            is_expressive=True,
            is_newer=True,
        ),
        # The limit was 3,000 characters in the documentation of 2025.
        Model(
            "eleven_v3",
            "Eleven v3",
            "Expressive, slow.",
            5_000,
            1.0,
            "standard",
            is_expressive=True,
            refuses_context=True,
        ),
        Model(
            "eleven_v3_conversational",
            "Eleven v3 Conversational",
            "For agents.",
            5_000,
            1.0,
            "standard",
            is_expressive=True,
            is_newer=True,
            refuses_context=True,
        ),
        Model("eleven_multilingual_v2", "Eleven Multilingual v2", "Most lifelike.", 10_000, 1.0, "standard"),
        Model("eleven_flash_v2_5", "Eleven Flash v2.5", "Ultra low latency.", 40_000, 0.5, "turbo"),
        Model("eleven_turbo_v2_5", "Eleven Turbo v2.5", "Low latency.", 40_000, 0.5, "turbo"),
        Model("eleven_flash_v2", "Eleven Flash v2", "Ultra low latency.", 30_000, 0.5, "turbo", _ENGLISH),
        Model("eleven_turbo_v2", "Eleven Turbo v2", "Low latency.", 30_000, 0.5, "turbo", _ENGLISH),
    )
}
DEFAULT_MODEL = "eleven_multilingual_v2"
DEFAULT_DIALOGUE_MODEL = "eleven_v3"
