"""A device of the contract (section 1) as a client: for the command line, for tests, and as an example for firmware.

async with DeviceClient("ws://127.0.0.1:8000/ws/device/", token) as device:
    started = await device.start(greeting=False)
    spoken = await device.speak("Good morning")
    spoken.terminal["type"], spoken.audio, spoken.first_audio_s

It knows nothing of the server but the contract. Errors, translated here from those of the socket:

    DeviceError
    ├── Unreachable         nobody answers at this address
    ├── HandshakeRefused    the server answered without opening a socket; `status`
    ├── Closed              the socket was closed; `code`
    └── RequestRefused      the server answered a request of ours with an `error` frame; `frame`
"""

import asyncio
import json
import time
from dataclasses import dataclass, field
from itertools import count
from types import TracebackType
from typing import Any, Self

import aiohttp

SUBPROTOCOL = "voicecare.v1"
GREETING_ID = "greeting"
TERMINAL_TYPES = frozenset({"speech.finished", "speech.interrupted", "speech.failed"})
DEMO_TOKEN_FILE = "demo-device-token"  # noqa: S105 - a file in the data directory, left there by `manage.py seed_demo`

Frame = dict[str, Any]


class DeviceError(Exception):
    """Something that a device's owner should be told, in words."""


class ServerUnreachable(DeviceError):
    def __init__(self, url: str) -> None:
        super().__init__(f"Nobody answers at {url}.")


class HandshakeRefused(DeviceError):
    def __init__(self, status: int) -> None:
        super().__init__(f"The server refused the connection with HTTP {status}.")
        self.status = status


class ConnectionClosed(DeviceError):
    def __init__(self, code: int | None) -> None:
        super().__init__(f"The server closed the connection with code {code}.")
        self.code = code


class RequestRefused(DeviceError):
    def __init__(self, frame: Frame) -> None:
        super().__init__(f"{frame.get('code')}: {frame.get('message')}")
        self.frame = frame


@dataclass(slots=True)
class SpeechResult:
    """What came of one speech.

    `frames` are its JSON frames, notices included; `chunks` its binary frames, as they came; `asked_at` and
    `first_audio_at` are seconds of `time.perf_counter`.
    """

    id: str
    frames: list[Frame] = field(default_factory=list)
    chunks: list[bytes] = field(default_factory=list)
    requested_at: float | None = None
    first_audio_at: float | None = None

    @property
    def audio(self) -> bytes:
        return b"".join(self.chunks)

    @property
    def terminal(self) -> Frame:
        """`speech.finished`, `speech.interrupted` or `speech.failed`; empty until it came."""
        return self.frames[-1] if self.is_done else {}

    @property
    def is_done(self) -> bool:
        return bool(self.frames) and self.frames[-1]["type"] in TERMINAL_TYPES

    @property
    def first_audio_s(self) -> float | None:
        """From asking for it to its first sound here; None for a speech that nobody here asked for, or a silent one."""
        if self.requested_at is None or self.first_audio_at is None:
            return None
        return self.first_audio_at - self.requested_at

    def frames_of(self, *kinds: str) -> list[Frame]:
        """Its frames of these types, for example `speech.started`."""
        return [frame for frame in self.frames if frame["type"] in kinds]

    def add_chunk(self, chunk: bytes) -> None:
        if not self.chunks:
            self.first_audio_at = time.perf_counter()
        self.chunks.append(chunk)


class DeviceClient:
    """One socket. Any number of tasks may send, one may receive at a time.

    What arrives while something else is awaited is sorted into `speeches` and `notices`, so that a greeting or a speech
    sent ahead can be awaited later with `hear`. No frame is waited for longer than `timeout_s`: then TimeoutError is
    raised. Cancelling a wait loses nothing: the next one goes on where it stopped.
    """

    def __init__(self, url: str, token: str, *, format: str | None = None, timeout_s: float | None = 60.0) -> None:
        self.speeches: dict[str, SpeechResult] = {}
        self.notices: list[Frame] = []
        self._url = url
        self._token = token
        self._format = format
        self._timeout_s = timeout_s
        self._ids = (f"say-{number}" for number in count(1))
        self._playing: SpeechResult | None = None
        self._close_code: int | None = None

    async def __aenter__(self) -> Self:
        """Raises Unreachable or HandshakeRefused."""
        self._session = aiohttp.ClientSession()
        try:
            self._socket = await self._connect()
        except BaseException:
            await self._session.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._socket.close()
        await self._session.close()

    async def _connect(self) -> aiohttp.ClientWebSocketResponse:
        try:
            return await self._session.ws_connect(
                self._url, protocols=(SUBPROTOCOL,), headers={"Authorization": f"Bearer {self._token}"}, max_msg_size=0
            )
        except aiohttp.WSServerHandshakeError as error:
            raise HandshakeRefused(error.status) from error
        except aiohttp.ClientError as error:
            raise ServerUnreachable(self._url) from error

    @property
    def close_code(self) -> int | None:
        """Why the socket was closed; None while it is open."""
        return self._close_code or self._socket.close_code if self._socket.closed else None

    # Raw frames

    async def send(self, frame: Frame) -> None:
        """Sends any frame, also one that the contract forbids."""
        if frame.get("type") in ("speak", "speak.delta") and isinstance(frame.get("id"), str):
            self._mark_requested(frame["id"])
        await self._transmit(json.dumps(frame, ensure_ascii=False))

    async def receive(self) -> Frame | bytes:
        """The next frame, which is also sorted into `speeches`. Raises Closed."""
        async with asyncio.timeout(self._timeout_s):
            message = await self._socket.receive()
        if message.type is aiohttp.WSMsgType.TEXT:
            frame: Frame = json.loads(message.data)
            self._dispatch(frame)
            return frame
        if message.type is aiohttp.WSMsgType.BINARY:
            if self._playing is not None:
                self._playing.add_chunk(message.data)
            return bytes(message.data)
        if message.type is aiohttp.WSMsgType.CLOSE:
            self._close_code = message.data  # aiohttp forgets it when the server is gone before our answer
        raise ConnectionClosed(self.close_code)

    async def wait_closed(self) -> int | None:
        """Reads until the server closes; the close code."""
        try:
            while True:
                await self.receive()
        except ConnectionClosed as closed:
            return closed.code

    # Conversations and speeches

    async def start(self, *, greeting: bool | None = None, resume: str | None = None) -> Frame:
        """Opens a conversation; its `conversation.started`. Raises RequestRefused."""
        self.speeches.pop(GREETING_ID, None)  # of an earlier conversation
        wanted = {"format": self._format, "greeting": greeting, "resume": resume}
        given = {name: value for name, value in wanted.items() if value is not None}
        await self.send({"type": "conversation.start", **given})
        return await self._wait_for_reply("conversation.started")

    async def speak(self, text: str, id: str | None = None) -> SpeechResult:
        """Says the text and returns when it has been said, or not. Raises RequestRefused if it is not accepted."""
        speech_id = next(self._ids) if id is None else id
        await self.send({"type": "speak", "id": speech_id, "text": text})
        return await self.wait_for(speech_id)

    async def wait_for(self, id: str) -> SpeechResult:
        """Receives until the speech with this id is over. Raises RequestRefused on an error that names it."""
        while not (spoken := self.speeches.setdefault(id, SpeechResult(id))).is_done:
            frame = await self.receive()
            if isinstance(frame, dict) and frame["type"] == "error" and frame.get("id") == id:
                raise RequestRefused(frame)
        return spoken

    async def interrupt(self, id: str | None = None) -> None:
        await self.send({"type": "interrupt"} if id is None else {"type": "interrupt", "id": id})

    async def end(self) -> Frame:
        """Ends the conversation; its `conversation.ended`. Raises RequestRefused."""
        await self.send({"type": "conversation.end"})
        return await self._wait_for_reply("conversation.ended")

    # Inside

    async def _transmit(self, text: str) -> None:
        try:
            await self._socket.send_str(text)
        except aiohttp.ClientConnectionError as error:
            raise ConnectionClosed(self.close_code) from error

    async def _wait_for_reply(self, kind: str) -> Frame:
        while True:
            frame = await self.receive()
            if not isinstance(frame, dict):
                continue
            if frame["type"] == kind:
                return frame
            if frame["type"] == "error" and "id" not in frame:
                raise RequestRefused(frame)

    def _mark_requested(self, id: str) -> None:
        spoken = self._unfinished_result(id)
        if spoken.requested_at is None:
            spoken.requested_at = time.perf_counter()

    def _unfinished_result(self, id: str) -> SpeechResult:
        """An id may be used again in the next conversation: what came of its former use makes way."""
        known = self.speeches.get(id)
        if known is None or known.is_done:
            known = self.speeches[id] = SpeechResult(id)
        return known

    def _dispatch(self, frame: Frame) -> None:
        kind: str = frame["type"]
        if kind == "notice":
            self._notice(frame)
        elif kind.startswith("speech."):
            spoken = self._unfinished_result(frame["id"])
            spoken.frames.append(frame)
            if kind == "speech.started":
                self._playing = spoken
            elif spoken.is_done and spoken is self._playing:  # one that only waited may end while another is heard
                self._playing = None

    def _notice(self, frame: Frame) -> None:
        self.notices.append(frame)
        if self._playing is not None:
            self._playing.frames.append(frame)
