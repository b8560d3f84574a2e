"""Sends HTTP responses no faster than their clients read them, and closes the connection if a response fails.

daphne accepts every part of a response immediately, and keeps the parts that the client has not read in memory, without
a limit. If the application fails in the middle of a response, daphne tries to send an error page, which is too late,
and leaves the connection open. Under another server this module changes nothing, because `send` of that server is
expected to wait for the client.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import structlog

from tts.devices.daphne_fast_path import DaphneResponse

MAX_UNSENT_BYTES = 128 * 1024
CHECK_INTERVAL_S = 0.02
STALL_TIMEOUT_S = 120.0
"""A client that takes nothing for this long is disconnected. A player that reads a slow format at its own pace takes
something only every half a minute, because the system wakes the server when a third of its buffer is free."""

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

log = structlog.get_logger(__name__)


async def serve(
    application: Callable[[Message, Receive, Send], Awaitable[None]], scope: Message, receive: Receive, send: Send
) -> None:
    """Runs the ASGI application for one HTTP request.

    If the application fails after the response has started, the error is logged and the connection is closed. If it
    fails before, the exception is raised.
    """
    connection = DaphneResponse.find(send)
    if connection is None:
        await application(scope, receive, send)
        return
    response = _PacedResponse(send, connection)
    try:
        await application(scope, receive, response.send)
    except Exception as error:  # after any error the client must not wait for the rest
        if not response.has_started:
            raise
        log.warning("http.response_broken_off", error=type(error).__name__)
        connection.abort()


async def refuse(send: Send) -> None:
    """Answers a request with 503 and an empty body, without the application. A proxy may send it to another server."""
    headers = [(b"content-length", b"0"), (b"connection", b"close"), (b"retry-after", b"1")]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


class _PacedResponse:
    """The ASGI callable `send` for one request, which waits until the client has read most of the response."""

    def __init__(self, send: Send, connection: DaphneResponse) -> None:
        self.has_started = False
        self._send = send
        self._connection = connection

    async def send(self, message: Message) -> None:
        """Sends the message. Then waits until at most MAX_UNSENT_BYTES are left in the buffer of the connection.

        The end of a streamed response is sent only when the buffer is empty, so that no data is lost if the process
        ends afterwards. The connection is closed if the client reads nothing for STALL_TIMEOUT_S.
        """
        if self.has_started and not message.get("body"):
            await self._wait_until_at_most(0)
        self.has_started = True
        await self._send(message)
        await self._wait_until_at_most(MAX_UNSENT_BYTES)

    async def _wait_until_at_most(self, size: int) -> None:
        left, since = self._connection.buffered_bytes(), time.monotonic()
        pause_s = 0.0  # Twisted writes in the next iteration of the loop, which is enough for most clients
        while left > size:
            await asyncio.sleep(pause_s)
            pause_s = CHECK_INTERVAL_S
            now_left = self._connection.buffered_bytes()
            if now_left < left:
                left, since = now_left, time.monotonic()
            elif time.monotonic() - since > STALL_TIMEOUT_S:
                log.info("http.client_stalled")
                self._connection.abort()
                return
