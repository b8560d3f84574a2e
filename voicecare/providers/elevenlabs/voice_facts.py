"""What the provider says of a voice for people who choose one, and of its price and its end."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

PREMADE_VOICES_END = datetime(2026, 12, 31, tzinfo=UTC)
"""Announced by the provider. It is not known whether paying accounts keep access to voices of the category premade."""


@dataclass(frozen=True, slots=True)
class VoiceFacts:
    """The facts about one voice.

    `languages` are those of its label and its verified ones, as the provider spells them. `price_rate` is a factor.
    `is_sharing_ended` says that its owner no longer shares it. It stays for `notice_period_days` then, or until
    `disable_at_unix`. `safety_control` is NONE, BAN, CAPTCHA, ENTERPRISE_BAN, ENTERPRISE_CAPTCHA or empty.

    A field of another type than expected counts as missing: no decision about a running speech depends on it.
    """

    languages: tuple[str, ...] = ()
    gender: str = ""
    age: str = ""
    accent: str = ""
    description: str = ""
    preview_url: str = ""
    price_rate: float | None = None
    notice_period_days: int | None = None
    disable_at_unix: int | None = None
    is_sharing_ended: bool = False
    safety_control: str = ""

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        labels, sharing = _object(data.get("labels")), _object(data.get("sharing"))
        verified = data.get("verified_languages")
        spoken = [labels, *map(_object, verified if isinstance(verified, list) else ())]
        return cls(
            languages=tuple(dict.fromkeys(filter(None, (_text(each, "language") for each in spoken)))),
            gender=_text(labels, "gender"),
            age=_text(labels, "age"),
            accent=_text(labels, "accent"),
            description=_text(data, "description"),
            preview_url=_text(data, "preview_url"),
            price_rate=_factor(sharing.get("rate")),
            notice_period_days=_whole_number(sharing.get("notice_period")),
            disable_at_unix=_whole_number(sharing.get("disable_at_unix")),
            is_sharing_ended=_text(sharing, "status") in ("disabled", "copied_disabled"),
            safety_control=_text(data, "safety_control"),
        )


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(data: Mapping[str, Any], name: str) -> str:
    value = data.get(name)
    return value if isinstance(value, str) else ""


def _whole_number(value: object) -> int | None:
    """A number that the database can hold. None for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31 else None


def _factor(value: object) -> float | None:
    is_factor = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf
    return float(value) if is_factor else None  # type: ignore[arg-type]  # checked above
