"""The provider's speech call and what every call has in common, described without any I/O for both clients.

Facts come from the vendor's OpenAPI description and from traces of real replies. What the account's calls answer is in
`replies.py`, what a refusal means in `refusals.py`.
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
    """The headers of every call. Raises ValueError for a key that no header can carry (a line end from a file)."""
    if not (api_key.isascii() and api_key.isprintable()):
        raise ValueError("The provider's API key holds characters that cannot stand in a header.")
    return {"xi-api-key": api_key, "Accept-Encoding": "identity", "User-Agent": "voicecare"}


def path_segment(value: str) -> str:
    """`value` as one segment of a path: no slash, question mark or `..` in it can lead to another endpoint."""
    if not value:
        raise VoiceUnavailable("There is no voice id.", code="invalid_voice_id")
    quoted = quote(value, safe="")
    return quoted if quoted.strip(".") else quoted.replace(".", "%2E")


@lru_cache(maxsize=1024)
def _speech_path(voice_id: str, output_format: str, zero_retention: bool) -> str:
    query = {"output_format": output_format} | ({"enable_logging": "false"} if zero_retention else {})
    return f"/v1/text-to-speech/{path_segment(voice_id)}/stream?{urlencode(query)}"


@lru_cache(maxsize=1024)
def _constant_members(model_id: str, language_code: str | None, speed: float | None) -> str:
    """The members of a body that stay the same through a conversation, as JSON without the braces."""
    members: dict[str, Any] = {"model_id": model_id}
    if language_code and model_id in _MODELS_WITH_LANGUAGE:
        members["language_code"] = language_code
    if speed is not None and speed != 1.0:
        members["voice_settings"] = {"speed": speed}
    return _to_json(members)[1:-1]


@dataclass(frozen=True, slots=True)
class SpeechRequest:
    """One segment of speech to ask for.

    `speed` is a factor (0.7 to 1.2); `previous_text` and `next_text` carry the prosody over a segment's edges and are
    not billed. Fields that a model does not take are left out of its body: `language_code` is enforced by flash and
    turbo v2.5 only and may be refused elsewhere; v3 knows no neighbouring text. The representation shows no text.
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
        """The path and query to POST to. Raises VoiceUnavailable for an empty voice id."""
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
    """What the headers of a reply tell: ids for the vendor's support, credits billed, streams running and allowed.

    None where a header is absent or nonsense: a receipt never fails.
    """

    request_id: str | None = None
    trace_id: str | None = None
    character_cost: int | None = None
    concurrent: int | None = None
    concurrent_limit: int | None = None

    @classmethod
    def from_headers(cls, headers: Mapping[str, str]) -> Self:
        """`headers` is a case-insensitive mapping, as both HTTP libraries have it."""
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
    """An id of theirs as it may stand in a log line or a column: printable, at most 128 characters, else None."""
    return value[:128] if isinstance(value, str) and value.isprintable() and value else None


_NON_AUDIO_TYPE = re.compile(r"\s*(text/|[^;]*[/+](json|xml|html)\b)", re.IGNORECASE)
_NON_AUDIO_BODY = re.compile(rb"\s*(<(!doctype|html|head|body|\?xml)|[{\[]\s*[\"{}\]])", re.IGNORECASE)
_CONTROL_CHARACTER = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f]")


def looks_like_audio(content_type: str, first_bytes: bytes) -> bool:
    """Whether a 2xx body can be played: not empty, not HTML, XML, JSON or text by its type or by its first bytes.

    The content types of PCM, u-law and Opus are not documented, so only known bad ones count. Raw samples may begin
    like JSON by chance; what holds control characters is no JSON.
    """
    if not first_bytes or _NON_AUDIO_TYPE.match(content_type):
        return False
    head = first_bytes[:64]
    return not _NON_AUDIO_BODY.match(head) or _CONTROL_CHARACTER.search(head) is not None
