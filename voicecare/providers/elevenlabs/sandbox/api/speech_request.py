"""Parsing and validation of a speech request, with the provider's checks in the provider's order.

The sources about the provider disagree in some cases. Here, an empty text is 400 empty_text, as in the newer catalogue
(earlier it gave silence). An unknown format is 400 invalid_output_format, broken JSON is the 422 of FastAPI, and a
language that the model does not list is ignored, or refused with the setting `strict_language`.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from voicecare.audio.formats import FORMATS, AudioFormat
from voicecare.providers.elevenlabs.sandbox.account.models import (
    DEFAULT_DIALOGUE_MODEL,
    DEFAULT_MODEL,
    MODELS,
    Model,
)
from voicecare.providers.elevenlabs.sandbox.account.voices import Voice, VoiceLibrary
from voicecare.providers.elevenlabs.sandbox.api.query import boolean, integer
from voicecare.providers.elevenlabs.sandbox.config import SandboxConfig
from voicecare.providers.elevenlabs.sandbox.errors import preset_error, validation_error
from voicecare.providers.espeak.client import EspeakVoice

_TAG = re.compile(r"\[[^\W\d_][^\[\]]{0,80}\]")
_PERFORMED = " ha, ha, ha, ha, ha, ha. "  # longer than any tag, so that tests can tell the two apart
DEFAULT_FORMAT = "mp3_44100_128"
NORMALIZATIONS = ("auto", "on", "off")
RANGES = {
    "stability": (0.0, 1.0),
    "similarity_boost": (0.0, 1.0),
    "style": (0.0, 1.0),
    "speed": (0.7, 1.2),
}
# The types of the optional fields. Each may also be null.
FIELD_TYPES: dict[str, tuple[type, str]] = {
    "model_id": (str, "string_type"),
    "language_code": (str, "string_type"),
    "voice_settings": (dict, "model_attributes_type"),
    "pronunciation_dictionary_locators": (list, "list_type"),
    "seed": (int, "int_type"),
    "previous_text": (str, "string_type"),
    "next_text": (str, "string_type"),
    "previous_request_ids": (list, "list_type"),
    "next_request_ids": (list, "list_type"),
    "use_pvc_as_ivc": (bool, "bool_type"),
    "apply_text_normalization": (str, "string_type"),
    "apply_language_text_normalization": (bool, "bool_type"),
}


@dataclass(frozen=True)
class ParsedSpeechRequest:
    """A speech request that has passed all checks. `in_history` is false for a zero-retention request."""

    text: str
    voice: Voice
    model: Model
    audio_format: AudioFormat
    language: str
    speed: float
    in_history: bool

    @property
    def spoken_text(self) -> str:
        """The text as it sounds. A tag is either performed, as a laugh of this length, or read aloud as its words."""
        return _TAG.sub(_PERFORMED, self.text) if self.model.is_expressive else self.text

    @property
    def credits(self) -> int:
        """The price of the request in credits: characters times the credits per character of the model, rounded up."""
        return math.ceil(len(self.text) * self.model.credits_per_character)

    @property
    def espeak_voice(self) -> EspeakVoice:
        return self.voice.profile.espeak_voice(self.language, self.speed)


def parse_json(raw: bytes) -> object:
    """Returns the parsed JSON. Raises the provider's 422 error if it is invalid."""
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        raise validation_error(["body", 0], "JSON decode error", "json_invalid", {}) from None


def parse_speech_request(
    body: object,
    query: Mapping[str, str],
    voice_id: str,
    voices: VoiceLibrary,
    *,
    streaming: bool,
    config: SandboxConfig,
    is_dialogue: bool = False,
) -> ParsedSpeechRequest:
    """Checks a speech request and returns its values. Raises ApiError if the provider would reject the request.

    `body` is the parsed JSON body. That of a dialogue was changed by `flatten_dialogue`.
    """
    latency = integer(query, "optimize_streaming_latency", 0)
    if latency not in range(5):
        raise validation_error(
            ["query", "optimize_streaming_latency"], "Input should be between 0 and 4", "less_than_equal", latency
        )
    in_history = boolean(query, "enable_logging", True)
    fields = _check_fields(body)
    voice = voices.get(voice_id)
    if voice.needs_plan:
        raise preset_error("paid_plan_required")
    model_id = fields.get("model_id") or (DEFAULT_DIALOGUE_MODEL if is_dialogue else DEFAULT_MODEL)
    if model_id not in MODELS:
        raise preset_error("model_not_found", f"A model with model ID {model_id} does not exist.")
    _check_endpoint(MODELS[model_id], fields, config, is_dialogue)
    format_name = query.get("output_format", DEFAULT_FORMAT)
    if format_name not in FORMATS or (streaming and format_name.startswith("wav_")):
        raise preset_error(
            "invalid_output_format", f"Output format '{format_name}' is not supported here.", param="output_format"
        )
    language = fields.get("language_code")
    if config.strict_language and language is not None and language not in MODELS[model_id].languages:
        raise preset_error("unsupported_language", param="language_code")
    settings = fields.get("voice_settings") or {}
    _check_settings(settings)
    _check_text(fields["text"], MODELS[model_id])
    return ParsedSpeechRequest(
        text=fields["text"],
        voice=voice,
        model=MODELS[model_id],
        audio_format=FORMATS[format_name],
        language=language or "en",
        speed=1.0 if MODELS[model_id].is_expressive else settings.get("speed") or 1.0,
        in_history=in_history,
    )


def flatten_dialogue(body: object) -> tuple[object, str]:
    """Returns the body of a dialogue as that of a speech request, and the voice id of its first line.

    Raises ApiError for a body that the provider would refuse, and for more than one voice, which this sandbox cannot
    speak.
    """
    if not isinstance(body, dict) or "inputs" not in body:
        raise validation_error(["body", "inputs"], "Field required", "missing", body)
    lines = body["inputs"]
    if not isinstance(lines, list) or not lines:
        raise validation_error(["body", "inputs"], "List should have at least 1 item", "too_short", lines)
    for number, line in enumerate(lines):
        for name in ("text", "voice_id"):
            if not isinstance(line, dict) or not isinstance(line.get(name), str):
                raise validation_error(["body", "inputs", number, name], "Field required", "missing", line)
    if len({line["voice_id"] for line in lines}) > 1:
        raise preset_error("invalid_parameters", "The sandbox speaks a dialogue in one voice only.", param="inputs")
    fields = {name: value for name, value in body.items() if name not in ("inputs", "settings")}
    text = " ".join(line["text"] for line in lines)
    return fields | {"text": text, "voice_settings": body.get("settings")}, lines[0]["voice_id"]


def _check_endpoint(model: Model, fields: dict[str, Any], config: SandboxConfig, is_dialogue: bool) -> None:
    """Raises ApiError if the model does not speak over this endpoint, or refuses a field there."""
    accepted = {"speech", "dialogue"} if model.is_expressive else {"speech"}
    if model.is_newer and config.newer_models != "both":
        accepted = {config.newer_models}
    path = "dialogue" if is_dialogue else "speech"
    if path not in accepted:
        raise preset_error("unsupported_model", f"{model.model_id} is not supported by text to {path}.")
    if model.refuses_context and (fields.get("previous_text") or fields.get("next_text")):
        raise preset_error("unsupported_model", f"{model.model_id} takes no previous_text and next_text.")


def _check_fields(body: object) -> dict[str, Any]:
    """Returns the body if its fields have the right types. Raises the 422 of FastAPI if not.

    Unknown fields are allowed, as at the provider.
    """
    if not isinstance(body, dict):
        raise validation_error(["body"], "Input should be a valid dictionary", "model_attributes_type", body)
    if "text" not in body:
        raise validation_error(["body", "text"], "Field required", "missing", body)
    if not isinstance(body["text"], str):
        raise validation_error(["body", "text"], "Input should be a valid string", "string_type", body["text"])
    for name, (kind, word) in FIELD_TYPES.items():
        value = body.get(name)
        if value is not None and (not isinstance(value, kind) or (kind is int and isinstance(value, bool))):
            raise validation_error(["body", name], f"Input should be a valid {kind.__name__}", word, value)
    if body.get("apply_text_normalization") not in (None, *NORMALIZATIONS):
        value = body["apply_text_normalization"]
        raise validation_error(
            ["body", "apply_text_normalization"], "Input should be 'auto', 'on' or 'off'", "enum", value
        )
    return body


def _check_settings(settings: dict[str, Any]) -> None:
    for name, (low, high) in RANGES.items():
        value = settings.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise validation_error(
                ["body", "voice_settings", name], "Input should be a valid number", "float_type", value
            )
        if not low <= value <= high:
            raise preset_error(
                "invalid_voice_settings",
                f"Invalid setting for {name} received, expected to be greater or equal to {low} and less or equal "
                f"to {high}, received {value}.",
            )


def _check_text(text: str, model: Model) -> None:
    if not text.strip():
        raise preset_error("empty_text", param="text")
    if len(text) > model.max_characters:
        raise preset_error(
            "text_too_long",
            f"A maximum request length of {model.max_characters} characters is supported by {model.model_id}, "
            f"this one has {len(text)}.",
            param="text",
        )
    try:
        text.encode()
    except UnicodeEncodeError:
        raise preset_error("invalid_text", "The text is not valid Unicode.", param="text") from None


def requested_format(request: web.Request) -> str:
    """Returns the name of the requested output format, which may be unknown."""
    return request.query.get("output_format", DEFAULT_FORMAT)
