"""A device connection as daphne has it: Twisted's transport over a real pair of sockets, without a reactor."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
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

    def removeReader(self, reader: Any) -> None:  # noqa: N802 - Twisted's name
        """Does nothing, because the tests read nothing."""


class Protocol:
    """The attributes of autobahn's protocol that the fast path reads."""

    STATE_CLOSING, STATE_OPEN = 2, 3

    def __init__(self) -> None:
        self.state = self.STATE_OPEN
        self.transport: Any = None
        self.closeHandshakeTimeout = 1
        self.is_closed: Deferred[Any] = Deferred()


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
