"""THE road: one utterance, from its text to the last byte on the device (the contract, section 2).

Nothing but a look into the phrase cache and a slot of the provider's stands between a text and the request for it: no
query, no lock, no disk beside that one read and the journal's line, which goes to the page cache; save, for a patient
who has a budget, its reservation. A segment is asked for rung by rung (`tts.resilience.retry_policy`) until it has
been heard whole; what
was heard of a failed try stays behind, completed to a whole frame, and the segment is spoken again from its beginning.
"""

import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing

from tts.cache.single_flight import Flight, FlightFailed
from tts.conversations.context import SpeechContext
from tts.resilience.concurrency import SlotTimeout
from tts.resilience.retry_policy import Decision, StopReason, Strategy, next_step
from tts.speech import Speech
from tts.states import Origin
from tts.synthesis.admission import Turn
from tts.synthesis.budget import Reservation
from tts.synthesis.dependencies import Services
from tts.synthesis.sink import AudioSink
from tts.synthesis.sources import Sources
from tts.text.segmenter import normalise
from tts.text.stream import Segment
from voicecare.providers.errors import ProviderError
from voicecare.providers.espeak.client import SynthesizerUnavailable

AFTER_QUOTA_WAIT_S = 60.0


class SpeechFailed(Exception):
    """The speech ends here, unspoken or not to its end; `code` is the contract's."""

    NO_VOICE = StopReason.NO_VOICE.value
    OVER_BUDGET = "over_budget"

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class QuotaHolds(Exception):
    """Nothing of it was heard and the quota is spent: the speech has to wait for that, and is spoken again then."""


async def speak(
    speech: Speech, context: SpeechContext, sink: AudioSink, services: Services, *, force_offline: bool = False
) -> None:
    """Speaks it to its end, or raises SpeechFailed or QuotaHolds.

    `force_offline`: what the cache does not have is spoken in the offline voice. Cancelled, nothing of it follows and
    what was billed is booked.
    """
    road = _Road(speech, context, sink, services, force_offline=force_offline)
    try:
        await (road.greet() if speech.origin == Origin.GREETING else road.say_all())
    finally:
        road.reservation.settle()
    await sink.flush()


class _Road:
    def __init__(
        self, speech: Speech, context: SpeechContext, sink: AudioSink, services: Services, *, force_offline: bool
    ) -> None:
        self._speech = speech
        self._context = context
        self._sink = sink
        self._services = services
        self._sources = Sources(speech, context, sink, services)
        self.reservation = Reservation(speech, context, services.trouble, services.own)
        self._force_offline = force_offline
        self._rung = Strategy.LIVE  # where segments begin: once in a substitute voice, a speech stays in it

    async def greet(self) -> None:
        """The greeting is kept whole, whatever its segments."""
        await self._from_cache(Segment(0, self._speech.text_stream.text, None, None), self.say_all)

    async def say_all(self, fill: Flight | None = None) -> None:
        """Every segment in turn; into `fill` too, if all of it is to be kept."""
        segments = self._speech.text_stream.segments(self._context.speech_settings.language, self._context.phrases)
        async with aclosing(segments):
            async for segment in segments:
                await self._sink.wait_for_capacity()
                await self._say(segment, fill)

    async def _say(self, segment: Segment, fill: Flight | None) -> None:
        if fill is not None or normalise(segment.text) not in self._context.phrases:
            await self._climb(segment, fill)
        else:
            await self._from_cache(segment, lambda fill: self._climb(segment, fill))

    async def _from_cache(self, segment: Segment, say: Callable[[Flight], Awaitable[None]]) -> None:
        """As it is kept; else along with whoever is having it made; else made here, for all who want it."""
        while not await self._sources.play(segment):
            fill = self._sources.follow(segment)
            if fill is None:
                await self._lead(segment, say)
                return
            try:
                await self._sources.join(segment, fill)
            except FlightFailed:
                await self._sink.pad_partial_frame()
            else:
                return

    async def _lead(self, segment: Segment, say: Callable[[Flight], Awaitable[None]]) -> None:
        with self._sources.lead(segment) as fill:
            await say(fill)
            if self._rung is Strategy.LIVE:  # whole, and in the conversation's own voice
                self._sources.keep(segment, fill)

    async def _climb(self, segment: Segment, fill: Flight | None) -> None:
        """Tries rung after rung until the segment has been heard from its beginning to its end."""
        turn = Turn(self._services.slots, self._context.patient_id, self._patience_s(), self._tell_busy)
        tried: list[Strategy] = []
        step: Decision = Strategy.OFFLINE if self._force_offline or self._services.circuit.is_open else self._rung
        if self._services.quota.is_exhausted and step is not Strategy.OFFLINE:
            step = StopReason.QUOTA
        while True:
            rung = await self._resolve(step, tried, turn)
            tried.append(rung)
            try:
                await self._try(segment, rung, len(tried), turn, fill)
            except SlotTimeout:
                step = Strategy.OFFLINE
            except (ProviderError, SynthesizerUnavailable) as error:
                await self._sink.pad_partial_frame()
                step = self._after(error, tried, segment, turn)
            else:
                await self._sink.pad_partial_frame()  # an end that looked clean may lie within a sample
                self._rung = Strategy.LIVE if rung is Strategy.RETRY else rung
                return

    def _patience_s(self) -> float:
        """When the quota is back all that waited for it comes at once: at the pace of the slots, in its own voice."""
        limit = self._services.busy_wait_s
        return max(limit, AFTER_QUOTA_WAIT_S) if self._speech.progress.waited_for_quota else limit

    async def _try(self, segment: Segment, rung: Strategy, number: int, turn: Turn, fill: Flight | None) -> None:
        """All of the segment, once, in this way.

        Raises ProviderError, SynthesizerUnavailable, SlotsFull or SpeechFailed.
        """
        if rung is Strategy.OFFLINE:
            await self._sources.improvise(segment, number)
            return
        if not await self.reservation.covers(segment):
            raise SpeechFailed(SpeechFailed.OVER_BUDGET)
        await self._sources.ask(segment, rung, number, turn, fill if rung is Strategy.LIVE else None)

    def _after(
        self, error: ProviderError | SynthesizerUnavailable, tried: list[Strategy], segment: Segment, turn: Turn
    ) -> Decision:
        step = next_step(error, tried)
        if step is Strategy.OFFLINE and isinstance(error, ProviderError):
            self._services.trouble.report_exhausted(error, turn.since)
        if step is StopReason.QUOTA and isinstance(error, ProviderError):
            self._services.quota.mark_exhausted(len(segment.text), error.support_details)
        return step

    async def _resolve(self, step: Decision, tried: list[Strategy], turn: Turn) -> Strategy:
        """The rung that a step leads to. Raises SpeechFailed where it leads nowhere."""
        match step:
            case StopReason.BUSY:
                return tried[-1] if await turn.wait() else Strategy.OFFLINE
            case StopReason.QUOTA:
                return self._without_quota()
            case StopReason.NO_VOICE:
                self._services.trouble.report_no_voice(self._context.conversation_id)
                raise SpeechFailed(step.value)
            case StopReason.REJECTED:
                raise SpeechFailed(step.value)
        return step

    def _without_quota(self) -> Strategy:
        """Rule 8: what has begun goes on offline. What has not waits: a delivery for the quota itself, the rest only in
        the first minute. Raises QuotaHolds.
        """
        is_delivery = self._speech.origin == Origin.SERVER
        if not self._speech.progress.bytes_sent and (
            is_delivery or self._services.quota.hold_remaining_s(time.monotonic()) > 0
        ):
            raise QuotaHolds
        return Strategy.OFFLINE

    def _tell_busy(self, left_s: float) -> None:
        self._services.own(self._sink.notify_queued("busy", left_s))
