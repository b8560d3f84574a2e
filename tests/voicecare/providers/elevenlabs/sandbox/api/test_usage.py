"""Usage statistics of the sandbox: billed requests by time, voice and model."""

import time
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.voicecare.providers.elevenlabs.sandbox.api.test_account import (
    FLASH,
    HOUR_MS,
    MULTILINGUAL,
    SARAH,
    Client,
    client,
)
from voicecare.providers.elevenlabs.sandbox.api.usage import TimeRange

__all__ = ["client"]


async def test_usage_is_the_sum_of_billed_requests(client: Client) -> None:
    await client.speak("12345")
    await client.speak("1234567", voice=SARAH, model=MULTILINGUAL)
    await client.speak("unspoken", voice="nobody")
    now = int(time.time() * 1000)

    async def usage(**query: Any) -> Any:
        window = {"start_unix": now - HOUR_MS, "end_unix": now + HOUR_MS}
        reply = await client.fetch("/v1/usage/character-stats", "UsageCharactersResponseModel", **window, **query)
        assert {len(row) for row in reply["usage"].values()} == {len(reply["time"])}
        return {name: sum(row) for name, row in reply["usage"].items()}

    assert await usage() == await usage(aggregation_interval="hour") == {"All": 10}
    assert await usage(breakdown_type="voice") == {"Rachel": 3, "Sarah": 7}
    assert await usage(breakdown_type="model") == {FLASH: 3, MULTILINGUAL: 7}
    assert await usage(metric="tts_characters") == {"All": 12}
    assert await usage(metric="request_count", aggregation_bucket_size=600) == {"All": 2}
    past = {"start_unix": now - 9 * HOUR_MS, "end_unix": now - HOUR_MS, "aggregation_interval": "cumulative"}
    assert (await client.get("/v1/usage/character-stats", **past))[1]["usage"] == {"All": [0]}


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({}, 422),
        ({"start_unix": 1}, 422),
        ({"start_unix": "x", "end_unix": 2}, 422),
        ({"start_unix": 2, "end_unix": 1}, 400),
        ({"start_unix": 1, "end_unix": 2, "breakdown_type": "mood"}, 400),
        ({"start_unix": 1, "end_unix": 2, "metric": "ttfb_avg"}, 400),
        ({"start_unix": 1, "end_unix": 2, "aggregation_bucket_size": 0}, 400),
        ({"start_unix": 0, "end_unix": 10**13, "aggregation_bucket_size": 1}, 400),
    ],
)
async def test_invalid_usage_queries_are_rejected(client: Client, query: dict[str, Any], status: int) -> None:
    assert (await client.get("/v1/usage/character-stats", **query))[0] == status


def ms(*date: int) -> int:
    return int(datetime(*date, tzinfo=UTC).timestamp() * 1000)


@pytest.mark.parametrize(
    ("interval", "expected"),
    [
        ("day", [(2026, 1, 30), (2026, 1, 31), (2026, 2, 1)]),
        ("week", [(2026, 1, 30)]),
        ("month", [(2026, 1, 1), (2026, 2, 1)]),
        ("cumulative", [(2026, 1, 30, 13, 5)]),
    ],
)
def test_buckets_start_with_their_interval(interval: str, expected: list[tuple[int, ...]]) -> None:
    window = TimeRange(ms(2026, 1, 30, 13, 5), ms(2026, 2, 1, 2))
    assert window.buckets(interval, None) == [ms(*date) for date in expected]
