"""A device that requests speech and then reads nothing. It uses a raw socket, because a library would read."""

import base64
import json
import os
import socket
import struct
from types import TracebackType
from typing import Self

RECEIVE_BUFFER_BYTES = 4096
LONG_TEXT = "This sentence goes on and on, as somebody does who has a great deal to tell. " * 60


class StuckDevice:
    """Connected when the constructor returns. With a token it connects to the server, without one to the bare relay."""

    def __init__(self, port: int, token: str | None) -> None:
        self._token = token
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        self._socket.connect(("127.0.0.1", port))
        self._shake_hands()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def request_speech(self) -> None:
        """Request a long text and never read the response."""
        if self._token is None:
            self._send({"text": LONG_TEXT})
        else:
            self._send({"type": "conversation.start", "greeting": False})
            self._send({"type": "speak", "id": "1", "text": LONG_TEXT})

    def _shake_hands(self) -> None:
        path = "/" if self._token is None else "/ws/device/"
        key = base64.b64encode(os.urandom(16)).decode()
        head = [
            f"GET {path} HTTP/1.1",
            "Host: 127.0.0.1",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {key}",
            "Sec-WebSocket-Version: 13",
        ]
        if self._token is not None:
            head += ["Sec-WebSocket-Protocol: voicecare.v1", f"Authorization: Bearer {self._token}"]
        self._socket.sendall("\r\n".join([*head, "", ""]).encode())
        reply = self._socket.recv(4096)
        if not reply.startswith(b"HTTP/1.1 101"):
            raise ConnectionError(f"refused: {reply[:200]!r}")

    def _send(self, message: dict[str, object]) -> None:
        """Send one masked text frame. The mask is all zeros, which leaves the bytes unchanged."""
        data = json.dumps(message).encode()
        size = bytes((0x80 | len(data),)) if len(data) < 126 else b"\xfe" + struct.pack(">H", len(data))
        self._socket.sendall(b"\x81" + size + bytes(4) + data)
