"""Access to daphne's connection below ASGI. No other module knows the internals of daphne, autobahn and Twisted.

`close_reasons` uses public methods of autobahn only.

`DaphneConnection` protects the process and other devices from one device:

- It says how many bytes the device has not read. daphne takes every frame immediately and keeps what the device does
  not read, without a limit (https://github.com/django/daphne/issues/170). ASGI does not say how much that is.
- It stops reading while frames of the device wait to be handled, or when too many have come within a second.
- It sends the pings instead of daphne. daphne sends a ping every `--ping-interval` seconds and then forgets the ping
  before, so that a device has only the interval for its answer, and not `--ping-timeout`. daphne also counts the time
  that a device needs to play the audio in front of a ping. So daphne disconnects devices that play while they read.
  Here, the two options keep their documented meaning (`tts.protocol.heartbeat`).

`DaphneResponse` says how many bytes the client of an HTTP response has not read.

`DirectFrameWriter` is optional. It writes WebSocket frames directly onto the transport. A frame that goes through
daphne passes autobahn, which formats log texts that nothing reads, and leaves one event-loop iteration later. The
direct write saves 17 to 18 % of the processor time of a stream (docs/performance.md). `DIRECT_WRITE` turns it off, for
measurements.

These classes rely on the following attributes, some of which are not public:

    daphne      the ASGI `send` is `functools.partial(handle_reply, protocol)`; `server` and `application_queue` of the
                protocol
    autobahn    `is_closed`, `closeHandshakeTimeout`, `autoPingTimeout`, `state`, `STATE_OPEN` and `_sendAutoPing` of
                the protocol. Public methods: `onMessage`, `onPing`, `onPong`, `sendPing`, `sendPong`, `dropConnection`
    Twisted     `dataBuffer`, `offset`, `_tempDataLen`, `disconnecting` and `writeSomeData` of the transport. Public:
                `bufferSize`, `pauseProducing`, `resumeProducing`, `abortConnection`

`check` reports at process start if one of them is missing. In that case, with TLS and with other servers, frames and
pings take the usual way through ASGI, and the number of buffered bytes is not known.
"""

import asyncio
import math
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import structlog
from autobahn.twisted.websocket import WebSocketServerProtocol
from twisted.internet.abstract import FileDescriptor
from twisted.internet.tcp import Connection

from tts.protocol.heartbeat import Heartbeat

CLOSE_TIMEOUT_S = 10  # daphne's default of one second cuts off what a slow link still has to carry
DAPHNE_CHECK_S = 2  # how often daphne sends pings with `--ping-interval 0`; a `--ping-timeout` of 0 stands for none
DIRECT_WRITE = True
MAX_UNREAD_BYTES = 1024 * 1024
READ_BYTES = 4 * 1024  # at a time: a read of 64 KiB may have 10,000 frames, which would hold up all other devices
MAX_WAITING_FRAMES = 16  # of the device, not handled yet
MAX_FRAMES_PER_S = 1000  # about a twentieth of the loop's time

_PROTOCOL_ATTRIBUTES = (
    *("transport", "is_closed", "STATE_OPEN", "_sendAutoPing", "dropConnection"),
    *("onMessage", "onPing", "onPong", "sendPing", "sendPong"),
)
_DAPHNE_ATTRIBUTES = ("server", "application_queue", "autoPingTimeout")  # set when a connection is made
_TRANSPORT_ATTRIBUTES = ("dataBuffer", "offset", "_tempDataLen", "disconnecting", "writeSomeData", "bufferSize")
_CONNECTION_ATTRIBUTES = ("abortConnection", "pauseProducing", "resumeProducing")

log = structlog.get_logger(__name__)


def check() -> None:
    """Log `backpressure.unavailable` if the installed libraries lack a needed attribute. Call it at process start."""
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
    """The TCP connection of one device: its unread bytes, its pings, the rate of its frames, and its end."""

    def __init__(self, protocol: Any, transport: Any) -> None:  # noqa: ANN401 - autobahn and Twisted have no types
        self._writer = DirectFrameWriter(transport) if DIRECT_WRITE else None
        self._protocol = protocol
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        interval_s = protocol.server.ping_interval if protocol.server.ping_interval > 0 else DAPHNE_CHECK_S
        self._heartbeat = Heartbeat(interval_s, protocol.autoPingTimeout or math.inf, self._loop.time())
        self._second_began_at = self._loop.time()
        self._frames_in_second = 0
        self._is_paused = self._is_over_rate = self._is_dropped = False
        protocol._sendAutoPing = lambda: None  # the heartbeat sends the pings instead
        protocol.closeHandshakeTimeout = CLOSE_TIMEOUT_S
        protocol.is_closed.addCallback(self._abort_later)
        self._pass_message_on = protocol.onMessage
        protocol.onMessage, protocol.onPing, protocol.onPong = self._on_message, self._on_ping, self._on_pong
        transport.bufferSize = READ_BYTES
        self._timer = self._loop.call_at(self._heartbeat.next_check_at(), self._check_heartbeat)

    @classmethod
    def find(cls, send: object) -> Self | None:
        """Return the connection behind an ASGI `send`. Return None if the server is not daphne, or with TLS."""
        protocol = next(iter(getattr(send, "args", ())), None)
        transport = getattr(protocol, "transport", None)
        if not isinstance(transport, FileDescriptor):  # TLS puts another transport in between
            return None
        missing = [
            *_missing(protocol, (*_PROTOCOL_ATTRIBUTES, *_DAPHNE_ATTRIBUTES)),
            *_missing(transport, (*_TRANSPORT_ATTRIBUTES, *_CONNECTION_ATTRIBUTES)),
        ]
        if missing:
            log.error("backpressure.unavailable", missing=missing)
            return None
        return cls(protocol, transport)

    def buffered_bytes(self) -> int:
        """The number of bytes that wait in this process for the socket buffer of the operating system."""
        return _buffered_bytes(self._transport)

    def write(self, payloads: Sequence[str | bytes], audio_s: float) -> bool:
        """Write text and binary frames directly, in order. Return False if the caller has to send them through daphne.

        `audio_s` is the playing time of the audio in the frames, in seconds. A ping may be written in front of that
        audio. If the device has more than MAX_UNREAD_BYTES unread, its connection is dropped. It gets no close frame,
        because it would not read that either.
        """
        if not self._is_open:
            return False
        if not self._has_room():
            return True
        now = self._loop.time()
        pings = [self._heartbeat.next_ping(now)] if audio_s and self._heartbeat.is_ping_due_before_audio(now) else []
        self._heartbeat.record_audio(audio_s)
        if self._writer is not None:
            self._writer.write([*map(Ping, pings), *payloads] if pings else payloads)
            return True
        for ping in pings:
            self._protocol.sendPing(ping)
        return False

    def stop(self) -> None:
        """Stop sending pings, and remove the references from daphne's protocol to this object.

        Call this method when the device has disconnected. Otherwise both objects, and the bytes that the device has not
        read, stay in memory until the garbage collector finds the reference cycle.
        """
        self._timer.cancel()
        del self._protocol.onMessage, self._protocol.onPing, self._protocol.onPong

    @property
    def _is_open(self) -> bool:
        """Whether neither side has begun to close the WebSocket or the connection. Frames may only be written then."""
        is_open = self._protocol.state == self._protocol.STATE_OPEN
        return is_open and not (self._transport.disconnecting or self._is_dropped)

    def _has_room(self) -> bool:
        if self.buffered_bytes() <= MAX_UNREAD_BYTES:
            return True
        self._drop("connection.unread_limit_reached")
        return False

    def _check_heartbeat(self) -> None:
        now = self._loop.time()
        if not self._is_open:
            return  # a connection that closes has time limits of its own
        if self._is_paused:  # the answers of the device are not read
            self._heartbeat.record_frame(now)
        if self._heartbeat.is_gone(now):
            self._drop("connection.timed_out")
            return
        if self._heartbeat.is_ping_due(now):
            self._protocol.sendPing(self._heartbeat.next_ping(now))
        self._timer = self._loop.call_at(self._heartbeat.next_check_at(), self._check_heartbeat)

    # Frames of the device

    def _on_message(self, payload: bytes, is_binary: bool) -> None:
        self._on_frame()
        self._pass_message_on(payload, is_binary)
        if self._protocol.application_queue.qsize() >= MAX_WAITING_FRAMES:
            self._pause()

    def _on_ping(self, payload: bytes) -> None:
        self._on_frame()
        if self._is_open and self._has_room():
            self._protocol.sendPong(payload)

    def _on_pong(self, payload: bytes) -> None:
        self._on_frame()
        self._heartbeat.record_pong(payload, self._loop.time())

    def _on_frame(self) -> None:
        now = self._loop.time()
        self._heartbeat.record_frame(now)
        if now - self._second_began_at >= 1:
            self._second_began_at, self._frames_in_second = now, 0
        self._frames_in_second += 1
        if self._frames_in_second > MAX_FRAMES_PER_S and not self._is_over_rate:
            self._is_over_rate = True
            self._pause()
            self._loop.call_at(self._second_began_at + 1, self._end_second)

    def _pause(self) -> None:
        self._is_paused = True
        self._transport.pauseProducing()

    def _end_second(self) -> None:
        self._is_over_rate = False
        self.read_on()

    def read_on(self) -> None:
        """Read from the device again, if reading has paused and all of its frames are handled.

        Call it after each frame.
        """
        if self._is_paused and not self._is_over_rate and not self._protocol.application_queue.qsize():
            self._is_paused = False
            self._heartbeat.record_frame(self._loop.time())  # its answers have been waiting to be read
            self._transport.resumeProducing()

    # The end

    def _drop(self, event: str) -> None:
        log.info(event)
        self._is_dropped = True
        self._protocol.dropConnection(abort=True)

    def _abort_later(self, _closed: object) -> None:
        """After the closing handshake, give the device CLOSE_TIMEOUT_S to read the buffered bytes.

        Then abort the connection. Otherwise a device that closes but never reads would hold its speech for as long as
        it keeps its socket open, because no more pings are sent on a closed WebSocket.

        Returns None as the new result of autobahn's `is_closed`. Its former result is the protocol itself: a reference
        cycle, which would keep the whole connection in memory until a full garbage collection.
        """
        self._loop.call_later(CLOSE_TIMEOUT_S, self._transport.abortConnection)


@dataclass(frozen=True, slots=True)
class Ping:
    """A ping frame. `payload` has at most 125 bytes."""

    payload: bytes


class DaphneResponse:
    """The TCP connection of one HTTP response: its unsent bytes, and its end."""

    def __init__(self, transport: Any) -> None:  # noqa: ANN401
        self._transport = transport

    @classmethod
    def find(cls, send: object) -> Self | None:
        """Return the connection behind an ASGI `send`. Return None if the server is not daphne, or with TLS."""
        transport = getattr(next(iter(getattr(send, "args", ())), None), "transport", None)
        names = (*_TRANSPORT_ATTRIBUTES, *_CONNECTION_ATTRIBUTES)
        return None if not isinstance(transport, FileDescriptor) or _missing(transport, names) else cls(transport)

    def buffered_bytes(self) -> int:
        """The number of bytes that wait in this process for the operating system. 0 after the connection was lost."""
        return 0 if self._transport.disconnected else _buffered_bytes(self._transport)

    def abort(self) -> None:
        """Close the connection and drop the buffered bytes. So the client sees that the response is not complete."""
        self._transport.abortConnection()


def _buffered_bytes(transport: Any) -> int:  # noqa: ANN401
    return int(len(transport.dataBuffer) - transport.offset + transport._tempDataLen)


class DirectFrameWriter:
    """Writes WebSocket frames directly onto the transport.

    So audio leaves the process in the same iteration of the event loop in which it arrived.
    """

    def __init__(self, transport: Any) -> None:  # noqa: ANN401
        self._transport = transport

    def write(self, payloads: Iterable[str | bytes | Ping]) -> None:
        """Write text, binary and ping frames, in order.

        The transport keeps the bytes that the operating system does not take now, and sends them later.
        """
        data = b"".join(map(_encode_frame, payloads))
        transport = self._transport
        if not (transport.dataBuffer or transport._tempDataLen):
            taken = transport.writeSomeData(data)
            if isinstance(taken, int):  # otherwise the connection is lost, which the transport finds out itself
                data = data[taken:]
        if data:
            transport.write(data)


def _encode_frame(payload: str | bytes | Ping) -> bytes:
    """Return one unmasked WebSocket frame (RFC 6455, 5.2)."""
    if isinstance(payload, Ping):
        return bytes((0x89, len(payload.payload))) + payload.payload
    first, content = (0x82, payload) if isinstance(payload, bytes) else (0x81, payload.encode())
    size = len(content)
    if size < 126:
        return bytes((first, size)) + content
    if size < 1 << 16:
        return struct.pack("!BBH", first, 126, size) + content
    return struct.pack("!BBQ", first, 127, size) + content
