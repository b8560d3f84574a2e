"""The sending side of a device's socket. It sends whole frames, in the order of the calls."""

import asyncio
import json
from typing import Any

from autobahn.exception import Disconnected

from tts.devices import close_reasons
from tts.devices.daphne_fast_path import DaphneConnection

Frame = dict[str, Any] | bytes

FIRST_CHECK_S = 0.01
LAST_CHECK_S = 0.25  # the longest pause between two looks at a device that reads slowly

encode_frame = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class DeviceTransport:
    """Sends frames to one device. `send` is the callable that the ASGI server passes to the application."""

    def __init__(self, send: close_reasons.Send) -> None:
        self._send: close_reasons.Send | None = send
        self._disconnected = False
        self._daphne = DaphneConnection.find(send)

    def stop_sending(self) -> None:
        """Drop all further frames, and free the unread bytes. Call it when the device is disconnected."""
        self._disconnected = True
        if self._daphne is not None:
            self._daphne.stop()
        self._send = self._daphne = None

    async def send(self, *frames: Frame, audio_s: float = 0.0) -> None:
        """Send each dict as one JSON text frame and each bytes object as one binary frame. The frames leave together.

        `audio_s` is the playing time of the audio in the frames, in seconds. Frames for a device that has closed are
        dropped. daphne reports that a device has closed only when all bytes that it holds have been sent or are lost. A
        device that leaves more than MAX_UNREAD_BYTES unread is disconnected without a close code.
        """
        send = self._send
        if send is None:
            return
        payloads = [frame if isinstance(frame, bytes) else encode_frame(frame) for frame in frames]
        if self._daphne is not None and self._daphne.write(payloads, audio_s):
            return
        for payload in payloads:
            content = {"bytes": payload} if isinstance(payload, bytes) else {"text": payload}
            try:
                await send({"type": "websocket.send", **content})
            except Disconnected:
                self._disconnected = True
                return

    async def close(self, code: int) -> None:
        """Close the socket with this close code and its reason."""
        if self._send is not None:
            await close_reasons.close(self._send, code)

    def read_on(self) -> None:
        """Read further frames of the device, if reading has stopped. Call it after each frame is handled."""
        if self._daphne is not None:
            self._daphne.read_on()

    def buffered_bytes(self) -> int:
        """Return how many bytes were sent and have not left this process. 0 if the server does not say how many.

        If frames were dropped because the device has closed, the result is never 0, because those bytes will not
        arrive.
        """
        return self._disconnected + (0 if self._daphne is None else self._daphne.buffered_bytes())

    async def wait_for_buffer(self, size: int) -> None:
        """Wait until at most `size` sent bytes have not left this process."""
        pause_s = FIRST_CHECK_S
        while self.buffered_bytes() > size:
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LAST_CHECK_S)
