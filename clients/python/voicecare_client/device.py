"""A device at a bedside: it keeps a connection, plays speech, and acknowledges what was played.

    async with Device("wss://voice.example.org/ws/device/", token, find_player("mp3_44100_128")) as device:
        await device.speak("Good morning")  # returns when the patient has heard it
        await device.wait_until_given_up()

It does what docs/write-a-device.md recommends.
"""

import asyncio
import logging
import ssl
import time
import uuid
from asyncio import Future
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from voicecare_client.connection import Connection, Frame
from voicecare_client.errors import (
    ConnectionClosed,
    DeviceError,
    HandshakeRefused,
    RequestRefused,
    ServerUnreachable,
    SpeechFailed,
)
from voicecare_client.players import Player
from voicecare_client.playlist import BUFFER_BYTES, Playlist
from voicecare_client.reconnect import TOO_BIG, TOO_MANY_ERRORS, Reconnect, backoff, reconnect_after

HANDSHAKE_S = 5.0
QUIET_S, AWAITED_S, PONG_S = 10.0, 3.0, 5.0  # without a frame: before a ping; the same with a speech awaited; after it
KEPT_S = 600.0  # a speech that could not be requested for so long is not spoken any more
KNOWN_DELIVERIES = 32
END_S = 5.0

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class _OwnSpeech:
    """A speech that this device has requested, until it has been heard.

    `is_received`: all of its audio is in the playlist. `is_queued`: the server keeps it, also without a connection.
    """

    text: str
    requested_at: float  # `time.monotonic`
    heard: "Future[bool]"
    is_received: bool = False
    is_queued: bool = False


class Device:
    """Connects when the `async with` block begins, reconnects as long as the block lasts, and ends the conversation.

    `format` is a format of docs/protocol.md that the player can play. `buffer_bytes` is how much audio it keeps at most
    before it reads more slowly. `on_connection` is called with None when a conversation has begun, and with the error
    when a connection or an attempt has ended. `on_frame` is called with each JSON frame of the server.
    """

    def __init__(
        self,
        url: str,
        token: str,
        player: Player,
        *,
        format: str | None = None,
        greeting: bool = True,
        buffer_bytes: int = BUFFER_BYTES,
        tls: ssl.SSLContext | None = None,
        on_connection: Callable[[DeviceError | None], object] | None = None,
        on_frame: Callable[[Frame], object] | None = None,
    ) -> None:
        self._url, self._token, self._tls = url, token, tls
        self._format = format
        self._greeting = greeting
        self._on_connection = on_connection
        self._on_frame = on_frame
        self._playlist = Playlist(player, self._on_played, buffer_bytes)
        self._connection: Connection | None = None  # while a conversation of this device is open
        self._conversation: str | None = None
        self._own: dict[str, _OwnSpeech] = {}
        self._heard: deque[str] = deque(
            maxlen=KNOWN_DELIVERIES
        )  # server-started speeches that were played to their end
        self._is_ending = False
        self._ended = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._playing = asyncio.create_task(self._playlist.run())
        self._running = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_ending = True
        if self._connection is not None and error is None:
            with suppress(TimeoutError):
                async with asyncio.timeout(END_S):
                    await self._send({"type": "conversation.end"})
                    await self._ended.wait()
        for task in (self._running, self._playing):
            task.cancel()
        await asyncio.gather(self._running, self._playing, return_exceptions=True)
        for speech in self._own.values():
            speech.heard.cancel()

    # For the program

    @property
    def is_connected(self) -> bool:
        """Whether a conversation is open."""
        return self._connection is not None

    async def speak(self, text: str) -> bool:
        """Have the text spoken, now or as soon as there is a connection.

        Returns True when it was played to its end, and False if it was interrupted. A speech that a lost connection has
        cut off is spoken again from its beginning. Raises RequestRefused, SpeechFailed, PlayerFailed, or the error
        after which the device has given up.
        """
        if self._running.done():
            self._running.result()  # raises the error after which it has given up
        speech = _OwnSpeech(text, time.monotonic(), asyncio.get_running_loop().create_future())
        await self._request(speech)
        return await speech.heard

    async def interrupt(self) -> None:
        """Be silent immediately, and forget all speeches of this device. Speech that the server started goes on."""
        own = [id for id in {*self._playlist.ids, *self._own} if not id.startswith("srv-")]
        for id in own:
            self._settle(id, False)
        await self._playlist.discard(*own)
        await self._send({"type": "interrupt"})

    async def wait_until_played(self) -> None:
        """Return when nothing that was received is left to play."""
        await self._playlist.wait_until_played()

    async def wait_until_given_up(self) -> None:
        """Wait until a person has to change something before this device can connect. Raises what the server said:
        HandshakeRefused or ConnectionClosed.
        """
        await asyncio.shield(self._running)

    # The connection

    async def _run(self) -> None:
        try:
            await self._reconnect_until_refused()
        except Exception as error:
            for id in list(self._own):
                self._settle(id, error)
            raise

    async def _reconnect_until_refused(self) -> None:
        delays = backoff()
        while True:
            try:
                await self._connect_and_converse()
            except (ConnectionClosed, HandshakeRefused, ServerUnreachable) as error:
                if self._connection is not None:
                    delays = backoff()
                await self._on_lost(error)
                reconnect = reconnect_after(error)
                if reconnect is Reconnect.NEVER:
                    raise
                await asyncio.sleep(next(backoff() if reconnect is Reconnect.SOON else delays))

    async def _connect_and_converse(self) -> None:
        """Serve one connection to its end. Raises ConnectionClosed, HandshakeRefused and ServerUnreachable."""
        connection = Connection(self._url, self._token, timeout_s=None, handshake_timeout_s=HANDSHAKE_S, tls=self._tls)
        async with connection:
            await self._start(connection, self._conversation)
            while True:
                frame = await self._receive(connection)
                if isinstance(frame, dict) and self._is_repetition(frame):
                    await self._on_repetition(frame)
                    continue
                await self._playlist.feed(frame)
                if isinstance(frame, dict):
                    await self._handle(connection, frame)

    async def _start(self, connection: Connection, resume: str | None) -> None:
        frame: Frame = {"type": "conversation.start"}
        if self._format:
            frame["format"] = self._format
        if resume:
            frame["resume"] = resume
        elif not self._greeting:
            frame["greeting"] = False
        await connection.send(frame)

    async def _receive(self, connection: Connection) -> Frame | bytes:
        """Return the next frame. A server that does not answer a ping is gone: raises ConnectionClosed."""
        is_awaited = any(not speech.is_received and not speech.is_queued for speech in self._own.values())
        with suppress(TimeoutError):
            async with asyncio.timeout(AWAITED_S if is_awaited else QUIET_S):
                return await connection.receive()
        await connection.send({"type": "ping"})
        try:
            async with asyncio.timeout(PONG_S):
                return await connection.receive()
        except TimeoutError:
            connection.drop_connection()
            raise ConnectionClosed(None, "nothing came for too long, not even the answer to a ping") from None

    async def _handle(self, connection: Connection, frame: Frame) -> None:
        kind, id = frame["type"], frame.get("id")
        if kind == "conversation.started":
            if frame["initiated"] == "device":  # else the server was faster, and this device takes it over
                await self._on_conversation(connection, frame["conversation"])
        elif kind == "conversation.ended":
            self._ended.set()
            self._conversation = self._connection = None
            if not self._is_ending:  # another device has resumed it
                await self._start(connection, None)
        elif kind == "error" and id is None and frame["code"] == "unknown_id" and self._connection is None:
            self._conversation = None  # it has ended
            await self._start(connection, None)
        elif kind == "error":
            logger.warning("The server refused a message: %s", frame["code"])
            self._settle(id, RequestRefused(frame))
        elif kind == "speech.queued" and id in self._own:
            self._own[id].is_queued = True
        elif kind == "speech.started" and "of" in frame and frame["of"]["id"] in self._own:
            self._own[frame["id"]] = self._own.pop(frame["of"]["id"])  # it was queued, and has another id here
        elif kind in ("speech.finished", "speech.failed", "speech.interrupted"):
            self._on_end_of_speech(frame)
        if self._on_frame is not None:
            self._on_frame(frame)

    async def _on_conversation(self, connection: Connection, conversation: str) -> None:
        self._connection, self._conversation = connection, conversation
        self._greeting = False  # a greeting after a loss would be a second one
        for id in self._heard:  # an acknowledgement may have been lost with the connection
            await self._send({"type": "ack", "id": id})
        waiting = {id: speech for id, speech in self._own.items() if not speech.is_received and not speech.is_queued}
        for id, speech in waiting.items():
            del self._own[id]
            if not speech.heard.cancelled():
                await self._request(speech)
        if self._on_connection is not None:
            self._on_connection(None)

    async def _on_lost(self, error: DeviceError) -> None:
        """What was being received is incomplete: silence. The next conversation requests it again."""
        logger.warning("No connection: %s", error)
        self._connection = None
        await self._playlist.discard_incomplete()
        closed = error.code if isinstance(error, ConnectionClosed) else None
        for id, speech in list(self._own.items()):
            if speech.is_received or speech.is_queued:
                continue
            if time.monotonic() - speech.requested_at > KEPT_S:
                self._settle(id, SpeechFailed("expired", f"There was no connection for {KEPT_S:.0f} s."))
            elif closed in (TOO_MANY_ERRORS, TOO_BIG):  # the same messages would end the next connection, too
                self._settle(id, error)
        if self._on_connection is not None:
            self._on_connection(error)

    async def _send(self, frame: Frame) -> None:
        """Send the frame if a conversation is open. If the connection is lost meanwhile, `_run` notices it."""
        if self._connection is not None:
            with suppress(ConnectionClosed):
                await self._connection.send(frame)

    # Speeches

    async def _request(self, speech: _OwnSpeech) -> None:
        """Request it under a new id. Without a connection `_on_conversation` requests it later."""
        id = uuid.uuid4().hex
        self._own[id] = speech
        await self._send({"type": "speak", "id": id, "text": speech.text})

    def _on_end_of_speech(self, frame: Frame) -> None:
        id = frame["id"]
        if frame["type"] == "speech.interrupted":
            self._settle(id, False)
        elif id in self._playlist.ids:
            if id in self._own:
                self._own[id].is_received = True  # `_on_played` settles it
        elif frame["type"] == "speech.failed":
            self._settle(id, SpeechFailed(frame["code"], frame["message"]))
        else:
            self._settle(id, True)  # a text without a letter or digit has no audio

    def _is_repetition(self, frame: Frame) -> bool:
        """Whether it belongs to a delivery that this device has already received as a whole. An interrupt does not."""
        id = frame.get("id")
        is_received = id in self._heard or id in self._playlist.complete_ids
        return is_received and frame["type"] != "speech.interrupted" and str(id).startswith("srv-")

    async def _on_repetition(self, frame: Frame) -> None:
        """The audio of a repetition is ignored. If it was played to its end, its acknowledgement was lost. Otherwise
        `_on_played` acknowledges it.
        """
        if frame["type"] == "speech.finished" and frame["id"] in self._heard:
            await self._send({"type": "ack", "id": frame["id"]})

    async def _on_played(self, id: str, failure: DeviceError | None) -> None:
        if failure is not None:
            logger.error("A speech was not heard as a whole: %s", failure)
        elif id.startswith("srv-"):
            self._heard.append(id)
            await self._send({"type": "ack", "id": id})
        self._settle(id, failure or True)

    def _settle(self, id: str | None, outcome: bool | Exception) -> None:
        """Tell the caller of `speak` how its speech has ended. Other ids are ignored."""
        speech = self._own.pop(id, None) if id is not None else None
        if speech is None or speech.heard.done():
            return
        if isinstance(outcome, Exception):
            speech.heard.set_exception(outcome)
        else:
            speech.heard.set_result(outcome)
