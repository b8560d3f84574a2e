"""A device for tests. It records everything that it receives and can misbehave in every way that a socket allows.

It checks every frame of the server against docs/asyncapi.yaml, and the requests of `start` and `speak` that the server
has accepted.
"""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from tests.asyncapi import check_frame_from_device, check_frame_to_device
from voicecare_client import TERMINAL_TYPES, DeviceClient, Frame, SpeechResult

TIMEOUT_S = 30.0


class Device(DeviceClient):
    """`received` has all frames, in order."""

    def __init__(
        self,
        url: str,
        token: str,
        *,
        format: str | None = None,
        timeout_s: float = TIMEOUT_S,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(url, token, format=format, timeout_s=timeout_s, tls=tls)
        self.received: list[Frame | bytes] = []
        self._start_frame: Frame = {}

    async def send(self, frame: Frame) -> None:
        if frame.get("type") == "conversation.start":
            self._start_frame = frame
        await super().send(frame)

    async def start(self, *, greeting: bool | None = None, resume: str | None = None) -> Frame:
        started = await super().start(greeting=greeting, resume=resume)
        check_frame_from_device(self._start_frame)
        return started

    async def speak(self, text: str, id: str | None = None) -> SpeechResult:
        result = await super().speak(text, id)
        check_frame_from_device({"type": "speak", "id": result.id, "text": text})
        return result

    async def receive(self) -> Frame | bytes:
        frame = await super().receive()
        if isinstance(frame, dict):
            check_frame_to_device(frame)
        self.received.append(frame)
        return frame

    # Frames that only tests send

    async def send_text(self, text: str) -> None:
        """Send a text frame unchanged, valid JSON or not."""
        await self._transmit(text)

    async def send_binary(self, data: bytes) -> None:
        await self._socket.send(data)

    async def send_raw_text_bytes(self, data: bytes) -> None:
        """Send a text frame that may be invalid UTF-8."""
        await self._socket.send(data, text=True)

    # Waiting

    async def wait_for_frame(self, kind: str, **fields: Any) -> Frame:
        """Return the next frame of this type with these fields."""
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                frame = await self.receive()
                if isinstance(frame, dict) and frame["type"] == kind and fields.items() <= frame.items():
                    return frame

    async def wait_for_audio(self, id: str) -> None:
        """Return when the first audio of this speech has arrived."""
        async with asyncio.timeout(TIMEOUT_S):
            while id not in self.speeches or not self.speeches[id].chunks:
                await self.receive()

    async def request(self, **frame: Any) -> Frame:
        """Send the frame and return the next JSON frame of any type. Audio is skipped."""
        await self.send(frame)
        return await self.next_frame()

    async def next_frame(self) -> Frame:
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                frame = await self.receive()
                if isinstance(frame, dict):
                    return frame

    async def error_for(self, text: str) -> Frame:
        """Send the text frame and return the `error` that refuses it. Only audio may come before the error."""
        await self.send_text(text)
        frame = await self.next_frame()
        assert frame["type"] == "error", frame
        return frame

    async def assert_nothing_pending(self) -> None:
        """Assert that the server has nothing to send: the next frame is the answer to a ping."""
        assert await self.request(type="ping", t="silence") == {"type": "pong", "t": "silence"}

    async def start_speech(self, id: str, text: str) -> None:
        """Send a speech and return when its first audio has arrived."""
        await self.send({"type": "speak", "id": id, "text": text})
        await self.wait_for_audio(id)

    def types(self) -> list[str]:
        """Return the types of all JSON frames so far, in order."""
        return [frame["type"] for frame in self.received if isinstance(frame, dict)]


def spoken_order(received: Iterable[Frame | bytes]) -> list[str]:
    """Return the ids of the spoken speeches, in order. Assert that they do not interleave and that each ends once."""
    order: list[str] = []
    ended: list[str] = []
    playing: str | None = None
    for frame in received:
        if isinstance(frame, bytes):
            assert playing is not None, "audio outside of a speech"
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
    """Report playback as finished all the time, so that the server never waits for playback before the next request."""

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
