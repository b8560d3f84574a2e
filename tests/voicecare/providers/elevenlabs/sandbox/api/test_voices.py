"""The voices of the sandbox: listing, pages, cloning, editing and deletion, as at the provider."""

import json
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from tests.openapi import validate_schema
from tests.sandbox import SandboxProcess
from voicecare.providers.elevenlabs.sandbox.account.voices import profile_for

RACHEL = "21m00Tcm4TlvDq8ikWAM"
RECORDING = b"ID3" + bytes(2000)


class Client:
    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.session = session
        self.url = url

    async def call(self, method: str, path: str, **arguments: Any) -> tuple[int, Any]:
        async with self.session.request(method, self.url + path, **arguments) as reply:
            return reply.status, await reply.json()

    async def page(self, **query: Any) -> Any:
        status, reply = await self.call("GET", "/v2/voices", params=query)
        assert status == 200, reply
        return validate_schema(reply, "GetVoicesV2ResponseModel")

    async def names(self, **query: Any) -> list[str]:
        return [voice["name"] for voice in (await self.page(page_size=100, **query))["voices"]]

    async def clone(self, name: str | None = "vc-1", *files: Any, path: str = "add", **fields: str) -> tuple[int, Any]:
        """`files` are pairs of part name and content. Text content makes a part that is not a file."""
        form = aiohttp.FormData(default_to_multipart=True)
        for key, value in {"name": name, **fields}.items():
            if value is not None:
                form.add_field(key, value)
        for key, content in files:
            form.add_field(key, content, filename="upload.mp3" if isinstance(content, bytes) else None)
        return await self.call("POST", f"/v1/voices/{path}", data=form)


@pytest.fixture
async def client(sandbox: SandboxProcess) -> AsyncIterator[Client]:
    sandbox.settings(first_byte_ms=0)
    async with aiohttp.ClientSession(headers={"xi-api-key": "any"}) as session:
        yield Client(session, sandbox.url)


async def test_the_stock_voices(client: Client) -> None:
    status, reply = await client.call("GET", "/v1/voices")
    voices = validate_schema(reply, "GetVoicesResponseModel")["voices"]
    assert status == 200
    assert len(voices) >= 8
    assert next(voice["name"] for voice in voices if voice["voice_id"] == RACHEL) == "Rachel"
    _, rachel = await client.call("GET", f"/v1/voices/{RACHEL}")
    assert validate_schema(rachel, "VoiceResponseModel")["category"] == "premade"
    _, settings = await client.call("GET", f"/v1/voices/{RACHEL}/settings")
    assert validate_schema(settings, "VoiceSettingsResponseModel")["stability"] == 0.5


async def test_pages_of_voices(client: Client) -> None:
    names: list[str] = []
    query: dict[str, Any] = {"page_size": 4, "sort": "name"}
    while query:
        page = await client.page(**query)
        names += [voice["name"] for voice in page["voices"]]
        query = {**query, "next_page_token": page["next_page_token"]} if page["has_more"] else {}
    assert names == sorted(names)
    assert len(names) == page["total_count"] >= 8
    assert page["next_page_token"] is None


async def test_voices_can_be_searched(client: Client) -> None:
    await client.clone("vc-42", ("files", RECORDING), labels='{"use": "companion"}')
    assert await client.names(search="RACH") == ["Rachel"]
    assert await client.names(search="companion") == await client.names(category="cloned") == ["vc-42"]
    assert await client.names(voice_type="personal") == await client.names(voice_type="non-default") == ["vc-42"]
    assert "vc-42" not in await client.names(voice_type="default")
    assert await client.names(voice_type="community") == []
    assert await client.names(voice_ids=RACHEL) == ["Rachel"]
    assert (await client.names(sort="name", sort_direction="desc"))[0] == "vc-42"
    assert (await client.names())[0] == "vc-42"  # newest first
    assert (await client.page(include_total_count="false"))["total_count"] == 0


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({"page_size": 0}, 400),
        ({"page_size": 101}, 400),
        ({"page_size": "x"}, 422),
        ({"sort": "mood"}, 400),
        ({"next_page_token": "x"}, 400),
        ({"include_total_count": "x"}, 422),
    ],
)
async def test_invalid_pages(client: Client, query: dict[str, Any], status: int) -> None:
    assert (await client.call("GET", "/v2/voices", params=query))[0] == status


@pytest.mark.parametrize("part", ["files", "files[]"])
async def test_a_clone_speaks_until_it_is_deleted(client: Client, sandbox: SandboxProcess, part: str) -> None:
    status, reply = await client.clone("vc-7", (part, RECORDING), labels="null", description="A clone.")
    voice_id = validate_schema(reply, "AddVoiceIVCResponseModel")["voice_id"]
    assert (status, reply["requires_verification"]) == (200, False)
    _, voice = await client.call("GET", f"/v1/voices/{voice_id}")
    assert validate_schema(voice, "VoiceResponseModel")["category"] == "cloned"
    assert (voice["samples"][0]["size_bytes"], voice["description"], voice["labels"]) == (2003, "A clone.", {})
    assert (sandbox.account()["voice_slots_used"], sandbox.account()["voice_add_edit_counter"]) == (1, 1)
    speech = f"{client.url}/v1/text-to-speech/{voice_id}/stream"
    async with client.session.post(speech, json={"text": "Hello."}) as audio:
        assert (audio.status, len(await audio.read()) > 1000) == (200, True)
    assert validate_schema((await client.call("DELETE", f"/v1/voices/{voice_id}"))[1], "DeleteVoiceResponseModel") == {
        "status": "ok"
    }
    assert (await client.call("GET", f"/v1/voices/{voice_id}"))[0] == 404
    assert (await client.call("POST", f"/v1/text-to-speech/{voice_id}", json={"text": "Hello."}))[0] == 404
    assert sandbox.account()["voice_slots_used"] == 0


async def test_a_clone_is_edited(client: Client, sandbox: SandboxProcess) -> None:
    _, reply = await client.clone("vc-7", ("files", RECORDING))
    path = f"{reply['voice_id']}/edit"
    status, edited = await client.clone("vc-8", ("files", RECORDING + b"more"), path=path, labels='{"a": "b"}')
    assert (status, validate_schema(edited, "EditVoiceResponseModel")) == (200, {"status": "ok"})
    _, voice = await client.call("GET", f"/v1/voices/{reply['voice_id']}")
    assert (voice["name"], len(voice["samples"]), voice["labels"]) == ("vc-8", 2, {"a": "b"})
    assert sandbox.account()["voice_add_edit_counter"] == 2
    assert (await client.clone(None, path=path))[0] == 422
    assert (await client.clone("vc-9", path="nobody/edit"))[0] == 404


@pytest.mark.parametrize(
    ("name", "files", "fields", "status", "word"),
    [
        (None, [("files", RECORDING)], {}, 422, "missing"),
        ("", [("files", RECORDING)], {}, 400, "invalid_parameters"),
        ("a", [], {}, 422, "missing"),
        ("a", [("files", "a text, no file")], {}, 422, "value_error"),
        ("a", [("files", b"<html>")], {}, 400, "invalid_audio"),
        ("a", [("files", b"")], {}, 400, "invalid_audio"),
        ("a", [("files", RECORDING), ("files", RECORDING)], {}, 400, "duplicate_files"),
        ("a", [("files", RECORDING)], {"labels": "{"}, 400, "invalid_parameters"),
        ("a", [("files", RECORDING)], {"labels": '{"a": 1}'}, 400, "invalid_parameters"),
        ("a", [("files", RECORDING)], {"labels": "[]"}, 400, "invalid_parameters"),
        ("a", [("files", b"ID3" + bytes(11 * 1024 * 1024))], {}, 400, "request_too_large"),
    ],
)
async def test_invalid_recordings_are_rejected(
    client: Client, sandbox: SandboxProcess, name: str | None, files: list[Any], fields: Any, status: int, word: str
) -> None:
    answered, reply = await client.clone(name, *files, **fields)
    assert answered == status
    assert word in json.dumps(reply)
    if status == 422:
        validate_schema(reply, "HTTPValidationError")
    assert sandbox.account()["voice_add_edit_counter"] == 0


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"voice_limit": 0}, "voice_limit_reached"),
        ({"voice_add_edits_limit": 0}, "voice_add_edit_limit_reached"),
        ({"can_clone": False}, "can_not_use_instant_voice_cloning"),
    ],
)
async def test_limits_of_the_account_for_clones(
    client: Client, sandbox: SandboxProcess, changes: dict[str, Any], code: str
) -> None:
    sandbox.settings(**changes)
    status, reply = await client.clone("vc-1", ("files", RECORDING))
    assert (status, reply["detail"]["status"]) == (400, code)


async def test_a_stock_voice_cannot_be_deleted(client: Client) -> None:
    assert (await client.call("DELETE", f"/v1/voices/{RACHEL}"))[0] == 403
    assert (await client.call("DELETE", "/v1/voices/nobody"))[0] == 404
    assert (await client.call("GET", "/v1/voices/nobody/settings"))[0] == 404


def test_each_voice_has_its_own_constant_profile() -> None:
    timbres = {profile_for(f"voice{number}") for number in range(50)}
    assert len(timbres) >= 49
    assert profile_for("voice1") == profile_for("voice1")


async def test_voices_can_be_added_and_need_a_plan(client: Client, sandbox: SandboxProcess) -> None:
    added = sandbox.add_voice("Hazel", category="professional", labels={"gender": "female"}, rate=2.0, needs_plan=True)
    validate_schema(added, "VoiceResponseModel")
    assert added["sharing"]["rate"] == 2.0
    assert "Hazel" in await client.names()
    status, reply = await client.call("POST", f"/v1/text-to-speech/{added['voice_id']}", json={"text": "Hello."})
    assert (status, reply["detail"]["code"]) == (402, "paid_plan_required")
    for fields in ({"name": 7}, {"needs_plan": 1}, {"sound": "low"}):
        with pytest.raises(ValueError, match=next(iter(fields))):
            sandbox.add_voice(**{"name": "Broken", **fields})


@pytest.mark.parametrize("in_days", [0, 3])
async def test_a_voice_can_be_retired(in_days: float, client: Client, sandbox: SandboxProcess) -> None:
    before = time.time()
    retired = sandbox.retire_voice(RACHEL, in_days)
    status, _ = await client.call("GET", f"/v1/voices/{RACHEL}")
    assert (status, "Rachel" in await client.names()) == ((404, False) if in_days == 0 else (200, True))
    if in_days:
        validate_schema(retired, "VoiceResponseModel")
        assert 3 * 86400 - 5 < retired["sharing"]["disable_at_unix"] - before < 3 * 86400 + 5
    with pytest.raises(ValueError, match="no such voice"):
        sandbox.retire_voice("nobody")


async def test_an_account_may_have_no_premade_voices(client: Client, sandbox: SandboxProcess) -> None:
    sandbox.settings(premade_voices=False)
    assert await client.names() == []
    assert (await client.call("POST", f"/v1/text-to-speech/{RACHEL}", json={"text": "Hello."}))[0] == 404
