"""Speech from the provider, streamed: one client for a process, on aiohttp.

A stream is asked for with `async with client.speak(request, ...) as reply`, and read with `async for chunk in reply`.
Chunks are the network's reads, byte for byte. All that can go wrong is a `ProviderError` of `errors.py`; the exceptions
of aiohttp and of the operating system end here.

Connections, TLS, names and the parsing of replies are aiohttp's; the requests are written here, past its
`ClientSession`. That makes a URL, headers, cookies, a request and a response anew for every call, and on Python 3.11 a
task besides, so that the body leaves a turn of the loop later: a third of the way from a text to its request.
"""

import asyncio
import math
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Self

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.http import HttpProcessingError, RawResponseMessage
from yarl import URL

from voicecare.providers.elevenlabs.error_mapping import BODY_LIMIT, error_from_response
from voicecare.providers.elevenlabs.requests import ResponseMetadata, SpeechRequest, looks_like_audio, request_headers
from voicecare.providers.errors import ConnectionBroken, NoFirstByte, NotAudio, ProviderError, Stalled, Unreachable

if TYPE_CHECKING:
    from aiohttp.client_reqrep import ConnectionKey
    from aiohttp.tracing import Trace

KEEPALIVE_S = 240.0
"""An idle connection is kept this long: patients pause between turns, and a new one costs two round trips or three."""

_DNS_CACHE_S = 300
_PRECONNECT_S = 5.0
_ERROR_BODY_S = 1.0
_FAULT_BODY_S = 0.2  # of a 5xx: its status says all, and a patient waits
_TRANSPORT_ERRORS = (  # RuntimeError: read after its connection was closed
    aiohttp.ClientError,
    HttpProcessingError,
    OSError,
    RuntimeError,
)


class SpeechClient:
    """The process's one way to live speech. Its pool has no bound: the account's limit is held by slots.

    Redirects are not followed (the key would travel along), cookies are not kept, the environment's proxies not used.
    Raises ValueError at once for a key that cannot stand in a header.
    """

    def __init__(self, base_url: str, api_key: str) -> None:
        self._base_url = base_url
        self._headers = request_headers(api_key) | {"Content-Type": "application/json"}
        self._endpoint: _Endpoint | None = None

    async def open(self) -> None:
        """Make the pool in the running loop; no connection yet. Opening twice is harmless."""
        if self._endpoint is None:
            self._endpoint = _Endpoint(self._base_url, self._headers)

    async def close(self) -> None:
        """Close every connection. Speech asked for afterwards is Unreachable; what still streams breaks or stalls."""
        endpoint, self._endpoint = self._endpoint, None
        if endpoint is not None:
            await endpoint.pool.close()

    async def preconnect(self) -> None:
        """Have a connection ready in the pool, DNS and TLS done; asks for nothing that is billed. Never raises."""
        if self._endpoint is None:
            return
        with suppress(Unreachable, *_TRANSPORT_ERRORS):
            async with asyncio.timeout(_PRECONNECT_S):
                connection, head = await self._endpoint.ask("HEAD", "/", b"", _PRECONNECT_S)
                try:
                    await _answer(head)
                    connection.release()
                finally:
                    connection.close()  # unless it is back in the pool

    def speak(self, request: SpeechRequest, *, first_byte_s: float, stall_s: float) -> "SpeechResponse":
        """Ask for `request` when the reply is entered. Limits in seconds: see SpeechResponse. Never retried here."""
        return SpeechResponse(self._endpoint, request, first_byte_s, stall_s)


class _Pool(aiohttp.TCPConnector):
    """aiohttp gives any idle connection that is open. Here it must be silent, too: where a reply came that nobody had
    asked for, the next request would be given that one, and where a request still leaves, it would wait for that.
    """

    async def _get(self, key: "ConnectionKey", traces: "list[Trace]") -> Connection | None:
        while (connection := await super()._get(key, traces)) is not None and not _is_silent(connection):
            _drop(connection)
        return connection


class _Endpoint:
    """Where speech is asked for: the pool, and what stands in the head of every request."""

    def __init__(self, base_url: str, headers: Mapping[str, str]) -> None:
        url = URL(base_url)
        self.pool = _Pool(limit=0, keepalive_timeout=KEEPALIVE_S, ttl_dns_cache=_DNS_CACHE_S)
        self._peer = aiohttp.ClientRequest("GET", url, headers=headers, loop=asyncio.get_running_loop())
        self._prefix = url.raw_path.rstrip("/")
        self._fields = "".join(f"{name}: {value}\r\n" for name, value in self._peer.headers.items())

    async def ask(self, method: str, path: str, body: bytes, connect_s: float) -> tuple[Connection, ResponseHandler]:
        """Sends a request, on an idle connection or a new one. The reply's head is read from what is returned second.

        Raises Unreachable where nothing of it was sent.
        """
        limit = aiohttp.ClientTimeout(connect=connect_s, ceil_threshold=math.inf)
        try:
            connection = await self.pool.connect(self._peer, [], limit)
        except (*_TRANSPORT_ERRORS, UnicodeError) as error:  # a host that is no name
            raise Unreachable from error
        head, transport = connection.protocol, connection.transport
        if head is None or transport is None or transport.is_closing():
            connection.close()
            raise Unreachable
        head.set_response_params(skip_payload=method == "HEAD", read_until_eof=True)
        line = f"{method} {self._prefix}{path} HTTP/1.1\r\n{self._fields}Content-Length: {len(body)}\r\n\r\n"
        transport.write(line.encode() + body)
        return connection, head


class SpeechResponse:
    """One stream of speech, to be entered once and read once.

    Entering sends the request and returns when 2xx headers are there: from then on `metadata` is set, and the provider
    bills. `first_byte_s` covers connecting, headers and the first chunk together, counted from entering. `stall_s`
    covers each later chunk, counted only while the reader waits here: a reader that pauses is no stall.

    Iterating gives what each network read brought. A body that ends as its framing says is believed; one that is cut
    raises ConnectionBroken, after all bytes received before the cut have been given. A first chunk that is no audio
    raises NotAudio instead of being given; so does a clean end without any byte, with the code `empty_audio`.

    Leaving before the end, also by cancellation or while entering, drops the connection at once, which makes the
    provider stop; leaving after the end leaves it to the pool.
    """

    __slots__ = (
        "_connection",
        "_content",
        "_deadline",
        "_endpoint",
        "_first_byte_s",
        "_headers",
        "_loop",
        "_received",
        "_request",
        "_source",
        "_stall_s",
        "_status",
        "_timer",
        "metadata",
    )
    _connection: Connection
    _content: aiohttp.StreamReader
    _deadline: float | None
    _headers: Mapping[str, str]
    _loop: asyncio.AbstractEventLoop
    _source: ResponseHandler | aiohttp.StreamReader  # what is waited for: the head, then the body

    def __init__(self, endpoint: _Endpoint | None, request: SpeechRequest, first_byte_s: float, stall_s: float) -> None:
        self._endpoint = endpoint
        self._request = request
        self._first_byte_s = first_byte_s
        self._stall_s = stall_s
        self._received = 0
        self._status: int | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.metadata = ResponseMetadata()

    async def __aenter__(self) -> Self:
        if self._endpoint is None:
            raise Unreachable("The speech client is not open.", code="client_closed")
        self._loop = asyncio.get_running_loop()
        self._deadline = self._loop.time() + self._first_byte_s
        request = self._request
        self._connection, head = await self._endpoint.ask("POST", request.path(), request.body(), self._first_byte_s)
        self._source = head
        self._watch()
        try:
            await self._answered(head)
        except BaseException:
            self._leave()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._received:
            self._deadline = self._loop.time() + self._stall_s
        try:
            chunk = await _read(self._content)
        except _TRANSPORT_ERRORS as error:
            raise self._failure(ConnectionBroken()) from error
        if not self._received:
            self._judge(chunk)
        elif not chunk:
            raise StopAsyncIteration
        self._received += len(chunk)
        self._deadline = None
        return chunk

    async def _answered(self, head: ResponseHandler) -> None:
        """Returns when the head of a 2xx reply is there; raises what anything else means."""
        try:
            message, content = await _answer(head)
        except _TRANSPORT_ERRORS as error:
            raise ConnectionBroken from error
        content.on_eof(self._connection.release)
        self._status, self._headers = message.code, message.headers
        self._content = self._source = content
        if not 200 <= message.code < 300:
            self._deadline = None
            raise await _refusal(message.code, message.headers, content)
        self.metadata = ResponseMetadata.from_headers(message.headers)

    def _judge(self, first: bytes) -> None:
        if not first:
            raise self._failure(NotAudio(code="empty_audio"))
        if not looks_like_audio(self._headers.get("Content-Type", ""), first):
            raise self._failure(NotAudio())

    def _watch(self) -> None:
        """Raise in the reader if its deadline has passed; else look again then, at the latest after `stall_s`.

        So a deadline that moves with every read needs no timer of its own. Nothing is late while the reader is
        elsewhere (no deadline), nor when something has come that it has not been woken for yet.
        """
        deadline, now = self._deadline, self._loop.time()
        if deadline is None or self._has_come():
            deadline = now + self._stall_s
        if now < deadline:
            self._timer = self._loop.call_at(min(deadline, now + self._stall_s), self._watch)
        else:
            self._source.set_exception(self._failure(Stalled() if self._received else NoFirstByte()))

    def _has_come(self) -> bool:
        source = self._source
        if isinstance(source, ResponseHandler):
            return len(source) > 0 or source.is_eof()
        return source.total_bytes > self._received or source.is_eof()

    def _failure(self, error: ProviderError) -> ProviderError:
        error.status = self._status
        error.request_id = self.metadata.request_id
        error.trace_id = self.metadata.trace_id
        return error

    def _leave(self) -> None:
        """Drop the connection, unless the body has been read to its end: then it is back in the pool already."""
        if self._timer is not None:
            self._timer.cancel()
        _drop(self._connection)


async def _answer(head: ResponseHandler) -> tuple[RawResponseMessage, aiohttp.StreamReader]:
    """The head of the reply itself, behind any that is only interim, and its body."""
    message, content = await head.read()
    while 100 <= message.code < 200 and message.code != 101:
        message, content = await head.read()
    return message, content


def _is_silent(connection: Connection) -> bool:
    head, transport = connection.protocol, connection.transport
    return head is not None and not head.should_close and not (transport and transport.get_write_buffer_size())


def _drop(connection: Connection) -> None:
    """Aborted, not closed: over TLS a close would first exchange farewells with the peer."""
    if connection.transport is not None:
        connection.transport.abort()
    connection.close()


async def _read(content: aiohttp.StreamReader) -> bytes:
    """What has come since the last read; b"" at a clean end.

    After a break aiohttp's own reads raise at once, although bytes received before it may still be held (its public
    methods look at the exception first). They are given first, and the next read raises.
    """
    try:
        return await content.readany()
    except _TRANSPORT_ERRORS:
        if held := content._read_nowait(-1):
            return held
        raise


async def _refusal(status: int, headers: Mapping[str, str], content: aiohttp.StreamReader) -> ProviderError:
    """The error for a reply without 2xx. Its body is read as far as it comes; the status decides without it."""
    body = b""
    with suppress(*_TRANSPORT_ERRORS):
        async with asyncio.timeout(_FAULT_BODY_S if status >= 500 else _ERROR_BODY_S):
            while len(body) <= BODY_LIMIT and (chunk := await _read(content)):
                body += chunk
    return error_from_response(status, headers, body)
