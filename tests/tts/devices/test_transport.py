"""Frames through any ASGI server, and to a device that has closed."""

import weakref
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from autobahn.exception import Disconnected

from tests.tts.devices.wire import Wire, open_wire
from tts.devices.transport import DeviceTransport
from tts.protocol.messages import CLOSE_REASONS


@pytest.fixture
def wire() -> Iterator[Wire]:
    with open_wire() as opened:
        yield opened


class Elsewhere:
    """The connection of another server, with another kind of transport."""

    transport = object()


async def nowhere(*arguments: Any) -> None:
    pass


@pytest.mark.parametrize(
    "send",
    [nowhere, partial(nowhere), partial(nowhere, object()), partial(nowhere, Elsewhere())],
    ids=["a function", "no protocol", "no transport", "a transport of another make"],
)
def test_the_buffered_bytes_of_another_server_are_not_known(send: Any):
    """Other servers wait in `send`. An unknown buffer size must not stop speech."""
    assert DeviceTransport(send).buffered_bytes() == 0


async def test_another_server_gets_one_message_for_each_frame():
    given: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        given.append(message)

    await DeviceTransport(send).send({"type": "pong"}, b"\1")
    assert given == [
        {"type": "websocket.send", "text": '{"type":"pong"}'},
        {"type": "websocket.send", "bytes": b"\1"},
    ]


async def test_frames_for_a_closed_device_are_dropped_and_count_as_buffered():
    """Dropped frames count as buffered, so that the speech does not count as spoken."""

    async def closed(message: dict[str, Any]) -> None:
        raise Disconnected

    transport = DeviceTransport(closed)
    await transport.send({"type": "pong"}, b"\1")
    assert transport.buffered_bytes()


async def test_a_stopped_transport_sends_nothing(wire: Wire):
    transport = wire.device_transport()
    transport.stop_sending()
    await transport.send({"type": "pong"}, b"\0\0")
    assert (wire.read(), wire.asgi_messages) == (b"", [])


async def test_what_is_unread_is_free_when_the_device_is_disconnected(wire: Wire):
    transport = wire.device_transport()
    await transport.send(bytes(1 << 20))
    unread = weakref.ref(wire.transport)
    del wire.transport.protocol, wire.protocol.is_closed  # as Twisted and autobahn do
    wire.reactor.writers.clear()
    del wire.transport, wire.protocol
    transport.stop_sending()
    assert unread() is None
    assert transport.buffered_bytes()  # it will not arrive, so the speech does not count as spoken


async def test_a_close_goes_through_the_server_with_its_code(wire: Wire):
    await wire.device_transport().close(4003)
    assert wire.asgi_messages == [{"type": "websocket.close", "code": 4003, "reason": CLOSE_REASONS[4003]}]
