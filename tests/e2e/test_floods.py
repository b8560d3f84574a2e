"""One device that floods the server is disconnected or slowed down. Other devices do not notice."""

import asyncio
import json
import time
import uuid
from contextlib import suppress

import pytest

from tests.conftest import Member
from tests.e2e.device import Device
from tests.e2e.raw_device import BINARY, PING, TEXT, RawDevice
from tests.server import ServerProcess

MEGABYTE = 1024 * 1024
FLOOD_S = 5.0


def unknown_id() -> str:
    return f"srv-{uuid.uuid4()}"


def encoded(**frame: object) -> bytes:
    return json.dumps(frame).encode()


FLOODS = {
    "pings with a long text": (TEXT, encoded(type="ping", t="x" * 60_000)),
    "short pings": (TEXT, encoded(type="ping")),
    "WebSocket pings": (PING, b"x" * 125),
    "errors": (TEXT, b"nonsense"),
    "binary frames": (BINARY, bytes(60_000)),
    "big frames": (TEXT, encoded(type="ping", t="x" * 70_000)),
    "unknown acknowledgements": (TEXT, encoded(type="ack", id=unknown_id())),
    "unknown interrupts": (TEXT, encoded(type="interrupt", id=unknown_id())),
}


@pytest.mark.parametrize("flood", FLOODS)
async def test_a_flood_of_a_device_that_reads_nothing_takes_little_memory_and_disturbs_nobody(
    server: ServerProcess, alice: Member, bob: Member, flood: str
) -> None:
    opcode, payload = FLOODS[flood]
    held = [0.0]
    with RawDevice(server.ws, alice.token) as device:
        flooding = asyncio.create_task(asyncio.to_thread(send_until_closed, device, opcode, payload))
        async with Device(server.ws, bob.token) as other:
            while not flooding.done() or len(held) < 3:
                started = await other.start(greeting=False)
                assert started["type"] == "conversation.started"
                spoken = await other.speak("Nobody else notices it.")
                assert (spoken.terminal["type"], spoken.terminal["source"]) == ("speech.finished", "live")
                await other.end()
                held.append(server.gauge("voicecare_held_bytes"))
        await flooding
    assert max(held) <= 1.25 * MEGABYTE


def send_until_closed(device: RawDevice, opcode: int, payload: bytes) -> None:
    """Send as fast as the server reads, for a limited time. Most floods end sooner."""
    deadline = time.monotonic() + FLOOD_S
    with suppress(OSError):  # closed, or no longer read
        while time.monotonic() < deadline:
            device.send_frame(opcode, payload)


@pytest.mark.parametrize("kind", ["ack", "interrupt"])
async def test_twenty_unknown_deliveries_in_a_row_close_the_connection(
    server: ServerProcess, alice: Member, kind: str
) -> None:
    async with Device(server.ws, alice.token) as device:
        for _ in range(60):
            await device.send({"type": kind, "id": unknown_id()})
        assert await device.wait_closed() == 4008
    assert [frame["code"] for frame in device.received if isinstance(frame, dict)] == ["unknown_id"] * 20


@pytest.mark.parametrize("kind", ["ack", "interrupt"])
async def test_a_device_that_waits_for_each_error_is_closed_after_twenty(
    server: ServerProcess, alice: Member, kind: str
) -> None:
    async with Device(server.ws, alice.token) as device:
        for _ in range(20):
            await device.send({"type": kind, "id": unknown_id()})
            await read_errors(device, 1)
        assert await device.wait_closed() == 4008


async def test_an_accepted_message_ends_a_run_of_unknown_deliveries(server: ServerProcess, alice: Member) -> None:
    async with Device(server.ws, alice.token) as device:
        for _ in range(3):
            for _ in range(19):
                await device.send({"type": "ack", "id": unknown_id()})
            await read_errors(device, 19)
            await device.assert_nothing_pending()


async def test_lookups_of_one_device_do_not_delay_other_devices(
    server: ServerProcess, alice: Member, bob: Member
) -> None:
    number = 1000
    async with Device(server.ws, alice.token) as device, Device(server.ws, bob.token) as other:
        for _ in range(number):
            await device.send({"type": "ack", "id": unknown_id()})
            await device.send({"type": "ping"})  # begins a new run of errors, so the connection stays open
        reading = asyncio.create_task(read_errors(device, number))
        await other.start(greeting=False)
        assert device.types().count("error") < number / 2
        await reading


async def read_errors(device: Device, number: int) -> None:
    for _ in range(number):
        await device.wait_for_frame("error", code="unknown_id")
