"""Sends a response, and delays, changes or breaks it as the fault of the request says."""

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
    """The connection was closed because of a fault, so no response can be sent."""


class BodyWriter(Protocol):
    """Sends the bytes of the body after the headers were sent."""

    async def write(self, data: bytes) -> None: ...

    async def write_eof(self) -> None: ...


class RawBodyWriter:
    """Writes a body with chunked encoding directly to the transport.

    Used for the fault `slow_headers`, whose headers are not sent by aiohttp.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport

    async def write(self, data: bytes) -> None:
        self._transport.write(b"%x\r\n%b\r\n" % (len(data), data))

    async def write_eof(self) -> None:
        self._transport.write(b"0\r\n\r\n")
        self._transport.close()


class ResponseWriter:
    """Sends the response to one request, with one fault or none.

    `record` gets the status, the number of sent bytes and the outcome. A client that disconnects cancels the task of
    the request. Then the outcome is still "open", and the caller must set it.
    """

    def __init__(self, request: web.Request, fault: Fault | None, record: ResponseRecord) -> None:
        self._request = request
        self._fault = fault
        self._kind = fault.kind if fault else ""
        self._record = record
        record.fault = fault.kind if fault else None

    async def apply_early_fault(self) -> None:
        """Applies a fault that occurs before the provider examines the request, as in its edge servers.

        Raises ApiError if the fault is an error response, and ConnectionClosed if it has closed the connection.
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
        """Sends a response with the status 200, changed by the fault. Without `length` the body is chunked.

        `on_headers` is called when the headers were sent. Raises ConnectionClosed if the fault has closed the
        connection.
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
        """Returns an error response, which the fault does not change."""
        self._record.status = error.status
        self._record.outcome = "failed"
        headers = {"Content-Type": error.content_type, **error.headers}
        return web.Response(status=error.status, body=error.body, headers=headers)

    def close_connection(self) -> NoReturn:
        """Closes the connection after the bytes that were already written, and raises ConnectionClosed."""
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
        """Breaks the connection in the middle of the body, and raises ConnectionClosed.

        Before, waits until the client has received all bytes that were written. The fault `cut_reset` sends a TCP
        reset.
        """
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
    """Returns the number of bytes that the client has not acknowledged, in our buffer or in that of the kernel."""
    waiting = transport.get_write_buffer_size()
    if waiting or transport.is_closing():
        return waiting
    queued = fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, b"\0\0\0\0")
    return int.from_bytes(queued, "little")
