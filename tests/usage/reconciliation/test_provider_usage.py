"""The provider's figures of a day are read completely or not at all."""

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


def test_the_history_is_read_with_a_margin_at_both_ends(provider: responses.RequestsMock, client: AccountClient):
    provider.get(f"{BASE}/v1/history", json=page(item("b"), more="b"))
    provider.get(f"{BASE}/v1/history", json=page(item("a", int(BEGINS.timestamp()) - 299)))
    assert names(client) == ["b", "a"]
    asked = parse_qs(urlsplit(provider.calls[0].request.url or "").query)
    assert asked["date_after_unix"] == [str(int(BEGINS.timestamp()) - 300)]
    assert asked["date_before_unix"] == [str(int(ENDS.timestamp()) + 300)]


def test_items_of_another_time_and_duplicates_are_left_out(provider: responses.RequestsMock, client: AccountClient):
    """The provider may ignore the filter, and new items move older ones to the next page."""
    items = [item("new", NOON + 10**6), item("a"), item("a"), item("timeless", None), item("old", NOON - 10**6)]
    provider.get(f"{BASE}/v1/history", json=page(*items))
    assert names(client) == ["a", "timeless"]


def test_reading_stops_after_a_page_of_older_items(provider: responses.RequestsMock, client: AccountClient):
    old = [item(f"old {number}", NOON - 10**6 - number) for number in range(1000)]
    provider.get(f"{BASE}/v1/history", json=page(item("a"), *old, more="old 999"))
    assert names(client) == ["a"]
    assert len(provider.calls) == 1


def test_an_endless_history_is_unavailable(
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
        (200, page(item("a"), more="a"), "bad_reply"),  # the same page every time
        (200, {"history": [], "has_more": True}, "bad_reply"),
    ],
)
def test_an_unavailable_history_has_a_reason(
    provider: responses.RequestsMock, client: AccountClient, status: int, body: Any, reason: str
):
    provider.get(f"{BASE}/v1/history", status=status, body=body if isinstance(body, str) else json.dumps(body))
    with pytest.raises(ProviderDataUnavailable, match=reason):
        names(client)


@pytest.mark.parametrize("at", [NOON * 1000, 2**62])
def test_a_history_with_times_in_milliseconds_is_unavailable(
    provider: responses.RequestsMock, client: AccountClient, at: int
):
    """Items of another day would prove that nothing was billed."""
    provider.get(f"{BASE}/v1/history", json=page(item("a"), item("b", at)))
    with pytest.raises(ProviderDataUnavailable, match="not in seconds"):
        names(client)


def test_zero_retention_has_no_history(client: AccountClient, settings: Settings):
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
        (hours(*[1] * 30), 24),  # more than requested
        (hours(*[1] * 30, first=BEGINS - timedelta(hours=3)), 24),
        (hours(*[1] * 25, first=BEGINS - timedelta(minutes=30)), 25),  # the first and last hour are partial
        (hours(0.5, 0.25), 1),
        ({**hours(1, 2), "usage": {"Rachel": [1, 2], "Sarah": [3, 4]}}, 10),
        ({**hours(1, 2), "usage": {}}, 0),
    ],
)
def test_the_hours_of_the_day_are_added(
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
def test_implausible_statistics_are_unavailable(provider: responses.RequestsMock, client: AccountClient, reply: object):
    provider.get(f"{BASE}/v1/usage/character-stats", json=reply)
    with pytest.raises(ProviderDataUnavailable):
        provider_usage.usage_total(client, "credits", BEGINS, ENDS)


def test_an_implausible_subscription_is_unavailable(provider: responses.RequestsMock, client: AccountClient):
    url = f"{BASE}/v1/user/subscription"
    provider.get(url, json={"character_count": 10, "character_limit": 100})
    assert provider_usage.subscription(client, ENDS).used == 10
    provider.get(url, json={"character_count": 10**15, "character_limit": 100})
    with pytest.raises(ProviderDataUnavailable, match="not plausible"):
        provider_usage.subscription(client, ENDS)
