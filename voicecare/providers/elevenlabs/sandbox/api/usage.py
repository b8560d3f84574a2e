"""`/v1/usage/character-stats`: what was billed, in buckets of time, broken down. Times are UTC milliseconds."""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp import web

from voicecare.providers.elevenlabs.sandbox.api.query import integer
from voicecare.providers.elevenlabs.sandbox.errors import invalid, refusal
from voicecare.providers.elevenlabs.sandbox.records import Sale
from voicecare.providers.elevenlabs.sandbox.state import Sandbox

MAX_BUCKETS = 10_000
STEPS = {"hour": timedelta(hours=1), "day": timedelta(days=1), "week": timedelta(weeks=1)}
INTERVALS = (*STEPS, "month", "cumulative")
BREAKDOWNS: dict[str, Callable[[Sale], str]] = {
    "none": lambda _sale: "All",
    "voice": lambda sale: sale.voice_name,
    "model": lambda sale: sale.model_id,
    "product_type": lambda _sale: "TTS",
}
METRICS: dict[str, Callable[[Sale], int]] = {
    "credits": lambda sale: sale.credits,
    "tts_characters": lambda sale: sale.characters,
    "request_count": lambda _sale: 1,
}


@dataclass(frozen=True)
class Window:
    """The asked window, both ends in milliseconds, both included."""

    start: int
    end: int

    def buckets(self, interval: str, size_s: int | None) -> list[int]:
        """Where each bucket begins; the first at the start of its interval, in UTC."""
        begin = datetime.fromtimestamp(self.start / 1000, UTC)
        if size_s is not None:
            return self._stepped(begin, timedelta(seconds=size_s))
        if interval == "cumulative":
            return [self.start]
        begin = begin.replace(minute=0, second=0, microsecond=0)
        if interval == "hour":
            return self._stepped(begin, STEPS["hour"])
        begin = begin.replace(hour=0)
        if interval == "month":
            return self._capped(self._months(begin.replace(day=1)))
        return self._stepped(begin, STEPS[interval])

    def _stepped(self, begin: datetime, step: timedelta) -> list[int]:
        first, width = int(begin.timestamp() * 1000), int(step.total_seconds() * 1000)
        return self._capped(iter(range(first, self.end + 1, width)))

    def _months(self, begin: datetime) -> Iterator[int]:
        while (at := int(begin.timestamp() * 1000)) <= self.end:
            yield at
            begin = (begin + timedelta(days=32)).replace(day=1)

    def _capped(self, begins: Iterator[int]) -> list[int]:
        places: list[int] = []
        for begin in begins:
            if len(places) == MAX_BUCKETS:
                raise refusal("invalid_parameters", f"More than {MAX_BUCKETS} buckets.")
            places.append(begin)
        return places


async def character_stats(sandbox: Sandbox, request: web.Request) -> dict[str, Any]:
    """A `UsageCharactersResponseModel`. What the sandbox cannot compute it refuses rather than calls zero."""
    query = request.query
    window = _window(query)
    breakdown = BREAKDOWNS[_choice(query, "breakdown_type", "none", BREAKDOWNS)]
    metric = METRICS[_choice(query, "metric", "credits", METRICS)]
    interval = _choice(query, "aggregation_interval", "day", dict.fromkeys(INTERVALS))
    size = integer(query, "aggregation_bucket_size", None)
    if size is not None and size < 1:
        raise refusal("invalid_parameters", "aggregation_bucket_size is at least a second.")
    begins = window.buckets(interval, size)
    usage: dict[str, list[int]] = {} if breakdown is not BREAKDOWNS["none"] else {"All": [0] * len(begins)}
    for sale in sandbox.account.sales:
        if window.start <= sale.unix * 1000 <= window.end:
            row = usage.setdefault(breakdown(sale), [0] * len(begins))
            row[bisect_right(begins, sale.unix * 1000) - 1] += metric(sale)
    return {"time": begins, "usage": usage}


def _window(query: Mapping[str, str]) -> Window:
    ends = [integer(query, name, None) for name in ("start_unix", "end_unix")]
    for name, value in zip(("start_unix", "end_unix"), ends, strict=True):
        if value is None:
            raise invalid(["query", name], "Field required", "missing")
    start, end = ends[0] or 0, ends[1] or 0
    if not 0 <= start <= end < 10**14:
        raise refusal("invalid_parameters", "start_unix and end_unix are milliseconds, in this order.")
    return Window(start, end)


def _choice(query: Mapping[str, str], name: str, default: str, known: Mapping[str, Any]) -> str:
    value = query.get(name, default)
    if value not in known:
        raise refusal("invalid_parameters", f"{name} is one of: {', '.join(known)}.", param=name)
    return value
