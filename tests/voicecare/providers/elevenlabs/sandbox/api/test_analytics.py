"""The workspace's analytics in the sandbox: usage by hour, cost by day, and the list of requests."""

import time
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.openapi import validate_schema
from tests.sandbox import SandboxProcess
from tests.voicecare.providers.elevenlabs.sandbox.api.test_account import HOUR_MS, MULTILINGUAL, Client, client

__all__ = ["client"]

USAGE, COST, REQUESTS = "query/usage-by-product-over-time", "usage", "requests"
DAY_MS = 24 * HOUR_MS


def ms(*date: int) -> int:
    return int(datetime(*date, tzinfo=UTC).timestamp() * 1000)


async def post(client: Client, call: str, body: Any) -> tuple[int, Any]:
    async with client.session.post(f"{client.url}/v1/workspace/analytics/{call}", json=body) as reply:
        return reply.status, await reply.json()


async def rows(client: Client, call: str, **query: Any) -> list[dict[str, Any]]:
    """Return the rows as objects, after the table was validated against the types of the official SDK."""
    status, reply = await post(client, call, query)
    assert status == 200, reply
    validate_schema(reply, "WorkspaceAnalyticsQueryResponseModel")
    assert len(reply["columns"]) == len(reply["column_types"]) == len(reply["column_units"])
    return [dict(zip(reply["columns"], row, strict=True)) for row in reply["rows"]]


async def test_usage_is_the_sum_of_credits_by_hour(client: Client) -> None:
    await client.speak("12345")
    await client.speak("1234567", model=MULTILINGUAL)
    now = int(time.time() * 1000)
    found = await rows(
        client, USAGE, start_time=now - 3 * HOUR_MS, end_time=now + 1, interval_seconds=3600, time_zone="UTC"
    )
    assert sum(row["total_usage"] for row in found) == 10
    assert len(found) == 4  # empty hours are included


@pytest.mark.parametrize(
    ("zone", "first", "number"),
    [
        ("UTC", "2026-03-29T00:00:00Z", 24),
        ("Europe/Berlin", "2026-03-28T23:00:00Z", 24),
        ("Asia/Kolkata", "2026-03-28T18:30:00Z", 24),
    ],
)
async def test_hours_start_as_clocks_show_it(client: Client, zone: str, first: str, number: int) -> None:
    start = int(datetime.fromisoformat(first).timestamp() * 1000)
    query = {"start_time": start, "end_time": start + DAY_MS - 1, "interval_seconds": 3600, "time_zone": zone}
    found = await rows(client, USAGE, **query)
    assert (found[0]["timestamp"], len(found)) == (first, number)


async def test_cost_is_in_the_currency_and_by_utc_day(client: Client, sandbox: SandboxProcess) -> None:
    sandbox.settings(usage_call="cost", currency="eur")
    sandbox.add_external_usage("x" * 1000, unix=ms(2026, 3, 1, 23) / 1000)
    query = {"start_time": ms(2026, 3, 1), "end_time": ms(2026, 3, 3) - 1, "interval_seconds": 86_400}
    found = await rows(client, COST, **query)
    assert [(row["timestamp"], row["total_cost"]) for row in found] == [
        ("2026-03-01T00:00:00Z", 0.3),
        ("2026-03-02T00:00:00Z", 0),
    ]
    assert (await post(client, COST, query))[1]["column_units"] == [None, "eur", None]


async def test_the_list_has_requests_that_the_history_leaves_out(client: Client, sandbox: SandboxProcess) -> None:
    sandbox.settings(history=False)
    await client.speak("12345")
    await client.speak("123", enable_logging="false")
    assert (await client.get("/v1/history"))[1]["history"] == []
    now = int(time.time() * 1000)
    found = await rows(client, REQUESTS, start_time=now - HOUR_MS, limit=10)
    assert [(row["characters"], row["credits"], row["success"]) for row in found] == [(5, 3, True), (3, 2, True)]
    newest = await rows(client, REQUESTS, end_time=now + HOUR_MS, limit=1)
    assert [row["characters"] for row in newest] == [3]
    sandbox.settings(request_list="documented")
    found = await rows(client, REQUESTS, start_time=now - HOUR_MS)
    assert list(found[0]) == ["request_id", "timestamp", "endpoint", "response_time_ms", "success"]
    sandbox.settings(request_list="off")
    assert (await post(client, REQUESTS, {"start_time": 1}))[0] == 401


@pytest.mark.parametrize(
    ("has", "call", "status"), [("credits", COST, 400), ("cost", USAGE, 400), ("deprecated", USAGE, 401)]
)
async def test_an_account_has_one_of_the_calls(
    client: Client, sandbox: SandboxProcess, has: str, call: str, status: int
) -> None:
    sandbox.settings(usage_call=has)
    query = {"start_time": ms(2026, 3, 1), "end_time": ms(2026, 3, 2), "interval_seconds": 86_400}
    assert (await post(client, call, query))[0] == status


@pytest.mark.parametrize(
    ("call", "query", "status"),
    [
        (USAGE, {}, 422),
        (USAGE, [], 422),
        (USAGE, {"start_time": "x", "end_time": 1}, 422),
        (USAGE, {"start_time": ms(2019, 1, 1), "end_time": ms(2026, 1, 1)}, 400),
        (USAGE, {"start_time": ms(2026, 1, 2), "end_time": ms(2026, 1, 1)}, 400),
        (USAGE, {"start_time": ms(2020, 1, 1), "end_time": ms(2026, 1, 1), "interval_seconds": 60}, 400),
        (USAGE, {"start_time": ms(2026, 1, 1), "end_time": ms(2026, 1, 2), "time_zone": "Mars"}, 400),
        (REQUESTS, {}, 400),
        (REQUESTS, {"start_time": 1, "limit": 5000}, 400),
    ],
)
async def test_invalid_queries_are_rejected(client: Client, call: str, query: Any, status: int) -> None:
    assert (await post(client, call, query))[0] == status


async def test_cost_needs_whole_days(client: Client, sandbox: SandboxProcess) -> None:
    sandbox.settings(usage_call="cost")
    query = {"start_time": ms(2026, 3, 1), "end_time": ms(2026, 3, 2), "interval_seconds": 3600}
    assert (await post(client, COST, query))[0] == 400
