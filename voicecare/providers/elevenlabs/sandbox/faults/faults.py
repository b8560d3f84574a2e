"""Faults on order: what may break, for which requests, and how often.

A fault is `{kind, match?, every?, first?}` and the fields of its kind (`KINDS`). `match` is
`{path, method, text, voice_id}`: `path` and `text` are regular expressions that must be found, the others are equal.
Without `path`, a fault strikes speech requests only, so that a broken voice does not also break the account's figures.
Faults stand in line: the first that applies takes the request, and those behind it do not count it.
"""

import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from voicecare.providers.elevenlabs.sandbox.errors import FORMS, HTML_TYPE, JSON_TYPE, PRESETS, ApiError, Form, rendered

BREAKING_POINT = ("after_bytes", "after_ms")
KINDS: dict[str, tuple[str, ...]] = {
    "error": ("preset", "status", "form", "code", "message", "body", "headers"),
    "refuse": (),
    "redirect": ("location",),
    "stall_first": ("seconds",),
    "slow_headers": ("seconds",),
    "unanswered": ("seconds",),
    "stall_headers": ("seconds",),
    "stall_middle": (*BREAKING_POINT, "seconds"),
    "cut": BREAKING_POINT,
    "cut_reset": BREAKING_POINT,
    "cut_clean": BREAKING_POINT,
    "empty": (),
    "html": ("body",),
    "json": ("body",),
    "wrong_type": (),
    "garbage": (),
    "endless": (),
    "slow": ("bytes_per_s",),
    "drip": ("seconds",),
}
NEEDS_A_POINT = {"stall_middle", "cut", "cut_reset", "cut_clean"}
COMMON = ("kind", "match", "every", "first")
MATCHES = ("path", "method", "text", "voice_id")
SPEECH_PATH = "^/v1/text-to-speech/"


class BadRequest(ValueError):
    """A control request that makes no sense; the message says what would."""


@dataclass(frozen=True)
class Traits:
    """What a fault may look at in a request."""

    path: str
    method: str
    text: str = ""
    voice_id: str = ""


@dataclass(frozen=True)
class Match:
    path: str = SPEECH_PATH
    method: str | None = None
    text: str | None = None
    voice_id: str | None = None

    def fits(self, traits: Traits) -> bool:
        return (
            re.search(self.path, traits.path) is not None
            and self.method in (None, traits.method)
            and self.voice_id in (None, traits.voice_id)
            and (self.text is None or re.search(self.text, traits.text) is not None)
        )


@dataclass
class Fault:
    """One fault. `after_bytes` counts body bytes, `after_ms` runs from the headers; `seconds` is how long a stall lasts
    (without it: until the client leaves), how long slow headers take (3), or the gap between drips (0.5). `unanswered`
    does and bills what was asked for, and never says so."""

    kind: str
    match: Match = field(default_factory=Match)
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
    id: int = 0
    seen: int = 0
    hits: int = 0

    def takes(self, traits: Traits) -> bool:
        """Whether this request is struck; counts it if it matches."""
        if self.spent or not self.match.fits(traits):
            return False
        self.seen += 1
        if self.seen % (self.every or 1):
            return False
        self.hits += 1
        return True

    @property
    def spent(self) -> bool:
        return self.first is not None and self.hits >= self.first

    def error(self) -> ApiError:
        """The answer of an `error` fault: the preset with what was changed in it, under `body` if one was given."""
        words = PRESETS[self.preset or "internal_error"]
        error = rendered(
            self.status or words.status,
            self.form or words.form,
            self.code or words.code,
            self.message or words.message,
            "" if self.code else words.legacy,
        )
        if self.body is not None:
            error.body = as_bytes(self.body)
        error.headers = self.headers
        return error

    def disguise(self) -> tuple[str, bytes] | None:
        """Content type and body that replace the speech of an otherwise successful answer."""
        if self.kind == "html":
            return HTML_TYPE, as_bytes(self.body or "<html><body>Checking your browser</body></html>")
        if self.kind == "json":
            return JSON_TYPE, as_bytes(self.body or {"detail": {"status": "system_busy", "message": "Busy."}})
        return None

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "spent": self.spent}


def as_bytes(body: object) -> bytes:
    """A given body: text as it is (broken JSON included), anything else as JSON."""
    return body.encode() if isinstance(body, str) else json.dumps(body).encode()


class FaultBook:
    """The faults in line, in the order in which they were added."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._ids: Iterator[int] = itertools.count(1)

    def add(self, wanted: object) -> Fault:
        """Raises BadRequest for anything unknown."""
        fault = read(wanted)
        fault.id = next(self._ids)
        self._faults.append(fault)
        return fault

    def take(self, traits: Traits) -> Fault | None:
        return next((fault for fault in self._faults if fault.takes(traits)), None)

    def clear(self) -> None:
        self._faults.clear()

    def listed(self) -> list[dict[str, Any]]:
        return [fault.as_json() for fault in self._faults]


def read(wanted: object) -> Fault:
    """A fault from its JSON; raises BadRequest that says what is known."""
    if not isinstance(wanted, Mapping) or wanted.get("kind") not in KINDS:
        raise BadRequest(f"A fault is an object with a `kind`, one of: {', '.join(KINDS)}.")
    kind = wanted["kind"]
    known(wanted, (*COMMON, *KINDS[kind]), f"a fault of kind {kind}")
    fields = {name: CHECKS[name](name, value) for name, value in wanted.items()}
    if kind in NEEDS_A_POINT and not fields.keys() & set(BREAKING_POINT):
        raise BadRequest(f"{kind} needs one of: {', '.join(BREAKING_POINT)}.")
    if kind == "error" and not fields.keys() & {"preset", "status"}:
        raise BadRequest(f"error needs a `status` or a `preset`, one of: {', '.join(PRESETS)}.")
    return Fault(**fields)


def known(wanted: Mapping[str, Any], names: tuple[str, ...], what: str) -> None:
    if unknown := set(wanted) - set(names):
        raise BadRequest(f"Unknown in {what}: {', '.join(sorted(unknown))}. Known: {', '.join(names)}.")


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise BadRequest(f"`{name}` is a number from 0 up, not {value!r}.")
    return value


def _count(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise BadRequest(f"`{name}` is a whole number from 0 up, not {value!r}.")
    return value


def _positive(name: str, value: object) -> int:
    count = _count(name, value)
    if count == 0:
        raise BadRequest(f"`{name}` is a whole number from 1 up, not 0.")
    return count


def _words(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise BadRequest(f"`{name}` is text, not {value!r}.")
    return value


def _one_of(names: tuple[str, ...]) -> Callable[[str, Any], str]:
    def check(name: str, value: object) -> str:
        if value not in names:
            raise BadRequest(f"`{name}` is one of: {', '.join(names)}.")
        return str(value)

    return check


def _headers(name: str, value: object) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise BadRequest(f"`{name}` is an object of texts.")
    return {_words(name, key): _words(name, text) for key, text in value.items()}


def _match(name: str, value: object) -> Match:
    if not isinstance(value, Mapping):
        raise BadRequest(f"`{name}` is an object with: {', '.join(MATCHES)}.")
    known(value, MATCHES, "`match`")
    for key in value:
        try:
            re.compile(_words(key, value[key]))
        except re.error as error:
            raise BadRequest(f"`match.{key}` is no regular expression: {error}.") from error
    return Match(**value)


CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "kind": _words,
    "match": _match,
    "every": _positive,
    "first": _positive,
    "preset": _one_of(tuple(PRESETS)),
    "status": _positive,
    "form": _one_of(FORMS),
    "code": _words,
    "message": _words,
    "body": lambda _name, value: value,
    "headers": _headers,
    "location": _words,
    "after_bytes": _count,
    "after_ms": _number,
    "seconds": _number,
    "bytes_per_s": _number,
}
