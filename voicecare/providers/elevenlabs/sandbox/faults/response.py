"""Writes one response, and breaks it as its fault demands."""

import asyncio
import fcntl
import socket
import struct
import termios
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import NoReturn, Protocol

from aiohttp import web

from voicecare.providers.elevenlabs.sandbox.errors import ApiError
from voicecare.providers.elevenlabs.sandbox.faults.faults import Fault
from voicecare.providers.elevenlabs.sandbox.faults.injection import INJECTORS, SplittableBody, single_chunk, stall
from voicecare.providers.elevenlabs.sandbox.records import ResponseRecord

# Many clients lose their buffered bytes when a connection fails. This pause lets a client read the last bytes first.
PAUSE_BEFORE_BREAK_S = 0.05


class ConnectionClosed(Exception):
    """The connection was closed on purpose, so no response can be sent."""


class BodyWriter(Protocol):
    """Takes the bytes of the body after the headers were sent."""

    async def write(self, data: bytes) -> None: ...

    async def write_eof(self) -> None: ...


class RawBodyWriter:
    """Writes a chunked body to the transport directly. Used after `slow_headers`, which bypass aiohttp."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport

    async def write(self, data: bytes) -> None:
        self._transport.write(b"%x\r\n%b\r\n" % (len(data), data))

    async def write_eof(self) -> None:
        self._transport.write(b"0\r\n\r\n")
        self._transport.close()


class ResponseWriter:
    """Sends the response to one request, with one fault or none. `record` gets the status and the number of bytes.

    A client that disconnects cancels the task. The outcome of the record is then still "open", and the caller sets it.
    """

    def __init__(self, request: web.Request, fault: Fault | None, record: ResponseRecord) -> None:
        self._request = request
        self._fault = fault
        self._kind = fault.kind if fault else ""
        self._record = record
        record.fault = fault.kind if fault else None

    async def apply_early_fault(self) -> None:
        """Apply a fault of the provider's edge servers, before the request is examined.

        Raises ApiError to send an error response, and ConnectionClosed after closing the connection without one.
        """
        if self._fault is None:
            return
        if self._kind == "error":
            raise self._fault.to_error()
        if self._kind == "redirect":
            raise ApiError(307, b"", headers={"Location": self._fault.location})
        if self._kind == "stall_first":
            await stall(self._fault.seconds)
        if self._kind == "refuse":
            self.close_connection()

    async def send(
        self,
        headers: dict[str, str],
        chunks: AsyncGenerator[bytes, None],
        *,
        length: int | None = None,
        on_headers: Callable[[], None] | None = None,
    ) -> web.StreamResponse:
        """Send a 200, changed by the fault. `on_headers` runs after the headers. Without `length` the body is chunked.

        Raises ConnectionClosed after breaking the connection.
        """
        fault = self._fault
        if fault is not None and fault.kind == "unanswered":
            if on_headers is not None:
                on_headers()
            await stall(fault.seconds)
            self.close_connection()
        if fault is not None and (replacement := fault.replacement_body()) is not None:
            content_type, body = replacement
            headers, chunks = {**headers, "Content-Type": content_type}, single_chunk(body)
        elif self._kind == "wrong_type":
            headers = {**headers, "Content-Type": "text/html"}
        response = web.StreamResponse(headers=headers)
        if length is not None and fault is None:
            response.content_length = length
        out = await self._open(response)
        self._record.status = 200
        if on_headers is not None:
            on_headers()
        if fault is not None and fault.kind in INJECTORS:
            chunks = INJECTORS[fault.kind](fault, SplittableBody(chunks))
        async with aclosing(chunks):
            async for chunk in chunks:
                await out.write(chunk)
                self._record.bytes_sent += len(chunk)
        if self._kind in ("cut", "cut_reset"):
            self._record.outcome = "cut"
            await self._break_connection()
        await out.write_eof()
        self._record.outcome = "cut" if self._kind == "cut_clean" else "completed"
        if isinstance(out, RawBodyWriter):
            raise ConnectionClosed
        return response

    async def refuse(self, error: ApiError) -> web.StreamResponse:
        """Return an error response. Faults do not change it."""
        self._record.status = error.status
        self._record.outcome = "failed"
        headers = {"Content-Type": error.content_type, **error.headers}
        return web.Response(status=error.status, body=error.body, headers=headers)

    def close_connection(self) -> NoReturn:
        """Close the connection after the bytes sent so far, and raise ConnectionClosed."""
        self._record.outcome = "failed"
        self._transport().close()
        raise ConnectionClosed

    def _transport(self) -> asyncio.Transport:
        transport = self._request.transport
        if transport is None:
            raise ConnectionClosed
        return transport

    async def _open(self, response: web.StreamResponse) -> BodyWriter:
        if self._fault is None or self._kind != "slow_headers":
            await response.prepare(self._request)
            return response
        transport = self._transport()
        lines = [f"{name}: {value}\r\n" for name, value in response.headers.items()]
        head = ["HTTP/1.1 200 OK\r\n", *lines, "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"]
        octets = "".join(head).encode()
        seconds = 3.0 if self._fault.seconds is None else self._fault.seconds
        for octet in octets:
            transport.write(bytes((octet,)))
            await asyncio.sleep(seconds / len(octets))
        return RawBodyWriter(transport)

    async def _break_connection(self) -> None:
        """Break the connection in the middle of the body, after the client has received all written bytes."""
        transport = self._transport()
        while unsent_bytes(transport):  # noqa: ASYNC110 - no event exists for an empty send queue
            await asyncio.sleep(0.005)
        await asyncio.sleep(PAUSE_BEFORE_BREAK_S)
        if self._kind == "cut_reset":
            connection = transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
        raise ConnectionClosed


def unsent_bytes(transport: asyncio.Transport) -> int:
    """Bytes that the client has not acknowledged, in our buffer and in that of the kernel."""
    waiting = transport.get_write_buffer_size()
    if waiting or transport.is_closing():
        return waiting
    queued = fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, b"\0\0\0\0")
    return int.from_bytes(queued, "little")
