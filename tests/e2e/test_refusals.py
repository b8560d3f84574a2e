"""A refused device is told why: in the body of the response, or in a browser by an error frame and a close code."""

import asyncio
import json
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import aiohttp
import pytest
from django.utils import timezone
from prometheus_client.parser import text_string_to_metric_families

from tests.asyncapi import check_frame_to_device
from tests.conftest import Member
from tests.e2e.device import Device
from tests.e2e.rows import in_database
from tests.sandbox import SandboxProcess
from tests.server import ServerProcess
from tests.waiting import eventually
from tts.protocol.messages import CLOSE_REASONS
from voicecare.patients.models import Device as DeviceRow
from voicecare.patients.models import Patient

V1 = "voicecare.v1"
PAGE = {"Origin": "http://localhost:3000"}
FOREIGN = {"Origin": "https://evil.example"}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def refusal_of(
    url: str, *, protocols: tuple[str, ...] = (V1,), headers: Mapping[str, str] | None = None
) -> tuple[int, dict[str, str]]:
    """Make the handshake as a plain HTTP request, whose answer can be read. Return its status and its JSON body."""
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        **(headers or {}),
        **({"Sec-WebSocket-Protocol": ", ".join(protocols)} if protocols else {}),
    }
    async with aiohttp.ClientSession() as session, session.get(url.replace("ws:", "http:"), headers=upgrade) as reply:
        assert reply.content_type == "application/json"
        return reply.status, await reply.json()


async def browser_refusal_of(
    url: str, *, protocols: tuple[str, ...], headers: Mapping[str, str] = PAGE
) -> tuple[dict[str, Any], int, str]:
    """Make the handshake of a page in a browser. Return the only frame, the close code and its reason."""
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(url, protocols=protocols, headers=headers) as socket,
    ):
        frame = await socket.receive(10)
        assert frame.type is aiohttp.WSMsgType.TEXT
        end = await socket.receive(10)
        assert end.type is aiohttp.WSMsgType.CLOSE
        check_frame_to_device(json.loads(frame.data))
        return json.loads(frame.data), end.data, end.extra


def counted(server: ServerProcess) -> dict[str, float]:
    families = text_string_to_metric_families(server.get("/metrics")[1].decode())
    samples = (sample for family in families for sample in family.samples)
    return {s.labels["reason"]: s.value for s in samples if s.name == "voicecare_handshakes_refused_total"}


def _revoke(member: Member) -> None:
    DeviceRow.objects.filter(pk=member.device.pk).update(revoked_at=timezone.now())


def _archive(member: Member) -> None:
    Patient.objects.filter(pk=member.patient.pk).update(archived_at=timezone.now())


async def test_a_device_reads_the_reason_in_the_response(server: ServerProcess, alice: Member, bob: Member) -> None:
    await in_database(_revoke, alice)
    await in_database(_archive, bob)
    before = counted(server)
    refused = {
        "wrong_subprotocol": await refusal_of(server.ws, protocols=("voicecare.v2",), headers=bearer(alice.token)),
        "missing_token": await refusal_of(server.ws),
        "unknown_token": await refusal_of(server.ws, headers=bearer(f"{alice.token}x")),
        "revoked_device": await refusal_of(server.ws, headers=bearer(alice.token)),
        "inactive_patient": await refusal_of(server.ws, headers=bearer(bob.token)),
        "forbidden_origin": await refusal_of(server.ws, headers={**bearer(alice.token), **FOREIGN}),
        "unknown_path": await refusal_of(server.ws.removesuffix("/"), headers=bearer(alice.token)),
    }
    for code, (status, body) in refused.items():
        assert (status, body["code"]) == (403, code)
        assert len(body["message"]) > 20
        assert set(body) == {"code", "message"}
    after = counted(server)
    assert {code: after[code] - before.get(code, 0) for code in refused} == dict.fromkeys(refused, 1)


@pytest.mark.parametrize("offered", [b"voicecare.\xc3\xbc", b"\xff\xfe", b"x, \xe2\x82\xac"])
@pytest.mark.parametrize("origin", [b"", b"Origin: http://localhost\r\n"], ids=["device", "page"])
async def test_a_subprotocol_outside_of_ascii_is_refused_like_any_other(
    server: ServerProcess, offered: bytes, origin: bytes
) -> None:
    errors = server.logged().count("Traceback")
    answer = await answer_to_handshake(server, offered, origin)
    assert answer.startswith(b"HTTP/1.1 403 ") or (origin and answer.startswith(b"HTTP/1.1 101 ")), answer
    assert b'"wrong_subprotocol"' in answer
    assert server.logged().count("Traceback") == errors


async def test_a_subprotocol_outside_of_ascii_beside_the_right_one_does_no_harm(
    server: ServerProcess, alice: Member
) -> None:
    token = f"Authorization: Bearer {alice.token}\r\n".encode()
    answer = await answer_to_handshake(server, b"voicecare.v1, \xc3\xbc", token)
    assert answer.startswith(b"HTTP/1.1 101 "), answer
    assert b"voicecare.v1" in answer


async def answer_to_handshake(server: ServerProcess, offered: bytes, headers: bytes) -> bytes:
    """Send a handshake with these bytes as subprotocols. Return what the server sends until it waits or closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(
        b"GET /ws/device/ HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        b"Sec-WebSocket-Protocol: " + offered + b"\r\n" + headers + b"\r\n"
    )
    answer = b""
    with suppress(TimeoutError, ConnectionError):
        async with asyncio.timeout(2):
            while piece := await reader.read(65536):
                answer += piece
    writer.close()
    return answer


async def test_a_token_as_a_subprotocol_without_an_origin_is_no_browser(server: ServerProcess, alice: Member) -> None:
    """Such a device can read the response."""
    status, body = await refusal_of(server.ws, protocols=(V1, f"token.{alice.token}x"))
    assert (status, body["code"]) == (403, "unknown_token")


async def test_a_browser_reads_the_reason_in_a_frame_and_in_the_close_code(
    server: ServerProcess, alice: Member, bob: Member
) -> None:
    await in_database(_revoke, alice)
    await in_database(_archive, bob)
    before = counted(server)
    mine = (V1, f"token.{alice.token}")
    refused = {
        "wrong_subprotocol": (await browser_refusal_of(server.ws, protocols=("voicecare.v2", mine[1])), 4400),
        "missing_token": (await browser_refusal_of(server.ws, protocols=(V1,)), 4401),
        "unknown_token": (await browser_refusal_of(server.ws, protocols=(V1, f"{mine[1]}x")), 4401),
        "revoked_device": (await browser_refusal_of(server.ws, protocols=mine), 4403),
        "inactive_patient": (await browser_refusal_of(server.ws, protocols=(V1, f"token.{bob.token}")), 4403),
        "unknown_path": (await browser_refusal_of(server.ws + "x/", protocols=mine), 4404),
        "forbidden_origin": (await browser_refusal_of(server.ws, protocols=mine, headers=FOREIGN), 4406),
    }
    for origin in ("null", "file://"):
        refused_page = await browser_refusal_of(server.ws, protocols=mine, headers={"Origin": origin})
        assert refused_page == refused["forbidden_origin"][0], origin
    for code, ((frame, close_code, reason), expected) in refused.items():
        assert (frame["type"], frame["code"], close_code) == ("error", code, expected)
        assert len(frame["message"]) > 20
        assert reason == CLOSE_REASONS[expected]
    after = counted(server)
    counts = {code: after[code] - before.get(code, 0) for code in refused}
    assert counts == {**dict.fromkeys(refused, 1), "forbidden_origin": 3}


async def test_the_last_refusal_is_kept_with_the_device(server: ServerProcess, alice: Member) -> None:
    """A device that tries again and again changes its row once."""

    async def kept() -> tuple[str, Any]:
        row = await in_database(DeviceRow.objects.get, pk=alice.device.pk)
        return row.refusal, row.refused_at

    assert await kept() == ("", None)
    await in_database(_revoke, alice)
    await refusal_of(server.ws, headers=bearer(f"{alice.token}x"))  # not this device
    assert await kept() == ("", None)
    await refusal_of(server.ws, headers=bearer(alice.token))
    refusal, refused_at = await kept()
    assert refusal == "revoked_device"
    assert refused_at is not None
    for _ in range(5):
        await browser_refusal_of(server.ws, protocols=(V1, f"token.{alice.token}"))
    assert await kept() == (refusal, refused_at)


async def test_a_refusal_is_logged_with_its_reason_and_without_the_token(
    own_server: Callable[..., ServerProcess], alice: Member
) -> None:
    server = await asyncio.to_thread(own_server)
    await in_database(_revoke, alice)
    for _ in range(20):
        await refusal_of(server.ws, headers=bearer(alice.token))
    await refusal_of(server.ws, headers=bearer(f"{alice.token}x"))
    lines = [line for line in server.logged().splitlines() if "handshake.refused" in line]
    assert len(lines) <= 3  # the 20 refusals may take longer than the interval of the log
    assert any("revoked_device" in line and str(alice.device.pk) in line for line in lines)
    assert any("unknown_token" in line for line in lines)
    assert alice.token.partition(".")[0] not in server.logged()
    assert alice.token.partition(".")[2] not in server.logged()


async def test_pages_of_further_origins_may_connect(own_server: Callable[..., ServerProcess], alice: Member) -> None:
    server = await asyncio.to_thread(own_server, DEVICE_ORIGINS="https://tablet.example.org,capacitor://localhost,null")
    for origin in ("https://tablet.example.org", "capacitor://localhost", "null", "http://localhost:3000"):
        async with aiohttp.ClientSession() as session:
            protocols = (V1, f"token.{alice.token}")
            async with session.ws_connect(server.ws, protocols=protocols, headers={"Origin": origin}) as socket:
                await socket.send_str('{"type": "ping"}')
                assert (await socket.receive_json(timeout=10)) == {"type": "pong"}
    (frame, code, _) = await browser_refusal_of(server.ws, protocols=(V1, f"token.{alice.token}"), headers=FOREIGN)
    assert (frame["code"], code) == ("forbidden_origin", 4406)


async def test_a_server_that_shuts_down_says_so(
    own_server: Callable[..., ServerProcess], sandbox: SandboxProcess, alice: Member, bob: Member
) -> None:
    server = await asyncio.to_thread(own_server)
    sandbox.fault(kind="slow", bytes_per_s=8_000)

    async def is_draining() -> bool:
        return (await asyncio.to_thread(server.get, "/readyz"))[0] == 503

    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        await device.start_speech("last", "This sentence is spoken very slowly, so that there is time.")
        server.signal(signal.SIGTERM)
        await eventually(is_draining, 5)
        status, body = await refusal_of(server.ws, headers=bearer(bob.token))
        assert (status, body["code"]) == (403, "shutting_down")
        frame, code, reason = await browser_refusal_of(server.ws, protocols=(V1, f"token.{bob.token}"))
        assert (frame["code"], code, reason) == ("shutting_down", 4012, CLOSE_REASONS[4012])


@pytest.mark.parametrize(
    ("code", "frames"), [(4009, ['{"type": "ping", "t": "' + "x" * 70_000 + '"}']), (4008, ["no JSON"] * 20)]
)
async def test_close_frames_have_a_reason(server: ServerProcess, alice: Member, code: int, frames: list[str]) -> None:
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(server.ws, protocols=(V1,), headers=bearer(alice.token)) as socket,
    ):
        for frame in frames:
            await socket.send_str(frame)
        while (end := await socket.receive(10)).type is aiohttp.WSMsgType.TEXT:
            pass
        assert (end.type, end.data, end.extra) == (aiohttp.WSMsgType.CLOSE, code, CLOSE_REASONS[code])
