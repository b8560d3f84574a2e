"""A device's connection as daphne has it: Twisted's own transport over a real pair of sockets, without its reactor."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.tcp import Connection

from tts.devices.transport import DeviceTransport


class Reactor:
    """Only remembers who wants to write; `Line.write_on` is its next turn."""

    def __init__(self) -> None:
        self.writers: set[Any] = set()
        self.addWriter = self.writers.add
        self.removeWriter = self.writers.discard

    def removeReader(self, reader: Any) -> None:  # noqa: N802 - Twisted's name
        """Nothing is read here."""


class Protocol:
    """What the server's side of a WebSocket tells of itself."""

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
        """The device's end, made as the consumer makes it."""
        return DeviceTransport(partial(self._send, self.protocol))

    def write_on(self) -> None:
        """The loop's next turn."""
        for writer in list(self.reactor.writers):
            writer.doWrite()

    def read(self) -> bytes:
        """All that has arrived."""
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
