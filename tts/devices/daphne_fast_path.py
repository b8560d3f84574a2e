"""Access to daphne's connection below ASGI. No other module knows the internals of daphne, autobahn and Twisted.

`DaphneConnection` bounds the memory of a stuck device. daphne takes every frame immediately and keeps what the device
does not read, without a limit (https://github.com/django/daphne/issues/170). ASGI does not say how much that is, so it
is read from Twisted's transport.

`DirectFrameWriter` is optional. It writes WebSocket frames onto the transport. A frame that goes through daphne passes
autobahn, which formats log texts that nothing reads, and leaves one event-loop iteration later. The direct write saves
17 to 18 % of the processor time of a stream (docs/performance.md). `DIRECT_WRITE` turns it off, for measurements.

Both rely on these attributes, which are not public:

    daphne      the ASGI `send` is `functools.partial(handle_reply, protocol)`
    autobahn    `is_closed`, `closeHandshakeTimeout`, `state` and `STATE_OPEN` of the protocol
    Twisted     `dataBuffer`, `offset`, `_tempDataLen`, `disconnecting` and `writeSomeData` of the transport

`check` reports at process start if one of them is missing. Then, for TLS and for other servers, frames take the plain
way through ASGI, and buffered bytes are not known.
"""

import asyncio
import struct
from collections.abc import Iterable
from typing import Any, Self

import structlog
from autobahn.twisted.websocket import WebSocketServerProtocol
from twisted.internet.abstract import FileDescriptor
from twisted.internet.tcp import Connection

CLOSE_TIMEOUT_S = 10  # daphne's default of one second cuts off what a slow link still has to carry
DIRECT_WRITE = True

_PROTOCOL_ATTRIBUTES = ("transport", "is_closed", "STATE_OPEN")
_TRANSPORT_ATTRIBUTES = ("dataBuffer", "offset", "_tempDataLen", "disconnecting", "writeSomeData")
_CONNECTION_ATTRIBUTES = ("abortConnection",)

log = structlog.get_logger(__name__)


def check() -> None:
    """Log `backpressure.unavailable` if the installed versions lack an attribute. To be called at process start."""
    no_reactor: Any = object()  # without it Twisted would install its default reactor
    missing = [
        *_missing(WebSocketServerProtocol(), _PROTOCOL_ATTRIBUTES),
        *_missing(FileDescriptor(no_reactor), _TRANSPORT_ATTRIBUTES),
        *_missing(Connection, _CONNECTION_ATTRIBUTES),
    ]
    if missing:
        log.error("backpressure.unavailable", missing=missing)


def _missing(thing: object, names: Iterable[str]) -> list[str]:
    return [name for name in names if not hasattr(thing, name)]


class DaphneConnection:
    """What daphne has not yet sent to one device, and the end of its TCP connection."""

    def __init__(self, protocol: Any, transport: Any) -> None:  # noqa: ANN401 - autobahn and Twisted have no types
        self.writer = DirectFrameWriter(protocol, transport) if DIRECT_WRITE else None
        self._transport = transport
        protocol.closeHandshakeTimeout = CLOSE_TIMEOUT_S
        protocol.is_closed.addCallback(self._abort_later)

    @classmethod
    def find(cls, send: object) -> Self | None:
        """Return the connection behind an ASGI `send`. Return None if the server is not daphne, and for TLS."""
        protocol = next(iter(getattr(send, "args", ())), None)
        transport = getattr(protocol, "transport", None)
        if not isinstance(transport, FileDescriptor):  # TLS puts another transport in between
            return None
        names = (*_TRANSPORT_ATTRIBUTES, *_CONNECTION_ATTRIBUTES)
        if _missing(protocol, _PROTOCOL_ATTRIBUTES) or _missing(transport, names):
            return None
        return cls(protocol, transport)

    def buffered_bytes(self) -> int:
        """Bytes that the system has not yet taken from this process."""
        transport = self._transport
        return int(len(transport.dataBuffer) - transport.offset + transport._tempDataLen)

    def _abort_later(self, closed: Any) -> Any:  # noqa: ANN401
        """After the closing handshake, give the device CLOSE_TIMEOUT_S to read what is buffered. Then abort.

        Otherwise a device that closes but never reads would hold its speech and its provider slot for as long as it
        keeps its socket open, because a closed WebSocket is sent no more pings.
        """
        asyncio.get_running_loop().call_later(CLOSE_TIMEOUT_S, self._transport.abortConnection)
        return closed


class DirectFrameWriter:
    """Writes frames onto the transport, so that the first audio leaves in the turn of the loop in which it came."""

    def __init__(self, protocol: Any, transport: Any) -> None:  # noqa: ANN401
        self._protocol = protocol
        self._transport = transport

    @property
    def is_open(self) -> bool:
        """Whether neither side has begun to close the WebSocket or the connection. Frames may only be written then."""
        return self._protocol.state == self._protocol.STATE_OPEN and not self._transport.disconnecting

    def write(self, payloads: Iterable[str | bytes]) -> None:
        """Write text and binary frames, in order. What the system does not take now leaves later."""
        data = b"".join(map(_encode_frame, payloads))
        transport = self._transport
        if not (transport.dataBuffer or transport._tempDataLen):
            taken = transport.writeSomeData(data)
            if isinstance(taken, int):  # otherwise the connection is lost, which the transport finds out itself
                data = data[taken:]
        if data:
            transport.write(data)


def _encode_frame(payload: str | bytes) -> bytes:
    """Return one unmasked WebSocket frame (RFC 6455, 5.2)."""
    first, content = (0x82, payload) if isinstance(payload, bytes) else (0x81, payload.encode())
    size = len(content)
    if size < 126:
        return bytes((first, size)) + content
    if size < 1 << 16:
        return struct.pack("!BBH", first, 126, size) + content
    return struct.pack("!BBQ", first, 127, size) + content
