"""The speech request, and the parts that all requests share. Pure, for both clients.

The facts come from the provider's OpenAPI description and from traces of real responses. `responses.py` parses the
responses of the account, `error_mapping.py` the error responses.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple, Self
from urllib.parse import quote, urlencode

from voicecare.providers.errors import VoiceUnavailable

_MODELS_WITH_LANGUAGE = frozenset({"eleven_flash_v2_5", "eleven_turbo_v2_5"})
_to_json = json.JSONEncoder(ensure_ascii=False, check_circular=False, separators=(",", ":")).encode


def request_headers(api_key: str) -> dict[str, str]:
    """The headers of every request. Raises ValueError if the key has characters such as the newline of a file."""
    if not (api_key.isascii() and api_key.isprintable()):
        raise ValueError("The provider's API key has characters that cannot be sent in a header.")
    return {"xi-api-key": api_key, "Accept-Encoding": "identity", "User-Agent": "voicecare"}


def path_segment(value: str) -> str:
    """Quote `value` as one path segment. A slash, question mark or `..` in it cannot lead to another endpoint."""
    if not value:
        raise VoiceUnavailable("The voice id is empty.", code="invalid_voice_id")
    quoted = quote(value, safe="")
    return quoted if quoted.strip(".") else quoted.replace(".", "%2E")


@lru_cache(maxsize=1024)
def _speech_path(voice_id: str, output_format: str, zero_retention: bool) -> str:
    query = {"output_format": output_format} | ({"enable_logging": "false"} if zero_retention else {})
    return f"/v1/text-to-speech/{path_segment(voice_id)}/stream?{urlencode(query)}"


@lru_cache(maxsize=1024)
def _constant_members(model_id: str, language_code: str | None, speed: float | None) -> str:
    """The members of the body that are constant in a conversation, as JSON without the braces. Cached."""
    members: dict[str, Any] = {"model_id": model_id}
    if language_code and model_id in _MODELS_WITH_LANGUAGE:
        members["language_code"] = language_code
    if speed is not None and speed != 1.0:
        members["voice_settings"] = {"speed": speed}
    return _to_json(members)[1:-1]


@dataclass(frozen=True, slots=True)
class SpeechRequest:
    """One segment of speech.

    `speed` is a factor from 0.7 to 1.2. `previous_text` and `next_text` give the provider context for the prosody and
    are not billed. Fields that a model does not support are left out of the body. Only flash and turbo v2.5 take
    `language_code`, other models may reject it. v3 takes no context. `repr` does not show any text.
    """

    voice_id: str
    text: str = field(repr=False)
    model_id: str
    output_format: str
    language_code: str | None = None
    speed: float | None = None
    previous_text: str | None = field(default=None, repr=False)
    next_text: str | None = field(default=None, repr=False)
    zero_retention: bool = False

    def path(self) -> str:
        """The path and query of the request. Raises VoiceUnavailable for an empty voice id."""
        return _speech_path(self.voice_id, self.output_format, self.zero_retention)

    def body(self) -> bytes:
        """The JSON body, UTF-8."""
        members = f'"text":{_to_json(self.text)},{_constant_members(self.model_id, self.language_code, self.speed)}'
        if not self.model_id.startswith("eleven_v3"):
            if self.previous_text:
                members += f',"previous_text":{_to_json(self.previous_text)}'
            if self.next_text:
                members += f',"next_text":{_to_json(self.next_text)}'
        return f"{{{members}}}".encode()


class ResponseMetadata(NamedTuple):
    """Data from the headers of a response: ids for the provider's support, billed credits, streams in use and allowed.

    A field is None if its header is missing or invalid.
    """

    request_id: str | None = None
    trace_id: str | None = None
    character_cost: int | None = None
    concurrent: int | None = None
    concurrent_limit: int | None = None

    @classmethod
    def from_headers(cls, headers: Mapping[str, str]) -> Self:
        """`headers` is a case-insensitive mapping, as in both HTTP libraries. Never raises."""
        return cls(
            printable_id(headers.get("request-id")),
            printable_id(headers.get("x-trace-id")),
            _parse_count(headers.get("character-cost")),
            _parse_count(headers.get("current-concurrent-requests")),
            _parse_count(headers.get("maximum-concurrent-requests")),
        )


def _parse_count(text: str | None) -> int | None:
    return int(text) if text and len(text) <= 15 and text.isascii() and text.isdigit() else None


def printable_id(value: object) -> str | None:
    """Return an id of the provider for logs and database columns: printable, cut to 128 characters. Else None."""
    return value[:128] if isinstance(value, str) and value.isprintable() and value else None


_NON_AUDIO_TYPE = re.compile(r"\s*(text/|[^;]*[/+](json|xml|html)\b)", re.IGNORECASE)
_NON_AUDIO_BODY = re.compile(rb"\s*(<(!doctype|html|head|body|\?xml)|[{\[]\s*[\"{}\]])", re.IGNORECASE)
_CONTROL_CHARACTER = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f]")


def looks_like_audio(content_type: str, first_bytes: bytes) -> bool:
    """Whether the body of a 2xx response can be audio. False if it is empty, or text, HTML, XML or JSON.

    The check uses the content type and the first bytes. The content types of PCM, u-law and Opus are not documented, so
    only known wrong types count. Raw samples can start like JSON by chance, but JSON has no control characters.
    """
    if not first_bytes or _NON_AUDIO_TYPE.match(content_type):
        return False
    head = first_bytes[:64]
    return not _NON_AUDIO_BODY.match(head) or _CONTROL_CHARACTER.search(head) is not None
