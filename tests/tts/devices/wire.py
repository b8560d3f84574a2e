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
    """Remembers the transports that want to write. `Line.write_on` runs them."""

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


class Line:
    def __init__(self, near: socket.socket, far: socket.socket) -> None:
        near.setblocking(False)
        far.setblocking(False)
        self.far = far
        self.reactor = Reactor()
        self.protocol = Protocol()
        self.transport = self.protocol.transport = Connection(near, self.protocol, self.reactor)
        self.transport.connected = True
        self.through_server: list[dict[str, Any]] = []

    async def _send(self, protocol: Protocol, message: dict[str, Any]) -> None:
        self.through_server.append(message)

    def socket(self) -> DeviceTransport:
        """Return the transport of the device, made as in production."""
        return DeviceTransport(partial(self._send, self.protocol))

    def write_on(self) -> None:
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
def line() -> Iterator[Line]:
    near, far = socket.socketpair()
    with near, far:
        yield Line(near, far)
