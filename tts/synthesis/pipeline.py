"""The speech pipeline: speaks one utterance, from its text to the last byte for the listener.

A patient waits for this code. Before the provider request it only looks into the phrase cache and waits for a
concurrency slot. There is no database query, with one exception: patients with a budget need a reservation. The
attempt is written to the journal without an fsync.

A segment is spoken with one strategy after another (`tts.resilience.retry_policy`) until all of it was sent. Audio of a
failed attempt cannot be taken back. It ends with a whole frame, and the segment is spoken again from its beginning
(docs/protocol.md, rule 6).
"""

import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from functools import partial

from tts.cache.single_flight import Flight, FlightFailed
from tts.conversations.context import SpeechContext
from tts.resilience.concurrency import SlotTimeout
from tts.resilience.retry_policy import Decision, StopReason, Strategy, next_step
from tts.speech import Speech
from tts.states import Origin, Source
from tts.synthesis.admission import AdmissionTicket
from tts.synthesis.budget import BudgetReservation, BudgetUnknown
from tts.synthesis.dependencies import SpeechDependencies
from tts.synthesis.sink import AudioSink, JoiningSink
from tts.synthesis.sources import AudioSources
from tts.text.segmenter import normalise
from tts.text.speakable import is_speakable
from tts.text.stream import Segment
from voicecare.audio.formats import FORMATS
from voicecare.core import tracing
from voicecare.providers.errors import ProviderError, QuotaExceeded, RateLimited, VoiceUnavailable
from voicecare.providers.espeak.client import SynthesizerUnavailable

MAX_WAIT_AFTER_QUOTA_S = 60.0
"""All speech that waited for the quota is released at the same time. It may wait longer for a slot than other speech,
so that it is still spoken in its own voice."""

_FALLBACKS = {Strategy.BACKUP: Source.BACKUP, Strategy.OFFLINE: Source.OFFLINE}


class SpeechFailed(Exception):
    """The speech has failed, with some or without any audio.

    `code` is that of the frame `speech.failed` (docs/protocol.md).
    """

    NO_VOICE = StopReason.NO_VOICE.value
    OVER_BUDGET = "over_budget"

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class QuotaDeferred(Exception):
    """The quota is exhausted and no audio was sent. The caller queues the speech and speaks it again later."""


async def speak(
    speech: Speech,
    context: SpeechContext,
    sink: AudioSink,
    dependencies: SpeechDependencies,
    *,
    force_offline: bool = False,
) -> None:
    """Speak all of the text. Raises SpeechFailed or QuotaDeferred.

    With `force_offline`, the offline voice speaks everything that is not in the phrase cache. On cancellation, no more
    audio is sent, and the characters that the provider bills are recorded.
    """
    if FORMATS[context.speech_settings.format].codec == "opus":
        sink = JoiningSink(sink)
    pipeline = SpeechPipeline(speech, context, sink, dependencies, force_offline=force_offline)
    with tracing.span("speech", {"voicecare.utterance_id": str(speech.utterance_id)}) as attributes:
        try:
            if speech.origin == Origin.GREETING:
                await pipeline.speak_greeting()
            else:
                await pipeline.speak_segments()
        finally:
            if pipeline.budget is not None:
                pipeline.budget.settle()
            progress = speech.progress
            attributes["voicecare.source"] = progress.source
            attributes["voicecare.characters"] = progress.characters
            attributes["voicecare.first_chunk_ms"] = progress.first_chunk_ms
            attributes["voicecare.fallback"] = progress.fallback_reason
        await sink.flush()


class SpeechPipeline:
    """Speaks one text: chooses the source of each segment and the next strategy after a failure."""

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
        self._performs_tags = dependencies.gateway.models.get(context.speech_settings.model).performs_tags
        self.budget: BudgetReservation | None = None
        if context.has_budget and context.patient_id is not None:
            self.budget = BudgetReservation(
                speech,
                context.patient_id,
                context,
                dependencies.error_reporter,
                dependencies.spawn,
                sends_tags=self._performs_tags,
            )
        self._force_offline = force_offline
        self._first_strategy = Strategy.LIVE  # of the next segment: after a fallback, a speech stays in that voice

    async def speak_greeting(self) -> None:
        """Speak the greeting. Its audio is cached as one clip, even if it has several segments."""
        written = self._speech.text_stream.text
        plain = self._context.pronunciation.plain(written)
        greeting = Segment(0, plain, plain, written, None, None)
        if is_speakable(greeting.text):
            await self._speak_cached(greeting, self.speak_segments)

    async def speak_segments(self, flight: Flight | None = None) -> None:
        """Speak every segment in order.

        `flight` shares the audio of all segments with other speeches (`tts.cache.single_flight`). A segment without a
        letter or digit has no sound, so it is left out, without a request, a cost or a wait. Only a model that performs
        audio tags gets them, and never for the phrase cache. A segment of tags alone is left out, too.
        """
        segments = self._speech.text_stream.segments(self._context.pronunciation, self._context.phrases)
        async with aclosing(segments):
            async for segment in segments:
                plain = segment.without_tags()
                if not is_speakable(plain.text):
                    continue
                await self._sink.wait_for_capacity()
                if flight is not None:
                    await self._speak_with_fallback(plain, flight)
                elif normalise(segment.written) in self._context.phrases:
                    await self._speak_cached(plain, partial(self._speak_with_fallback, plain))
                else:
                    await self._speak_with_fallback(segment if self._performs_tags else plain, None)

    async def _speak_cached(self, segment: Segment, synthesize: Callable[[Flight], Awaitable[None]]) -> None:
        """Play a known phrase from the phrase cache.

        If it is missing, follow another speech that is generating the same audio. If there is none, generate the audio
        with `synthesize` and store it.
        """
        while not await self._sources.play_cached(segment):
            flight = self._sources.find_in_flight(segment)
            if flight is None:
                with self._sources.start_fill(segment) as own_flight:
                    await synthesize(own_flight)
                    if self._first_strategy is Strategy.LIVE:  # all of it is in the conversation's own voice
                        self._sources.store(segment, own_flight)
                return
            try:
                await self._sources.follow_flight(segment, flight)
            except FlightFailed:
                await self._sink.wait_for_listener()
            else:
                return

    async def _speak_with_fallback(self, segment: Segment, flight: Flight | None) -> None:
        """Try one strategy after another until the segment was sent from its beginning to its end."""
        max_wait_s = self._dependencies.busy_wait_s
        if self._speech.progress.waited_for_quota:
            max_wait_s = max(max_wait_s, MAX_WAIT_AFTER_QUOTA_S)
        ticket = AdmissionTicket(
            self._dependencies.limiter,
            self._context.patient_id,
            max_wait_s,
            on_wait=lambda left_s: self._dependencies.spawn(self._sink.notify_queued("busy", left_s)),
            background=self._context.is_background,
        )
        decision: Decision = self._first_strategy
        reason, request_id = "", ""  # why another strategy is used, and the id of the failed request
        if self._force_offline:
            decision, reason = Strategy.OFFLINE, "forced_offline"
        elif self._context.speech_settings.voice.is_offline:
            decision, reason = Strategy.OFFLINE, "no_usable_voice"
        elif self._dependencies.circuit.is_open:
            decision, reason = Strategy.OFFLINE, "circuit_open"
        if self._dependencies.quota.is_exhausted and decision is not Strategy.OFFLINE:
            decision, reason = StopReason.QUOTA, QuotaExceeded.code
        tried: list[Strategy] = []
        while True:
            strategy = await self._next_strategy(decision, tried, ticket)
            tried.append(strategy)
            if strategy in _FALLBACKS:
                self._speech.fell_back(_FALLBACKS[strategy], reason, request_id)
            try:
                await self._attempt(segment, strategy, len(tried), ticket, flight)
            except SlotTimeout:
                decision, reason = Strategy.OFFLINE, RateLimited.code
            except BudgetUnknown:
                decision, reason = Strategy.OFFLINE, "budget_unknown"
            except (ProviderError, SynthesizerUnavailable) as error:
                await self._sink.wait_for_listener()
                decision = self._on_failure(error, tried, segment, ticket)
                if isinstance(error, ProviderError):
                    reason, request_id = error.code, error.request_id or ""
            else:
                self._first_strategy = Strategy.LIVE if strategy is Strategy.RETRY else strategy
                return

    async def _attempt(
        self, segment: Segment, strategy: Strategy, number: int, ticket: AdmissionTicket, flight: Flight | None
    ) -> None:
        """Speak all of the segment once with this strategy. `number` is the number of this attempt at the segment.

        Raises ProviderError, SynthesizerUnavailable, SlotTimeout, BudgetUnknown or SpeechFailed.
        """
        if strategy in _FALLBACKS:
            segment = segment.without_tags()
        if strategy is Strategy.OFFLINE:
            await self._sources.speak_offline(segment, number)
            return
        if self.budget is not None and not await self.budget.reserve_for(segment):
            raise SpeechFailed(SpeechFailed.OVER_BUDGET)
        cache_fill = flight if strategy is Strategy.LIVE else None  # only a first attempt in the own voice is cached
        # Later segments are requested while the patient listens. A second request is not in the reservation.
        may_hedge = number == 1 and not (
            self._speech.progress.bytes_sent or self._context.is_background or self.budget is not None
        )
        await self._sources.request_provider(segment, strategy, number, ticket, cache_fill, may_hedge=may_hedge)

    def _on_failure(
        self,
        error: ProviderError | SynthesizerUnavailable,
        tried: list[Strategy],
        segment: Segment,
        ticket: AdmissionTicket,
    ) -> Decision:
        """Return the step after this failure, and report the failure to the outage detector or the quota."""
        decision = next_step(error, tried)
        if isinstance(error, VoiceUnavailable):
            self._sources.refuse_voice(tried[-1])
            decision = Strategy.BACKUP  # the reserve voice, if the backup voice itself was refused
        if decision is Strategy.BACKUP and not self._sources.has_backup:
            decision = Strategy.OFFLINE
        if isinstance(error, ProviderError):
            if decision is Strategy.OFFLINE:
                outages = self._dependencies.error_reporter.outages
                outages.segment_failed(error, ticket.requested_at, segment.text)
            if decision is StopReason.QUOTA:
                self._dependencies.quota.mark_exhausted(len(segment.text), error.support_details)
        return decision

    async def _next_strategy(self, decision: Decision, tried: list[Strategy], ticket: AdmissionTicket) -> Strategy:
        """Return the strategy to use after this decision. Raises SpeechFailed or QuotaDeferred if there is none."""
        match decision:
            case StopReason.BUSY:
                return tried[-1] if await ticket.wait_for_retry() else Strategy.OFFLINE
            case StopReason.QUOTA:
                # docs/protocol.md, rule 8: a speech that has begun continues in the offline voice. Without any audio
                # yet, server-started speech always waits, other speech only in the first minute of the incident.
                hold_s = self._dependencies.quota.hold_remaining_s(time.monotonic())
                if (self._speech.origin == Origin.SERVER or hold_s > 0) and not self._speech.progress.bytes_sent:
                    raise QuotaDeferred
                return Strategy.OFFLINE
            case StopReason.NO_VOICE:
                self._dependencies.error_reporter.report_no_voice(self._context.conversation_id)
                raise SpeechFailed(decision.value)
            case StopReason.REJECTED:
                raise SpeechFailed(decision.value)
        return decision
