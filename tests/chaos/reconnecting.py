"""Devices that talk all the time and connect again as docs/protocol.md recommends, and a clinician who queues texts.

They record what a patient hears. Times are those of `time.monotonic`.

The delays between attempts are those of the client package. Its `Device` is not used: these devices check each frame
against the contract, and record each attempt to connect and the end of each speech, which `Device` does not show.
They have no player, so they acknowledge what they have received.
"""

import asyncio
import random
import ssl
import time
import uuid
from collections import Counter, defaultdict
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field

import aiohttp

from tests.chaos.cluster import Listener
from tests.e2e.device import Device
from voicecare_client import TERMINAL_TYPES, ConnectionClosed, DeviceError, Frame, HandshakeRefused
from voicecare_client.reconnect import backoff

# As docs/protocol.md, "Connecting again", recommends.
HANDSHAKE_S = 5.0
QUIET_S, SILENT_S, PONG_S = 10.0, 3.0, 5.0

PAUSE_S = (0.3, 1.5)  # between two sentences of a device
TEXT_INTERVAL_S = 0.4  # between two texts of the clinician
REST_TIMEOUT_S = 20.0
CONVERSATION_S = 30.0  # for the answer to `conversation.start`
SENTENCE = "The sentence number {number} is said by the patient, who is talking."
TEXT = "This is the message number {number} for you."


@dataclass
class Sentence:
    """What a patient is to hear. `attempts` are the requests for it, `begun` those whose audio has begun."""

    text: str
    asked_at: float
    attempts: int = 0
    begun: int = 0
    heard_at: float | None = None  # the first audio
    finished: int = 0
    source: str = ""

    @property
    def waited_s(self) -> float:
        return (self.heard_at or time.monotonic()) - self.asked_at


@dataclass
class Gap:
    """The time between two connections. `last_frame_at` is before `noticed_at` if the connection broke silently."""

    end: str
    last_frame_at: float
    noticed_at: float
    back_at: float | None = None  # `conversation.started`
    attempts: list[str] = field(default_factory=list)  # how each attempt without a conversation ended


@dataclass(frozen=True)
class Ending:
    """The terminal frame of a speech."""

    kind: str
    at: float


class ReconnectingDevice:
    """Talks until `stopping` is set, and ends when it has also acknowledged all of `expected`."""

    def __init__(self, listener: Listener, url: str, tls: ssl.SSLContext) -> None:
        self.listener = listener
        self.sentences: list[Sentence] = []
        self.gaps: list[Gap] = []
        self.resumed: Counter[bool] = Counter()  # whether a resume was accepted
        self.refusals: Counter[str] = Counter()
        self.expected: set[str] = set(listener.deliveries)
        self.acknowledged: dict[str, float] = {}
        self.repeated: list[str] = []  # deliveries that began again after their acknowledgement
        self.terminals: dict[tuple[str, str], list[Ending]] = defaultdict(list)  # by conversation and id
        self.stopping = False
        self._url, self._tls = url, tls
        self._conversation: str | None = None
        self._wanted: Sentence | None = None  # not finished yet
        self._attempt = ""  # the id of the latest request for it
        self._playing = ""
        self._last_frame_at = time.monotonic()
        self._opened, self._ended = asyncio.Event(), asyncio.Event()

    @property
    def done(self) -> bool:
        return self.stopping and self._wanted is None and self.expected <= self.acknowledged.keys()

    async def run(self) -> None:
        delays = backoff()
        while not self.done:
            end = await self._connection()
            if self.done:
                return
            if self._opened.is_set():
                delays = backoff()
                self.gaps.append(Gap(end, self._last_frame_at, time.monotonic()))
            elif self.gaps:
                self.gaps[-1].attempts.append(end)
            self._opened.clear()
            await asyncio.sleep(next(delays))

    async def _connection(self) -> str:
        """Connect, talk and listen. Return how the connection, or the attempt, has ended."""
        try:
            await self._connect_and_converse()
        except ConnectionClosed as closed:
            return f"closed {closed.code}"
        except HandshakeRefused as refused:
            return f"refused {refused.status}"
        except (DeviceError, OSError, TimeoutError, aiohttp.ClientError) as error:
            return type(error).__name__
        return "done"

    async def _connect_and_converse(self) -> None:
        device = Device(self._url, self.listener.token, tls=self._tls)
        async with AsyncExitStack() as stack:
            async with asyncio.timeout(HANDSHAKE_S):
                await stack.enter_async_context(device)
            talking = asyncio.create_task(self._talk(device))
            try:
                await self._listen(device)
            finally:
                talking.cancel()
                await asyncio.wait({talking})
                if not self.done:
                    device.drop_connection()

    # Talking

    async def _talk(self, device: Device) -> None:
        with suppress(ConnectionClosed):
            await self._start(device)
            async with asyncio.timeout(CONVERSATION_S):
                await self._opened.wait()
            while self._wanted or not self.stopping:
                if self._wanted is None:
                    self._wanted = Sentence(SENTENCE.format(number=len(self.sentences) % 7), time.monotonic())
                    self.sentences.append(self._wanted)
                self._wanted.attempts += 1
                self._attempt = f"own-{uuid.uuid4().hex[:12]}"
                self._ended.clear()
                await device.send({"type": "speak", "id": self._attempt, "text": self._wanted.text})
                await self._ended.wait()
                await asyncio.sleep(random.uniform(*PAUSE_S))

    async def _start(self, device: Device) -> None:
        resume = {"resume": self._conversation} if self._conversation else {}
        await device.send({"type": "conversation.start", "greeting": False, **resume})

    # Listening

    async def _listen(self, device: Device) -> None:
        while not self.done:
            frame = await self._receive(device)
            self._last_frame_at = time.monotonic()
            device.received.clear()
            device.speeches.clear()
            if isinstance(frame, bytes):
                self._on_audio()
            else:
                await self._on_frame(device, frame)

    async def _receive(self, device: Device) -> Frame | bytes:
        """Return the next frame. A server that does not answer a ping is gone: raises TimeoutError."""
        try:
            async with asyncio.timeout(SILENT_S if self._wanted else QUIET_S):
                return await device.receive()
        except TimeoutError:
            await device.send({"type": "ping"})
        async with asyncio.timeout(PONG_S):
            return await device.receive()

    def _on_audio(self) -> None:
        sentence = self._wanted
        if sentence is not None and self._playing == self._attempt:
            self._playing = ""
            sentence.begun += 1
            sentence.heard_at = sentence.heard_at or time.monotonic()

    async def _on_frame(self, device: Device, frame: Frame) -> None:
        kind, speech_id = frame["type"], frame.get("id") or ""
        if kind == "conversation.started" and frame["initiated"] == "device":
            if self._conversation is not None:
                self.resumed[frame["conversation"] == self._conversation] += 1
            self._conversation = frame["conversation"]
            self._opened.set()
            if self.gaps and self.gaps[-1].back_at is None:
                self.gaps[-1].back_at = time.monotonic()
        elif kind == "error":
            self.refusals[frame["code"]] += 1
            if not self._opened.is_set():  # the server does not know the conversation any longer
                self._conversation = None
                await self._start(device)
        elif kind == "speech.started":
            self._playing = speech_id
            if speech_id in self.acknowledged:
                self.repeated.append(speech_id)
        elif kind in TERMINAL_TYPES:
            await self._on_end(device, frame)

    async def _on_end(self, device: Device, frame: Frame) -> None:
        self.terminals[self._conversation or "", frame["id"]].append(Ending(frame["type"], time.monotonic()))
        is_finished = frame["type"] == "speech.finished"
        if frame["id"].startswith("srv-"):
            if is_finished:
                await device.send({"type": "ack", "id": frame["id"]})
                self.acknowledged.setdefault(frame["id"], time.monotonic())
        elif frame["id"] == self._attempt and self._wanted is not None:
            if is_finished:
                self._wanted.finished += 1
                self._wanted.source = frame["source"]
                self._wanted = None
            self._ended.set()


class Clinician:
    """Queues texts over REST. An unanswered request is repeated with its key until it is accepted.

    A login that a new version does not accept any longer is repeated, too.
    """

    def __init__(self, url: str, user: dict[str, str], devices: list[ReconnectingDevice], tls: ssl.SSLContext) -> None:
        self.accepted = 0
        self.failures: Counter[str] = Counter()
        self.longest_s = 0.0  # from the first request for a text until it was accepted
        self.stopping = False
        self._url, self._user, self._tls = url, user, tls
        self._token = ""
        self._devices = devices

    async def run(self) -> None:
        timeout = aiohttp.ClientTimeout(total=REST_TIMEOUT_S)
        connector = aiohttp.TCPConnector(ssl=self._tls)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as http:
            while not self.stopping:
                await self._queue(http, random.choice(self._devices))
                await asyncio.sleep(TEXT_INTERVAL_S)

    async def _queue(self, http: aiohttp.ClientSession, device: ReconnectingDevice) -> None:
        url = f"{self._url}/api/v1/patients/{device.listener.patient}/speak/"
        body, key = {"text": TEXT.format(number=self.accepted), "expires_in_s": 900}, uuid.uuid4().hex
        began = time.monotonic()
        while True:
            try:
                if not self._token:
                    await self._log_in(http)
                headers = {"Authorization": f"Bearer {self._token}", "Idempotency-Key": key}
                async with http.post(url, json=body, headers=headers) as reply:
                    if reply.status in (200, 202):
                        device.expected.add(f"srv-{(await reply.json())['id']}")
                        break
                    self.failures[str(reply.status)] += 1
                    if reply.status == 401:
                        self._token = ""
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                self.failures[type(error).__name__] += 1
            await asyncio.sleep(0.5)
        self.accepted += 1
        self.longest_s = max(self.longest_s, time.monotonic() - began)

    async def _log_in(self, http: aiohttp.ClientSession) -> None:
        async with http.post(f"{self._url}/api/v1/auth/token/", json=self._user, raise_for_status=True) as reply:
            self._token = (await reply.json())["token"]
