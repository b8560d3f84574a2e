"""A TCP proxy in front of the sandbox that forgets connections, as firewalls and load balancers do."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

Ending = Literal["drop", "reset", "half close"]


@dataclass(eq=False)
class _Connection:
    """One connection. Once it has an `ending`, nothing from the client reaches the sandbox any more."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    ending: Ending | None = None

    async def forward(self, upstream_host: str, upstream_port: int) -> None:
        upstream_reader, upstream = await asyncio.open_connection(upstream_host, upstream_port)
        answers = asyncio.create_task(self._copy_answers(upstream_reader))
        try:
            while data := await self.reader.read(65536):
                if self.ending == "reset":
                    linger = struct.pack("ii", 1, 0)  # close with RST instead of FIN
                    self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    self.writer.transport.abort()
                    return
                if self.ending is None:
                    upstream.write(data)
        finally:
            answers.cancel()
            upstream.close()
            self.writer.close()

    async def _copy_answers(self, upstream: asyncio.StreamReader) -> None:
        while data := await upstream.read(65536):
            if self.ending is None:
                self.writer.write(data)
        self.writer.close()


@dataclass
class ForgetfulProxy:
    """`accepted` counts all connections, `open_count` those that the client has not closed."""

    upstream: str
    url: str = ""
    accepted: int = 0
    _open: set[_Connection] = field(default_factory=set)

    @property
    def open_count(self) -> int:
        return len(self._open)

    def forget(self, ending: Ending) -> int:
        """Forget all open connections and return how many they are.

        What a client sends on one is answered by nothing ("drop") or by a reset. With "half close" the client is told
        immediately that no more answers come. New connections work.
        """
        for connection in self._open:
            connection.ending = ending
            if ending == "half close":
                connection.writer.write_eof()
        return len(self._open)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        connection = _Connection(reader, writer)
        self._open.add(connection)
        address = urlsplit(self.upstream)
        try:
            with suppress(ConnectionError):
                await connection.forward(address.hostname or "", address.port or 0)
        finally:
            self._open.discard(connection)


@asynccontextmanager
async def forgetful_proxy(upstream: str) -> AsyncIterator[ForgetfulProxy]:
    proxy = ForgetfulProxy(upstream)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1")
    proxy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        server.close()
