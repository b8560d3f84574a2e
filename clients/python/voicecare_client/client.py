"""One connection that collects what it receives, for tools and tests. It does not reconnect; `Device` does.

async with DeviceClient("ws://127.0.0.1:8000/ws/device/", token) as device:
    started = await device.start(greeting=False)
    result = await device.speak("Good morning")
    print(result.terminal["type"], len(result.audio), result.first_audio_s)
"""

import ssl
import time
from dataclasses import dataclass, field
from itertools import count

from voicecare_client.connection import Connection, Frame
from voicecare_client.errors import ConnectionClosed, RequestRefused

GREETING_ID = "greeting"
TERMINAL_TYPES = frozenset({"speech.finished", "speech.interrupted", "speech.failed"})


@dataclass(slots=True)
class SpeechResult:
    """Everything that the client has received of one speech.

    `frames` are the JSON frames of the speech, including notices. `chunks` are its binary frames, unchanged.
    `requested_at` and `first_audio_at` are seconds of `time.perf_counter`.
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
        """The frame that ended the speech, for example `speech.finished`.

        An empty dict until that frame has arrived.
        """
        return self.frames[-1] if self.is_done else {}

    @property
    def is_done(self) -> bool:
        return bool(self.frames) and self.frames[-1]["type"] in TERMINAL_TYPES

    @property
    def first_audio_s(self) -> float | None:
        """Seconds from the request to the first audio received.

        None if another client requested the speech, or if no audio was received.
        """
        if self.requested_at is None or self.first_audio_at is None:
            return None
        return self.first_audio_at - self.requested_at

    def frames_of(self, *kinds: str) -> list[Frame]:
        """Return the frames whose `type` is one of `kinds`, for example "speech.started"."""
        return [frame for frame in self.frames if frame["type"] in kinds]

    def add_chunk(self, chunk: bytes) -> None:
        if not self.chunks:
            self.first_audio_at = time.perf_counter()
        self.chunks.append(chunk)


class DeviceClient(Connection):
    """One device connection. Any number of tasks may send, but only one task may receive at a time.

    Each received frame is added to `speeches` (by speech id) or `notices`, also while the client waits for another
    frame. So a greeting, or a speech that was sent earlier, can be awaited later with `wait_for`. A method that waits
    for a frame raises TimeoutError if no frame comes for `timeout_s` seconds. No frame is lost if a wait is cancelled.
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        format: str | None = None,
        timeout_s: float | None = 60.0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(url, token, timeout_s=timeout_s, tls=tls)
        self.speeches: dict[str, SpeechResult] = {}
        self.notices: list[Frame] = []
        self._format = format
        self._ids = (f"say-{number}" for number in count(1))
        self._playing: SpeechResult | None = None

    # Frames

    async def send(self, frame: Frame) -> None:
        """Send any frame, even an invalid one. Raises ConnectionClosed."""
        if frame.get("type") in ("speak", "speak.delta") and isinstance(frame.get("id"), str):
            result = self._unfinished_result(frame["id"])
            if result.requested_at is None:
                result.requested_at = time.perf_counter()
        await super().send(frame)

    async def receive(self) -> Frame | bytes:
        """Return the next frame, after adding it to `speeches` or `notices`.

        Raises ConnectionClosed and TimeoutError.
        """
        frame = await super().receive()
        if isinstance(frame, dict):
            self._dispatch(frame)
        elif self._playing is not None:
            self._playing.add_chunk(frame)
        return frame

    async def wait_closed(self) -> int | None:
        """Receive frames until the server closes the socket. Return the close code."""
        try:
            while True:
                await self.receive()
        except ConnectionClosed as closed:
            return closed.code

    # Conversations and speeches

    async def start(self, *, greeting: bool | None = None, resume: str | None = None) -> Frame:
        """Start a conversation, or resume the one with the id `resume`. Return the `conversation.started` frame.

        Raises RequestRefused.
        """
        self.speeches.pop(GREETING_ID, None)  # the greeting of an earlier conversation has the same id
        wanted = {"format": self._format, "greeting": greeting, "resume": resume}
        given = {name: value for name, value in wanted.items() if value is not None}
        await self.send({"type": "conversation.start", **given})
        return await self._wait_for_reply("conversation.started")

    async def speak(self, text: str, id: str | None = None) -> SpeechResult:
        """Request a speech of this text and return its result when it has ended.

        Raises RequestRefused if it is not accepted.
        """
        speech_id = next(self._ids) if id is None else id
        await self.send({"type": "speak", "id": speech_id, "text": text})
        return await self.wait_for(speech_id)

    async def wait_for(self, id: str) -> SpeechResult:
        """Receive frames until the speech with this id has ended.

        Raises RequestRefused on an `error` frame with this id.
        """
        while not (result := self.speeches.setdefault(id, SpeechResult(id))).is_done:
            frame = await self.receive()
            if isinstance(frame, dict) and frame["type"] == "error" and frame.get("id") == id:
                raise RequestRefused(frame)
        return result

    async def interrupt(self, id: str | None = None) -> None:
        """Stop the speech with this id, or without an id all speeches that this device has requested."""
        await self.send({"type": "interrupt"} if id is None else {"type": "interrupt", "id": id})

    async def end(self) -> Frame:
        """End the conversation. Return the `conversation.ended` frame.

        Raises RequestRefused if no conversation is open.
        """
        await self.send({"type": "conversation.end"})
        return await self._wait_for_reply("conversation.ended")

    # Internal

    async def _wait_for_reply(self, kind: str) -> Frame:
        while True:
            frame = await self.receive()
            if not isinstance(frame, dict):
                continue
            if frame["type"] == kind:
                return frame
            if frame["type"] == "error" and "id" not in frame:
                raise RequestRefused(frame)

    def _unfinished_result(self, id: str) -> SpeechResult:
        """Return the result of the running speech with this id, or a new result.

        An id may be used again in a later conversation. It then gets a new result.
        """
        result = self.speeches.get(id)
        if result is None or result.is_done:
            result = self.speeches[id] = SpeechResult(id)
        return result

    def _dispatch(self, frame: Frame) -> None:
        kind: str = frame["type"]
        if kind == "notice":
            self.notices.append(frame)
            if self._playing is not None:
                self._playing.frames.append(frame)
        elif kind.startswith("speech."):
            result = self._unfinished_result(frame["id"])
            result.frames.append(frame)
            if kind == "speech.started":
                self._playing = result
            elif result.is_done and result is self._playing:  # a waiting speech may end while another one plays
                self._playing = None
