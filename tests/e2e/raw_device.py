"""A device on a raw socket that reads what it wants and when it wants, with the segments of a real network."""

import asyncio
import base64
import json
import os
import socket
import struct
import time
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

from tests.asyncapi import check_frame_to_device
from voicecare.audio.formats import FORMATS

MSS = 1400  # of Ethernet and Wi-Fi. Loopback's own is 64 KiB, with which the system buffers megabytes
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


class RawDevice:
    """Connected when the constructor returns. Its receive buffer has `receive_buffer` bytes."""

    def __init__(self, url: str, token: str, *, receive_buffer: int = 4096) -> None:
        parts = urlsplit(url)
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, MSS)
        self._socket.settimeout(10)
        self._socket.connect((parts.hostname, parts.port))
        self._received = b""
        key = base64.b64encode(os.urandom(16)).decode()
        self._socket.sendall(
            f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: voicecare.v1\r\n"
            f"Authorization: Bearer {token}\r\n\r\n".encode()
        )
        reply = self._socket.recv(4096)
        assert b" 101 " in reply, reply

    def __enter__(self) -> "RawDevice":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def send(self, **frame: object) -> None:
        self.send_frame(TEXT, json.dumps(frame).encode())

    def send_frame(self, opcode: int, payload: bytes = b"") -> None:
        """Send one frame, masked with zeros."""
        size = len(payload)
        if size < 126:
            length = bytes((0x80 | size,))
        else:
            length = struct.pack("!BH", 0xFE, size) if size < 1 << 16 else struct.pack("!BQ", 0xFF, size)
        self._socket.sendall(bytes((0x80 | opcode,)) + length + bytes(4) + payload)

    def speak(self, text: str, audio_format: str, speech_id: str = "s") -> str:
        """Open a conversation, request this speech and return the id of the conversation."""
        self.send(type="conversation.start", greeting=False, format=audio_format)
        started = self.receive()
        assert started["type"] == "conversation.started", started
        self.send(type="speak", id=speech_id, text=text)
        return str(started["conversation"])

    def receive(self) -> dict[str, Any]:
        """Return the next text frame. No other frame may come."""
        while (frame := self._next_frame()) is None:
            self._received += self._socket.recv(4096)
        assert frame[0] == TEXT, frame
        return _checked(frame[1])

    def is_closed(self) -> bool:
        """Whether the server has closed the connection. Reads and forgets what has arrived."""
        self._socket.setblocking(False)
        try:
            return self._socket.recv(1 << 16) == b""
        except BlockingIOError:
            return False
        except ConnectionResetError:
            return True

    async def frames(self) -> AsyncIterator[tuple[int, bytes]]:
        """Yield opcode and payload of each frame, without reading ahead. A ping is answered when it is read."""
        self._socket.setblocking(False)
        loop = asyncio.get_running_loop()
        while True:
            while frame := self._next_frame():
                if frame[0] == PING:
                    self.send_frame(PONG, frame[1])
                else:
                    yield frame
            data = await loop.sock_recv(self._socket, MSS)
            if not data:
                raise ConnectionResetError("closed by the server")
            self._received += data

    def _next_frame(self) -> tuple[int, bytes] | None:
        """Take one whole frame from what has been received."""
        data = self._received
        if len(data) < 2:
            return None
        size, start = data[1], 2
        if size == 126 and len(data) >= 4:
            size, start = int.from_bytes(data[2:4]), 4
        elif size == 127 and len(data) >= 10:
            size, start = int.from_bytes(data[2:10]), 10
        elif size > 125:
            return None
        if len(data) < start + size:
            return None
        self._received = data[start + size :]
        return data[0] & 0x0F, data[start : start + size]


def _checked(payload: bytes) -> dict[str, Any]:
    """Return the JSON frame. Raises an error if docs/asyncapi.yaml does not describe it."""
    frame: dict[str, Any] = json.loads(payload)
    check_frame_to_device(frame)
    return frame


async def play(
    device: RawDevice, audio_format: str, *, ahead_s: float = 1.0, speed: float = 1.0
) -> list[dict[str, Any]]:
    """Read frames in order, at most `ahead_s` ahead of playback, until a speech has ended. Return its text frames."""
    frames: list[dict[str, Any]] = []
    rate = FORMATS[audio_format].bytes_per_second
    played_until = time.monotonic()
    async for opcode, payload in device.frames():
        if opcode == TEXT:
            frames.append(_checked(payload))
            if frames[-1]["type"] in ("speech.finished", "speech.interrupted", "speech.failed"):
                return frames
        elif opcode == BINARY:
            played_until = max(played_until, time.monotonic()) + len(payload) / rate
            await asyncio.sleep(max(played_until - time.monotonic() - 1.0, 0))
    raise AssertionError("the connection has ended")
