"""Makes an exception from an error response (any status that is not 2xx). Pure, never raises.

Only this module knows the error codes of the provider. The provider uses five forms of error bodies:
    {"detail": {"type", "code", "message", "status", "request_id", "param"?}}
    {"detail": {"status", "message"}}
    {"detail": [{"loc", "msg", "type", "input"?}]}       validation errors of FastAPI
    {"detail": "text"}
    HTML from the provider's edge servers
The error code is `detail.code`, or `detail.status` without a code. The two can differ. A 401 can mean a used-up quota,
a missing permission or abuse, as well as a wrong key. The codes below are from the provider's catalogue of 2026 or from
traces of real responses, unless a comment says otherwise.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from voicecare.providers.elevenlabs.requests import ResponseMetadata, printable_id
from voicecare.providers.errors import (
    AuthorizationError,
    BadRequest,
    Cause,
    ProviderError,
    QuotaExceeded,
    RateLimited,
    ServerError,
    TextRejected,
    VoiceUnavailable,
)

MAX_BODY_BYTES = 64 * 1024
"""Error bodies are read up to this size. For a longer body only the status counts."""

_QUOTA_CODES = frozenset({"quota_exceeded", "insufficient_credits"})
_MISSING_VOICE_CODES = frozenset(
    {
        "voice_not_found",
        "voice_does_not_exist",
        "invalid_voice_id",
        "invalid_uid",  # an id of the wrong form, in older responses
    }
)
_PLAN_CODES = frozenset(
    {
        "only_for_creator+",  # the voice is a professional clone, and the plan does not include it
        "only_for_creator_plus",
        "free_users_not_allowed",  # a library voice on the free plan
        "can_not_use_instant_voice_cloning",
        "ivc_not_permitted",
    }
)
_VOICE_CODES = _MISSING_VOICE_CODES | _PLAN_CODES | {"famous_voice_not_permitted"}
_OTHER_VOICE_CODES = frozenset({"voice_limit_reached", "voice_already_exists"})
_TEXT_CODES = frozenset({"max_character_limit_exceeded"})
_CODES_WITH_SAFE_MESSAGE = frozenset({"missing_permissions", "insufficient_permissions", "voice_limit_reached"})
_KEY_CODES = frozenset(
    {
        *("invalid_api_key", "missing_api_key", "invalid_authorization_header", "needs_authorization"),
        *("unauthorized", "sign_in_required"),
    }
)
_CONTEXT_PARAMETERS = frozenset({"previous_text", "next_text"})
_VOICE_WORD = re.compile(r"\bvoices?\b", re.IGNORECASE)  # not "invoice"
_CODE_PATTERN = re.compile(r"[A-Za-z][\w.+-]{0,63}", re.ASCII)
_LANGUAGE_WORD = re.compile(r"(?<![a-z])language", re.IGNORECASE)


class _ErrorBody(NamedTuple):
    """The content of an error body, whatever its form. All fields are empty if the body cannot be parsed."""

    code: str | None = None
    message: str = ""
    request_id: str | None = None
    param: str = ""
    location: str = ""
    names_language: bool = False


def error_from_response(
    status: int, headers: Mapping[str, str], body: bytes, *, for_speech: bool = False
) -> ProviderError:
    """Returns the error for a response whose status is not 2xx. `body` can be any bytes. Never raises.

    `for_speech` is true for a speech request. If the plan does not include the voice, the error is then
    VoiceUnavailable.

    The provider's message is used only for codes about limits and permissions. Other messages can contain the spoken
    text.
    """
    parsed = _parse_body(body)
    error_class = _error_class(status, parsed.code or "", parsed.param)
    if for_speech and status == 402:
        # Voices of the provider's library need a paid plan. The older code `payment_required` is also sent if the
        # account has not paid. Only the message shows which of the two is the reason.
        names_voice = _VOICE_WORD.search(parsed.message) is not None
        if parsed.code == "paid_plan_required" or (parsed.code == "payment_required" and names_voice):
            error_class = VoiceUnavailable
    metadata = ResponseMetadata.from_headers(headers)
    message = error_class.default_message
    if parsed.message and (error_class in (QuotaExceeded, RateLimited) or parsed.code in _CODES_WITH_SAFE_MESSAGE):
        message = parsed.message
    elif parsed.location:
        message = f"{message} ({parsed.location})"
    return error_class(
        message,
        code=parsed.code or ("redirect" if 300 <= status < 400 else None),
        status=status,
        request_id=metadata.request_id or parsed.request_id,
        trace_id=metadata.trace_id,
        region=metadata.region,
        cause=_cause(error_class, status, parsed),
    )


def _cause(error_class: type[ProviderError], status: int, body: _ErrorBody) -> Cause | None:
    """Returns the cause of the refusal if the class of the error is not precise enough.

    A 401 or 403 never proves that a voice does not exist.
    """
    code = body.code or ""
    if error_class is VoiceUnavailable:
        if code in _PLAN_CODES or status == 402:
            return Cause.PLAN
        is_missing = code in _MISSING_VOICE_CODES or (status == 404 and body.param == "voice_id")
        return Cause.VOICE_MISSING if is_missing and status not in (401, 403) else None
    if error_class is AuthorizationError and status == 401 and code in _KEY_CODES:
        return Cause.KEY
    if error_class is BadRequest and body.param in _CONTEXT_PARAMETERS:
        return Cause.CONTEXT
    if status in (400, 403, 404, 422) and ("model" in code.split("_") or body.param == "model_id"):
        return Cause.MODEL
    return Cause.LANGUAGE if error_class is BadRequest and body.names_language else None


def _error_class(status: int, code: str, param: str) -> type[ProviderError]:
    if status >= 500 or status in (408, 425):
        return ServerError
    if status == 429:
        return RateLimited
    if code in _QUOTA_CODES:  # with any status: it is 401 in traces and 402 in the catalogue
        return QuotaExceeded
    names_voice = code in _VOICE_CODES or code.startswith("voice_") or param == "voice_id"
    if names_voice and code not in _OTHER_VOICE_CODES:
        return VoiceUnavailable
    names_text = code in _TEXT_CODES or "text" in code.split("_") or param == "text"
    if names_text and status in (400, 422):
        return TextRejected
    return AuthorizationError if status in (401, 402, 403) else BadRequest


def _parse_body(body: bytes) -> _ErrorBody:
    if len(body) > MAX_BODY_BYTES:
        return _ErrorBody()
    try:
        reply = json.loads(body)
    except (ValueError, RecursionError):
        return _ErrorBody()
    detail = reply.get("detail") if isinstance(reply, dict) else None
    if isinstance(detail, list):
        return _parse_validation_errors([item for item in detail if isinstance(item, dict)])
    if not isinstance(detail, dict):
        return _ErrorBody(names_language=_names_language(detail))
    message, param = detail.get("message"), detail.get("param")
    return _ErrorBody(
        code=_code(detail.get("code")) or _code(detail.get("status")),
        message="".join(filter(str.isprintable, message))[:300] if isinstance(message, str) else "",
        request_id=printable_id(detail.get("request_id")),
        param=param if isinstance(param, str) else "",
        names_language=any(_names_language(detail.get(field)) for field in ("code", "status", "param", "message")),
    )


def _names_language(words: object) -> bool:
    """Whether a field of an error body contains the word "language".

    The code of the error about the language is not documented. A wrong guess costs only a second, useless request.
    """
    return isinstance(words, str) and _LANGUAGE_WORD.search(words) is not None


def _code(value: object) -> str | None:
    return value if isinstance(value, str) and _CODE_PATTERN.fullmatch(value) else None


def _parse_validation_errors(items: list[dict[str, Any]]) -> _ErrorBody:
    """Parses the validation errors of FastAPI.

    Only `loc` and `type` are used, because other fields can contain the text.
    """
    names: set[str] = set()
    locations = []
    for item in items:
        loc = item.get("loc")
        path = [str(part) for part in loc if _code(str(part))] if isinstance(loc, list) else []
        names.update(path)
        locations.append(f"{'.'.join(path)}: {_code(item.get('type')) or '?'}")
    param = next((name for name in ("text", "voice_id", "previous_text", "next_text", "model_id") if name in names), "")
    return _ErrorBody(param=param, location="; ".join(locations[:3]), names_language="language_code" in names)
