"""Speech from the provider, streamed: one client for a process, on aiohttp.

A stream is asked for with `async with client.speak(request, ...) as reply`, and read with `async for chunk in reply`.
Chunks are the network's reads, byte for byte. All that can go wrong is a `ProviderError` of `errors.py`; the exceptions
of aiohttp and of the operating system end in `_translated`.
"""

import asyncio
from contextlib import suppress
from types import TracebackType
from typing import Self

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from yarl import URL

from voicecare.elevenlabs.errors import (
    ConnectionBroken,
    NoFirstByte,
    NotAudio,
    ProviderError,
    Stalled,
    Unreachable,
)
from voicecare.elevenlabs.protocol import Receipt, SpeechRequest, looks_like_audio, request_headers
from voicecare.elevenlabs.refusals import BODY_LIMIT, error_from_reply

KEEPALIVE_S = 240.0
"""An idle connection is kept this long: patients pause between turns, and a new one costs two round trips or three."""

_DNS_CACHE_S = 300
_PRECONNECT_S = 5.0
_ERROR_BODY_S = 1.0
_FAULT_BODY_S = 0.2  # of a 5xx: its status says all, and a patient waits
_TRANSPORT_ERRORS = (aiohttp.ClientError, OSError, RuntimeError)  # RuntimeError: used after its session was closed


class SpeechClient:
    """The process's one way to live speech. Its pool has no bound: the account's limit is held by slots.

    Redirects are not followed (the key would travel along), cookies are not kept, the environment's proxies not used.
    Raises ValueError at once for a key that cannot stand in a header.
    """

    def __init__(self, base_url: str, api_key: str) -> None:
        self._base_url = base_url.rstrip("/")
        self._headers = request_headers(api_key) | {"Content-Type": "application/json"}
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Make the session in the running loop; no connection yet. Opening twice is harmless."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_S, ttl_dns_cache=_DNS_CACHE_S),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers=self._headers,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),  # each reply watches its own limits
            )

    async def close(self) -> None:
        """Close every connection. Speech asked for afterwards is Unreachable; what still streams breaks or stalls."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def preconnect(self) -> None:
        """Have a connection ready in the pool, DNS and TLS done; asks for nothing that is billed. Never raises."""
        if self._session is None:
            return
        with suppress(*_TRANSPORT_ERRORS):
            async with asyncio.timeout(_PRECONNECT_S):
                response = await self._session.head(f"{self._base_url}/", allow_redirects=False)
                response.release()

    def speak(self, request: SpeechRequest, *, first_byte_s: float, stall_s: float) -> "SpeechReply":
        """Ask for `request` when the reply is entered. Limits in seconds: see SpeechReply. Never retried here."""
        return SpeechReply(self._session, self._base_url, request, first_byte_s, stall_s)


class SpeechReply:
    """One stream of speech, to be entered once and read once.

    Entering sends the request and returns when 2xx headers are there: from then on `receipt` is set, and the provider
    bills. `first_byte_s` covers connecting, headers and the first chunk together, counted from entering. `stall_s`
    covers each later chunk, counted only while the reader waits here: a reader that pauses is no stall.

    Iterating gives what each network read brought. A body that ends as its framing says is believed; one that is cut
    raises ConnectionBroken, after all bytes received before the cut have been given. A first chunk that is no audio
    raises NotAudio instead of being given; so does a clean end without any byte, with the code `empty_audio`.

    Leaving before the end, also by cancellation or while entering, drops the connection at once, which makes the
    provider stop; leaving after the end leaves it to the pool.
    """

    __slots__ = (
        "_base_url",
        "_content",
        "_deadline",
        "_first_byte_s",
        "_loop",
        "_received",
        "_request",
        "_response",
        "_session",
        "_stall_s",
        "_timer",
        "receipt",
    )
    receipt: Receipt
    _content: aiohttp.StreamReader
    _deadline: float | None
    _loop: asyncio.AbstractEventLoop
    _response: aiohttp.ClientResponse
    _timer: asyncio.TimerHandle

    def __init__(
        self,
        session: aiohttp.ClientSession | None,
        base_url: str,
        request: SpeechRequest,
        first_byte_s: float,
        stall_s: float,
    ) -> None:
        self._session = session
        self._base_url = base_url
        self._request = request
        self._first_byte_s = first_byte_s
        self._stall_s = stall_s
        self._received = 0

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._deadline = deadline = self._loop.time() + self._first_byte_s
        self._response = response = await self._ask(deadline)
        if not 200 <= response.status < 300:
            raise await _refusal(response)
        self.receipt = Receipt.from_headers(response.headers)
        self._content = response.content
        self._watch()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        _cut(self._response)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._received:
            self._deadline = self._loop.time() + self._stall_s
        try:
            chunk = await _read(self._content)
        except _TRANSPORT_ERRORS as error:
            raise self._failure(_translated(error, sent=True)) from error
        if not self._received:
            self._judge(chunk)
        elif not chunk:
            raise StopAsyncIteration
        self._received += len(chunk)
        self._deadline = None
        return chunk

    async def _ask(self, deadline: float) -> aiohttp.ClientResponse:
        if self._session is None:
            raise Unreachable("The speech client is not open.", code="client_closed")
        url = URL(self._base_url + self._request.path(), encoded=True)  # else yarl would undo the quoting of dots
        body = _Body(self._request.body(), content_type="application/json")
        try:
            async with asyncio.timeout_at(deadline):
                return await self._session.post(url, data=body, allow_redirects=False)
        except _TRANSPORT_ERRORS as error:
            raise _translated(error, sent=body.sent) from error

    def _judge(self, first: bytes) -> None:
        if not first:
            raise self._failure(NotAudio(code="empty_audio"))
        if not looks_like_audio(self._response.headers.get("Content-Type", ""), first):
            raise self._failure(NotAudio())

    def _watch(self) -> None:
        """Raise in the reader if its deadline has passed; else look again then, at the latest after `stall_s`.

        So a deadline that moves with every read needs no timer of its own. Nothing is late while the reader is
        elsewhere (no deadline), nor when bytes have come that it has not been woken for yet.
        """
        deadline, now = self._deadline, self._loop.time()
        if deadline is None or self._content.total_bytes > self._received or self._content.is_eof():
            deadline = now + self._stall_s
        if now < deadline:
            self._timer = self._loop.call_at(min(deadline, now + self._stall_s), self._watch)
        else:
            self._content.set_exception(self._failure(Stalled() if self._received else NoFirstByte()))

    def _failure(self, error: ProviderError) -> ProviderError:
        error.status = self._response.status
        error.request_id = self.receipt.request_id
        error.trace_id = self.receipt.trace_id
        return error


class _Body(aiohttp.BytesPayload):
    """The request's body; `sent` tells whether it began to be written, so that the provider may have it."""

    sent = False

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        self.sent = True
        await super().write_with_length(writer, content_length)


def _translated(error: Exception, *, sent: bool) -> ProviderError:
    """The one place where aiohttp's and the system's exceptions become ours; TimeoutError is only our own limit."""
    if not sent:
        return Unreachable()
    return NoFirstByte() if isinstance(error, TimeoutError) else ConnectionBroken()


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


async def _refusal(response: aiohttp.ClientResponse) -> ProviderError:
    """The error for a reply without 2xx. Its body is read as far as it comes; the status decides without it."""
    body = b""
    try:
        with suppress(*_TRANSPORT_ERRORS):
            async with asyncio.timeout(_FAULT_BODY_S if response.status >= 500 else _ERROR_BODY_S):
                while len(body) <= BODY_LIMIT and (chunk := await _read(response.content)):
                    body += chunk
    finally:
        _cut(response)
    return error_from_reply(response.status, response.headers, body)


def _cut(response: aiohttp.ClientResponse) -> None:
    """Drop the connection, unless the body has been read to its end: then it is back in the pool already.

    Aborted, not closed: over TLS a close would first exchange farewells with the peer.
    """
    connection = response.connection
    if connection is not None and connection.transport is not None:
        connection.transport.abort()
    response.close()
