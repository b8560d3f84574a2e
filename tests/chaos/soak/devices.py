"""The load: devices that do all that the protocol allows, and clinicians."""

import asyncio
import random
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from tests.chaos.cluster import Listener
from tests.e2e.device import Device
from voicecare_client import TERMINAL_TYPES, ConnectionClosed, DeviceError, Frame

SENTENCES = (
    "Good morning, did you sleep well?",
    "It is half past eight, and the sun is out. Your daughter comes at eleven. Shall we have breakfast first?",
    "That is wonderful! Tell me more about the garden, please.",
    "I see.",
)
LONG_TEXT = " ".join(f"This is sentence number {number} of a long story about the sea." for number in range(12))
SESSION_S = (5.0, 40.0)
REST_TIMEOUT_S = 90.0


@dataclass
class SentSpeech:
    """A speech that a device has requested, in the connection of number `connection`."""

    conversation: str
    id: str
    sent_at: float
    url: str
    connection: int
    endings: list[str] = field(default_factory=list)
    refused: bool = False


@dataclass
class Record:
    """What all devices and clinicians have seen. `ended` are the connections whose conversation was ended in order."""

    speeches: dict[tuple[str, str], SentSpeech] = field(default_factory=dict)
    ended: set[int] = field(default_factory=set)
    deliveries: set[str] = field(default_factory=set)  # utterance ids that REST has accepted
    repeated_in_connection: list[str] = field(default_factory=list)
    connections: int = 0
    rest_speeches: int = 0
    uploads: int = 0
    refusals: dict[str, int] = field(default_factory=dict)
    closes: dict[int, int] = field(default_factory=dict)


class SoakDevice:
    """One device. It connects again and again, mostly to resume its conversation, until `stopping` is set."""

    def __init__(self, listener: Listener, urls: Callable[[], list[str]], record: Record) -> None:
        self._listener = listener
        self._urls = urls
        self._record = record
        self._conversation: str | None = None
        self._count = 0
        self._opened, self._ended = asyncio.Event(), asyncio.Event()  # of the current connection
        self._reading = asyncio.Lock()  # held while the device reads nothing
        self.stopping = False

    async def run(self) -> None:
        while not self.stopping:
            url = random.choice(self._urls())
            with suppress(DeviceError, OSError, TimeoutError, aiohttp.ClientError):
                await self._session(url)
            await asyncio.sleep(random.uniform(0.05, 1.5))

    async def _session(self, url: str) -> None:
        async with Device(url, self._listener.token, timeout_s=REST_TIMEOUT_S) as device:
            self._record.connections += 1
            number = self._record.connections
            self._opened, self._ended, self._reading = asyncio.Event(), asyncio.Event(), asyncio.Lock()
            reading = asyncio.create_task(self._read(device, number))
            try:
                await self._open(device)
                await self._act(device, url, number)
            finally:
                if random.random() < 0.3:
                    device.drop_connection()
                reading.cancel()
                await asyncio.wait({reading})

    async def _open(self, device: Device) -> None:
        """Resume the conversation, or start one if there is none or the server does not know it any more."""
        resume = {"resume": self._conversation} if self._conversation and random.random() < 0.7 else {}
        self._conversation = None
        await device.send({"type": "conversation.start", "greeting": False, **resume})
        try:
            async with asyncio.timeout(20):
                await self._opened.wait()
        except TimeoutError:
            raise ConnectionClosed(None) from None

    async def _act(self, device: Device, url: str, number: int) -> None:
        actions = (self._speak, self._speak, self._speak, self._stream, self._interrupt, self._read_nothing)
        until = time.monotonic() + random.uniform(*SESSION_S)
        while time.monotonic() < until and not self.stopping:
            await random.choice(actions)(device, url, number)
            await asyncio.sleep(random.expovariate(0.5))
        if self.stopping or random.random() < 0.4:
            await self._end(device, number)

    async def _end(self, device: Device, number: int) -> None:
        """End the conversation and wait for the answer: then every speech has ended."""
        await device.send({"type": "conversation.end"})
        async with asyncio.timeout(30):
            await self._ended.wait()
        self._record.ended.add(number)
        self._conversation = None

    async def _speak(self, device: Device, url: str, number: int) -> None:
        text = LONG_TEXT if random.random() < 0.1 else random.choice(SENTENCES)
        await device.send({"type": "speak", "id": self._new_id(url, number), "text": text})

    async def _stream(self, device: Device, url: str, number: int) -> None:
        speech = self._new_id(url, number)
        for word in random.choice(SENTENCES).split():
            await device.send({"type": "speak.delta", "id": speech, "text": f"{word} "})
            await asyncio.sleep(random.uniform(0, 0.1))
        await device.send({"type": "speak.done", "id": speech})

    async def _interrupt(self, device: Device, url: str, number: int) -> None:
        await device.send({"type": "interrupt"})

    async def _read_nothing(self, device: Device, url: str, number: int) -> None:
        if random.random() < 0.2:
            async with self._reading:
                await asyncio.sleep(random.uniform(3, 25))

    def _new_id(self, url: str, number: int) -> str:
        self._count += 1
        speech = SentSpeech(self._conversation or "", f"s{self._count}", time.monotonic(), url, number)
        self._record.speeches[speech.conversation, speech.id] = speech
        return speech.id

    # Frames

    async def _read(self, device: Device, number: int) -> None:
        began: set[str] = set()
        try:
            while True:
                async with self._reading:
                    frame = await device.receive()
                device.received.clear()
                for result in device.speeches.values():
                    result.chunks.clear()
                if isinstance(frame, dict):
                    await self._on_frame(device, frame, began)
        except ConnectionClosed as closed:
            code = int(closed.code or 0)
            self._record.closes[code] = self._record.closes.get(code, 0) + 1
            device.drop_connection()

    async def _on_frame(self, device: Device, frame: Frame, began: set[str]) -> None:
        kind, speech_id = frame["type"], frame.get("id") or ""
        if kind == "conversation.started":
            self._conversation = frame["conversation"]
            self._opened.set()
        elif kind == "conversation.ended":
            self._ended.set()
        elif kind == "error":
            self._record.refusals[frame["code"]] = self._record.refusals.get(frame["code"], 0) + 1
            if speech := self._speech(speech_id):
                speech.refused = True
            if not self._opened.is_set():  # an unknown conversation: start another one
                await device.send({"type": "conversation.start", "greeting": False})
        elif kind == "speech.started":
            if speech_id in began:
                self._record.repeated_in_connection.append(speech_id)
            began.add(speech_id)
        elif kind in TERMINAL_TYPES:
            if speech := self._speech(speech_id):
                speech.endings.append(kind)
            if kind == "speech.finished" and speech_id.startswith("srv-") and random.random() < 0.9:
                await device.send({"type": "ack", "id": speech_id})

    def _speech(self, speech_id: str) -> SentSpeech | None:
        return self._record.speeches.get((self._conversation or "", speech_id))


class Clinician:
    """Queues texts for patients, listens to speech, sometimes without reading it, and uploads recordings."""

    def __init__(self, token: str, patients: list[str], urls: Callable[[], list[str]], record: Record) -> None:
        self._headers = {"Authorization": f"Bearer {token}"}
        self._patients = patients
        self._urls = urls
        self._record = record
        self.stopping = False

    async def run(self, recording: bytes, upload_interval_s: float) -> None:
        uploaded_at = time.monotonic()
        timeout = aiohttp.ClientTimeout(total=REST_TIMEOUT_S)
        async with aiohttp.ClientSession(headers=self._headers, timeout=timeout) as http:
            while not self.stopping:
                with suppress(aiohttp.ClientError, TimeoutError, OSError):
                    if time.monotonic() - uploaded_at > upload_interval_s:
                        uploaded_at = time.monotonic()
                        await self._upload(http, recording)
                    elif random.random() < 0.6:
                        await self._queue_text(http)
                    else:
                        await self._listen(http)
                await asyncio.sleep(random.expovariate(0.4))

    def _url(self, path: str) -> str:
        return random.choice(self._urls()) + f"/api/v1/{path}"

    async def _queue_text(self, http: aiohttp.ClientSession) -> None:
        path = f"patients/{random.choice(self._patients)}/speak/"
        body: dict[str, Any] = {"text": random.choice(SENTENCES), "expires_in_s": random.choice((30, 90, 600))}
        async with http.post(self._url(path), json=body, headers={"Idempotency-Key": uuid.uuid4().hex}) as reply:
            if reply.status == 202:
                self._record.deliveries.add((await reply.json())["id"])

    async def _listen(self, http: aiohttp.ClientSession) -> None:
        async with http.post(self._url("speech/"), json={"text": LONG_TEXT, "format": "pcm_16000"}) as reply:
            self._record.rest_speeches += 1
            if random.random() < 0.2:
                await asyncio.sleep(random.uniform(1, 10))  # reads nothing, and then leaves
            else:
                await reply.read()

    async def _upload(self, http: aiohttp.ClientSession, recording: bytes) -> None:
        form = aiohttp.FormData()
        fields = {"name": "A relative", "consent": "true", "consent_by": "A relative"}
        for name, value in fields.items():
            form.add_field(name, value)
        form.add_field("sample", recording, filename="sample.mp3", content_type="audio/mpeg")
        async with http.post(self._url(f"patients/{random.choice(self._patients)}/clones/"), data=form) as reply:
            self._record.uploads += reply.status == 202
