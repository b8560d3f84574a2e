"""The provider's endpoint `/v1/usage/character-stats`: billed usage by time and by another property.

Times are Unix times in milliseconds. Days, weeks and months are those of UTC.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp import web

from voicecare.providers.elevenlabs.sandbox.api.query import integer
from voicecare.providers.elevenlabs.sandbox.errors import preset_error, validation_error
from voicecare.providers.elevenlabs.sandbox.records import BilledRequest
from voicecare.providers.elevenlabs.sandbox.state import Sandbox

MAX_BUCKETS = 10_000
STEPS = {"hour": timedelta(hours=1), "day": timedelta(days=1), "week": timedelta(weeks=1)}
INTERVALS = (*STEPS, "month", "cumulative")
BREAKDOWNS: dict[str, Callable[[BilledRequest], str]] = {
    "none": lambda _sale: "All",
    "voice": lambda billed: billed.voice_name,
    "model": lambda billed: billed.model_id,
    "product_type": lambda _sale: "TTS",
}
METRICS: dict[str, Callable[[BilledRequest], int]] = {
    "credits": lambda billed: billed.credits,
    "tts_characters": lambda billed: billed.characters,
    "request_count": lambda _sale: 1,
}


@dataclass(frozen=True)
class TimeRange:
    """The requested time range in milliseconds. Both ends are included."""

    start: int
    end: int

    def buckets(self, interval: str, size_s: int | None) -> list[int]:
        """Returns the start times in milliseconds of the intervals in this range.

        The first interval may start before the range. `interval` is hour, day, week, month or cumulative. `size_s` is
        the length in seconds of other intervals, or None.
        """
        begin = datetime.fromtimestamp(self.start / 1000, UTC)
        if size_s is not None:
            return self._fixed_steps(begin, timedelta(seconds=size_s))
        if interval == "cumulative":
            return [self.start]
        begin = begin.replace(minute=0, second=0, microsecond=0)
        if interval == "hour":
            return self._fixed_steps(begin, STEPS["hour"])
        begin = begin.replace(hour=0)
        if interval == "month":
            return self._limited(self._months(begin.replace(day=1)))
        return self._fixed_steps(begin, STEPS[interval])

    def _fixed_steps(self, begin: datetime, step: timedelta) -> list[int]:
        first, width = int(begin.timestamp() * 1000), int(step.total_seconds() * 1000)
        return self._limited(iter(range(first, self.end + 1, width)))

    def _months(self, begin: datetime) -> Iterator[int]:
        while (at := int(begin.timestamp() * 1000)) <= self.end:
            yield at
            begin = (begin + timedelta(days=32)).replace(day=1)

    def _limited(self, begins: Iterator[int]) -> list[int]:
        places: list[int] = []
        for begin in begins:
            if len(places) == MAX_BUCKETS:
                raise preset_error("invalid_parameters", f"More than {MAX_BUCKETS} buckets.")
            places.append(begin)
        return places


async def character_stats(sandbox: Sandbox, request: web.Request) -> dict[str, Any]:
    """Returns the JSON that the provider's schema calls `UsageCharactersResponseModel`.

    Raises ApiError for a metric that the sandbox cannot compute, because zeros would be wrong.
    """
    query = request.query
    ends = [integer(query, name, None) for name in ("start_unix", "end_unix")]
    for name, value in zip(("start_unix", "end_unix"), ends, strict=True):
        if value is None:
            raise validation_error(["query", name], "Field required", "missing")
    start, end = ends[0] or 0, ends[1] or 0
    if not 0 <= start <= end < 10**14:
        raise preset_error("invalid_parameters", "start_unix and end_unix must be milliseconds, in this order.")
    breakdown = BREAKDOWNS[_choice(query, "breakdown_type", "none", BREAKDOWNS)]
    metric = METRICS[_choice(query, "metric", "credits", METRICS)]
    interval = _choice(query, "aggregation_interval", "day", dict.fromkeys(INTERVALS))
    size = integer(query, "aggregation_bucket_size", None)
    if size is not None and size < 1:
        raise preset_error("invalid_parameters", "aggregation_bucket_size must be at least 1 second.")
    begins = TimeRange(start, end).buckets(interval, size)
    usage: dict[str, list[int]] = {} if breakdown is not BREAKDOWNS["none"] else {"All": [0] * len(begins)}
    for billed in sandbox.account.billed_requests:
        if start <= billed.unix * 1000 <= end:
            row = usage.setdefault(breakdown(billed), [0] * len(begins))
            row[bisect_right(begins, billed.unix * 1000) - 1] += metric(billed)
    return {"time": begins, "usage": usage}


def _choice(query: Mapping[str, str], name: str, default: str, known: Mapping[str, Any]) -> str:
    value = query.get(name, default)
    if value not in known:
        raise preset_error("invalid_parameters", f"{name} must be one of: {', '.join(known)}.", param=name)
    return value
