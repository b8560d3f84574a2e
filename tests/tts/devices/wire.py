"""A device connection as daphne has it: Twisted's transport over a real pair of sockets, without a reactor."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.tcp import Connection

from tts.devices.transport import DeviceTransport


class Reactor:
    """Remembers the transports that want to write. `Wire.run_writers` runs them."""

    def __init__(self) -> None:
        self.writers: set[Any] = set()
        self.addWriter = self.writers.add
        self.removeWriter = self.writers.discard

        self.readers: set[Any] = set()
        self.addReader = self.readers.add
        self.removeReader = self.readers.discard


class Protocol:
    """The attributes of daphne's and autobahn's protocol that the fast path uses."""

    STATE_CLOSING, STATE_OPEN = 2, 3

    def __init__(self) -> None:
        self.state = self.STATE_OPEN
        self.transport: Any = None
        self.closeHandshakeTimeout = 1
        self.autoPingTimeout = 30
        self.server = SimpleNamespace(ping_interval=20)
        self.is_closed: Deferred[Any] = Deferred()
        self.application_queue: asyncio.Queue[Any] = asyncio.Queue()
        self.pings: list[bytes] = []
        self.pongs: list[bytes] = []
        self.is_dropped = False
        self.sendPing, self.sendPong = self.pings.append, self.pongs.append
        self._sendAutoPing = None

    def onMessage(self, payload: bytes, is_binary: bool) -> None:  # noqa: N802 - autobahn's
        self.application_queue.put_nowait(payload)

    def onPing(self, payload: bytes) -> None:  # noqa: N802 - autobahn's
        raise NotImplementedError

    def onPong(self, payload: bytes) -> None:  # noqa: N802 - autobahn's
        raise NotImplementedError

    def dropConnection(self, *, abort: bool) -> None:  # noqa: N802 - autobahn's
        assert abort
        self.is_dropped = True


class Wire:
    def __init__(self, near: socket.socket, far: socket.socket) -> None:
        near.setblocking(False)
        far.setblocking(False)
        self.far = far
        self.reactor = Reactor()
        self.protocol = Protocol()
        self.transport = self.protocol.transport = Connection(near, self.protocol, self.reactor)
        self.transport.connected = True
        self.asgi_messages: list[dict[str, Any]] = []

    async def _send(self, protocol: Protocol, message: dict[str, Any]) -> None:
        self.asgi_messages.append(message)

    def device_transport(self) -> DeviceTransport:
        """Return the transport of the device, made as in production."""
        return DeviceTransport(partial(self._send, self.protocol))

    def run_writers(self) -> None:
        """Run one turn of the event loop."""
        for writer in list(self.reactor.writers):
            writer.doWrite()

    def read(self) -> bytes:
        """Return all bytes that have arrived."""
        arrived = b""
        while True:
            try:
                arrived += self.far.recv(1 << 20)
            except BlockingIOError:
                return arrived


@contextmanager
def open_wire() -> Iterator[Wire]:
    near, far = socket.socketpair()
    with near, far:
        yield Wire(near, far)
