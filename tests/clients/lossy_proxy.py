"""A TCP proxy that loses its connections at planned moments, for tests of device clients.

A loss may fall into the middle of a message: a random part of its bytes still arrives.
"""

import asyncio
import random
import re
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal

Moment = Literal["request", "response", "audio", "ack", "any"]
Way = Literal["cut", "reset", "stall", "kill"]

READ_BYTES = 65536
AUDIO_BYTES = 1000  # JSON frames are smaller


@dataclass(frozen=True)
class Loss:
    """`moment` is what passes when the connection is lost: the request or the response of a handshake, audio, an `ack`,
    or anything. Earlier, `after` other pieces have passed in this connection.

    `way` is a close (FIN), a reset (RST), silence, or the death of the server.
    """

    way: Way
    moment: Moment
    after: int = 0

    def is_due(self, piece: bytes, from_device: bool, passed: int) -> bool:
        if passed < self.after:
            return False
        match self.moment:
            case "request":
                return from_device and piece.startswith(b"GET ")
            case "response":
                return not from_device and piece.startswith(b"HTTP/")
            case "audio":
                return not from_device and len(piece) >= AUDIO_BYTES
            case "ack":
                return from_device and "ack" in types_of_frames(piece)
        return True


@dataclass(eq=False)
class _Connection:
    device: asyncio.StreamWriter
    server: asyncio.StreamWriter
    passed: int = 0
    is_stalled: bool = False


@dataclass
class LossyProxy:
    """Loses its connections as `plan` says, in this order. Several proxies may share a plan.

    `upstream` returns the port of the server. `kill` ends the server.
    """

    plan: deque[Loss]
    upstream: Callable[[], int]
    kill: Callable[[], object]
    random: random.Random
    url: str = ""
    happened: list[Loss] = field(default_factory=list)
    open_connections: set["asyncio.Task[None]"] = field(default_factory=set)

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self.open_connections.add(task)
        task.add_done_callback(self.open_connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            answers, server = await asyncio.open_connection("127.0.0.1", self.upstream())
        except OSError:
            writer.transport.abort()
            return
        connection = _Connection(writer, server)
        try:
            async with asyncio.TaskGroup() as copying:
                copying.create_task(self._copy(connection, reader, server, from_device=True))
                copying.create_task(self._copy(connection, answers, writer, from_device=False))
        except* ConnectionError:
            pass
        finally:
            writer.transport.abort()
            server.transport.abort()

    async def _copy(
        self, connection: _Connection, source: asyncio.StreamReader, target: asyncio.StreamWriter, *, from_device: bool
    ) -> None:
        while piece := await self._read(connection, source):
            if connection.is_stalled:
                continue
            loss = self.plan[0] if self.plan else None
            if loss is not None and loss.is_due(piece, from_device, connection.passed):
                self.plan.popleft()
                self.happened.append(loss)
                target.write(piece[: self.random.randrange(len(piece) + 1)])
                await target.drain()
                self._lose(connection, loss.way)
            else:
                connection.passed += 1
                target.write(piece)
                await target.drain()
        if not connection.is_stalled:
            raise ConnectionResetError  # ends the other direction, too

    async def _read(self, connection: _Connection, source: asyncio.StreamReader) -> bytes:
        try:
            return await source.read(READ_BYTES)
        except ConnectionError:
            if connection.is_stalled:
                return b""
            raise

    def _lose(self, connection: _Connection, way: Way) -> None:
        if way == "stall":
            # The server does not hear of it when the device gives up: it has to replace the connection.
            connection.is_stalled = True
        elif way == "reset":
            linger = struct.pack("ii", 1, 0)  # close with RST instead of FIN
            for end in (connection.device, connection.server):
                end.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            raise ConnectionResetError
        elif way == "cut":
            connection.device.close()
            connection.server.close()
        else:
            self.kill()


@asynccontextmanager
async def lossy_proxy(proxy: LossyProxy) -> AsyncIterator[LossyProxy]:
    """Yield the proxy while it listens at `url`."""
    server = await asyncio.start_server(proxy.accept, "127.0.0.1")
    proxy.url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/ws/device/"
    try:
        yield proxy
    finally:
        server.close()
        for connection in proxy.open_connections:
            connection.cancel()
        await asyncio.gather(*proxy.open_connections, return_exceptions=True)


def types_of_frames(piece: bytes) -> list[str]:
    """Return the types of the messages in these bytes of a WebSocket client. The bytes begin with a frame."""
    types = []
    while len(piece) >= 6:
        size, begin = piece[1] & 0x7F, 2
        if size == 126:
            size, begin = int.from_bytes(piece[2:4]), 4
        mask, payload = piece[begin : begin + 4], piece[begin + 4 : begin + 4 + size]
        text = bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))
        if piece[0] & 0x0F == 1:
            types += re.findall(rb'"type": "([a-z.]+)"', text)
        piece = piece[begin + 4 + size :]
    return [type.decode() for type in types]
