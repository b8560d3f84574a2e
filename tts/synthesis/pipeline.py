"""THE road: one utterance, from its text to the last byte on the device (the contract, section 2).

Nothing but a look into the phrase cache and a slot of the provider's stands between a text and the request for it: no
query, no lock, no disk beside that one read and the journal's line, which goes to the page cache; save, for a patient
who has a budget, its reservation. A segment is asked for strategy by strategy (`tts.resilience.retry_policy`) until it
has been heard whole; what was heard of a failed try stays behind, completed to a whole frame, and the segment is
spoken again from its beginning.
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
from tts.synthesis.admission import AdmissionTicket
from tts.synthesis.budget import BudgetReservation
from tts.synthesis.dependencies import SpeechDependencies
from tts.synthesis.sink import AudioSink
from tts.synthesis.sources import AudioSources
from tts.text.segmenter import normalise
from tts.text.stream import Segment
from voicecare.providers.errors import ProviderError
from voicecare.providers.espeak.client import SynthesizerUnavailable

MAX_WAIT_AFTER_QUOTA_S = 60.0


class SpeechFailed(Exception):
    """The speech ends here, unspoken or not to its end; `code` is the contract's."""

    NO_VOICE = StopReason.NO_VOICE.value
    OVER_BUDGET = "over_budget"

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class QuotaDeferred(Exception):
    """Nothing of it was heard and the quota is spent: the speech has to wait for that, and is spoken again then."""


async def speak(
    speech: Speech,
    context: SpeechContext,
    sink: AudioSink,
    dependencies: SpeechDependencies,
    *,
    force_offline: bool = False,
) -> None:
    """Speaks it to its end, or raises SpeechFailed or QuotaHolds.

    `force_offline`: what the cache does not have is spoken in the offline voice. Cancelled, nothing of it follows and
    what was billed is booked.
    """
    road = SpeechPipeline(speech, context, sink, dependencies, force_offline=force_offline)
    try:
        await (road.speak_greeting() if speech.origin == Origin.GREETING else road.speak_segments())
    finally:
        road.budget.settle()
    await sink.flush()


class SpeechPipeline:
    def __init__(
        self,
        speech: Speech,
        context: SpeechContext,
        sink: AudioSink,
        dependencies: SpeechDependencies,
        *,
        force_offline: bool,
    ) -> None:
        self._speech = speech
        self._context = context
        self._sink = sink
        self._dependencies = dependencies
        self._sources = AudioSources(speech, context, sink, dependencies)
        self.budget = BudgetReservation(speech, context, dependencies.error_reporter, dependencies.spawn)
        self._force_offline = force_offline
        self._first_strategy = Strategy.LIVE  # where segments begin: once in a substitute voice, a speech stays in it

    async def speak_greeting(self) -> None:
        """The greeting is kept whole, whatever its segments."""
        await self._speak_cached(Segment(0, self._speech.text_stream.text, None, None), self.speak_segments)

    async def speak_segments(self, flight: Flight | None = None) -> None:
        """Every segment in ticket; into `flight` too, if all of it is to be kept."""
        segments = self._speech.text_stream.segments(self._context.speech_settings.language, self._context.phrases)
        async with aclosing(segments):
            async for segment in segments:
                await self._sink.wait_for_capacity()
                await self._speak_segment(segment, flight)

    async def _speak_segment(self, segment: Segment, flight: Flight | None) -> None:
        if flight is not None or normalise(segment.text) not in self._context.phrases:
            await self._speak_with_fallback(segment, flight)
        else:
            await self._speak_cached(segment, lambda flight: self._speak_with_fallback(segment, flight))

    async def _speak_cached(self, segment: Segment, say: Callable[[Flight], Awaitable[None]]) -> None:
        """As it is kept; else along with whoever is having it made; else made here, for all who want it."""
        while not await self._sources.play_cached(segment):
            flight = self._sources.find_in_flight(segment)
            if flight is None:
                await self._fill_cache(segment, say)
                return
            try:
                await self._sources.follow_flight(segment, flight)
            except FlightFailed:
                await self._sink.pad_partial_frame()
            else:
                return

    async def _fill_cache(self, segment: Segment, say: Callable[[Flight], Awaitable[None]]) -> None:
        with self._sources.start_fill(segment) as flight:
            await say(flight)
            if self._first_strategy is Strategy.LIVE:  # whole, and in the conversation's own voice
                self._sources.store(segment, flight)

    async def _speak_with_fallback(self, segment: Segment, flight: Flight | None) -> None:
        """Tries strategy after strategy until the segment has been heard from its beginning to its end."""
        ticket = AdmissionTicket(
            self._dependencies.limiter, self._context.patient_id, self._max_wait_s(), self._notify_busy
        )
        tried: list[Strategy] = []
        decision: Decision = (
            Strategy.OFFLINE if self._force_offline or self._dependencies.circuit.is_open else self._first_strategy
        )
        if self._dependencies.quota.is_exhausted and decision is not Strategy.OFFLINE:
            decision = StopReason.QUOTA
        while True:
            strategy = await self._next_strategy(decision, tried, ticket)
            tried.append(strategy)
            try:
                await self._attempt(segment, strategy, len(tried), ticket, flight)
            except SlotTimeout:
                decision = Strategy.OFFLINE
            except (ProviderError, SynthesizerUnavailable) as error:
                await self._sink.pad_partial_frame()
                decision = self._on_failure(error, tried, segment, ticket)
            else:
                await self._sink.pad_partial_frame()  # an end that looked clean may lie within a sample
                self._first_strategy = Strategy.LIVE if strategy is Strategy.RETRY else strategy
                return

    def _max_wait_s(self) -> float:
        """When the quota is back all that waited for it comes at once: at the pace of the slots, in its own voice."""
        limit = self._dependencies.busy_wait_s
        return max(limit, MAX_WAIT_AFTER_QUOTA_S) if self._speech.progress.waited_for_quota else limit

    async def _attempt(
        self, segment: Segment, strategy: Strategy, number: int, ticket: AdmissionTicket, flight: Flight | None
    ) -> None:
        """All of the segment, once, in this way.

        Raises ProviderError, SynthesizerUnavailable, SlotsFull or SpeechFailed.
        """
        if strategy is Strategy.OFFLINE:
            await self._sources.speak_offline(segment, number)
            return
        if not await self.budget.reserve_for(segment):
            raise SpeechFailed(SpeechFailed.OVER_BUDGET)
        await self._sources.request_provider(
            segment, strategy, number, ticket, flight if strategy is Strategy.LIVE else None
        )

    def _on_failure(
        self,
        error: ProviderError | SynthesizerUnavailable,
        tried: list[Strategy],
        segment: Segment,
        ticket: AdmissionTicket,
    ) -> Decision:
        decision = next_step(error, tried)
        if decision is Strategy.OFFLINE and isinstance(error, ProviderError):
            self._dependencies.error_reporter.report_exhausted(error, ticket.requested_at)
        if decision is StopReason.QUOTA and isinstance(error, ProviderError):
            self._dependencies.quota.mark_exhausted(len(segment.text), error.support_details)
        return decision

    async def _next_strategy(self, decision: Decision, tried: list[Strategy], ticket: AdmissionTicket) -> Strategy:
        """The strategy that a decision leads to. Raises SpeechFailed where it leads nowhere."""
        match decision:
            case StopReason.BUSY:
                return tried[-1] if await ticket.wait_for_retry() else Strategy.OFFLINE
            case StopReason.QUOTA:
                return self._on_quota_exhausted()
            case StopReason.NO_VOICE:
                self._dependencies.error_reporter.report_no_voice(self._context.conversation_id)
                raise SpeechFailed(decision.value)
            case StopReason.REJECTED:
                raise SpeechFailed(decision.value)
        return decision

    def _on_quota_exhausted(self) -> Strategy:
        """Rule 8: what has begun goes on offline. What has not waits: a delivery for the quota itself, the rest only in
        the first minute. Raises QuotaHolds.
        """
        is_delivery = self._speech.origin == Origin.SERVER
        if not self._speech.progress.bytes_sent and (
            is_delivery or self._dependencies.quota.hold_remaining_s(time.monotonic()) > 0
        ):
            raise QuotaDeferred
        return Strategy.OFFLINE

    def _notify_busy(self, left_s: float) -> None:
        self._dependencies.spawn(self._sink.notify_queued("busy", left_s))
