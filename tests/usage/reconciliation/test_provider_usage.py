"""What the provider says of a day: read to its end or not at all, whatever it answers."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import responses
from pytest_django import Settings

from usage.reconciliation import provider_usage
from usage.reconciliation.provider_usage import ProviderDataUnavailable
from voicecare.providers.elevenlabs.account import AccountClient

BEGINS = datetime(2026, 3, 1, tzinfo=UTC)
ENDS = BEGINS + timedelta(days=1)
NOON = int(BEGINS.timestamp()) + 12 * 3600
BASE = "https://provider.test"


@pytest.fixture(autouse=True)
def provider_address(settings: Settings) -> None:
    settings.ELEVENLABS_BASE_URL = BASE


@pytest.fixture
def provider() -> Iterator[responses.RequestsMock]:
    with responses.RequestsMock() as mock:
        yield mock


@pytest.fixture
def client() -> Iterator[AccountClient]:
    with provider_usage.account_client() as client:
        yield client


def item(name: str, at: int | None = NOON) -> dict[str, Any]:
    return {"history_item_id": name, "request_id": name, "date_unix": at, "text": "Hello."}


def page(*items: dict[str, Any], more: str | None = None) -> dict[str, Any]:
    return {"history": list(items), "has_more": more is not None, "last_history_item_id": more}


def names(client: AccountClient) -> list[str]:
    return [item.item_id for item in provider_usage.history(client, BEGINS, ENDS)]


def test_the_history_of_a_day_is_read_a_little_beyond_both_ends(
    provider: responses.RequestsMock, client: AccountClient
):
    provider.get(f"{BASE}/v1/history", json=page(item("b"), more="b"))
    provider.get(f"{BASE}/v1/history", json=page(item("a", int(BEGINS.timestamp()) - 299)))
    assert names(client) == ["b", "a"]
    asked = parse_qs(urlsplit(provider.calls[0].request.url or "").query)
    assert asked["date_after_unix"] == [str(int(BEGINS.timestamp()) - 300)]
    assert asked["date_before_unix"] == [str(int(ENDS.timestamp()) + 300)]


def test_items_of_another_time_or_told_twice_are_left_out(provider: responses.RequestsMock, client: AccountClient):
    """A provider may not know the filter, and what is added while one reads moves to the next page."""
    items = [item("new", NOON + 10**6), item("a"), item("a"), item("timeless", None), item("old", NOON - 10**6)]
    provider.get(f"{BASE}/v1/history", json=page(*items))
    assert names(client) == ["a", "timeless"]


def test_nothing_is_read_behind_a_page_that_is_all_older(provider: responses.RequestsMock, client: AccountClient):
    old = [item(f"old {number}", NOON - 10**6 - number) for number in range(1000)]
    provider.get(f"{BASE}/v1/history", json=page(item("a"), *old, more="old 999"))
    assert names(client) == ["a"]
    assert len(provider.calls) == 1


def test_a_history_without_an_end_is_none(
    provider: responses.RequestsMock, client: AccountClient, monkeypatch: pytest.MonkeyPatch
):
    def endless(_request: object) -> tuple[int, dict[str, str], str]:
        first = len(provider.calls) * 1000
        found = [item(str(number)) for number in range(first, first + 1000)]
        return 200, {}, json.dumps(page(*found, more=str(first)))

    provider.add_callback(responses.GET, f"{BASE}/v1/history", endless)
    with pytest.raises(ProviderDataUnavailable, match="too long"):
        names(client)


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (401, {"detail": {"status": "missing_permissions"}}, r"may not read it \(missing_permissions\)"),
        (404, {"detail": "Not Found"}, "may not read it"),
        (429, {"detail": {"status": "system_busy"}}, r"did not answer as expected \(system_busy\)"),
        (500, {}, "did not answer as expected"),
        (200, "<html>", r"did not answer as expected \(bad_reply\)"),
        (200, {}, "bad_reply"),
        (200, {"history": [{}]}, "bad_reply"),
        (200, {"history": [{**item("a"), "date_unix": "yesterday"}]}, "bad_reply"),
        (200, page(item("a"), more="a"), "bad_reply"),  # the same page again and again
        (200, {"history": [], "has_more": True}, "bad_reply"),
    ],
)
def test_a_history_that_cannot_be_read_says_why(
    provider: responses.RequestsMock, client: AccountClient, status: int, body: Any, reason: str
):
    provider.get(f"{BASE}/v1/history", status=status, body=body if isinstance(body, str) else json.dumps(body))
    with pytest.raises(ProviderDataUnavailable, match=reason):
        names(client)


@pytest.mark.parametrize("at", [NOON * 1000, 2**62])
def test_a_history_whose_times_are_none_of_seconds_is_none(
    provider: responses.RequestsMock, client: AccountClient, at: int
):
    """Read as another day's it would prove that nothing was billed."""
    provider.get(f"{BASE}/v1/history", json=page(item("a"), item("b", at)))
    with pytest.raises(ProviderDataUnavailable, match="not in seconds"):
        names(client)


def test_under_zero_retention_there_is_none_to_ask_for(client: AccountClient, settings: Settings):
    settings.ELEVENLABS_ZERO_RETENTION = True
    with pytest.raises(ProviderDataUnavailable, match="zero retention"):
        names(client)


def hours(*used: float, first: datetime = BEGINS) -> dict[str, Any]:
    begin = int(first.timestamp() * 1000)
    return {"time": [begin + number * 3_600_000 for number in range(len(used))], "usage": {"All": list(used)}}


@pytest.mark.parametrize(
    ("reply", "used"),
    [
        (hours(1, 2, 3), 6),
        (hours(*[1] * 24), 24),
        (hours(0), 0),
        (hours(*[1] * 30), 24),  # more than was asked for
        (hours(*[1] * 30, first=BEGINS - timedelta(hours=3)), 24),
        (hours(*[1] * 25, first=BEGINS - timedelta(minutes=30)), 25),  # they cut the hours at its ends
        (hours(0.5, 0.25), 1),
        ({**hours(1, 2), "usage": {"Rachel": [1, 2], "Sarah": [3, 4]}}, 10),
        ({**hours(1, 2), "usage": {}}, 0),
    ],
)
def test_the_hours_of_the_day_are_summed(
    provider: responses.RequestsMock, client: AccountClient, reply: dict[str, Any], used: int
):
    provider.get(f"{BASE}/v1/usage/character-stats", json=reply)
    assert provider_usage.usage_total(client, "characters", BEGINS, ENDS) == used
    asked = parse_qs(urlsplit(provider.calls[0].request.url or "").query)
    assert (asked["metric"], asked["aggregation_interval"]) == (["tts_characters"], ["hour"])
    assert asked["start_unix"] == [str(int(BEGINS.timestamp() * 1000))]
    assert asked["end_unix"] == [str(int(ENDS.timestamp() * 1000) - 1)]


@pytest.mark.parametrize(
    "reply",
    [
        {"time": [], "usage": {}},
        {"time": [int(BEGINS.timestamp())], "usage": {"All": [5]}},  # seconds
        hours(1, 2, first=BEGINS + timedelta(days=1)),
        hours(1, 2, first=BEGINS - timedelta(days=1)),
        hours(10**13),
        {"time": "x"},
        [],
    ],
)
def test_statistics_that_cannot_be_the_days_are_none(
    provider: responses.RequestsMock, client: AccountClient, reply: object
):
    provider.get(f"{BASE}/v1/usage/character-stats", json=reply)
    with pytest.raises(ProviderDataUnavailable):
        provider_usage.usage_total(client, "credits", BEGINS, ENDS)


def test_a_subscription_whose_numbers_cannot_be_true_is_none(provider: responses.RequestsMock, client: AccountClient):
    url = f"{BASE}/v1/user/subscription"
    provider.get(url, json={"character_count": 10, "character_limit": 100})
    assert provider_usage.subscription(client, ENDS).used == 10
    provider.get(url, json={"character_count": 10**15, "character_limit": 100})
    with pytest.raises(ProviderDataUnavailable, match="not plausible"):
        provider_usage.subscription(client, ENDS)
