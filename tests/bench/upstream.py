"""A provider with almost no cost of its own: `python -m tests.bench.upstream PORT`.

Any POST is answered with the payload of its text in chunks of 4 KB, a HEAD with an empty body.

`/__set?name=value` changes `ttfb` (seconds to the first byte), `pace` (multiple of real time; 0: as fast as it is read)
and `size` (bytes of a body). `/__stats` returns the number of requests, of open requests, and of requests that the
client dropped.
"""

import asyncio
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from urllib.parse import parse_qsl, urlsplit

from tests.bench.sound import BODY_BYTES, BYTES_PER_SECOND, CHUNK_BYTES, payload

STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: audio/mpeg\r\ntransfer-encoding: chunked\r\n"
    b"request-id: bench\r\ncharacter-cost: 60\r\ncurrent-concurrent-requests: 1\r\n\r\n"
)
LAST_CHUNK = b"0\r\n\r\n"


@dataclass
class Stats:
    requests: int = 0
    open: int = 0
    cancelled: int = 0


@dataclass
class UpstreamSettings:
    ttfb: float = 0.0
    pace: float = 1.0
    size: int = BODY_BYTES


stats = Stats()
upstream_settings = UpstreamSettings()


class Connection(asyncio.Protocol):
    """One request at a time, as HTTP clients without pipelining send them."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._received = b""
        self._chunks: Iterator[bytes] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, blank, body = self._received.partition(b"\r\n\r\n")
        if blank and len(body) >= _content_length(head):
            self._received = b""
            self._answer(head.split(b" ", 2), body)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._chunks is not None:
            stats.cancelled += 1
            stats.open -= 1

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._send_all()

    def _answer(self, request: list[bytes], body: bytes) -> None:
        method, path = request[0], request[1].decode()
        if method == b"POST":
            self._accept(json.loads(body)["text"])
        elif path.startswith("/__set"):
            _set(path)
            self._reply(b"{}")
        else:
            self._reply(json.dumps(asdict(stats)).encode() if method == b"GET" else b"")

    def _reply(self, body: bytes) -> None:
        self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))

    def _accept(self, text: str) -> None:
        stats.requests += 1
        stats.open += 1
        self._chunks = _chunks(payload(text, upstream_settings.size))
        if upstream_settings.ttfb:
            self._timer = self._loop.call_later(upstream_settings.ttfb, self._begin)
        else:
            self._begin()

    def _begin(self) -> None:
        assert self._chunks is not None
        self.transport.write(STREAM_HEAD + next(self._chunks))
        if upstream_settings.pace:
            interval = CHUNK_BYTES / BYTES_PER_SECOND / upstream_settings.pace
            self._send_next(self._loop.time() + interval, interval)
        else:
            self._send_all()

    def _send_next(self, due: float, interval: float) -> None:
        self._timer = self._loop.call_at(due, self._on_time, due, interval)

    def _on_time(self, due: float, interval: float) -> None:
        if self._send_chunk():
            self._send_next(due + interval, interval)

    def _send_all(self) -> None:
        while self._chunks is not None and not self._paused:
            self._send_chunk()

    def _send_chunk(self) -> bool:
        """Send the next chunk and return whether there was one. After the last one the response ends."""
        assert self._chunks is not None
        chunk = next(self._chunks, None)
        if chunk is None:
            self._chunks = None
            stats.open -= 1
        self.transport.write(chunk or LAST_CHUNK)
        return chunk is not None


def _content_length(head: bytes) -> int:
    _, found, rest = head.lower().partition(b"content-length:")
    return int(rest.partition(b"\r\n")[0]) if found else 0


def _chunks(body: bytes) -> Iterator[bytes]:
    for start in range(0, len(body), CHUNK_BYTES):
        chunk = body[start : start + CHUNK_BYTES]
        yield b"%x\r\n%b\r\n" % (len(chunk), chunk)


def _set(path: str) -> None:
    for name, value in parse_qsl(urlsplit(path).query):
        setattr(upstream_settings, name, type(getattr(upstream_settings, name))(value))


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1])))
