"""Each fault on a real socket: the exact bytes that a client receives, and the record of the request."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest

from tests.openapi import validate_schema
from tests.sandbox import SandboxProcess
from tests.sound import decode
from voicecare.providers.elevenlabs.sandbox.errors import PRESETS
from voicecare.providers.elevenlabs.sandbox.faults.faults import FIELDS_BY_KIND

SPEECH = "/v1/text-to-speech/21m00Tcm4TlvDq8ikWAM/stream"
TEXT = "This sentence is spoken, and something happens to it on its way."


@dataclass
class Seen:
    """What a client received. `error` is the exception that ended the response, if any."""

    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    error: Exception | None = None


Speak = Any


@pytest.fixture
async def speak(sandbox: SandboxProcess) -> AsyncIterator[Speak]:
    sandbox.settings(first_byte_ms=0)
    async with aiohttp.ClientSession(headers={"xi-api-key": "any"}) as session:

        async def call(text: str = TEXT, path: str = SPEECH, patience_s: float = 5) -> Seen:
            seen = Seen()
            timeout = aiohttp.ClientTimeout(sock_read=patience_s)
            asked = {"json": {"text": text, "model_id": "eleven_flash_v2_5"}, "allow_redirects": False}
            try:
                async with session.post(sandbox.url + path, timeout=timeout, **asked) as reply:
                    seen.status, seen.headers = reply.status, dict(reply.headers)
                    async for data in reply.content.iter_any():
                        seen.body += data
            except (aiohttp.ClientError, TimeoutError) as error:
                seen.error = error
            return seen

        yield call


@asynccontextmanager
async def speaking(sandbox: SandboxProcess) -> AsyncIterator[aiohttp.StreamReader]:
    """Yield the body of a response that is not read to its end."""
    asked = {"text": TEXT, "model_id": "eleven_flash_v2_5"}
    async with (
        aiohttp.ClientSession(headers={"xi-api-key": "any"}) as session,
        session.post(sandbox.url + SPEECH, json=asked) as reply,
    ):
        yield reply.content


async def last_record(sandbox: SandboxProcess) -> dict[str, Any]:
    """Wait for the end of the last request and return its record."""
    return (await asyncio.to_thread(sandbox.wait_until_idle))[-1]


@pytest.mark.parametrize("kind", ["cut", "cut_reset"])
@pytest.mark.parametrize("after_bytes", [0, 1, 419, 4097, 10_000])
async def test_a_cut_sends_the_exact_number_of_bytes(
    speak: Speak, sandbox: SandboxProcess, kind: str, after_bytes: int
) -> None:
    whole = (await speak()).body
    sandbox.fault(kind=kind, after_bytes=after_bytes)
    seen = await speak()
    assert isinstance(seen.error, aiohttp.ClientPayloadError)
    assert seen.body == whole[:after_bytes]
    record = await last_record(sandbox)
    assert (record["outcome"], record["bytes_sent"], record["billed"], record["fault"]) == (
        "cut",
        after_bytes,
        True,
        kind,
    )


async def test_a_cut_after_the_end_breaks_the_connection_and_a_timed_cut_waits(
    speak: Speak, sandbox: SandboxProcess
) -> None:
    whole = (await speak()).body
    sandbox.fault(kind="cut", after_bytes=10**6, first=1)
    sandbox.fault(kind="cut", after_ms=300, first=1)
    late = await speak()
    began = time.monotonic()
    timed = await speak()
    assert time.monotonic() - began > 0.3
    for seen in (late, timed):
        assert isinstance(seen.error, aiohttp.ClientPayloadError)
        assert seen.body == whole


async def test_a_clean_cut_ends_the_body_normally(speak: Speak, sandbox: SandboxProcess) -> None:
    sandbox.fault(kind="cut_clean", after_bytes=5000)
    seen = await speak()
    assert (seen.error, len(seen.body)) == (None, 5000)
    assert (await last_record(sandbox))["outcome"] == "cut"


@pytest.mark.parametrize(
    ("fault", "status", "received", "billed"),
    [
        ({"kind": "stall_first"}, None, 0, False),
        ({"kind": "unanswered"}, None, 0, True),
        ({"kind": "stall_headers"}, 200, 0, True),
        ({"kind": "stall_middle", "after_bytes": 3001}, 200, 3001, True),
    ],
)
async def test_a_stall_lasts_until_the_client_disconnects(
    speak: Speak, sandbox: SandboxProcess, fault: dict[str, Any], status: int | None, received: int, billed: bool
) -> None:
    sandbox.fault(**fault)
    seen = await speak(patience_s=0.3)
    assert isinstance(seen.error, aiohttp.SocketTimeoutError)
    assert (seen.status, len(seen.body)) == (status, received)
    record = await last_record(sandbox)
    assert (record["status"], record["outcome"], record["billed"]) == (status, "cancelled", billed)


@pytest.mark.parametrize("kind", ["stall_first", "stall_headers", "stall_middle", "slow_headers"])
async def test_a_stall_with_a_length_ends(speak: Speak, sandbox: SandboxProcess, kind: str) -> None:
    whole = (await speak()).body
    sandbox.fault(kind=kind, seconds=0.2, **({"after_bytes": 999} if kind == "stall_middle" else {}))
    began = time.monotonic()
    seen = await speak()
    assert time.monotonic() - began > 0.2
    assert (seen.error, seen.body) == (None, whole)
    assert seen.headers["character-cost"]
    assert (await last_record(sandbox))["outcome"] == "completed"


async def test_a_refused_connection_gets_no_response(speak: Speak, sandbox: SandboxProcess) -> None:
    sandbox.fault(kind="refuse", first=1)
    seen = await speak()
    assert isinstance(seen.error, aiohttp.ServerDisconnectedError)
    record = await last_record(sandbox)
    assert (record["status"], record["outcome"], record["billed"]) == (None, "failed", False)
    assert (await speak()).status == 200


async def test_an_unanswered_request_is_billed(speak: Speak, sandbox: SandboxProcess) -> None:
    sandbox.fault(kind="unanswered", seconds=0)
    seen = await speak()
    assert isinstance(seen.error, aiohttp.ServerDisconnectedError)
    record = await last_record(sandbox)
    assert (record["status"], record["outcome"], record["billed"]) == (None, "failed", True)
    assert sandbox.account()["characters"] == len(TEXT)


async def test_a_redirect_has_its_location(speak: Speak, sandbox: SandboxProcess) -> None:
    sandbox.fault(kind="redirect", location="http://127.0.0.2:9/")
    seen = await speak()
    assert (seen.status, seen.headers["Location"]) == (307, "http://127.0.0.2:9/")
    assert (await last_record(sandbox))["billed"] is False


@pytest.mark.parametrize(
    ("kind", "content_type", "beginning"),
    [("html", "text/html; charset=utf-8", b"<html>"), ("json", "application/json", b'{"detail"')],
)
async def test_a_replaced_body_is_billed(
    speak: Speak, sandbox: SandboxProcess, kind: str, content_type: str, beginning: bytes
) -> None:
    sandbox.fault(kind=kind)
    seen = await speak()
    assert (seen.status, seen.headers["Content-Type"]) == (200, content_type)
    assert seen.body.startswith(beginning)
    assert (await last_record(sandbox))["billed"] is True


async def test_empty_random_mislabelled_and_endless_bodies(speak: Speak, sandbox: SandboxProcess) -> None:
    whole = (await speak()).body
    for kind in ("empty", "garbage", "wrong_type", "endless"):
        sandbox.fault(kind=kind, first=1)
    empty, garbage, wrong_type = await speak(), await speak(), await speak()
    assert (empty.status, empty.error, empty.body) == (200, None, b"")
    assert (len(garbage.body), garbage.headers["Content-Type"]) == (len(whole), "audio/mpeg")
    assert garbage.body != whole
    assert (wrong_type.body, wrong_type.headers["Content-Type"]) == (whole, "text/html")
    async with speaking(sandbox) as sound:
        assert await sound.readexactly(3 * len(whole)) == 3 * whole
    assert (await last_record(sandbox))["outcome"] == "cancelled"


async def test_slow_bodies_and_single_bytes(speak: Speak, sandbox: SandboxProcess) -> None:
    size = len((await speak("Yes.")).body)
    sandbox.fault(kind="slow", bytes_per_s=40_000, first=1)
    sandbox.fault(kind="drip", seconds=0.02)
    began = time.monotonic()
    assert len((await speak("Yes.")).body) == size
    assert time.monotonic() - began > size / 40_000
    async with speaking(sandbox) as sound:
        assert [len(await sound.readany()) for _ in range(5)] == [1] * 5


@pytest.mark.parametrize("preset", PRESETS)
async def test_every_preset_has_its_form(speak: Speak, sandbox: SandboxProcess, preset: str) -> None:
    sandbox.fault(kind="error", preset=preset)
    seen = await speak()
    words = PRESETS[preset]
    assert (seen.status, seen.error) == (words.status, None)
    record = await last_record(sandbox)
    assert (record["status"], record["outcome"], record["billed"]) == (words.status, "failed", False)
    if words.form == "html":
        assert seen.headers["Content-Type"].startswith("text/html")
        return
    detail = json.loads(seen.body)["detail"]
    if words.form == "validation":
        validate_schema({"detail": detail}, "HTTPValidationError")
    elif words.form == "plain":
        assert detail == words.message
    else:
        assert detail["code" if words.form == "new" else "status"] == words.code


async def test_the_fields_of_an_error_can_be_changed(speak: Speak, sandbox: SandboxProcess) -> None:
    sandbox.fault(
        kind="error", status=403, code="odd", form="new", message="No.", headers={"Retry-After": "-1"}, first=1
    )
    sandbox.fault(kind="error", status=401, body="{broken", first=1)
    sandbox.fault(kind="error", preset="system_busy", status=503)
    made, broken, moved = await speak(), await speak(), await speak()
    detail = json.loads(made.body)["detail"]
    assert (made.status, detail["code"], detail["type"], detail["message"]) == (
        403,
        "odd",
        "authorization_error",
        "No.",
    )
    assert made.headers["Retry-After"] == "-1"
    assert (broken.status, broken.body) == (401, b"{broken")
    assert (moved.status, json.loads(moved.body)["detail"]["status"]) == (503, "system_busy")


async def test_a_fault_only_applies_to_matching_requests(speak: Speak, sandbox: SandboxProcess) -> None:
    sandbox.fault(kind="error", status=500, match={"text": "^Bad", "voice_id": "21m00Tcm4TlvDq8ikWAM"})
    assert [(await speak(text)).status for text in ("Bad news.", "Not Bad.")] == [500, 200]
    assert (await speak("Bad news.", SPEECH.replace("21m00Tcm4TlvDq8ikWAM", "pNInz6obpgDQGcFmaJgB"))).status == 200
    assert sandbox.account()["requests"] == 2
    assert [(fault["seen"], fault["hits"]) for fault in sandbox.faults()] == [(1, 1)]
    sandbox.clear_faults()
    assert (await speak("Bad news.")).status == 200


async def test_other_endpoints_fail_if_their_path_matches(sandbox: SandboxProcess) -> None:
    async with aiohttp.ClientSession(headers={"xi-api-key": "any"}) as session:

        async def status() -> int:
            async with session.get(sandbox.url + "/v1/user/subscription") as reply:
                await reply.read()
                return reply.status

        sandbox.fault(kind="error", preset="invalid_api_key")
        assert await status() == 200
        sandbox.fault(kind="error", preset="invalid_api_key", match={"path": "^/v1/user", "method": "GET"}, first=1)
        assert await status() == 401
        sandbox.fault(kind="cut", after_bytes=7, match={"path": "subscription"})
        with pytest.raises(aiohttp.ClientPayloadError):
            await status()


def test_the_control_api_names_the_valid_values(sandbox: SandboxProcess) -> None:
    with pytest.raises(ValueError, match="refuse"):
        sandbox.fault(kind="explode")
    with pytest.raises(ValueError, match="character_limit"):
        sandbox.settings(colour="red")
    with pytest.raises(ValueError, match="concurrency"):
        sandbox.settings(concurrency=-1)
    assert sandbox.settings()["concurrency"] == 10


async def test_the_page_explains_the_sandbox(sandbox: SandboxProcess) -> None:
    async with aiohttp.ClientSession() as session, session.get(sandbox.url + "/sandbox/") as reply:
        page = await reply.text()
    assert reply.content_type == "text/html"
    assert all(word in page for word in ("imitates the ElevenLabs API", "/sandbox/reset", *FIELDS_BY_KIND))


async def test_a_reset_restores_the_initial_state(speak: Speak, sandbox: SandboxProcess) -> None:
    sandbox.fault(kind="error", status=500)
    sandbox.settings(character_limit=5)
    await speak()
    sandbox.reset()
    assert (sandbox.requests(), sandbox.faults()) == ([], [])
    assert sandbox.settings()["character_limit"] == 100_000
    assert decode((await speak()).body, "mp3_44100_128").seconds > 1
