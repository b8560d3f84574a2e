"""One answer on its way to the client, and every way in which it can break on that way."""

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
from voicecare.providers.elevenlabs.sandbox.faults.injection import BENDS, Body, stall, whole
from voicecare.providers.elevenlabs.sandbox.records import Delivery

# A client that reads promptly must have taken the last bytes before the break reaches it: many lose what they have
# buffered when the connection fails.
QUIET_BEFORE_BREAK_S = 0.05


class HungUp(Exception):
    """The connection was closed on purpose: there is nobody to answer any more."""


class Out(Protocol):
    """Where body bytes go once the headers are out."""

    async def write(self, data: bytes) -> None: ...

    async def write_eof(self) -> None: ...


class RawOut:
    """A chunked body written past aiohttp, behind headers that were dribbled by hand."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport

    async def write(self, data: bytes) -> None:
        self._transport.write(b"%x\r\n%b\r\n" % (len(data), data))

    async def write_eof(self) -> None:
        self._transport.write(b"0\r\n\r\n")
        self._transport.close()


class Wire:
    """The connection of one request under one fault; notes in `delivery` what went out.

    A client that leaves cancels the task that uses this; the delivery is then still "open", for the owner to close.
    """

    def __init__(self, request: web.Request, fault: Fault | None, delivery: Delivery) -> None:
        self._request = request
        self._fault = fault
        self._kind = fault.kind if fault else ""
        self._delivery = delivery
        delivery.fault = fault.kind if fault else None

    async def threshold(self) -> None:
        """Faults of the edge, before the provider itself has looked at the request.

        Raises ApiError for an answer, HungUp when the connection was closed without one.
        """
        if self._fault is None:
            return
        if self._kind == "error":
            raise self._fault.error()
        if self._kind == "redirect":
            raise ApiError(307, b"", headers={"Location": self._fault.location})
        if self._kind == "stall_first":
            await stall(self._fault.seconds)
        if self._kind == "refuse":
            self.hang_up()

    async def send(
        self,
        headers: dict[str, str],
        chunks: AsyncGenerator[bytes, None],
        *,
        length: int | None = None,
        on_headers: Callable[[], None] | None = None,
    ) -> web.StreamResponse:
        """A 200, bent by the fault; `on_headers` runs when its headers are out. Without `length` it is chunked.

        Raises HungUp after breaking the connection.
        """
        if self._fault is not None and self._kind == "unanswered":
            await self._swallow(self._fault, on_headers)
        headers, chunks = self._disguised(headers, chunks)
        response = web.StreamResponse(headers=headers)
        if length is not None and self._fault is None:
            response.content_length = length
        out = await self._open(response)
        self._delivery.status = 200
        if on_headers is not None:
            on_headers()
        await self._pour(chunks, out)
        return await self._end(response, out)

    async def refuse(self, error: ApiError) -> web.StreamResponse:
        """An answer that is no success, never bent."""
        self._delivery.status = error.status
        self._delivery.outcome = "failed"
        headers = {"Content-Type": error.content_type, **error.headers}
        return web.Response(status=error.status, body=error.body, headers=headers)

    async def _swallow(self, fault: Fault, on_headers: Callable[[], None] | None) -> NoReturn:
        if on_headers is not None:
            on_headers()
        await stall(fault.seconds)
        self.hang_up()

    def hang_up(self) -> NoReturn:
        """Closes the connection behind what was sent so far, finished or not; raises HungUp."""
        self._delivery.outcome = "failed"
        self._transport().close()
        raise HungUp

    def _transport(self) -> asyncio.Transport:
        transport = self._request.transport
        if transport is None:
            raise HungUp
        return transport

    def _disguised(
        self, headers: dict[str, str], chunks: AsyncGenerator[bytes, None]
    ) -> tuple[dict[str, str], AsyncGenerator[bytes, None]]:
        if self._fault is not None and (disguise := self._fault.disguise()) is not None:
            return {**headers, "Content-Type": disguise[0]}, whole(disguise[1])
        if self._kind == "wrong_type":
            return {**headers, "Content-Type": "text/html"}, chunks
        return headers, chunks

    async def _open(self, response: web.StreamResponse) -> Out:
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
        return RawOut(transport)

    async def _pour(self, chunks: AsyncGenerator[bytes, None], out: Out) -> None:
        bend = BENDS.get(self._kind)
        bent = chunks if bend is None or self._fault is None else bend(self._fault, Body(chunks))
        async with aclosing(bent):
            async for chunk in bent:
                await out.write(chunk)
                self._delivery.bytes_sent += len(chunk)

    async def _end(self, response: web.StreamResponse, out: Out) -> web.StreamResponse:
        if self._kind in ("cut", "cut_reset"):
            self._delivery.outcome = "cut"
            await self._break()
        await out.write_eof()
        self._delivery.outcome = "cut" if self._kind == "cut_clean" else "completed"
        if isinstance(out, RawOut):
            raise HungUp
        return response

    async def _break(self) -> None:
        """Ends the connection with the body unfinished, after all that was written has reached the client."""
        transport = self._transport()
        while unsent(transport):  # noqa: ASYNC110 - neither asyncio nor the kernel announces an empty send queue
            await asyncio.sleep(0.005)
        await asyncio.sleep(QUIET_BEFORE_BREAK_S)
        if self._kind == "cut_reset":
            connection = transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
        raise HungUp


def unsent(transport: asyncio.Transport) -> int:
    """Bytes that the client's side has not yet taken, ours and the kernel's."""
    waiting = transport.get_write_buffer_size()
    if waiting or transport.is_closing():
        return waiting
    queued = fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, b"\0\0\0\0")
    return int.from_bytes(queued, "little")
