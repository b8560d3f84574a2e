"""A device that stops reading uses little memory, is disconnected, and does not disturb others."""

import asyncio
import base64
import json
import os
import socket
import struct
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest

from tests.conftest import Member
from tests.e2e.device import Device
from tests.e2e.rows import state_of
from tests.sandbox import SandboxProcess
from tests.server import ServerProcess
from tests.waiting import eventually
from tts.devices.daphne_fast_path import CLOSE_TIMEOUT_S

ENDLESS = " ".join(f"Sentence {number} is part of a text that no socket will hold to its end." for number in range(64))
MEGABYTE = 1024 * 1024


class StuckDevice:
    """A device on a raw socket. Its receive buffer is as small as the system allows, and it reads only on request."""

    def __init__(self, url: str, token: str) -> None:
        parts = urlsplit(url)
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._socket.settimeout(10)
        self._socket.connect((parts.hostname, parts.port))
        key = base64.b64encode(os.urandom(16)).decode()
        self._socket.sendall(
            f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: voicecare.v1\r\n"
            f"Authorization: Bearer {token}\r\n\r\n".encode()
        )
        reply = self._socket.recv(4096)
        assert b" 101 " in reply, reply

    def send(self, **frame: object) -> None:
        payload = json.dumps(frame).encode()
        size = len(payload)
        length = struct.pack("!BBH", 0x81, 0xFE, size) if size > 125 else struct.pack("!BB", 0x81, 0x80 | size)
        self._socket.sendall(length + bytes(4) + payload)  # masked with zeros

    def send_close_frame(self) -> None:
        """Send a close frame with the code 1000."""
        self._socket.sendall(b"\x88\x82" + bytes(4) + struct.pack("!H", 1000))

    def read_some(self) -> bytes:
        return self._socket.recv(4096)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def pinging_server(own_server: Callable[..., ServerProcess]) -> ServerProcess:
    """A server with the ping settings of production, ten times as fast."""
    return own_server("--ping-interval", "2", "--ping-timeout", "3")


async def test_a_stuck_device_holds_at_most_a_megabyte_and_is_closed_after_missed_pings(
    pinging_server: ServerProcess, sandbox: SandboxProcess, alice: Member, bob: Member
) -> None:
    server = pinging_server
    async with Device(server.ws, bob.token) as other:
        await other.start(greeting=False)
        await other.speak("A first speech, so that everything is in memory that ever will be.")
        stuck = StuckDevice(server.ws, alice.token)
        stuck.send(type="conversation.start", greeting=False, format="pcm_24000")
        started = json.loads(stuck.read_some()[4:])
        stuck.send(type="speak", id="endless", text=ENDLESS)
        held = 0.0
        closed = asyncio.create_task(eventually(lambda: is_closed(server), within_s=20))
        while not closed.done():
            if held < MEGABYTE / 16:  # the system's buffers do not count, so it requests more by false reports
                stuck.send(type="progress", id="endless", ms=3_600_000)
            spoken = await other.speak("Nobody else notices that a device is stuck.")
            assert (spoken.terminal["type"], spoken.terminal["source"]) == ("speech.finished", "live")
            held = max(held, server.gauge("voicecare_held_bytes"))
        await closed
        stuck.close()
    print(f"held {held / MEGABYTE:.2f} MB")
    assert MEGABYTE / 16 < held <= MEGABYTE

    async def interrupted() -> bool:
        return await state_of(started["conversation"], "endless") == "interrupted"

    await eventually(interrupted)


async def test_a_device_that_closes_but_never_reads_is_disconnected(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    connected = server.gauge("voicecare_devices_connected")
    stuck = StuckDevice(server.ws, alice.token)
    stuck.send(type="conversation.start", greeting=False, format="pcm_24000")
    started = json.loads(stuck.read_some()[4:])
    stuck.send(type="speak", id="endless", text=ENDLESS)

    async def bytes_are_held() -> bool:
        stuck.send(type="progress", id="endless", ms=3_600_000)
        return server.gauge("voicecare_held_bytes") > 0

    async def interrupted() -> bool:
        return await state_of(started["conversation"], "endless") == "interrupted"

    await eventually(bytes_are_held)
    stuck.send_close_frame()
    await eventually(interrupted, within_s=CLOSE_TIMEOUT_S + 10)
    assert server.gauge("voicecare_devices_connected") == connected
    assert server.gauge("voicecare_slots_held") == 0
    stuck.close()


async def is_closed(server: ServerProcess) -> bool:
    return server.gauge("voicecare_devices_connected") == 1


async def test_a_slow_reader_gets_all_audio(server: ServerProcess, sandbox: SandboxProcess, alice: Member) -> None:
    text = " ".join(f"Sentence {number} is heard by a device that takes its time." for number in range(4))
    async with Device(server.ws, alice.token, format="pcm_24000") as device:
        await device.start(greeting=False)
        await device.send({"type": "speak", "id": "slow", "text": text})
        while not (spoken := device.speeches["slow"]).is_done:
            await device.receive()
            await asyncio.sleep(0.05)
    assert spoken.terminal["type"] == "speech.finished"
    assert spoken.terminal["bytes"] == len(spoken.audio)
    assert "".join(request["text"] for request in sandbox.requests()) == text
