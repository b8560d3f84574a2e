"""The provider's analytics of a workspace: usage by hour, cost by day, and the list of requests.

All of them answer with a table, which the official SDK calls `WorkspaceAnalyticsQueryResponseModel`. Which of them an
account has is a setting: `usage_call` and `request_list` of the sandbox.
"""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from aiohttp import web

from voicecare.providers.elevenlabs.sandbox.api.middleware import json_endpoint
from voicecare.providers.elevenlabs.sandbox.errors import preset_error, validation_error
from voicecare.providers.elevenlabs.sandbox.records import BilledRequest
from voicecare.providers.elevenlabs.sandbox.state import Sandbox

DAY_S = 86_400
EARLIEST_MS = 1_577_836_800_000  # 2020-01-01
MAX_ROWS = 10_000
MAX_REQUESTS = 1000
PRICE_PER_1000_CREDITS = 0.3
SPEECH_ENDPOINT = "/v1/text-to-speech"


async def usage_by_product(sandbox: Sandbox, request: web.Request) -> dict[str, Any]:
    """Returns the credits of each interval. Hours and days are those of `time_zone`. Empty intervals are included."""
    _require_call(sandbox, "credits")
    body = await _body(request)
    start, end = _time_range(body)
    step_s = body.get("interval_seconds") or DAY_S
    try:
        zone = ZoneInfo(body.get("time_zone") or "UTC")
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise preset_error("invalid_parameters", "time_zone is unknown.", param="time_zone") from error
    starts = list(_starts(datetime.fromtimestamp(start / 1000, zone), end, step_s))
    rows = [
        [_iso(at), "Text to Speech", sum(billed.credits for billed in found), len(found)]
        for at, found in _grouped(sandbox, starts, start, end)
    ]
    return _table(
        ("timestamp", "DateTime", None),
        ("product_type", "String", None),
        ("total_usage", "Float", "credits"),
        ("usage_count", "Int", None),
        rows=rows,
    )


async def cost(sandbox: Sandbox, request: web.Request) -> dict[str, Any]:
    """Returns the cost of each day, in whole days of UTC."""
    _require_call(sandbox, "cost")
    body = await _body(request)
    start, end = _time_range(body)
    step_s = body.get("interval_seconds")
    if not isinstance(step_s, int) or step_s < 1 or step_s % DAY_S:
        raise preset_error("invalid_parameters", "interval_seconds must be whole days.", param="interval_seconds")
    starts = list(_starts(datetime.fromtimestamp(start / 1000, UTC), end, step_s))
    rows = [
        [_iso(at), round(sum(billed.credits for billed in found) * PRICE_PER_1000_CREDITS / 1000, 6), len(found)]
        for at, found in _grouped(sandbox, starts, start, end)
    ]
    return _table(
        ("timestamp", "DateTime", None),
        ("total_cost", "Float", sandbox.config.currency),
        ("total_charge_count", "Float", None),
        rows=rows,
    )


async def requests(sandbox: Sandbox, request: web.Request) -> dict[str, Any]:
    """Returns the speech requests between two times, those of zero retention included.

    The first five columns are those of the provider's documentation. With `request_list` = `documented` there are no
    others.
    """
    if sandbox.config.request_list == "off":
        raise _missing_permission()
    body = await _body(request)
    start, end = body.get("start_time"), body.get("end_time")
    if start is None and end is None:
        raise preset_error("invalid_parameters", "start_time or end_time is required.", param="start_time")
    limit = body.get("limit", 100)
    if not isinstance(limit, int) or not 1 <= limit <= MAX_REQUESTS:
        raise preset_error("invalid_parameters", f"limit must be between 1 and {MAX_REQUESTS}.", param="limit")
    descending = (body.get("sort") or ("desc" if end is not None else "asc")) == "desc"
    found = [
        billed
        for billed in sorted(sandbox.account.billed_requests, key=lambda billed: billed.unix, reverse=descending)
        if (start is None or billed.unix * 1000 >= start) and (end is None or billed.unix * 1000 <= end)
    ]
    columns: list[tuple[str, str, str | None, Callable[[BilledRequest], object]]] = [
        ("request_id", "String", None, lambda billed: billed.request_id),
        ("timestamp", "DateTime", None, lambda billed: _iso(datetime.fromtimestamp(billed.unix, UTC))),
        ("endpoint", "String", None, lambda _billed: SPEECH_ENDPOINT),
        ("response_time_ms", "Int", "ms", lambda _billed: 120),
        ("success", "Bool", None, lambda _billed: True),
    ]
    if sandbox.config.request_list == "full":
        columns += [
            ("voice_id", "String", None, lambda billed: billed.voice_id),
            ("model_id", "String", None, lambda billed: billed.model_id),
            ("characters", "Int", None, lambda billed: billed.characters),
            ("credits", "Int", "credits", lambda billed: billed.credits),
        ]
    rows = [[value(billed) for *_, value in columns] for billed in found[:limit]]
    return _table(*((name, kind, unit) for name, kind, unit, _ in columns), rows=rows)


def _require_call(sandbox: Sandbox, name: str) -> None:
    """Raises ApiError if the account does not have this call. An account with the deprecated call has neither."""
    if sandbox.config.usage_call == "deprecated":
        raise _missing_permission()
    if sandbox.config.usage_call != name:
        raise preset_error("invalid_parameters", "This workspace is billed in another way. Use the other query.")


def _missing_permission() -> Exception:
    return preset_error(
        "missing_permissions",
        "The API key you used is missing the permission workspace_analytics_read to execute this operation.",
    )


async def _body(request: web.Request) -> dict[str, Any]:
    try:
        body = await request.json()
    except json.JSONDecodeError:
        body = None
    if not isinstance(body, dict):
        raise validation_error(["body"], "Input should be a valid dictionary", "model_attributes_type")
    return body


def _time_range(body: dict[str, Any]) -> tuple[int, int]:
    for name in ("start_time", "end_time"):
        if not isinstance(body.get(name), int):
            raise validation_error(["body", name], "Input should be a valid integer", "int_type", body.get(name))
    start, end = body["start_time"], body["end_time"]
    if not EARLIEST_MS <= start <= end:
        raise preset_error("invalid_parameters", "start_time and end_time must be from 2020 on, in this order.")
    return start, end


def _starts(begin: datetime, end_ms: int, step_s: int) -> Iterator[datetime]:
    """Yields the starts of the intervals, from the hour or the midnight before `begin`, in the zone of `begin`."""
    begin = begin.replace(minute=0, second=0, microsecond=0) if step_s % 3600 == 0 else begin
    if step_s % DAY_S:
        at = begin.astimezone(UTC)  # an hour is an hour, also when clocks change
        step = timedelta(seconds=step_s)
    else:
        at, step = begin.replace(hour=0), timedelta(days=step_s // DAY_S)
    for _ in range(MAX_ROWS):
        if at.timestamp() * 1000 > end_ms:
            return
        yield at
        at += step
    raise preset_error("invalid_parameters", f"More than {MAX_ROWS} rows.")


def _grouped(
    sandbox: Sandbox, starts: list[datetime], start_ms: int, end_ms: int
) -> Iterator[tuple[datetime, list[BilledRequest]]]:
    found = [billed for billed in sandbox.account.billed_requests if start_ms <= billed.unix * 1000 <= end_ms]
    ends = [at.timestamp() for at in starts[1:]] + [end_ms / 1000 + 1]
    for at, end in zip(starts, ends, strict=True):
        yield at, [billed for billed in found if at.timestamp() <= billed.unix < end]


def _iso(at: datetime) -> str:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _table(*columns: tuple[str, str, str | None], rows: list[list[Any]]) -> dict[str, Any]:
    names, kinds, units = zip(*columns, strict=True)
    return {"columns": list(names), "column_types": list(kinds), "column_units": list(units), "rows": rows}


def add_routes(router: web.UrlDispatcher) -> None:
    path = "/v1/workspace/analytics"
    router.add_post(f"{path}/query/usage-by-product-over-time", json_endpoint(usage_by_product))
    router.add_post(f"{path}/usage", json_endpoint(cost))
    router.add_post(f"{path}/requests", json_endpoint(requests))
