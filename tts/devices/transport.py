"""The device's end of a connection: whole frames out, in the order in which they are given."""

import asyncio
import json
import struct
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Self

from autobahn.exception import Disconnected
from twisted.internet.abstract import FileDescriptor

CLOSE_TIMEOUT_S = 10  # for a close to come to its end; daphne's one second cuts off what a slow link still has to carry

Frame = dict[str, Any] | bytes
Send = Callable[[dict[str, Any]], Awaitable[None]]

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class DeviceTransport:
    """`send` is the server's, as a consumer has it."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._is_stopped = False
        self._disconnected = False
        protocol: Any = next(iter(getattr(send, "args", ())), None)
        if hasattr(protocol, "closeHandshakeTimeout"):
            protocol.closeHandshakeTimeout = CLOSE_TIMEOUT_S
        self._wire = Wire.of(protocol)

    def stop_sending(self) -> None:
        """Nobody is there any more: what would be sent is dropped."""
        self._is_stopped = True

    async def send(self, *frames: Frame) -> None:
        """Objects become JSON frames; audio is handed over as it came, one frame for each read. They leave together.

        A device that has closed is told nothing more. daphne says so only when what it holds has left, or been lost.
        """
        if self._is_stopped:
            return
        if self._wire is not None and self._wire.is_open:
            self._wire.write(frames)
            return
        for frame in frames:
            content = {"bytes": frame} if isinstance(frame, bytes) else {"text": _encode(frame)}
            try:
                await self._send({"type": "websocket.send", **content})
            except Disconnected:
                self._disconnected = True
                return

    async def close(self, code: int) -> None:
        await self._send({"type": "websocket.close", "code": code})

    def buffered_bytes(self) -> int:
        """Bytes that were sent and have not left this process, as far as can be known; not 0 where some never will."""
        return self._disconnected + (0 if self._wire is None else self._wire.buffered_bytes())


class Wire:
    """daphne's connection from underneath. Other servers have none: their `send` waits, and costs little.

    daphne takes every frame at once and keeps what the device does not read (django/daphne#170), so how much that is
    must be asked of its transport. And a frame that goes through it passes autobahn, which builds texts for a log that
    nobody reads, and leaves in the loop's next turn, behind whatever else is to be done by then. Written here, the
    first sound of a speech leaves in the turn in which it came.
    """

    def __init__(self, protocol: Any, transport: Any) -> None:  # noqa: ANN401 - autobahn and Twisted have no types
        self._protocol = protocol
        self._transport = transport
        protocol.is_closed.addCallback(self._abort_later)

    @classmethod
    def of(cls, protocol: Any) -> Self | None:  # noqa: ANN401
        """None for what is not daphne's, and for TLS, which encrypts in between."""
        transport = getattr(protocol, "transport", None)
        is_known = isinstance(transport, FileDescriptor) and hasattr(protocol, "is_closed")
        return cls(protocol, transport) if is_known else None

    @property
    def is_open(self) -> bool:
        """Nobody has begun to close it, neither the WebSocket nor the connection."""
        return self._protocol.state == self._protocol.STATE_OPEN and not self._transport.disconnecting

    def write(self, frames: Sequence[Frame]) -> None:
        """To be called while it is open. What the system does not take now leaves later, in order."""
        data = b"".join(map(_framed, frames))
        if not self.buffered_bytes():
            taken = self._transport.writeSomeData(data)
            if isinstance(taken, int):  # else the connection is lost, which the transport finds out for itself
                data = data[taken:]
        if data:
            self._transport.write(data)

    def _abort_later(self, closed: Any) -> Any:  # noqa: ANN401
        """What a device has not read by now it may still read. One that says good-bye and reads nothing would keep its
        speech, and that its slot, for as long as its own socket is open: it is sent no more pings."""
        asyncio.get_running_loop().call_later(CLOSE_TIMEOUT_S, self._transport.abortConnection)
        return closed

    def buffered_bytes(self) -> int:
        transport = self._transport
        return int(len(transport.dataBuffer) - transport.offset + transport._tempDataLen)


def _framed(frame: Frame) -> bytes:
    """One unmasked WebSocket frame (RFC 6455, 5.2)."""
    first, content = (0x82, frame) if isinstance(frame, bytes) else (0x81, _encode(frame).encode())
    size = len(content)
    if size < 126:
        return bytes((first, size)) + content
    if size < 1 << 16:
        return struct.pack("!BBH", first, 126, size) + content
    return struct.pack("!BBQ", first, 127, size) + content
