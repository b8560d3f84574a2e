"""Frames written onto daphne's transport: their bytes, their order, and what is buffered for a slow device."""

import asyncio
from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs
from twisted.internet.abstract import FileDescriptor

from tests.tts.devices.wire import Wire, open_wire
from tests.waiting import eventually
from tts.devices import daphne_fast_path
from tts.devices.daphne_fast_path import CLOSE_TIMEOUT_S, MAX_FRAMES_PER_S, MAX_UNREAD_BYTES, MAX_WAITING_FRAMES

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
async def test_buffered_bytes_are_those_that_the_transport_has_not_written(
    wire: Wire, buffer: bytes, offset: int, more: list[bytes], held: int
):
    wire.transport.dataBuffer, wire.transport.offset = buffer, offset
    wire.transport.writeSequence(more)
    assert wire.device_transport().buffered_bytes() == held


async def test_a_slow_device_has_time_to_answer_a_close(wire: Wire):
    wire.device_transport()
    assert wire.protocol.closeHandshakeTimeout == CLOSE_TIMEOUT_S


async def test_a_closed_connection_does_not_refer_to_itself(wire: Wire):
    wire.device_transport()
    wire.protocol.is_closed.callback(wire.protocol)  # as autobahn does
    assert wire.protocol.is_closed.result is None


# Pings


async def test_the_pings_of_daphne_are_replaced(wire: Wire):
    wire.device_transport()
    wire.protocol._sendAutoPing()
    assert (wire.read(), wire.protocol.pings) == (b"", [])


async def test_a_ping_is_sent_in_front_of_audio(wire: Wire):
    """RFC 6455, 5.5.2. Its place in the stream counts, so it is not sent through autobahn."""
    transport = wire.device_transport()
    await transport.send(b"\1", audio_s=4.0)
    await transport.send(b"\2", audio_s=4.0)
    assert wire.read() == b"\x82\x01\1" + b"\x82\x01\2"
    await transport.send({}, b"\3", audio_s=4.0)
    assert wire.read() == b"\x89\x08" + (1).to_bytes(8) + b"\x81\x02{}" + b"\x82\x01\3"


async def test_an_idle_device_is_pinged_and_dropped_when_it_answers_nothing(wire: Wire):
    wire.protocol.server.ping_interval, wire.protocol.autoPingTimeout = 0.05, 0.1
    wire.device_transport()
    await eventually(lambda: wire.protocol.pings)
    with capture_logs() as logs:
        await eventually(lambda: wire.protocol.is_dropped)
    assert [entry["event"] for entry in logs] == ["connection.timed_out"]


async def test_an_idle_device_that_answers_stays_connected(wire: Wire):
    wire.protocol.server.ping_interval, wire.protocol.autoPingTimeout = 0.02, 2.0
    wire.device_transport()
    for number in range(1, 11):
        await eventually(lambda count=number: len(wire.protocol.pings) >= count)
        wire.protocol.onPong(wire.protocol.pings[-1])
    assert not wire.protocol.is_dropped


async def test_a_device_is_not_dropped_while_the_server_does_not_read_from_it(wire: Wire):
    wire.protocol.server.ping_interval, wire.protocol.autoPingTimeout = 0.05, 0.1
    transport = wire.device_transport()
    for _ in range(MAX_WAITING_FRAMES):
        wire.protocol.onMessage(b"{}", is_binary=False)
    await eventually(lambda: len(wire.protocol.pings) >= 10 or wire.protocol.is_dropped)
    assert not wire.protocol.is_dropped
    while not wire.protocol.application_queue.empty():
        wire.protocol.application_queue.get_nowait()
    transport.read_on()
    await eventually(lambda: wire.protocol.is_dropped)


async def test_without_a_timeout_a_device_that_answers_nothing_stays_connected(wire: Wire):
    wire.protocol.server.ping_interval, wire.protocol.autoPingTimeout = 0.01, 0
    wire.device_transport()
    await eventually(lambda: len(wire.protocol.pings) >= 10)
    assert not wire.protocol.is_dropped


async def test_an_interval_of_zero_is_that_of_the_checks_of_daphne(wire: Wire):
    wire.protocol.server.ping_interval = 0
    wire.device_transport()
    await asyncio.sleep(0.05)
    assert wire.protocol.pings == []


async def test_a_disconnected_device_is_pinged_no_more(wire: Wire):
    wire.protocol.server.ping_interval = 0.01
    wire.device_transport().stop_sending()
    await asyncio.sleep(0.05)
    assert wire.protocol.pings == []


# Floods


@pytest.mark.parametrize("flood", ["replies", "pongs"])
async def test_a_device_with_too_many_unread_replies_is_dropped(wire: Wire, flood: str):
    transport = wire.device_transport()
    await transport.send(bytes(MAX_UNREAD_BYTES))
    await transport.send(bytes(MAX_UNREAD_BYTES))
    buffered = transport.buffered_bytes()
    with capture_logs() as logs:
        for _ in range(3):
            await transport.send({"type": "pong"}) if flood == "replies" else wire.protocol.onPing(b"")
    assert wire.protocol.is_dropped
    assert transport.buffered_bytes() == buffered
    assert wire.protocol.pongs == []
    assert [entry["event"] for entry in logs] == ["connection.unread_limit_reached"]


async def test_a_ping_of_a_device_that_reads_is_answered(wire: Wire):
    wire.device_transport()
    wire.protocol.onPing(b"1")
    assert wire.protocol.pongs == [b"1"]


async def test_a_device_is_read_no_further_while_its_frames_wait(wire: Wire):
    transport = wire.device_transport()
    wire.transport.startReading()
    for _ in range(MAX_WAITING_FRAMES):
        assert wire.reactor.readers
        wire.protocol.onMessage(b"{}", is_binary=False)
    assert not wire.reactor.readers
    while not wire.protocol.application_queue.empty():
        wire.protocol.application_queue.get_nowait()
        assert not wire.reactor.readers
        transport.read_on()
    assert wire.reactor.readers


async def test_a_device_that_sends_too_many_frames_is_read_on_a_second_later(wire: Wire):
    wire.device_transport()
    wire.transport.startReading()
    for _ in range(MAX_FRAMES_PER_S + 1):
        wire.protocol.onPong(b"")
    assert not wire.reactor.readers
    await eventually(lambda: wire.reactor.readers)


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
