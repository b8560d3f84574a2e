"""Streamed speech from ElevenLabs over aiohttp. One `SpeechClient` serves a whole process.

    async with client.speak(request, first_byte_s=2, stall_s=5) as response:
        async for chunk in response: ...

A chunk has the bytes of one network read. Every failure is raised as a `ProviderError` of `providers/errors.py`, never
as an exception of aiohttp or of the operating system.
"""

import asyncio
from contextlib import suppress
from types import TracebackType
from typing import Self

import aiohttp
from aiohttp.http import HttpProcessingError
from yarl import URL

from voicecare.providers.elevenlabs.connections import Connections, Pool
from voicecare.providers.elevenlabs.error_mapping import MAX_BODY_BYTES, error_from_response
from voicecare.providers.elevenlabs.requests import ResponseMetadata, SpeechRequest, looks_like_audio, request_headers
from voicecare.providers.errors import ConnectionBroken, NoFirstByte, NotAudio, ProviderError, Stalled, Unreachable

MAX_PRECONNECTS = 10
"""The requests of `preconnect` that run at the same time, so that a thousand devices that start together do not open a
thousand connections. Ten is the concurrency limit of the Creator plan: more requests than that seldom run."""

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
    """The HTTP client for live speech.

    Redirects are not followed, because the API key would be sent to the new address. Cookies are not kept. Proxies of
    the environment are not used. The constructor raises ValueError for a key that cannot be sent in a header.
    """

    def __init__(self, base_url: str, api_key: str) -> None:
        self._base_url = str(URL(base_url)).rstrip("/")
        self._api_key = api_key
        self._connections = Connections(_headers(api_key))
        self._preconnects = 0

    async def open(self) -> None:
        """Creates the connection pool in the running event loop, without opening a connection.

        A second call does nothing.
        """
        self._connections.open()

    async def close(self) -> None:
        """Closes all connections. Responses in progress fail, and later calls of `speak` raise Unreachable."""
        await self._connections.close()

    def change_key(self, api_key: str) -> bool:
        """Use another API key for requests from now on. Running requests continue. Returns False for the same key.

        Raises ValueError for a key that cannot be sent in a header. Then the key before it stays in use.
        """
        if api_key == self._api_key:
            return False
        self._connections.change_headers(_headers(api_key))
        self._api_key = api_key
        return True

    async def preconnect(self) -> None:
        """Makes sure that an idle connection is ready, by a request that is not billed. Never raises.

        So the next speech does not have to wait for DNS, TCP and TLS. If the pool already has an idle connection, the
        request uses this one, so that a dead connection is found before a patient waits for it. Does nothing while
        `MAX_PRECONNECTS` other calls run. An unused connection is closed after `UNUSED_S`.
        """
        if self._preconnects >= MAX_PRECONNECTS or (pool := self._connections.begin_in_advance()) is None:
            return
        self._preconnects += 1
        unanswered = False
        try:
            async with (
                asyncio.timeout(_PRECONNECT_TIMEOUT_S),
                pool.session.head(self._url("/"), allow_redirects=False),
            ):
                pass
        except _TRANSPORT_ERRORS as error:
            unanswered = not isinstance(error, aiohttp.ClientConnectorError)  # this error is about a new one
        finally:
            self._preconnects -= 1
            self._connections.end(pool, unanswered=unanswered)
            self._connections.close_if_unused()

    async def check(self, timeout_s: float) -> None:
        """Sends a request that is not billed, on a new connection, to find out whether the provider responds.

        Raises ProviderError if no response headers arrive within `timeout_s` seconds, or if the status is not 2xx.
        """
        pool = self._connections.begin(new_connection=True)
        if pool is None:
            raise _not_open()
        try:
            async with (
                asyncio.timeout(timeout_s),
                pool.session.get(self._url("/v1/models"), allow_redirects=False) as response,
            ):
                if not 200 <= response.status < 300:
                    raise error_from_response(response.status, response.headers, b"")
        except TimeoutError as error:
            raise NoFirstByte from error
        except _TRANSPORT_ERRORS as error:
            raise Unreachable from error
        finally:
            self._connections.end(pool)

    def speak(self, request: SpeechRequest, *, first_byte_s: float, stall_s: float) -> "SpeechResponse":
        """Returns the response to `request`.

        The request is sent when the `async with` block of the response is entered. The request is sent once, without
        retries. `first_byte_s` and `stall_s` are time limits in seconds, see SpeechResponse.
        """
        return SpeechResponse(
            self._connections,
            self._url(request.path()),
            request.body(),
            first_byte_s,
            stall_s,
            new_connection=request.new_connection,
        )

    def _url(self, path: str) -> URL:
        # `encoded`: yarl would undo the quoting of dots, and a voice id could then lead to another endpoint.
        return URL(self._base_url + path, encoded=True)


class SpeechResponse:
    """One stream of speech: an async context manager and an async iterator, each to be used once.

    Entering the block sends the request, and waits for the headers of a 2xx response. From then on the provider bills
    the request, and `metadata` is set. `first_byte_s` limits the time from entering the block to the first chunk,
    including the time to connect. `stall_s` limits the time to wait for each later chunk. The time in which the reader
    is busy between two chunks does not count.

    The iterator ends at the end of the body, as HTTP defines it. If the connection breaks before, ConnectionBroken is
    raised, and bytes that were not read before are lost. If the first chunk is not audio, NotAudio is raised and the
    chunk is not yielded. A body without any byte raises NotAudio with the code `empty_audio`.

    Leaving the block before the end closes the connection, so that the provider stops. A cancellation does the same.
    After the end, the connection is back in the pool. If a request was sent and got no response headers, the idle
    connections of the pool are discarded.
    """

    def __init__(
        self,
        connections: Connections,
        url: URL,
        body: bytes,
        first_byte_s: float,
        stall_s: float,
        *,
        new_connection: bool,
    ) -> None:
        self.metadata = ResponseMetadata()
        self._connections = connections
        self._new_connection = new_connection
        self._url = url
        self._body = body
        self._first_byte_s = first_byte_s
        self._stall_s = stall_s
        self._has_chunk = False
        self._pool: Pool
        self._response: aiohttp.ClientResponse

    async def __aenter__(self) -> Self:
        pool = self._connections.begin(new_connection=self._new_connection)
        if pool is None:
            raise _not_open()
        self._pool = pool
        self._loop = asyncio.get_running_loop()
        self._deadline = self._loop.time() + self._first_byte_s
        try:
            self._response = response = await self._send(pool.session)
        except BaseException as error:  # also after a cancellation, or the pool would count this request for ever
            self._connections.end(pool, unanswered=isinstance(error, NoFirstByte | ConnectionBroken))
            raise
        try:
            if not 200 <= response.status < 300:
                timeout_s = _SERVER_ERROR_BODY_TIMEOUT_S if response.status >= 500 else _ERROR_BODY_TIMEOUT_S
                body = b""
                with suppress(*_TRANSPORT_ERRORS):  # if the body does not arrive in time, the status decides
                    async with asyncio.timeout(timeout_s):
                        while len(body) <= MAX_BODY_BYTES and (chunk := await response.content.readany()):
                            body += chunk
                raise error_from_response(response.status, response.headers, body, for_speech=True)
        except BaseException:  # also after a cancellation, because no other code closes this response
            response.close()
            self._connections.end(pool)
            raise
        self.metadata = ResponseMetadata.from_headers(response.headers)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._response.close()  # does nothing after the end of the body: the connection is in the pool by then
        self._connections.end(self._pool)

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
        """Returns the next bytes of the body, or b"" at its end. Raises TimeoutError after the deadline."""
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


def _headers(api_key: str) -> dict[str, str]:
    return request_headers(api_key) | {"Content-Type": "application/json"}


def _not_open() -> Unreachable:
    return Unreachable("The speech client is not open.", code="client_closed")
