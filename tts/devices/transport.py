"""The sending side of a device's socket: whole frames, in the order in which they are given."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

from autobahn.exception import Disconnected

from tts.devices.daphne_fast_path import DaphneConnection

Frame = dict[str, Any] | bytes
Send = Callable[[dict[str, Any]], Awaitable[None]]

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class DeviceTransport:
    """Sends frames to one device. `send` is the ASGI server's, as a consumer gets it."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._is_stopped = False
        self._disconnected = False
        self._daphne = DaphneConnection.find(send)

    def stop_sending(self) -> None:
        """Drop all further frames. To be called when the device is disconnected."""
        self._is_stopped = True

    async def send(self, *frames: Frame) -> None:
        """Send a dict as one JSON text frame and bytes as one binary frame. The frames leave together.

        Frames for a device that has closed are dropped. daphne reports that only when what it holds has left or is
        lost.
        """
        if self._is_stopped:
            return
        payloads = [frame if isinstance(frame, bytes) else _encode(frame) for frame in frames]
        writer = self._daphne.writer if self._daphne is not None else None
        if writer is not None and writer.is_open:
            writer.write(payloads)
            return
        for payload in payloads:
            content = {"bytes": payload} if isinstance(payload, bytes) else {"text": payload}
            try:
                await self._send({"type": "websocket.send", **content})
            except Disconnected:
                self._disconnected = True
                return

    async def close(self, code: int) -> None:
        await self._send({"type": "websocket.close", "code": code})

    def buffered_bytes(self) -> int:
        """Return how many bytes were sent and have not left this process, as far as that is known.

        Never 0 after frames were dropped because the device has closed: those bytes will not arrive.
        """
        return self._disconnected + (0 if self._daphne is None else self._daphne.buffered_bytes())
