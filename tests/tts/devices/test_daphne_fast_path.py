"""Frames written onto daphne's transport: their bytes, their order, and what is buffered for a slow device."""

from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs
from twisted.internet.abstract import FileDescriptor

from tests.tts.devices.wire import Line, line
from tts.devices import daphne_fast_path
from tts.devices.daphne_fast_path import CLOSE_TIMEOUT_S

MUCH = bytes(1 << 20)  # more than a socket accepts in one write


@pytest.fixture
def wire() -> Iterator[Line]:
    with line() as opened:
        yield opened


@pytest.mark.parametrize(
    ("frame", "begins"),
    [
        (b"\1" * 125, b"\x82\x7d"),
        (b"\1" * 126, b"\x82\x7e\x00\x7e"),
        (b"\1" * 256, b"\x82\x7e\x01\x00"),
        (b"\1" * 65535, b"\x82\x7e\xff\xff"),
        (b"\1" * 65536, b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
    ],
)
async def test_audio_is_one_binary_frame_with_the_shortest_length(wire: Line, frame: bytes, begins: bytes):
    """RFC 6455, 5.2 and the examples of 5.7."""
    await wire.socket().send(frame)
    assert wire.read() == begins + frame


async def test_an_object_is_a_text_frame_in_utf_8(wire: Line):
    await wire.socket().send({"voice": "Åsa"})
    assert wire.read() == b"\x81\x10" + '{"voice":"Åsa"}'.encode()


async def test_frames_that_are_sent_together_leave_immediately_and_in_order(wire: Line):
    await wire.socket().send({}, b"\1", b"\2")
    assert wire.read() == b"\x81\x02{}" + b"\x82\x01\1" + b"\x82\x01\2"
    assert not wire.reactor.writers
    assert not wire.through_server


async def test_unread_frames_are_buffered_and_leave_later_in_order(wire: Line):
    socket = wire.socket()
    await socket.send(MUCH)
    await socket.send({})
    sent = b"\x82\x7f" + len(MUCH).to_bytes(8) + MUCH + b"\x81\x02{}"
    arrived = wire.read()
    assert 0 < len(arrived) == len(sent) - socket.buffered_bytes()
    while socket.buffered_bytes():
        wire.write_on()
        arrived += wire.read()
    assert arrived == sent


async def test_data_that_the_server_wrote_earlier_leaves_first(wire: Line):
    wire.transport.write(b"its own")
    await wire.socket().send({})
    assert wire.read() == b""
    wire.write_on()
    assert wire.read() == b"its own\x81\x02{}"


async def test_the_transport_detects_a_lost_connection(wire: Line):
    wire.far.close()
    await wire.socket().send(b"\1")
    assert wire.reactor.writers == {wire.transport}
    assert isinstance(wire.transport.doWrite(), Exception)


async def test_frames_after_a_close_frame_go_through_the_server(wire: Line):
    """No frame may follow a close frame (RFC 6455, 5.5.1). daphne drops it."""
    wire.protocol.state = wire.protocol.STATE_CLOSING
    await wire.socket().send({}, b"\1")
    assert wire.read() == b""
    assert wire.through_server == [{"type": "websocket.send", "text": "{}"}, {"type": "websocket.send", "bytes": b"\1"}]


async def test_frames_for_a_disconnecting_transport_go_through_the_server(wire: Line):
    wire.transport.disconnecting = True
    await wire.socket().send(b"\1")
    assert (wire.read(), len(wire.through_server)) == (b"", 1)


@pytest.mark.parametrize(
    ("buffer", "offset", "more", "held"), [(b"", 0, [], 0), (b"12345", 2, [], 3), (b"12345", 5, [b"1234567"], 7)]
)
def test_buffered_bytes_are_those_that_the_transport_has_not_written(
    wire: Line, buffer: bytes, offset: int, more: list[bytes], held: int
):
    wire.transport.dataBuffer, wire.transport.offset = buffer, offset
    wire.transport.writeSequence(more)
    assert wire.socket().buffered_bytes() == held


def test_a_slow_device_has_time_to_answer_a_close(wire: Line):
    wire.socket()
    assert wire.protocol.closeHandshakeTimeout == CLOSE_TIMEOUT_S


async def test_without_direct_writes_frames_go_through_the_server(wire: Line, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(daphne_fast_path, "DIRECT_WRITE", False)
    socket = wire.socket()
    await socket.send({}, b"\1")
    assert (wire.read(), len(wire.through_server)) == (b"", 2)
    wire.transport.write(MUCH)
    assert socket.buffered_bytes() == len(MUCH)


def test_the_installed_versions_have_all_attributes():
    with capture_logs() as logs:
        daphne_fast_path.check()
    assert logs == []


async def test_a_missing_attribute_is_logged_and_frames_go_through_the_server(
    wire: Line, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delattr(FileDescriptor, "dataBuffer")
    with capture_logs() as logs:
        daphne_fast_path.check()
    assert logs == [{"event": "backpressure.unavailable", "log_level": "error", "missing": ["dataBuffer"]}]
    socket = wire.socket()
    await socket.send({}, b"\1")
    assert (socket.buffered_bytes(), len(wire.through_server)) == (0, 2)
