"""The conversation of `manage.py talk`: speaks texts, reports each speech as lines, and plays it if that is wanted."""

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from textwrap import shorten
from types import TracebackType
from typing import Self

from voicecare_client import (
    GREETING_ID,
    ConnectionClosed,
    DeviceClient,
    DeviceError,
    Frame,
    Player,
    PlayerFailed,
    Playlist,
    RequestRefused,
    SpeechResult,
)

END_TIMEOUT_S = 5.0


class PlayingClient(DeviceClient):
    """A client that also plays what it receives, if it has a player. `failure` is why the player could not."""

    def __init__(self, url: str, token: str, *, format: str | None, player: Player | None) -> None:
        super().__init__(url, token, format=format, timeout_s=None)
        self.failure: DeviceError | None = None
        self._playlist = Playlist(player, self._on_played) if player else None

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self._playback = asyncio.create_task(self._playlist.run()) if self._playlist else None
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await super().__aexit__(kind, error, trace)
        if self._playback is not None:
            self._playback.cancel()
            await asyncio.wait({self._playback})

    async def receive(self) -> Frame | bytes:
        frame = await super().receive()
        if self._playlist is not None:
            await self._playlist.feed(frame)
        return frame

    async def wait_until_played(self) -> None:
        if self._playlist is not None:
            await self._playlist.wait_until_played()

    async def be_silent(self) -> None:
        if self._playlist is not None:
            await self._playlist.discard(*self._playlist.ids)

    async def _on_played(self, id: str, failure: DeviceError | None) -> None:
        if isinstance(failure, PlayerFailed):
            self.failure = failure
        elif failure is None and id.startswith("srv-"):
            with suppress(ConnectionClosed):
                await self.send({"type": "ack", "id": id})


class Talk:
    """One conversation with the server. Each result is passed to `show` as a line of text.

    With a player, speech is played while it arrives, and server-started speech is acknowledged when it was played.
    """

    def __init__(self, device: PlayingClient, show: Callable[[str], object]) -> None:
        self.format = ""
        self.all_spoken = True
        self._device = device
        self._show = show
        self._reported: set[str] = set()
        self._labels = {GREETING_ID: "(greeting)"}

    @property
    def audio(self) -> bytes:
        """All received audio, in the audio format `self.format`."""
        return b"".join(speech.audio for speech in self._in_order())

    async def run(self, texts: AsyncIterator[str], *, greeting: bool) -> None:
        """Request a speech for each text, one after the other. Raises DeviceError.

        When cancelled, this interrupts the current speech and ends the conversation.
        """
        async with self._device:
            started = await self._device.start(greeting=greeting)
            self.format = started["format"]
            self._show(f"{started['companion']} is here, in the voice {started['voice']['name']}.")
            try:
                while (text := await self._next_text(texts)) is not None:
                    await self._speak(text)
                await self._device.wait_until_played()
            except asyncio.CancelledError:
                await self._device.be_silent()
                await self._device.interrupt()
                await self._end_conversation()
                raise
            await self._end_conversation()

    async def _next_text(self, texts: AsyncIterator[str]) -> str | None:
        """Return the next text, or None after the last one.

        Raises ConnectionClosed if the server closes the connection. The client continues to receive frames while it
        waits. Otherwise it would not answer the server's pings.
        """
        text = asyncio.ensure_future(anext(texts, None))
        closed = asyncio.ensure_future(self._device.wait_closed())
        try:
            await asyncio.wait({text, closed}, return_when=asyncio.FIRST_COMPLETED)
            if not text.done():
                raise ConnectionClosed(closed.result())
            return text.result()
        finally:
            text.cancel()
            closed.cancel()
            await asyncio.wait({text, closed})

    async def _speak(self, text: str) -> None:
        if not text.strip():
            return
        speech_id = f"say-{len(self._labels)}"
        self._labels[speech_id] = shorten(text, 70, placeholder=" ...")
        try:
            await self._device.speak(text, speech_id)
        except RequestRefused as refused:
            self.all_spoken = False
            self._show(f"{self._labels[speech_id]}\n  refused, {refused}")
        self._report_ended()

    async def _end_conversation(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(END_TIMEOUT_S):
                ended = await self._device.end()
                self._report_ended()
                self._show(f"The conversation has ended: {ended['characters']} characters in all.")

    def _in_order(self) -> list[SpeechResult]:
        return sorted(self._device.speeches.values(), key=lambda speech: speech.first_audio_at or math.inf)

    def _report_ended(self) -> None:
        """Report the speeches that have ended since the last call, including the greeting."""
        for speech in self._in_order():
            if speech.is_done and speech.id not in self._reported:
                self._reported.add(speech.id)
                self.all_spoken = self.all_spoken and speech.terminal["type"] == "speech.finished"
                lines = filter(None, (_describe_frame(frame, speech) for frame in speech.frames))
                self._show("\n  ".join([self._labels.get(speech.id, speech.id), *lines]))


def _describe_frame(frame: Frame, speech: SpeechResult) -> str:
    match frame["type"]:
        case "notice":
            return f"notice: {frame['message']}"
        case "speech.queued":
            return f"it had to wait ({frame['reason']})"
        case "speech.finished":
            return _describe_finished(frame, speech)
        case "speech.interrupted":
            return f"interrupted after {frame['bytes']:,} bytes, {frame['characters']} characters"
        case "speech.failed":
            return f"failed, {frame['code']}: {frame['message']}"
    return ""


def _describe_finished(frame: Frame, speech: SpeechResult) -> str:
    announced = speech.frames_of("speech.started", "speech.switched")
    if not announced:
        return "nothing to speak: the text has no letter or digit"
    first = speech.first_audio_s
    here = "" if first is None else f"first sound after {first * 1000:.0f} ms here, "
    return (
        f"{frame['source']}, voice {announced[-1]['voice']}, {frame['characters']} characters, "
        f"{frame['bytes']:,} bytes, {here}{frame['first_chunk_ms']:.0f} ms on the server"
    )
