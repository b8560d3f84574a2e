"""A device that keeps all it hears in order, and may misbehave in every way that a socket allows."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from tts.devices.client import TERMINAL_TYPES, DeviceClient, Frame

TIMEOUT_S = 30.0


class Device(DeviceClient):
    """`heard` is everything that came, in order."""

    def __init__(self, url: str, token: str, *, format: str | None = None, timeout_s: float = TIMEOUT_S) -> None:
        super().__init__(url, token, format=format, timeout_s=timeout_s)
        self.received: list[Frame | bytes] = []

    async def receive(self) -> Frame | bytes:
        frame = await super().receive()
        self.received.append(frame)
        return frame

    # What only tests send

    async def send_text(self, text: str) -> None:
        """A text frame as it is, JSON or not."""
        await self._transmit(text)

    async def send_binary(self, data: bytes) -> None:
        await self._socket.send_bytes(data)

    async def send_raw_text_bytes(self, data: bytes) -> None:
        """A text frame that need not be UTF-8."""
        await self._socket.send_frame(data, aiohttp.WSMsgType.TEXT)

    def drop_connection(self) -> None:
        """Loses the connection, without a close frame."""
        transport = self._socket._writer.transport
        assert transport is not None
        transport.abort()

    # Waiting

    async def wait_for_frame(self, kind: str, **fields: Any) -> Frame:
        """The next frame of this type with these fields."""
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                frame = await self.receive()
                if isinstance(frame, dict) and frame["type"] == kind and fields.items() <= frame.items():
                    return frame

    async def wait_for_audio(self, id: str) -> None:
        """Returns with the first sound of this speech."""
        async with asyncio.timeout(TIMEOUT_S):
            while id not in self.speeches or not self.speeches[id].chunks:
                await self.receive()

    async def request(self, **frame: Any) -> Frame:
        """Sends the frame; the next JSON frame, whatever it is, sound left out."""
        await self.send(frame)
        return await self.next_frame()

    async def next_frame(self) -> Frame:
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                frame = await self.receive()
                if isinstance(frame, dict):
                    return frame

    async def error_for(self, text: str) -> Frame:
        """The `error` with which this text frame is refused; anything else than sound before it is a failure."""
        await self.send_text(text)
        frame = await self.next_frame()
        assert frame["type"] == "error", frame
        return frame

    async def assert_nothing_pending(self) -> None:
        """Asserts that nothing is owed to us: the answer to a ping is the next that comes."""
        assert await self.request(type="ping", t="silence") == {"type": "pong", "t": "silence"}

    async def start_speech(self, id: str, text: str) -> None:
        """Sends it and returns with its first sound."""
        await self.send({"type": "speak", "id": id, "text": text})
        await self.wait_for_audio(id)

    def types(self) -> list[str]:
        """The types of all JSON frames so far, in order."""
        return [frame["type"] for frame in self.received if isinstance(frame, dict)]


def spoken_order(heard: Iterable[Frame | bytes]) -> list[str]:
    """The ids of what was spoken, in order; asserts that nothing interleaves and that each speech ends once."""
    order: list[str] = []
    ended: list[str] = []
    playing: str | None = None
    for frame in heard:
        if isinstance(frame, bytes):
            assert playing is not None, "sound of no speech"
            continue
        kind = frame["type"]
        if kind == "speech.started":
            assert playing is None, f"{frame['id']} began inside {playing}"
            playing = frame["id"]
            order.append(frame["id"])
        elif kind == "speech.switched":
            assert playing == frame["id"]
        elif kind in TERMINAL_TYPES:
            ended.append(frame["id"])
            playing = None if playing == frame["id"] else playing
    assert playing is None
    assert len(ended) == len(set(ended)), "a speech ended twice"
    return order


def speak_frame(id: str, text: str) -> str:
    return json.dumps({"type": "speak", "id": id, "text": text})


@asynccontextmanager
async def instant_playback(device: DeviceClient, speech_id: str) -> AsyncIterator[None]:
    """A device that has played whatever it got: the server need not wait for playback before it asks for more."""

    async def report() -> None:
        while True:
            await device.send({"type": "progress", "id": speech_id, "ms": 3_600_000})
            await asyncio.sleep(0.05)

    reporter = asyncio.create_task(report())
    try:
        yield
    finally:
        reporter.cancel()
        await asyncio.wait({reporter})
