"""One WebSocket to the server, frame by frame."""

import asyncio
import json
import ssl
from types import TracebackType
from typing import Any, Self

import websockets
from websockets.asyncio.client import ClientConnection
from websockets.typing import Subprotocol

from voicecare_client.errors import ConnectionClosed, HandshakeRefused, ServerUnreachable

SUBPROTOCOL = Subprotocol("voicecare.v1")
MAX_QUEUED_FRAMES = 16  # received and not yet read; then the client stops to read from the network

Frame = dict[str, Any]


class Connection:
    """Any number of tasks may send, but only one task may receive at a time.

    `receive` raises TimeoutError if no frame comes for `timeout_s` seconds. No frame is lost if it is cancelled.
    `tls` is for a server whose certificate is from a private authority.

    Nothing more is read from the network while several received frames wait for `receive`. So a program that reads more
    slowly keeps the rest of the audio in the server.
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        timeout_s: float | None = 60.0,
        handshake_timeout_s: float = 60.0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._url = url
        self._token = token
        self._timeout_s = timeout_s
        self._handshake_timeout_s = handshake_timeout_s
        # Without one, `wss` takes the authorities of the system.
        self._tls: dict[str, Any] = {} if tls is None else {"ssl": tls}

    async def __aenter__(self) -> Self:
        """Connect. Raises ServerUnreachable or HandshakeRefused."""
        try:
            self._socket: ClientConnection = await websockets.connect(
                self._url,
                subprotocols=[SUBPROTOCOL],
                additional_headers={"Authorization": f"Bearer {self._token}"},
                compression=None,
                proxy=None,
                max_size=None,
                max_queue=MAX_QUEUED_FRAMES,
                open_timeout=self._handshake_timeout_s,
                ping_interval=None,
                **self._tls,
            )
        except websockets.InvalidStatus as refused:
            raise _refusal(refused.response.status_code, refused.response.body) from refused
        except TimeoutError as error:
            raise ServerUnreachable(self._url, f"no answer for {self._handshake_timeout_s:g} s") from error
        except (OSError, websockets.InvalidURI, websockets.InvalidHandshake) as error:
            raise ServerUnreachable(self._url, str(error)) from error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._socket.close()

    @property
    def close_code(self) -> int | None:
        """The close code of the WebSocket, or None while the socket is open."""
        return self._socket.close_code

    def drop_connection(self) -> None:
        """Drop the connection without a close frame, for a server that does not answer any more."""
        self._socket.transport.abort()

    async def send(self, frame: Frame) -> None:
        """Send any frame, even an invalid one. Raises ConnectionClosed."""
        await self._transmit(json.dumps(frame, ensure_ascii=False))

    async def receive(self) -> Frame | bytes:
        """Return the next frame. Raises ConnectionClosed and TimeoutError."""
        try:
            async with asyncio.timeout(self._timeout_s):
                message = await self._socket.recv()
        except websockets.ConnectionClosed as error:
            raise self._closed() from error
        return json.loads(message) if isinstance(message, str) else message

    async def _transmit(self, text: str) -> None:
        try:
            await self._socket.send(text)
        except websockets.ConnectionClosed as error:
            raise self._closed() from error

    def _closed(self) -> ConnectionClosed:
        return ConnectionClosed(self._socket.close_code, self._socket.close_reason or "")


def _refusal(status: int, body: bytes | bytearray | None) -> HandshakeRefused:
    """Return the error for the answer to a refused handshake. A body that is not from voicecare is left out."""
    try:
        answer = json.loads(body or b"")
        return HandshakeRefused(status, str(answer["code"]), str(answer["message"]))
    except (ValueError, KeyError, TypeError):
        return HandshakeRefused(status)
