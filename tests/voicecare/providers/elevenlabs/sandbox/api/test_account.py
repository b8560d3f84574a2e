"""The account of the sandbox: quota, billing and history, in the provider's response formats."""

import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from tests.openapi import validate_schema
from tests.sandbox import SandboxProcess

RACHEL = "21m00Tcm4TlvDq8ikWAM"
SARAH = "EXAVITQu4vr4xnSDxMaL"
FLASH = "eleven_flash_v2_5"
MULTILINGUAL = "eleven_multilingual_v2"
HOUR_MS = 3_600_000


class Client:
    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.session = session
        self.url = url

    async def get(self, path: str, **query: Any) -> tuple[int, Any]:
        async with self.session.get(self.url + path, params=query) as reply:
            return reply.status, await reply.json()

    async def fetch(self, path: str, schema: str, **query: Any) -> Any:
        status, reply = await self.get(path, **query)
        assert status == 200, reply
        return validate_schema(reply, schema)

    async def delete(self, path: str) -> tuple[int, Any]:
        async with self.session.delete(self.url + path) as reply:
            return reply.status, await reply.json()

    async def speak(self, text: str, voice: str = RACHEL, model: str = FLASH, **query: str) -> tuple[int, Any]:
        path = f"{self.url}/v1/text-to-speech/{voice}"
        async with self.session.post(path, json={"text": text, "model_id": model}, params=query) as reply:
            return reply.status, await reply.json() if reply.status >= 400 else await reply.read()


@pytest.fixture
async def client(sandbox: SandboxProcess) -> AsyncIterator[Client]:
    sandbox.settings(first_byte_ms=0)
    async with aiohttp.ClientSession(headers={"xi-api-key": "any"}) as session:
        yield Client(session, sandbox.url)


async def test_a_new_account(client: Client) -> None:
    subscription = await client.fetch("/v1/user/subscription", "ExtendedSubscriptionResponseModel")
    assert (subscription["character_count"], subscription["character_limit"]) == (0, 100_000)
    assert subscription["next_character_count_reset_unix"] > time.time()
    user = await client.fetch("/v1/user", "UserResponseModel")
    assert user["subscription"] == subscription
    assert user["subscription_extras"]["concurrency"] == 10


async def test_the_models_and_their_prices(client: Client) -> None:
    _, models = await client.get("/v1/models")
    found = {model["model_id"]: validate_schema(model, "ModelResponseModel") for model in models}
    assert {"eleven_flash_v2", FLASH, "eleven_turbo_v2_5", MULTILINGUAL, "eleven_v3"} <= found.keys()
    assert found[FLASH]["model_rates"]["character_cost_multiplier"] == 0.5
    assert found[FLASH]["concurrency_group"] == "turbo"
    assert found[MULTILINGUAL]["maximum_text_length_per_request"] == 10_000
    assert found[MULTILINGUAL]["concurrency_group"] == "standard"


async def test_speech_is_billed_at_the_price_of_the_model(client: Client, sandbox: SandboxProcess) -> None:
    await client.speak("12345")
    await client.speak("12345", model=MULTILINGUAL)
    account = sandbox.account()
    assert (account["requests"], account["characters"], account["credits"]) == (2, 10, 8)
    subscription = await client.fetch("/v1/user/subscription", "ExtendedSubscriptionResponseModel")
    assert subscription["character_count"] == 8


@pytest.mark.parametrize(
    ("form", "status", "key", "code"),
    [("legacy", 401, "status", "quota_exceeded"), ("new", 402, "code", "insufficient_credits")],
)
async def test_a_used_up_quota_is_an_error_until_it_is_restored(
    client: Client, sandbox: SandboxProcess, form: str, status: int, key: str, code: str
) -> None:
    sandbox.settings(quota_form=form, character_limit=100, characters_used=96)
    assert (await client.speak("12345678"))[0] == 200
    answered, reply = await client.speak("1")
    assert (answered, reply["detail"][key]) == (status, code)
    assert "You have 0 credits remaining, while 1 credits are required" in reply["detail"]["message"]
    assert sandbox.account()["character_count"] == 100
    sandbox.settings(characters_used=0)
    assert (await client.speak("1"))[0] == 200


async def test_a_new_period_starts_at_the_reset_time(client: Client, sandbox: SandboxProcess) -> None:
    sandbox.settings(characters_used=100_000, reset_unix=int(time.time()))
    subscription = await client.fetch("/v1/user/subscription", "ExtendedSubscriptionResponseModel")
    assert subscription["character_count"] == 0
    assert subscription["next_character_count_reset_unix"] > time.time()


async def test_history_has_pages_newest_first_without_zero_retention_requests(client: Client) -> None:
    for text in ("One.", "Two.", "Three."):
        await client.speak(text)
    await client.speak("Secret.", enable_logging="false")
    first = await client.fetch("/v1/history", "GetSpeechHistoryResponseModel", page_size=2)
    assert ([item["text"] for item in first["history"]], first["has_more"]) == (["Three.", "Two."], True)
    rest = await client.fetch(
        "/v1/history", "GetSpeechHistoryResponseModel", start_after_history_item_id=first["last_history_item_id"]
    )
    assert ([item["text"] for item in rest["history"]], rest["has_more"]) == (["One."], False)
    item = rest["history"][0]
    assert item["character_count_change_to"] - item["character_count_change_from"] == 2


async def test_history_is_filtered(client: Client, sandbox: SandboxProcess) -> None:
    await client.speak("One.")
    await client.speak("Two.", voice=SARAH, model=MULTILINGUAL)

    async def texts(**query: Any) -> list[str]:
        reply = await client.fetch("/v1/history", "GetSpeechHistoryResponseModel", **query)
        return [item["text"] for item in reply["history"]]

    now = int(time.time())
    assert await texts(voice_id=SARAH) == await texts(model_id=MULTILINGUAL) == await texts(search="two") == ["Two."]
    assert await texts(date_after_unix=now - 60, date_before_unix=now + 60, source="TTS") == ["Two.", "One."]
    assert await texts(date_after_unix=now + 60) == await texts(source="STS") == []
    request_ids = {request["request_id"] for request in sandbox.requests()}
    reply = await client.fetch("/v1/history", "GetSpeechHistoryResponseModel")
    assert {item["request_id"] for item in reply["history"]} == request_ids


async def test_an_item_is_deleted_from_the_history_and_stays_billed(client: Client, sandbox: SandboxProcess) -> None:
    for text in ("One.", "Two."):
        await client.speak(text)
    before = sandbox.settings()["characters_used"]
    items = (await client.fetch("/v1/history", "GetSpeechHistoryResponseModel"))["history"]
    path = f"/v1/history/{items[0]['history_item_id']}"
    assert await client.delete(path) == (200, {"status": "ok"})
    rest = (await client.fetch("/v1/history", "GetSpeechHistoryResponseModel"))["history"]
    assert [item["text"] for item in rest] == ["One."]
    assert sandbox.settings()["characters_used"] == before
    status, error = await client.delete(path)
    assert (status, error["detail"]["code"]) == (404, "history_item_not_found")


async def test_usage_by_others_is_billed(client: Client, sandbox: SandboxProcess) -> None:
    now = int(time.time())
    await client.speak("Mine.")
    sold = sandbox.add_external_usage("Somebody else's.", unix=now - 3600, model_id=FLASH)
    sandbox.add_external_usage("And in secret.", unix=now - 3600, voice_id=SARAH, kept=False)
    reply = await client.fetch("/v1/history", "GetSpeechHistoryResponseModel")
    assert [item["text"] for item in reply["history"]] == ["Mine.", "Somebody else's."]
    other = reply["history"][1]
    assert (other["request_id"], other["date_unix"]) == (sold["request_id"], now - 3600)
    assert other["character_count_change_to"] - other["character_count_change_from"] == 8
    window = {"start_unix": (now - 3601) * 1000, "end_unix": (now - 3599) * 1000, "metric": "tts_characters"}
    usage = (await client.get("/v1/usage/character-stats", **window))[1]["usage"]
    assert sum(usage["All"]) == 30
    assert (await client.get("/v1/user/subscription"))[1]["character_count"] == 3 + 8 + 14


@pytest.mark.parametrize("wanted", [{}, {"text": 1}, {"text": "x", "colour": "red"}, {"text": "x", "voice_id": "none"}])
def test_invalid_external_usage_is_rejected(sandbox: SandboxProcess, wanted: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"text|voice"):
        sandbox.add_external_usage(**{"text": None, **wanted})


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({"page_size": 0}, 400),
        ({"page_size": "x"}, 422),
        ({"page_size": 1001}, 400),
        ({"start_after_history_item_id": "x"}, 404),
    ],
)
async def test_invalid_pages_of_history(client: Client, query: dict[str, Any], status: int) -> None:
    assert (await client.get("/v1/history", **query))[0] == status
