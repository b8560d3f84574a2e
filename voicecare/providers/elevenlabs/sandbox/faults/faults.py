"""Descriptions of faults: what fails, for which requests, and how often.

The JSON of a fault is `{kind, match?, every?, first?}` plus the fields of its kind (`FIELDS_BY_KIND`). `match` is
`{path, method, text, voice_id}`. `path` and `text` are regular expressions to search for, `voice_id` is one for the
whole id, and `method` must be equal. The id of a voice is in the path of a speech and in the body of a dialogue.
Without `path`, a fault only applies to speech requests, so that a failing voice does not break the account's endpoints.
`every: n` applies the fault to every n-th matching request, `first: n` only to the first n. Faults have an order. A
request gets the first fault that applies, and does not count for the faults behind it.
"""

import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from voicecare.providers.elevenlabs.sandbox.errors import (
    FORMS,
    HTML_TYPE,
    JSON_TYPE,
    PRESETS,
    ApiError,
    Form,
    build_error,
)

BREAK_POINT_FIELDS = ("after_bytes", "after_ms")
FIELDS_BY_KIND: dict[str, tuple[str, ...]] = {
    "error": ("preset", "status", "form", "code", "message", "body", "headers"),
    "refuse": (),
    "redirect": ("location",),
    "stall_first": ("seconds",),
    "slow_headers": ("seconds",),
    "unanswered": ("seconds",),
    "stall_headers": ("seconds",),
    "stall_middle": (*BREAK_POINT_FIELDS, "seconds"),
    "cut": BREAK_POINT_FIELDS,
    "cut_reset": BREAK_POINT_FIELDS,
    "cut_clean": BREAK_POINT_FIELDS,
    "empty": (),
    "html": ("body",),
    "json": ("body",),
    "wrong_type": (),
    "garbage": (),
    "prefix": ("hex",),
    "endless": (),
    "slow": ("bytes_per_s",),
    "drip": ("seconds",),
}
KINDS_WITH_BREAK_POINT = {"stall_middle", "cut", "cut_reset", "cut_clean"}
COMMON_FIELDS = ("kind", "match", "every", "first")
MATCH_FIELDS = ("path", "method", "text", "voice_id")
SPEECH_PATH = "^/v1/text-to-(speech|dialogue)"


class InvalidControlRequest(ValueError):
    """The body of a request to the control API is invalid. The message says which values are valid."""


@dataclass(frozen=True)
class RequestInfo:
    """The properties of a request that a fault can be limited to."""

    path: str
    method: str
    text: str = ""
    voice_id: str = ""


@dataclass(frozen=True)
class RequestMatch:
    path: str = SPEECH_PATH
    method: str | None = None
    text: str | None = None
    voice_id: str | None = None

    def matches(self, request: RequestInfo) -> bool:
        return (
            re.search(self.path, request.path) is not None
            and self.method in (None, request.method)
            and (self.voice_id is None or re.fullmatch(self.voice_id, request.voice_id) is not None)
            and (self.text is None or re.search(self.text, request.text) is not None)
        )


@dataclass
class Fault:
    """One fault, and how often it was used.

    `after_bytes` is counted from the start of the body, `after_ms` from the headers. The meaning of `seconds` depends
    on the kind: the length of a stall (default: until the client disconnects), the time to send slow headers (default
    3), or the pause between single bytes (default 0.5). The kind `unanswered` executes and bills the request, but sends
    no response. `prefix` sends the bytes in `hex`, for example a tag, before the audio. `seen` counts the requests that
    match, and `hits` those that got the fault.
    """

    kind: str
    match: RequestMatch = field(default_factory=RequestMatch)
    every: int | None = None
    first: int | None = None
    preset: str | None = None
    status: int | None = None
    form: Form | None = None
    code: str | None = None
    message: str | None = None
    body: object = None
    headers: dict[str, str] = field(default_factory=dict)
    location: str = "http://127.0.0.1:9/elsewhere"
    after_bytes: int | None = None
    after_ms: float | None = None
    seconds: float | None = None
    bytes_per_s: float = 1000.0
    hex: str = ""
    id: int = 0
    seen: int = 0
    hits: int = 0

    def claims(self, request: RequestInfo) -> bool:
        """Whether this request gets the fault.

        The request is counted if it matches, even if it does not get the fault.
        """
        if self.spent or not self.match.matches(request):
            return False
        self.seen += 1
        if self.seen % (self.every or 1):
            return False
        self.hits += 1
        return True

    @property
    def spent(self) -> bool:
        return self.first is not None and self.hits >= self.first

    def to_error(self) -> ApiError:
        """Returns the response of a fault of the kind `error`.

        It is the preset with the changed fields, or it has the fault's own `body`.
        """
        words = PRESETS[self.preset or "internal_error"]
        error = build_error(
            self.status or words.status,
            self.form or words.form,
            self.code or words.code,
            self.message or words.message,
            "" if self.code else words.legacy,
        )
        if self.body is not None:
            error.body = encode_body(self.body)
        error.headers = self.headers
        return error

    def replacement_body(self) -> tuple[str, bytes] | None:
        """Returns the content type and the body that replace the speech, for the kinds `html` and `json`.

        Otherwise None.
        """
        if self.kind == "html":
            return HTML_TYPE, encode_body(self.body or "<html><body>Checking your browser</body></html>")
        if self.kind == "json":
            return JSON_TYPE, encode_body(self.body or {"detail": {"status": "system_busy", "message": "Busy."}})
        return None

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "spent": self.spent}


def encode_body(body: object) -> bytes:
    """Returns the bytes of a body. A string is sent unchanged, so that it can be broken JSON.

    Other values become JSON.
    """
    return body.encode() if isinstance(body, str) else json.dumps(body).encode()


class FaultRegistry:
    """All faults, in the order in which they were added."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._ids: Iterator[int] = itertools.count(1)

    def add(self, body: object) -> Fault:
        """Adds the fault that the JSON object `body` describes.

        Raises InvalidControlRequest if the object is invalid.
        """
        fault = parse_fault(body)
        fault.id = next(self._ids)
        self._faults.append(fault)
        return fault

    def find_for(self, request: RequestInfo) -> Fault | None:
        return next((fault for fault in self._faults if fault.claims(request)), None)

    def clear(self) -> None:
        self._faults.clear()

    def to_json(self) -> list[dict[str, Any]]:
        return [fault.to_json() for fault in self._faults]


def parse_fault(body: object) -> Fault:
    """Returns the fault that the JSON object `body` describes. Raises InvalidControlRequest if the object is invalid.

    The message of the error lists the known names.
    """
    if not isinstance(body, Mapping) or body.get("kind") not in FIELDS_BY_KIND:
        raise InvalidControlRequest(f"A fault must be an object with a `kind`, one of: {', '.join(FIELDS_BY_KIND)}.")
    kind = body["kind"]
    reject_unknown_fields(body, (*COMMON_FIELDS, *FIELDS_BY_KIND[kind]), f"a fault of kind {kind}")
    fields = {name: CHECKS[name](name, value) for name, value in body.items()}
    if kind in KINDS_WITH_BREAK_POINT and not fields.keys() & set(BREAK_POINT_FIELDS):
        raise InvalidControlRequest(f"The kind {kind} needs one of: {', '.join(BREAK_POINT_FIELDS)}.")
    if kind == "error" and not fields.keys() & {"preset", "status"}:
        raise InvalidControlRequest(f"The kind error needs a `status` or a `preset`, one of: {', '.join(PRESETS)}.")
    return Fault(**fields)


def reject_unknown_fields(fields: Mapping[str, Any], names: tuple[str, ...], what: str) -> None:
    if unknown := set(fields) - set(names):
        raise InvalidControlRequest(f"Unknown in {what}: {', '.join(sorted(unknown))}. Known: {', '.join(names)}.")


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise InvalidControlRequest(f"`{name}` must be a number that is not negative, not {value!r}.")
    return value


def _count(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InvalidControlRequest(f"`{name}` must be an integer that is not negative, not {value!r}.")
    return value


def _positive(name: str, value: object) -> int:
    count = _count(name, value)
    if count == 0:
        raise InvalidControlRequest(f"`{name}` must be an integer above 0, not 0.")
    return count


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise InvalidControlRequest(f"`{name}` must be a string, not {value!r}.")
    return value


def _hex(name: str, value: object) -> str:
    digits = _text(name, value)
    try:
        bytes.fromhex(digits)
    except ValueError as error:
        raise InvalidControlRequest(f"`{name}` must be hexadecimal digits, not {value!r}.") from error
    return digits


def _one_of(names: tuple[str, ...]) -> Callable[[str, Any], str]:
    def check(name: str, value: object) -> str:
        if value not in names:
            raise InvalidControlRequest(f"`{name}` must be one of: {', '.join(names)}.")
        return str(value)

    return check


def _headers(name: str, value: object) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise InvalidControlRequest(f"`{name}` must be an object with string values.")
    return {_text(name, key): _text(name, text) for key, text in value.items()}


def _request_match(name: str, value: object) -> RequestMatch:
    if not isinstance(value, Mapping):
        raise InvalidControlRequest(f"`{name}` must be an object with: {', '.join(MATCH_FIELDS)}.")
    reject_unknown_fields(value, MATCH_FIELDS, "`match`")
    for key in value:
        try:
            re.compile(_text(key, value[key]))
        except re.error as error:
            raise InvalidControlRequest(f"`match.{key}` is not a regular expression: {error}.") from error
    return RequestMatch(**value)


CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "kind": _text,
    "match": _request_match,
    "every": _positive,
    "first": _positive,
    "preset": _one_of(tuple(PRESETS)),
    "status": _positive,
    "form": _one_of(FORMS),
    "code": _text,
    "message": _text,
    "body": lambda _name, value: value,
    "headers": _headers,
    "location": _text,
    "after_bytes": _count,
    "after_ms": _number,
    "seconds": _number,
    "bytes_per_s": _number,
    "hex": _hex,
}
