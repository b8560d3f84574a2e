"""The responses about the account as typed values, with only the fields that we use.

`from_json` of each class takes parsed JSON. Unknown fields are ignored. Missing fields are allowed, except for ids and
the two numbers of the quota, because decisions depend on them. A response is invalid if it is not JSON, if a field has
a wrong type, or if a page says that there are more pages but has no token for the next one. For an invalid response,
`ServerError(code="bad_reply")` is raised, which is retryable.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from voicecare.providers.elevenlabs.requests import printable_id
from voicecare.providers.elevenlabs.voice_facts import VoiceFacts
from voicecare.providers.errors import ServerError


def parse_json(body: bytes) -> object:
    """Returns the parsed JSON body of a 2xx response. Raises ServerError if it is not JSON."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise invalid_response("not JSON") from error


def invalid_response(what: str) -> ServerError:
    """Returns the error for an invalid 2xx response. `what` says what is invalid, without quoting the response."""
    return ServerError(f"The speech provider's response is invalid: {what}.", code="bad_reply", status=200)


@dataclass(frozen=True, slots=True)
class Voice:
    """A voice of the workspace. `category` is premade, cloned, professional, generated, famous or high_quality."""

    voice_id: str
    name: str
    category: str
    needs_verification: bool
    created_at_unix: int | None
    facts: VoiceFacts = field(default_factory=VoiceFacts)

    @classmethod
    def from_json(cls, reply: object) -> Self:
        data = _object(reply, "voice")
        check = _optional_object(data.get("voice_verification"))
        return cls(
            voice_id=_required_text(data, "voice_id"),
            name=_text(data, "name"),
            category=_text(data, "category"),
            needs_verification=check.get("requires_verification") is True and check.get("is_verified") is not True,
            created_at_unix=_optional_number(data, "created_at_unix"),
            facts=VoiceFacts.from_json(data),
        )


@dataclass(frozen=True, slots=True)
class VoicePage:
    """One page of the list of voices. `next_token` requests the next page. It is None on the last page."""

    voices: tuple[Voice, ...]
    next_token: str | None

    @classmethod
    def from_json(cls, reply: object) -> Self:
        data = _object(reply, "voices")
        token = _required_text(data, "next_page_token") if data.get("has_more") is True else None
        return cls(tuple(map(Voice.from_json, _array(data.get("voices"), "voices"))), token)


@dataclass(frozen=True, slots=True)
class AddedVoice:
    """A new voice clone. If it requires verification, it cannot speak until the provider has verified its owner."""

    voice_id: str
    requires_verification: bool

    @classmethod
    def from_json(cls, reply: object) -> Self:
        data = _object(reply, "voice")
        return cls(_required_text(data, "voice_id"), data.get("requires_verification") is True)


@dataclass(frozen=True, slots=True)
class Model:
    """A model of the provider.

    `concurrency_group` is standard or turbo. Each group has its own concurrency limit. `cost_multiplier` is the number
    of credits per character, `discount_multiplier` a discount of this account. `languages` has the provider's language
    codes. It is empty if the response does not name any.
    """

    model_id: str
    can_speak: bool
    max_characters: int | None
    cost_multiplier: float | None
    concurrency_group: str
    languages: tuple[str, ...] = ()
    discount_multiplier: float | None = None

    @property
    def price(self) -> float | None:
        """The number of credits per character, with the discount. None if the response does not state it."""
        discount = 1.0 if self.discount_multiplier is None else self.discount_multiplier
        return None if self.cost_multiplier is None else self.cost_multiplier * discount

    @classmethod
    def from_json(cls, reply: object) -> Self:
        data = _object(reply, "model")
        rates = _optional_object(data.get("model_rates"))
        listed = data.get("languages")
        languages = map(_optional_object, listed) if isinstance(listed, list) else ()
        return cls(
            model_id=_required_text(data, "model_id"),
            can_speak=data.get("can_do_text_to_speech") is True,
            max_characters=_optional_number(data, "maximum_text_length_per_request"),
            cost_multiplier=_amount(rates.get("character_cost_multiplier"), "cost multiplier"),
            concurrency_group=_text(data, "concurrency_group"),
            languages=tuple(code for language in languages if (code := _text(language, "language_id"))),
            discount_multiplier=_amount(rates.get("cost_discount_multiplier"), "discount multiplier"),
        )


def models_from_json(reply: object) -> list[Model]:
    """Parses the list of models. It is the only response that is a JSON array."""
    return [Model.from_json(item) for item in _array(reply, "models")]


@dataclass(frozen=True, slots=True)
class Subscription:
    """The plan of the account, with its quota of the current period.

    `used` and `limit` are credits. `extension` is the number of credits that may be used beyond `limit`, or None if
    there is no limit. The provider updates `used` with a delay, so it can be lower than the sum of the `character-cost`
    headers.
    """

    tier: str
    status: str
    used: int
    limit: int
    extension: int | None
    resets_at_unix: int | None
    voice_slots_used: int | None
    voice_limit: int | None
    can_clone: bool
    voice_edits_used: int | None = None
    voice_edits_limit: int | None = None

    @property
    def remaining(self) -> int | None:
        """The number of credits left, never negative. None if there is no limit."""
        return None if self.extension is None else max(self.limit + self.extension - self.used, 0)

    @classmethod
    def from_json(cls, reply: object) -> Self:
        data = _object(reply, "subscription")
        unlimited = data.get("max_credit_limit_extension") == "unlimited"
        return cls(
            tier=_text(data, "tier"),
            status=_text(data, "status"),
            used=_required_number(data, "character_count"),
            limit=_required_number(data, "character_limit"),
            extension=None if unlimited else _optional_number(data, "max_credit_limit_extension") or 0,
            resets_at_unix=_optional_number(data, "next_character_count_reset_unix"),
            voice_slots_used=_optional_number(data, "voice_slots_used"),
            voice_limit=_optional_number(data, "voice_limit"),
            can_clone=data.get("can_use_instant_voice_cloning") is True,
            voice_edits_used=_optional_number(data, "voice_add_edit_counter"),
            voice_edits_limit=_optional_number(data, "max_voice_add_edits"),
        )


@dataclass(frozen=True, slots=True)
class CharacterStats:
    """Usage by time. `times_ms` has the start of each interval as Unix time in milliseconds.

    `usage` maps each group of the breakdown to its sums, one for each interval. Without a breakdown the only group is
    "All".
    """

    times_ms: tuple[int, ...]
    usage: Mapping[str, tuple[float, ...]]

    @classmethod
    def from_json(cls, reply: object) -> Self:
        data = _object(reply, "statistics")
        times = tuple(_whole_number(time, "time") for time in _array(data.get("time"), "time"))
        usage = _object(data.get("usage"), "usage")
        series = {name: tuple(_amount(x, "usage") or 0.0 for x in _array(usage[name], "usage")) for name in usage}
        if any(len(values) != len(times) for values in series.values()):
            raise invalid_response("series of unequal length")
        return cls(times, series)


@dataclass(frozen=True, slots=True)
class HistoryItem:
    """One speech request in the provider's history. Of its text, only the number of code points is kept.

    `credits` is the difference between the provider's counter before and after the request. It is None if the counter
    was reset in between, at the start of a period.
    """

    item_id: str
    request_id: str | None
    voice_id: str
    model_id: str
    created_at_unix: int | None
    characters: int
    credits: int | None
    is_deleted: bool = False

    @classmethod
    def from_json(cls, reply: object) -> Self:
        data = _object(reply, "history")
        before, after = (_optional_number(data, f"character_count_change_{end}") for end in ("from", "to"))
        return cls(
            item_id=_required_text(data, "history_item_id"),
            request_id=printable_id(data.get("request_id")),
            voice_id=_text(data, "voice_id"),
            model_id=_text(data, "model_id"),
            created_at_unix=_optional_number(data, "date_unix"),
            characters=len(_text(data, "text")),
            credits=after - before if before is not None and after is not None and after >= before else None,
            is_deleted=data.get("state") == "deleted",
        )


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """One page of the history, newest request first. `next_after` requests the next page.

    It is None on the last page.
    """

    items: tuple[HistoryItem, ...]
    next_after: str | None

    @classmethod
    def from_json(cls, reply: object) -> Self:
        data = _object(reply, "history")
        after = _required_text(data, "last_history_item_id") if data.get("has_more") is True else None
        return cls(tuple(map(HistoryItem.from_json, _array(data.get("history"), "history"))), after)


def _object(value: object, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise invalid_response(f"{name} is not an object")
    return value


def _optional_object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _array(value: object, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise invalid_response(f"{name} is not a list")
    return value


def _text(data: Mapping[str, Any], name: str) -> str:
    value = data.get(name)
    return value if isinstance(value, str) else ""


def _required_text(data: Mapping[str, Any], name: str) -> str:
    if value := _text(data, name):
        return value
    raise invalid_response(f"{name} is missing")


def _optional_number(data: Mapping[str, Any], name: str) -> int | None:
    """Returns a non-negative integer, or None if the field is missing or null.

    Raises ServerError for any other value.
    """
    value = data.get(name)
    return None if value is None else _whole_number(value, name)


def _required_number(data: Mapping[str, Any], name: str) -> int:
    return _whole_number(data.get(name), name)


def _whole_number(value: object, name: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63:
        return value
    raise invalid_response(f"{name} is not a non-negative integer")


def _amount(value: object, name: str) -> float | None:
    """Returns a finite, non-negative number, or None if the value is None. Raises ServerError for any other value."""
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf:
        return float(value)
    raise invalid_response(f"{name} is not a non-negative number")
