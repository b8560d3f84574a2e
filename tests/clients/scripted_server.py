"""A WebSocket server that follows the script of a test, for tests of device clients."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import WSMsgType, web
from aiohttp.test_utils import TestServer

STARTED = {
    "type": "conversation.started",
    "conversation": "c0",
    "companion": "Clara",
    "format": "mp3_44100_128",
    "voice": {"id": "v0", "name": "Rachel", "source": "default"},
    "initiated": "device",
}

UNKNOWN_TOKEN = {"code": "unknown_token", "message": "No device has this token."}


@dataclass
class ServerConnection:
    """The server's end of one connection. The script gets it."""

    socket: web.WebSocketResponse
    received: list[Any] = field(default_factory=list)

    async def expect(self, kind: str) -> dict[str, Any]:
        """Return the next frame of the client. It must have this type."""
        message = await self.socket.receive()
        assert message.type is WSMsgType.TEXT, message
        frame: dict[str, Any] = message.json()
        self.received.append(frame)
        assert frame["type"] == kind, frame
        return frame

    async def send(self, *frames: dict[str, Any] | bytes) -> None:
        for frame in frames:
            if isinstance(frame, bytes):
                await self.socket.send_bytes(frame)
            else:
                await self.socket.send_json(frame)

    async def start(self) -> None:
        await self.expect("conversation.start")
        await self.send(STARTED)

    async def end(self) -> None:
        await self.expect("conversation.end")
        await self.send({"type": "conversation.ended", "conversation": "c0", "characters": 7})

    async def speak(self, id: str, *chunks: bytes, **finished: Any) -> None:
        """Send one speech from `speech.started` to `speech.finished`."""
        await self.send(started(id), *chunks, finish(id, sum(map(len, chunks)), **finished))


def started(id: str) -> dict[str, Any]:
    return {"type": "speech.started", "id": id, "source": "live", "voice": "Rachel", "format": "mp3_44100_128"}


def finish(id: str, size: int = 0, **fields: Any) -> dict[str, Any]:
    frame = {"type": "speech.finished", "id": id, "source": "live", "characters": 7, "bytes": size}
    return {**frame, "first_chunk_ms": 1.5, **fields}


Script = Callable[[ServerConnection], Awaitable[None]]


@asynccontextmanager
async def serving(script: Script, token: str = "secret") -> AsyncIterator[str]:
    """Yield the URL of a server that runs the script for each connection with this token."""

    async def handle(request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {token}":
            return web.json_response(UNKNOWN_TOKEN, status=403)
        socket = web.WebSocketResponse(protocols=("voicecare.v1",))
        await socket.prepare(request)
        await script(ServerConnection(socket))
        return socket

    app = web.Application()
    app.router.add_get("/ws/device/", handle)
    async with TestServer(app) as server:
        yield str(server.make_url("/ws/device/")).replace("http://", "ws://")
