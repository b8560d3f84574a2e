"""The speech request, and parts that all requests of both clients have. Pure.

The facts come from the provider's OpenAPI description and from traces of real responses. `responses.py` parses the
responses about the account, `error_mapping.py` the error responses.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import Any, NamedTuple, Self
from urllib.parse import quote, urlencode

from voicecare.providers.errors import Cause, VoiceUnavailable

_to_json = json.JSONEncoder(ensure_ascii=False, check_circular=False, separators=(",", ":")).encode


def request_headers(api_key: str) -> dict[str, str]:
    """Returns the headers of every request.

    Raises ValueError for a key with characters that are not allowed in a header. For example, the key can end with a
    newline if it was read from a file.
    """
    if not (api_key.isascii() and api_key.isprintable()):
        raise ValueError("The provider's API key has characters that cannot be sent in a header.")
    return {"xi-api-key": api_key, "Accept-Encoding": "identity", "User-Agent": "voicecare"}


def path_segment(value: str) -> str:
    """Returns `value`, which is an id, quoted as one segment of a URL's path.

    Raises VoiceUnavailable if it is empty. A slash, question mark or `..` in the value cannot lead to another endpoint.
    """
    if not value:
        raise VoiceUnavailable("The voice id is empty.", code="invalid_voice_id", cause=Cause.VOICE_MISSING)
    quoted = quote(value, safe="")
    return quoted if quoted.strip(".") else quoted.replace(".", "%2E")


class Endpoint(StrEnum):
    """The provider's endpoints for streamed speech. Each accepts some of the models."""

    TEXT_TO_SPEECH = "text-to-speech"
    TEXT_TO_DIALOGUE = "text-to-dialogue"


@lru_cache(maxsize=1024)
def _speech_path(endpoint: Endpoint, voice_id: str, output_format: str, zero_retention: bool) -> str:
    segment = path_segment(voice_id)  # also for a dialogue, which has it in the body: an empty id is no voice
    query = {"output_format": output_format} | ({"enable_logging": "false"} if zero_retention else {})
    voice = f"/{segment}" if endpoint is Endpoint.TEXT_TO_SPEECH else ""
    return f"/v1/{endpoint}{voice}/stream?{urlencode(query)}"


@lru_cache(maxsize=1024)
def _constant_members(model_id: str, language_code: str | None, speed: float | None) -> str:
    """Returns the members of the JSON body that do not change in a conversation, as text without braces. Cached."""
    members: dict[str, Any] = {"model_id": model_id}
    if language_code:
        members["language_code"] = language_code
    if speed is not None and speed != 1.0:
        members["voice_settings"] = {"speed": speed}
    return _to_json(members)[1:-1]


@dataclass(frozen=True, slots=True)
class SpeechRequest:
    """A request for the speech of one segment.

    `speed` is a factor from 0.7 to 1.2. `previous_text` and `next_text` give the provider context for the prosody and
    are not billed. `ModelCatalogue.fit` leaves out what the model does not accept, and sets the endpoint. A dialogue
    has one speaker, no speed and no context. `repr` does not show any text.

    With `new_connection`, the client uses a connection that no other request has used.
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
    new_connection: bool = False
    endpoint: Endpoint = Endpoint.TEXT_TO_SPEECH

    def path(self) -> str:
        """Returns the path of the URL with the query. Raises VoiceUnavailable for an empty voice id."""
        return _speech_path(self.endpoint, self.voice_id, self.output_format, self.zero_retention)

    def body(self) -> bytes:
        """Returns the JSON body in UTF-8."""
        if self.endpoint is Endpoint.TEXT_TO_DIALOGUE:
            line = f'{{"text":{_to_json(self.text)},"voice_id":{_to_json(self.voice_id)}}}'
            members = f'"inputs":[{line}],{_constant_members(self.model_id, self.language_code, None)}'
            return f"{{{members}}}".encode()
        members = f'"text":{_to_json(self.text)},{_constant_members(self.model_id, self.language_code, self.speed)}'
        if self.previous_text:
            members += f',"previous_text":{_to_json(self.previous_text)}'
        if self.next_text:
            members += f',"next_text":{_to_json(self.next_text)}'
        return f"{{{members}}}".encode()


class ResponseMetadata(NamedTuple):
    """Data from the headers of a speech response.

    The ids are for the provider's support. `character_cost` is the number of billed credits. `concurrent` is the number
    of our requests in progress at the provider, and `concurrent_limit` its limit. `region` is where the provider has
    handled the request. A field is None if its header is missing or invalid.
    """

    request_id: str | None = None
    trace_id: str | None = None
    character_cost: int | None = None
    concurrent: int | None = None
    concurrent_limit: int | None = None
    region: str | None = None

    @classmethod
    def from_headers(cls, headers: Mapping[str, str]) -> Self:
        """Reads the metadata from the headers, which are a case-insensitive mapping, as in both HTTP libraries.

        Never raises.
        """
        return cls(
            printable_id(headers.get("request-id")),
            printable_id(headers.get("x-trace-id")),
            _parse_count(headers.get("character-cost")),
            _parse_count(headers.get("current-concurrent-requests")),
            _parse_count(headers.get("maximum-concurrent-requests")),
            printable_id(headers.get("x-region")),
        )


def _parse_count(text: str | None) -> int | None:
    return int(text) if text and len(text) <= 15 and text.isascii() and text.isdigit() else None


def printable_id(value: object) -> str | None:
    """Returns an id of the provider for logs and database columns, cut to 128 characters.

    Returns None if it is not a string, empty or not printable.
    """
    return value[:128] if isinstance(value, str) and value.isprintable() and value else None


_NON_AUDIO_TYPE = re.compile(r"\s*(text/|[^;]*[/+](json|xml|html)\b)", re.IGNORECASE)
_NON_AUDIO_BODY = re.compile(rb"\s*(<(!doctype|!--|html|head|body|\?xml)|[{\[]\s*[\"{}\]])", re.IGNORECASE)
_CONTROL_CHARACTER = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f]")


def looks_like_audio(content_type: str, first_bytes: bytes) -> bool:
    """Whether the body of a 2xx response can be audio. False if it is empty, or text, HTML, XML or JSON.

    The content type and the first bytes are checked. The provider does not document its content types for PCM, u-law
    and Opus, so a content type is only rejected if it is known to be wrong. PCM can begin like JSON by chance. It is
    recognized by control characters, which JSON does not have.
    """
    if not first_bytes or _NON_AUDIO_TYPE.match(content_type):
        return False
    head = first_bytes[:64]
    return not _NON_AUDIO_BODY.match(head) or _CONTROL_CHARACTER.search(head) is not None
