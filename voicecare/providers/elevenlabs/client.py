"""Streamed speech from ElevenLabs over aiohttp. One `SpeechClient` serves a whole process.

    async with client.speak(request, first_byte_s=2, stall_s=5) as response:
        async for chunk in response: ...

A chunk is what one network read brought, byte for byte. Every failure is a `ProviderError` of `providers/errors.py`.
The exceptions of aiohttp and of the operating system do not leave this module.
"""

import asyncio
from contextlib import suppress
from types import TracebackType
from typing import Self

import aiohttp
from aiohttp.http import HttpProcessingError
from yarl import URL

from voicecare.providers.elevenlabs.error_mapping import MAX_BODY_BYTES, error_from_response
from voicecare.providers.elevenlabs.requests import ResponseMetadata, SpeechRequest, looks_like_audio, request_headers
from voicecare.providers.errors import ConnectionBroken, NoFirstByte, NotAudio, ProviderError, Stalled, Unreachable

KEEPALIVE_S = 240.0
"""Lifetime of an idle connection. Patients pause between turns, and a new connection costs two or three round trips."""

_DNS_CACHE_S = 300
_PRECONNECT_TIMEOUT_S = 5.0
_ERROR_BODY_TIMEOUT_S = 1.0
_SERVER_ERROR_BODY_TIMEOUT_S = 0.2  # the status of a 5xx says enough, and a patient is waiting
_TRANSPORT_ERRORS = (
    aiohttp.ClientError,
    HttpProcessingError,  # a compressed body that cannot be decompressed
    OSError,
    RuntimeError,  # a read after the connection was closed
    UnicodeError,  # a host name that DNS cannot express
)


class SpeechClient:
    """The HTTP client for live speech. Its connection pool has no limit: the concurrency limiter bounds the requests.

    Redirects are not followed, because the API key would be sent along. Cookies are not kept. Proxies of the
    environment are not used. The constructor raises ValueError for a key that cannot be sent in a header.
    """

    def __init__(self, base_url: str, api_key: str) -> None:
        self._base_url = str(URL(base_url)).rstrip("/")
        self._headers = request_headers(api_key) | {"Content-Type": "application/json"}
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Create the connection pool in the running event loop. No connection is made. A second call does nothing."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_S, ttl_dns_cache=_DNS_CACHE_S),
                headers=self._headers,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None),
            )

    async def close(self) -> None:
        """Close all connections. Responses in progress fail, and later calls of `speak` raise Unreachable."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def preconnect(self) -> None:
        """Open a connection for the pool, with DNS and TLS, through a request that is not billed. Never raises."""
        if self._session is None:
            return
        with suppress(*_TRANSPORT_ERRORS):
            async with (
                asyncio.timeout(_PRECONNECT_TIMEOUT_S),
                self._session.head(self._url("/"), allow_redirects=False),
            ):
                pass

    def speak(self, request: SpeechRequest, *, first_byte_s: float, stall_s: float) -> "SpeechResponse":
        """Return the response to `request`, which is sent when the response is entered. Nothing is retried here.

        `first_byte_s` and `stall_s` are limits in seconds, described in SpeechResponse.
        """
        return SpeechResponse(self._session, self._url(request.path()), request.body(), first_byte_s, stall_s)

    def _url(self, path: str) -> URL:
        # `encoded`: yarl would undo the quoting of dots, and a voice id could then lead to another endpoint.
        return URL(self._base_url + path, encoded=True)


class SpeechResponse:
    """One stream of speech: an async context manager and an async iterator, each to be used once.

    Entering sends the request and returns when the headers of a 2xx response have arrived. From then on the provider
    bills, and `metadata` is set. `first_byte_s` limits the time from entering to the first chunk, connecting included.
    `stall_s` limits the wait for each later chunk. A reader that pauses between two reads does not count as a stall.

    The iterator ends where the framing of the body says so. A body that is cut raises ConnectionBroken; bytes that
    were not read before the cut are lost. A first chunk that is not audio raises NotAudio and is not yielded. A body
    without any byte raises NotAudio with the code `empty_audio`.

    Leaving before the end closes the connection, which makes the provider stop. So does cancellation, at any point.
    After the end the connection is back in the pool.
    """

    def __init__(
        self, session: aiohttp.ClientSession | None, url: URL, body: bytes, first_byte_s: float, stall_s: float
    ) -> None:
        self.metadata = ResponseMetadata()
        self._session = session
        self._url = url
        self._body = body
        self._first_byte_s = first_byte_s
        self._stall_s = stall_s
        self._has_chunk = False
        self._response: aiohttp.ClientResponse

    async def __aenter__(self) -> Self:
        if self._session is None:
            raise Unreachable("The speech client is not open.", code="client_closed")
        self._loop = asyncio.get_running_loop()
        self._deadline = self._loop.time() + self._first_byte_s
        self._response = response = await self._send(self._session)
        try:
            if not 200 <= response.status < 300:
                timeout_s = _SERVER_ERROR_BODY_TIMEOUT_S if response.status >= 500 else _ERROR_BODY_TIMEOUT_S
                body = b""
                with suppress(*_TRANSPORT_ERRORS):  # if the body does not arrive in time, the status decides
                    async with asyncio.timeout(timeout_s):
                        while len(body) <= MAX_BODY_BYTES and (chunk := await response.content.readany()):
                            body += chunk
                raise error_from_response(response.status, response.headers, body)
        except BaseException:
            response.close()
            raise
        self.metadata = ResponseMetadata.from_headers(response.headers)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._response.close()  # does nothing after the end of the body: the connection is in the pool by then

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._has_chunk:
            self._deadline = self._loop.time() + self._stall_s
        try:
            chunk = await self._read()
        except TimeoutError as error:
            raise self._with_ids(Stalled() if self._has_chunk else NoFirstByte()) from error
        except _TRANSPORT_ERRORS as error:
            raise self._with_ids(ConnectionBroken()) from error
        if not self._has_chunk:
            if not chunk:
                raise self._with_ids(NotAudio(code="empty_audio"))
            if not looks_like_audio(self._response.headers.get("Content-Type", ""), chunk):
                raise self._with_ids(NotAudio())
            self._has_chunk = True
        elif not chunk:
            raise StopAsyncIteration
        return chunk

    async def _send(self, session: aiohttp.ClientSession) -> aiohttp.ClientResponse:
        upload = aiohttp.UploadTracker()
        loop_has_run = asyncio.Event()
        self._loop.call_soon(loop_has_run.set)
        try:
            async with asyncio.timeout_at(self._deadline):
                response = await session.post(self._url, data=self._body, allow_redirects=False, upload_tracker=upload)
            if not loop_has_run.is_set():
                # aiohttp reuses an idle connection even if the peer has sent an unrequested response on it. Such a
                # response is available before the event loop has run once. A response to this request never is.
                response.close()
                raise aiohttp.ClientConnectionError("unrequested response")
        except TimeoutError as error:
            raise (NoFirstByte() if upload.bytes_written else Unreachable()) from error
        except _TRANSPORT_ERRORS as error:
            raise (ConnectionBroken() if upload.bytes_written else Unreachable()) from error
        return response

    async def _read(self) -> bytes:
        """Return the next bytes of the body, b"" at its end. Raises TimeoutError after the deadline."""
        content = self._response.content
        if chunk := content.read_nowait():
            return chunk
        try:
            async with asyncio.timeout_at(self._deadline):
                return await content.readany()
        except TimeoutError:
            # A busy event loop can find the bytes and the passed deadline in the same turn. The bytes are not late.
            chunk = content.read_nowait()
            if chunk or content.at_eof():
                return chunk
            raise

    def _with_ids(self, error: ProviderError) -> ProviderError:
        error.status = self._response.status
        error.request_id = self.metadata.request_id
        error.trace_id = self.metadata.trace_id
        return error
