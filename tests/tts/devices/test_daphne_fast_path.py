"""Frames written onto daphne's transport: their bytes, their order, and what is buffered for a slow device."""

from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs
from twisted.internet.abstract import FileDescriptor

from tests.tts.devices.wire import Wire, open_wire
from tts.devices import daphne_fast_path
from tts.devices.daphne_fast_path import CLOSE_TIMEOUT_S

MUCH = bytes(1 << 20)  # more than a socket accepts in one write


@pytest.fixture
def wire() -> Iterator[Wire]:
    with open_wire() as opened:
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
async def test_audio_is_one_binary_frame_with_the_shortest_length(wire: Wire, frame: bytes, begins: bytes):
    """RFC 6455, 5.2 and the examples of 5.7."""
    await wire.device_transport().send(frame)
    assert wire.read() == begins + frame


async def test_an_object_is_a_text_frame_in_utf_8(wire: Wire):
    await wire.device_transport().send({"voice": "Åsa"})
    assert wire.read() == b"\x81\x10" + '{"voice":"Åsa"}'.encode()


async def test_frames_that_are_sent_together_leave_immediately_and_in_order(wire: Wire):
    await wire.device_transport().send({}, b"\1", b"\2")
    assert wire.read() == b"\x81\x02{}" + b"\x82\x01\1" + b"\x82\x01\2"
    assert not wire.reactor.writers
    assert not wire.asgi_messages


async def test_unread_frames_are_buffered_and_leave_later_in_order(wire: Wire):
    transport = wire.device_transport()
    await transport.send(MUCH)
    await transport.send({})
    sent = b"\x82\x7f" + len(MUCH).to_bytes(8) + MUCH + b"\x81\x02{}"
    arrived = wire.read()
    assert 0 < len(arrived) == len(sent) - transport.buffered_bytes()
    while transport.buffered_bytes():
        wire.run_writers()
        arrived += wire.read()
    assert arrived == sent


async def test_data_that_the_server_wrote_earlier_leaves_first(wire: Wire):
    wire.transport.write(b"its own")
    await wire.device_transport().send({})
    assert wire.read() == b""
    wire.run_writers()
    assert wire.read() == b"its own\x81\x02{}"


async def test_the_transport_detects_a_lost_connection(wire: Wire):
    wire.far.close()
    await wire.device_transport().send(b"\1")
    assert wire.reactor.writers == {wire.transport}
    assert isinstance(wire.transport.doWrite(), Exception)


async def test_frames_after_a_close_frame_go_through_the_server(wire: Wire):
    """No frame may follow a close frame (RFC 6455, 5.5.1). daphne drops it."""
    wire.protocol.state = wire.protocol.STATE_CLOSING
    await wire.device_transport().send({}, b"\1")
    assert wire.read() == b""
    assert wire.asgi_messages == [{"type": "websocket.send", "text": "{}"}, {"type": "websocket.send", "bytes": b"\1"}]


async def test_frames_for_a_disconnecting_transport_go_through_the_server(wire: Wire):
    wire.transport.disconnecting = True
    await wire.device_transport().send(b"\1")
    assert (wire.read(), len(wire.asgi_messages)) == (b"", 1)


@pytest.mark.parametrize(
    ("buffer", "offset", "more", "held"), [(b"", 0, [], 0), (b"12345", 2, [], 3), (b"12345", 5, [b"1234567"], 7)]
)
def test_buffered_bytes_are_those_that_the_transport_has_not_written(
    wire: Wire, buffer: bytes, offset: int, more: list[bytes], held: int
):
    wire.transport.dataBuffer, wire.transport.offset = buffer, offset
    wire.transport.writeSequence(more)
    assert wire.device_transport().buffered_bytes() == held


def test_a_slow_device_has_time_to_answer_a_close(wire: Wire):
    wire.device_transport()
    assert wire.protocol.closeHandshakeTimeout == CLOSE_TIMEOUT_S


async def test_without_direct_writes_frames_go_through_the_server(wire: Wire, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(daphne_fast_path, "DIRECT_WRITE", False)
    transport = wire.device_transport()
    await transport.send({}, b"\1")
    assert (wire.read(), len(wire.asgi_messages)) == (b"", 2)
    wire.transport.write(MUCH)
    assert transport.buffered_bytes() == len(MUCH)


def test_the_installed_versions_have_all_attributes():
    with capture_logs() as logs:
        daphne_fast_path.check()
    assert logs == []


async def test_a_missing_attribute_is_logged_and_frames_go_through_the_server(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delattr(FileDescriptor, "dataBuffer")
    with capture_logs() as logs:
        daphne_fast_path.check()
    assert logs == [{"event": "backpressure.unavailable", "log_level": "error", "missing": ["dataBuffer"]}]
    transport = wire.device_transport()
    await transport.send({}, b"\1")
    assert (transport.buffered_bytes(), len(wire.asgi_messages)) == (0, 2)
