"""Frames through any ASGI server, and to a device that has closed."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from autobahn.exception import Disconnected

from tests.tts.devices.wire import Line, line
from tts.devices.transport import DeviceTransport


@pytest.fixture
def wire() -> Iterator[Line]:
    with line() as opened:
        yield opened


class Elsewhere:
    """Another server's connection, with a transport of another make."""

    transport = object()


async def nowhere(*arguments: Any) -> None:
    pass


@pytest.mark.parametrize(
    "send",
    [nowhere, partial(nowhere), partial(nowhere, object()), partial(nowhere, Elsewhere())],
    ids=["a function", "no protocol", "no transport", "a transport of another make"],
)
def test_a_server_of_another_make_holds_nothing_that_we_could_know_of(send: Any):
    """Others make `send` wait. What cannot be read must not silence anybody."""
    assert DeviceTransport(send).buffered_bytes() == 0


async def test_a_server_of_another_make_is_given_frame_after_frame():
    given: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        given.append(message)

    await DeviceTransport(send).send({"type": "pong"}, b"\1")
    assert given == [
        {"type": "websocket.send", "text": '{"type":"pong"}'},
        {"type": "websocket.send", "bytes": b"\1"},
    ]


async def test_a_device_that_has_closed_is_told_nothing_more():
    """Until the server says so, what is left for it counts as held: it was not spoken."""

    async def closed(message: dict[str, Any]) -> None:
        raise Disconnected

    socket = DeviceTransport(closed)
    await socket.send({"type": "pong"}, b"\1")
    assert socket.buffered_bytes()


async def test_a_muted_socket_sends_nothing(wire: Line):
    socket = wire.socket()
    socket.stop_sending()
    await socket.send({"type": "pong"}, b"\0\0")
    assert (wire.read(), wire.through_server) == (b"", [])


async def test_a_close_has_its_code_and_is_the_servers(wire: Line):
    await wire.socket().close(4003)
    assert wire.through_server == [{"type": "websocket.close", "code": 4003}]
