"""A persistent device: it acknowledges deliveries, sends its own texts, and reconnects after every failure."""

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from tests.chaos.cluster import Listener
from tests.e2e.device import Device
from voicecare_client import ConnectionClosed, DeviceError, Frame

UNWRITTEN_S = 3.0  # a busy process may not have written acknowledgements of this time before it was killed


@dataclass
class ConnectionLog:
    """One connection: its address, and the speeches that were started and finished in it."""

    url: str
    began: list[str] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)
    close_code: int | None = None


class Bedside:
    """A device that runs until it is stopped and has acknowledged everything. `urls` returns the addresses to try."""

    def __init__(self, listener: Listener, urls: Callable[[], list[str]]) -> None:
        self.listener = listener
        self.connections: list[ConnectionLog] = []
        self.acknowledged: dict[str, tuple[float, str]] = {}  # time and address of each acknowledgement
        self.spoken_texts: list[str] = []
        # Speeches that started again after their acknowledgement: id, time and address of that acknowledgement.
        self.repeated: list[tuple[str, float, str]] = []
        self.sources: list[str] = []
        self._urls = urls
        self._current_text: str | None = None
        self._number = 0
        self.stopping = False

    async def run(self, *, talks: bool) -> None:
        while not self.done:
            for url in self._urls():
                with suppress(DeviceError, OSError):
                    await self._connect(url, talks)
                    break
            await asyncio.sleep(random.uniform(0.05, 0.3))

    @property
    def done(self) -> bool:
        return self.stopping and self._current_text is None and not self.missing

    @property
    def missing(self) -> set[str]:
        return set(self.listener.deliveries) - set(self.acknowledged)

    async def _connect(self, url: str, talks: bool) -> None:
        async with Device(url, self.listener.token, timeout_s=45) as device:
            heard = ConnectionLog(url)
            self.connections.append(heard)
            try:
                await self._converse(device, heard, talks)
            except ConnectionClosed as closed:
                heard.close_code = closed.code

    async def _converse(self, device: Device, heard: ConnectionLog, talks: bool) -> None:
        if talks:
            await device.send({"type": "conversation.start", "greeting": False})
            await device.wait_for_frame("conversation.started")
            await self._speak(device)
        while not self.done:
            try:
                async with asyncio.timeout(0.5):
                    frame = await device.receive()
            except TimeoutError:
                continue
            if isinstance(frame, dict):
                await self._on_frame(device, heard, frame)

    async def _on_frame(self, device: Device, heard: ConnectionLog, frame: Frame) -> None:
        match frame["type"]:
            case "speech.started":
                heard.began.append(frame["id"])
                if frame["id"] in self.acknowledged:
                    self.repeated.append((frame["id"], *self.acknowledged[frame["id"]]))
            case "speech.finished" if frame["id"].startswith("srv-"):
                heard.finished.append(frame["id"])
                await device.send({"type": "ack", "id": frame["id"]})
                self.acknowledged.setdefault(frame["id"], (time.monotonic(), heard.url))
            case "speech.finished":
                heard.finished.append(frame["id"])
                self.sources.append(frame["source"])
                self.spoken_texts.append(self._current_text or "")
                self._current_text = None
                if not self.stopping:
                    await self._speak(device)
            case "speech.interrupted" | "speech.failed" if not frame["id"].startswith("srv-"):
                await self._speak(device)
            case "error":
                raise AssertionError(frame)

    async def _speak(self, device: Device) -> None:
        """Send the next sentence, or repeat the one that was not finished."""
        self._number += 1
        if self._current_text is None:
            self._current_text = f"The sentence number {self._number % 7} is said by the patient, who is talking."
        await device.send({"type": "speak", "id": f"own-{self._number}", "text": self._current_text})
