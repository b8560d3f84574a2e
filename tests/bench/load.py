"""The load generator: three paths to the same upstream, and the audio that came over each.

The same client library talks to both relays, so a difference between them is theirs. The time runs from just before the
text is written until the first audio has been read.
"""

import asyncio
import json
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field

import aiohttp

from tests.bench.processes import Rig
from tests.bench.sound import BYTES_PER_SECOND, payload

SPEECH_TIMEOUT_S = 60.0
DIRECT = "direct"


@dataclass
class ReceivedUtterance:
    """One utterance as received. `late_s` is the largest delay of a read behind its playback time."""

    text: str
    began: float = 0.0
    first: float = 0.0
    late_s: float = 0.0
    reads: list[bytes] = field(default_factory=list)
    size: int = 0
    is_complete: bool = False

    @property
    def first_ms(self) -> float:
        return (self.first - self.began) * 1000

    def add_chunk(self, chunk: bytes) -> None:
        now = time.perf_counter()
        if not self.reads:
            self.first = now
        self.late_s = max(self.late_s, now - self.first - self.size / BYTES_PER_SECOND)
        self.reads.append(chunk)
        self.size += len(chunk)

    def finish(self) -> "ReceivedUtterance":
        self.is_complete = b"".join(self.reads) == payload(self.text)
        return self


class BenchClient(ABC):
    """A speaker with a path to the upstream. It speaks one utterance at a time."""

    async def speak(self, text: str) -> ReceivedUtterance:
        """Speak the text. If that fails, the utterance is not complete."""
        heard = ReceivedUtterance(text)
        with suppress(TimeoutError, aiohttp.ClientError, ConnectionError):
            async with asyncio.timeout(SPEECH_TIMEOUT_S):
                await self._speak(heard)
        return heard.finish()

    @abstractmethod
    async def close(self) -> None:
        """Close the connection. The current utterance ends there."""

    @abstractmethod
    async def _speak(self, heard: ReceivedUtterance) -> None: ...


class DirectClient(BenchClient):
    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url

    async def close(self) -> None:
        await self._session.close()

    async def _speak(self, heard: ReceivedUtterance) -> None:
        body = _body(heard.text)
        heard.began = time.perf_counter()
        async with self._session.post(self._url, data=body) as reply:
            async for chunk in reply.content.iter_any():
                heard.add_chunk(chunk)


class RelayClient(BenchClient):
    """A client of a relay. Binary frames come for each text, until a text frame that contains one of `ends`."""

    ends: tuple[str, ...] = ("end",)

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket

    def frame(self, text: str) -> str:
        return _body(text)

    async def close(self) -> None:
        await self.socket.close()

    async def _speak(self, heard: ReceivedUtterance) -> None:
        frame = self.frame(heard.text)
        heard.began = time.perf_counter()
        await self.socket.send_str(frame)
        while True:
            message = await self.socket.receive()
            if message.type is aiohttp.WSMsgType.BINARY:
                heard.add_chunk(message.data)
            elif message.type is not aiohttp.WSMsgType.TEXT:
                raise ConnectionError(f"closed with {self.socket.close_code}")
            elif any(end in message.data for end in self.ends):
                return


class VoicecareClient(RelayClient):
    ends = ("speech.finished", "speech.failed", "speech.interrupted", '"error"')

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        super().__init__(socket)
        self._said = 0

    def frame(self, text: str) -> str:
        self._said += 1
        return json.dumps({"type": "speak", "id": str(self._said), "text": text})

    async def start(self) -> None:
        await self.socket.send_str(json.dumps({"type": "conversation.start", "greeting": False}))
        while "conversation.started" not in await self.socket.receive_str():
            pass

    async def ping(self) -> float:
        """Return the round-trip time in milliseconds."""
        began = time.perf_counter()
        await self.socket.send_str('{"type": "ping"}')
        await self.socket.receive_str()
        return (time.perf_counter() - began) * 1000


def _body(text: str) -> str:
    return json.dumps({"text": text, "model_id": "eleven_flash_v2_5"})


@asynccontextmanager
async def open_clients(rig: Rig, target: str, count: int, url: str | None = None) -> AsyncIterator[list[BenchClient]]:
    """Open this many clients to a target, or to another process of it at `url`."""
    async with AsyncExitStack() as stack:
        pool = aiohttp.TCPConnector(limit=0, keepalive_timeout=240)
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=pool))
        if target == DIRECT:
            there = rig.upstream.url + "/v1/text-to-speech/bench/stream"
            yield [DirectClient(session, there) for _ in range(count)]
            return
        url = url or rig.relays[target].url
        tokens = rig.known[target].tokens[:count] or [None] * count
        yield [await _connect(stack, session, url, token) for token in tokens]


async def _connect(stack: AsyncExitStack, session: aiohttp.ClientSession, url: str, token: str | None) -> RelayClient:
    if token is None:
        return RelayClient(await stack.enter_async_context(session.ws_connect(url + "/", max_msg_size=0)))
    socket = await stack.enter_async_context(
        session.ws_connect(
            url + "/ws/device/",
            protocols=["voicecare.v1"],
            headers={"Authorization": f"Bearer {token}"},
            max_msg_size=0,
        )
    )
    line = VoicecareClient(socket)
    await line.start()
    return line
