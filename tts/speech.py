"""THE road: one utterance, from its text to the last byte on the device (the contract, section 2).

Nothing but a look into the phrase cache stands between a text and the request for it: no query, no lock, no disk
beside that one read. A segment is asked for rung by rung (`tts.retry`) until it has been heard whole; what was heard of
a failed try stays behind, completed to a whole frame, and the segment is spoken again from its beginning.
"""

import asyncio
import time
from contextlib import aclosing

from tts.conversations import Context
from tts.delivery import Delivery
from tts.models import Utterance
from tts.retry import Halt, Rung, Step, after
from tts.script import Segment, Speech
from tts.segments import normalise
from tts.sources import Services, Sources
from voicecare.elevenlabs.errors import ProviderError
from voicecare.espeak import EspeakDied

BUSY_PAUSE_S = 0.2
BUSY_NOTICE_S = 0.5  # the contract, section 2, rule 7


class SpeechFailed(Exception):
    """The speech ends here, unspoken or not to its end; `code` is the contract's."""

    NO_VOICE = Halt.NO_VOICE.value
    MESSAGES = {
        Halt.NO_VOICE.value: "No voice could be reached: neither the provider nor a substitute. Try again soon.",
        Halt.REJECTED.value: "The speech provider refuses this text. Change the text.",
    }

    def __init__(self, code: str) -> None:
        super().__init__(self.MESSAGES[code])
        self.code = code


async def speak(speech: Speech, context: Context, delivery: Delivery, services: Services) -> None:
    """Speaks it to its end, or raises SpeechFailed. Cancelled, nothing of it follows and what was billed is booked."""
    road = _Road(speech, context, delivery, services)
    if speech.origin == Utterance.Origin.GREETING:
        await road.greet()
    else:
        await road.say_all()
    await delivery.settle()


class _Road:
    def __init__(self, speech: Speech, context: Context, delivery: Delivery, services: Services) -> None:
        self._speech = speech
        self._context = context
        self._delivery = delivery
        self._services = services
        self._sources = Sources(speech, context, delivery, services)
        self._rung = Rung.LIVE  # where segments begin: once in a substitute voice, a speech stays in it
        self._busy_since: float | None = None

    async def greet(self) -> None:
        """The greeting is kept whole, whatever its segments."""
        text = self._speech.script.text
        if await self._sources.play(Segment(0, text, None, None)) is None:
            self._store(text, await self.say_all(keep=True))

    async def say_all(self, *, keep: bool = False) -> list[bytes]:
        """What was said, if it is to be kept: a long text would be megabytes."""
        said: list[bytes] = []
        segments = self._speech.script.segments(self._context.rendering.language, self._context.phrases)
        async with aclosing(segments):
            async for segment in segments:
                await self._delivery.room()
                said += await self._say(segment, keep)
        return said

    async def _say(self, segment: Segment, keep: bool) -> list[bytes]:
        if normalise(segment.text) not in self._context.phrases:
            return await self._climb(segment, keep)
        if clip := await self._sources.play(segment):
            return [clip] if keep else []
        said = await self._climb(segment, keep=True)
        self._store(segment.text, said)
        return said if keep else []

    def _store(self, text: str, said: list[bytes]) -> None:
        """Into the cache, if it is whole and in the conversation's own voice."""
        if self._rung is Rung.LIVE:
            self._sources.store(text, said)

    async def _climb(self, segment: Segment, keep: bool) -> list[bytes]:
        """Tries rung after rung until the segment has been heard from its beginning to its end."""
        began = time.monotonic()
        tried: list[Rung] = []
        step: Step = Rung.OFFLINE if self._services.circuit.open else self._rung
        while True:
            rung = await self._resolve(step, tried)
            tried.append(rung)
            try:
                if rung is Rung.OFFLINE:
                    said = await self._sources.improvise(segment, len(tried))
                else:
                    silence = time.monotonic() - began
                    said = await self._sources.ask(segment, rung, len(tried), silence_s=silence, keep=keep)
            except (ProviderError, EspeakDied) as error:
                await self._delivery.complete_cut()
                step = after(error, tried)
                if step is Rung.OFFLINE and isinstance(error, ProviderError):
                    self._services.trouble.gave_up(error, began)
            else:
                await self._delivery.complete_cut()  # an end that looked clean may lie within a sample
                self._rung = Rung.LIVE if rung is Rung.RETRY else rung
                self._busy_since = None
                return said

    async def _resolve(self, step: Step, tried: list[Rung]) -> Rung:
        """The rung that a step leads to. Raises SpeechFailed where it leads nowhere."""
        match step:
            case Halt.IN_LINE:
                return await self._wait_in_line(tried[-1])
            case Halt.QUOTA:
                return Rung.OFFLINE
            case Halt.NO_VOICE:
                self._services.trouble.silence(self._context.conversation)
                raise SpeechFailed(step.value)
            case Halt.REJECTED:
                raise SpeechFailed(step.value)
        return step

    async def _wait_in_line(self, rung: Rung) -> Rung:
        """The provider is busy, which is no failure: ask again when one of its streams may have ended (rule 7)."""
        now = time.monotonic()
        if self._busy_since is None:
            self._busy_since = now
        left = self._busy_since + self._services.busy_wait_s - now
        if left <= 0:
            return Rung.OFFLINE
        if now - self._busy_since >= BUSY_NOTICE_S:
            await self._delivery.queued("busy", left)
        await asyncio.sleep(BUSY_PAUSE_S)
        return rung
