"""HTTP responses over daphne's transport: they wait for the client and break off after an error. Over HTTP: e2e."""

import asyncio
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.tts.devices.wire import Wire, open_wire
from voicecare.infrastructure import http_responses
from voicecare.infrastructure.http_responses import MAX_UNSENT_BYTES, serve

START = {"type": "http.response.start", "status": 200}
PART = bytes(64 * 1024)
END = {"type": "http.response.body"}


@pytest.fixture
def wire() -> Iterator[Wire]:
    with open_wire() as opened:
        yield opened


class Response:
    """Serves one response over the wire. The client reads while `is_reading` is set."""

    def __init__(self, wire: Wire, parts: int, error: Exception | None = None) -> None:
        self.wire, self.parts, self.error = wire, parts, error
        self.sent: list[dict[str, Any]] = []
        self.received = 0
        self.aborted = False
        wire.transport.abortConnection = self._abort
        self.task = asyncio.create_task(serve(self._application, {}, self._receive, partial(self._send, wire.protocol)))

    def _abort(self) -> None:
        self.aborted = True
        self.wire.transport.disconnected = True

    async def _receive(self) -> dict[str, Any]:
        return {}

    async def _send(self, protocol: Any, message: dict[str, Any]) -> None:
        self.sent.append(message)
        self.wire.transport.write(message.get("body", b""))

    async def _application(self, scope: Any, receive: Any, send: Any) -> None:
        if self.parts:
            await send(START)
            for _ in range(self.parts):
                await send({"type": "http.response.body", "body": PART, "more_body": True})
        if self.error is not None:
            raise self.error
        await send(END)

    async def read(self) -> None:
        """Read what there is, and let the server write."""
        self.wire.run_writers()
        self.received += len(self.wire.read())
        await asyncio.sleep(0)


async def test_a_client_that_reads_gets_everything_and_the_end_comes_last(wire: Wire):
    response = Response(wire, 40)
    while not response.task.done():
        await response.read()
    assert response.sent[0] == START
    assert response.sent[-1] == END
    assert response.received == 40 * len(PART)  # nothing is left when the end is sent


async def test_a_client_that_does_not_read_holds_a_bounded_part(wire: Wire):
    response = Response(wire, 400)
    for _ in range(20):
        wire.run_writers()
        await asyncio.sleep(0.01)
    buffered = len(wire.transport.dataBuffer) - wire.transport.offset + wire.transport._tempDataLen
    assert MAX_UNSENT_BYTES < buffered <= MAX_UNSENT_BYTES + len(PART)
    assert not response.task.done()
    while not response.task.done():
        await response.read()
    assert response.received == 400 * len(PART)


async def test_a_client_that_reads_nothing_for_long_is_disconnected(wire: Wire, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(http_responses, "STALL_TIMEOUT_S", 0.1)
    with capture_logs() as logs:
        response = Response(wire, 400)
        while not response.aborted:
            wire.run_writers()
            await asyncio.sleep(0.01)
    assert [entry["event"] for entry in logs] == ["http.client_stalled"]
    response.task.cancel()  # as Django does for a lost connection


async def test_an_error_in_the_middle_breaks_the_connection_off(wire: Wire):
    response = Response(wire, 1, ValueError("a text of a patient"))
    with capture_logs() as logs:
        await response.task
    assert response.aborted
    assert logs == [{"event": "http.response_broken_off", "error": "ValueError", "log_level": "warning"}]


async def test_an_error_before_the_response_is_left_to_the_server(wire: Wire):
    response = Response(wire, 0, KeyError())
    with pytest.raises(KeyError):
        await response.task
    assert not response.aborted
    assert response.sent == []


async def test_with_another_server_nothing_changes():
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        raise KeyError

    with pytest.raises(KeyError):
        await serve(application, {}, send, send)
    assert sent == [START]
