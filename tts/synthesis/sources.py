"""The sources of a segment's audio: the phrase cache, the provider and the offline voice.

The audio that a source sends ends with a whole frame or sample, even if the source fails, so that any other audio can
follow it. Each source records its attempts with the recorder, which writes them in the background (docs/protocol.md,
rule 9).
"""

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager, aclosing
from dataclasses import replace
from functools import partial

from tts.cache.single_flight import Flight, FlightFailed
from tts.conversations.context import SpeechContext
from tts.conversations.voice import NO_VOICE, OFFLINE_VOICE_NAME, SpeechSettings, VoiceRef
from tts.recorder import SpokenAttempt
from tts.resilience.retry_policy import Strategy, first_byte_limit
from tts.speech import ATTEMPT_STRIDE, Speech
from tts.states import Origin, Source
from tts.synthesis.admission import AdmissionTicket
from tts.synthesis.dependencies import SpeechDependencies
from tts.synthesis.hedging import OpenRequest, relay_first_answer
from tts.synthesis.pacing import MAX_LEAD_S
from tts.synthesis.provider_request import ProviderRequest
from tts.synthesis.sink import AudioSink
from tts.text.stream import Segment
from usage.ledger.events import Attempt, Kind, Outcome
from voicecare.audio.formats import FORMATS
from voicecare.audio.framing import whole_frames
from voicecare.providers.errors import ProviderError
from voicecare.providers.espeak.client import EspeakVoice, SynthesizerUnavailable
from voicecare.providers.espeak.readability import is_readable

OFFLINE_MAX_LEAD_S = MAX_LEAD_S  # generated no further ahead of playback: 200 listeners may share one espeak process
OFFLINE_WORDS_PER_MINUTE = 165
CLIP_CHUNK_BYTES = 16 * 1024
HEDGE_NUMBER = ATTEMPT_STRIDE - 1  # of the second request for a segment, in the place of an attempt's number
HEDGE_SLOT_WAIT_S = 0.1

_SOURCES = {Strategy.LIVE: Source.LIVE, Strategy.RETRY: Source.LIVE, Strategy.BACKUP: Source.BACKUP}


class AudioSources:
    """The sources of audio for one speech. They send the audio to the sink."""

    def __init__(
        self, speech: Speech, context: SpeechContext, sink: AudioSink, dependencies: SpeechDependencies
    ) -> None:
        self._speech = speech
        self._context = context
        self._sink = sink
        self._dependencies = dependencies
        self._first_attempt: Attempt | None = None  # the latest attempt that began before any audio was sent
        self._has_apologized = False
        self._refused_voices: set[VoiceRef] = set()
        self._is_connection_suspect = False  # the latest request got no response, so its connection may have been dead

    async def play_cached(self, segment: Segment) -> bool:
        """Play this segment from the phrase cache. Returns False if the cache does not have its audio."""
        phrases = self._dependencies.phrase_cache
        key = self._key(segment)
        clip = phrases.get_cached(key)
        if clip is None and (clip := await phrases.get(key)) is None:
            return False
        attempt = self._new_attempt(segment, 1, Kind.CACHE, self._context.speech_settings)
        for start in range(0, len(clip), CLIP_CHUNK_BYTES):
            chunk = clip[start : start + CLIP_CHUNK_BYTES]
            await self._sink.send_audio(chunk, Source.CACHE.value, self._context.speech_settings.voice.name)
        phrases.record_hit(key)
        self._record_saved(attempt)
        return True

    def find_in_flight(self, segment: Segment) -> Flight | None:
        """Return the request of another speech that is generating the same audio in this process (a flight), or None.

        A patient's speech does not follow background speech, which may wait for its slot behind other patients.
        """
        flights = self._dependencies.single_flight
        flight = flights.join(self._key(segment))
        if flight is None and self._context.is_background:
            flight = flights.join(self._background_key(segment))
        return flight

    async def follow_flight(self, segment: Segment, flight: Flight) -> None:
        """Send the audio that another speech is generating, as it arrives. Raises FlightFailed if that speech fails.

        The attempt has the number 0, because 1 is the number of this speech's own request after such a failure.
        """
        attempt = self._new_attempt(segment, 0, Kind.CACHE, self._context.speech_settings)
        try:
            shared = flight.chunks(self._dependencies.stall_s)
            async with aclosing(whole_frames(shared, FORMATS[self._context.speech_settings.format])) as chunks:
                async for chunk in chunks:
                    await self._sink.send_audio(chunk, Source.CACHE.value, self._context.speech_settings.voice.name)
        except FlightFailed:
            attempt.outcome, attempt.code = Outcome.FAILED.value, "fill_failed"
            self._record(attempt)
            raise
        self._record_saved(attempt)

    def start_fill(self, segment: Segment) -> AbstractContextManager[Flight]:
        """Start a flight: this speech generates the audio for all speeches that need it.

        Do not await between `find_in_flight` and the start of the block. Otherwise another speech could start the same
        flight.
        """
        key = self._background_key(segment) if self._context.is_background else self._key(segment)
        return self._dependencies.single_flight.start(key)

    def store(self, segment: Segment, flight: Flight) -> None:
        """Store the complete audio of the flight in the phrase cache, in the background.

        Call this only if all of the audio is in the conversation's own voice.
        """
        audio = flight.complete()
        if audio:
            greeted_patient_id = self._context.patient_id if self._speech.origin == Origin.GREETING else None
            phrases = self._dependencies.phrase_cache
            phrases.keep_in_memory(self._key(segment), audio)
            settings = self._context.speech_settings
            self._dependencies.spawn(
                phrases.store(settings, segment.text, audio, greeted_patient_id, written=segment.written)
            )

    def _key(self, segment: Segment) -> str:
        return self._dependencies.phrase_cache.key(self._context.speech_settings, segment.text)

    def _background_key(self, segment: Segment) -> str:
        """Return the key of a flight that only background speech may follow."""
        return f"{self._key(segment)} background"

    def refuse_voice(self, strategy: Strategy) -> None:
        """Do not use the voice of this strategy as the backup voice in this speech, because the provider refuses it."""
        self._refused_voices.add(self._settings_for(strategy).voice)

    @property
    def has_backup(self) -> bool:
        """Whether there is a backup voice, or a reserve voice in its place, that was not refused in this speech.

        There is none for a patient who hears only their own voice.
        """
        voice = self._settings_for(Strategy.BACKUP).voice
        return not voice.is_offline and voice not in self._refused_voices

    def _settings_for(self, strategy: Strategy) -> SpeechSettings:
        if strategy is not Strategy.BACKUP:
            return self._context.speech_settings
        backup = self._context.backup_settings
        return replace(backup, voice=self._context.reserve_voice) if backup.voice in self._refused_voices else backup

    async def request_provider(
        self,
        segment: Segment,
        strategy: Strategy,
        number: int,
        ticket: AdmissionTicket,
        flight: Flight | None,
        *,
        may_hedge: bool,
    ) -> None:
        """Request the segment from the provider, and send its audio to the sink and to `flight`, chunk by chunk.

        If the request before got no response, this request uses a new connection, because the old one may be dead.
        With `may_hedge`, a second request may be sent if the first one brings no audio in the usual time. Raises
        ProviderError, and SlotTimeout if no slot became free in time. Cancellation closes the responses and records the
        characters that the provider bills.
        """
        settings = self._settings_for(strategy)
        request = settings.build_request(
            segment.text, segment.previous_text, segment.next_text, zero_retention=self._dependencies.zero_retention
        )
        if self._is_connection_suspect:
            request = replace(request, new_connection=True)
        kind = Kind.PREVIEW if self._context.is_background else Kind(strategy.value)
        first = ProviderRequest(
            self._speech,
            segment,
            request,
            self._new_attempt(segment, number, kind, settings),
            _SOURCES[strategy].value,
            settings.voice.name,
            self._sink,
            flight,
            self._dependencies,
        )

        def report(error: ProviderError) -> None:
            self._is_connection_suspect = error.is_unanswered
            if flight is not None:
                flight.fail()  # it may have part of the audio
            self._dependencies.error_reporter.report_failure(
                error, strategy, self._context.conversation_id, settings.voice.id
            )

        limit_s = first_byte_limit(strategy, self._dependencies.first_byte_s, ticket.elapsed_s())
        open_first = partial(first.open, ticket.slot(), limit_s, report)
        self._dependencies.hedging.on_requested(len(segment.text))
        delay_s = self._dependencies.hedging.delay_s(settings.model) if may_hedge else None
        if delay_s is None:
            async with open_first() as audio:
                await first.relay(audio, await anext(audio, b""))
        else:
            await self._request_twice(first, open_first, delay_s, report)
        self._is_connection_suspect = False
        self._dependencies.circuit.record_success()

    async def _request_twice(
        self, first: ProviderRequest, open_first: OpenRequest, delay_s: float, report: Callable[[ProviderError], None]
    ) -> None:
        """Send the first request, and the same request again if the first one brings no audio within `delay_s` seconds.

        The second one is background work for the limiter: it never takes a slot for which a patient waits.
        """
        characters, settings = len(first.segment.text), self._context.speech_settings
        second = replace(first, attempt=self._new_attempt(first.segment, HEDGE_NUMBER, Kind.HEDGE, settings))

        def report_winner(error: ProviderError) -> None:
            if second.attempt.first_byte_ms is not None:  # otherwise the patient has heard nothing of it
                report(error)

        slot = self._dependencies.limiter.acquire(self._context.patient_id, background=True, wait_s=HEDGE_SLOT_WAIT_S)
        await relay_first_answer(
            open_first,
            first.relay,
            partial(second.open, slot, self._dependencies.first_byte_s, report_winner),
            second.relay,
            delay_s=delay_s,
            may=lambda: self._dependencies.hedging.take(characters),
        )

    async def speak_offline(self, segment: Segment, number: int) -> None:
        """Speak the segment in the offline voice of this server. Raises SynthesizerUnavailable.

        In place of words that the voice cannot read, it says a prepared sentence, at most once in a speech.
        """
        settings = self._context.speech_settings
        voice = EspeakVoice(language=settings.language, rate=round(OFFLINE_WORDS_PER_MINUTE * settings.speed))
        attempt = self._new_attempt(segment, number, Kind.OFFLINE, settings)
        audio = self._dependencies.offline_voice.speak(
            segment.text,
            voice,
            settings.format,
            max_lead_s=OFFLINE_MAX_LEAD_S,
            apologize=not self._has_apologized,
        )
        try:
            async with aclosing(whole_frames(audio, FORMATS[settings.format])) as chunks:
                async for chunk in chunks:
                    await self._sink.send_audio(chunk, Source.OFFLINE.value, OFFLINE_VOICE_NAME)
        except SynthesizerUnavailable:
            attempt.outcome, attempt.code = Outcome.FAILED.value, "offline_voice_died"
            self._record(attempt)
            raise
        except asyncio.CancelledError:
            self._record_saved(attempt)
            raise
        if not self._has_apologized and not is_readable(segment.text, settings.language):
            self._has_apologized = True
            self._speech.log("speech.unreadable", language=settings.language)
        self._record_saved(attempt)

    def _new_attempt(self, segment: Segment, number: int, kind: Kind, settings: SpeechSettings) -> Attempt:
        # A greeting names the patient. Speech for a clinician belongs to no conversation.
        is_counted = self._context.conversation_id is not None and self._speech.origin != Origin.GREETING
        attempt = SpokenAttempt(
            source_id=self._speech.utterance_id,
            segment=segment.index,
            attempt=self._speech.attempt_number(number),
            kind=kind.value,
            requested_characters=len(segment.text),
            conversation_id=self._context.conversation_id,
            patient_id=self._context.patient_id,
            voice_id=None if settings.voice == NO_VOICE else settings.voice.id,
            model=settings.model,
            text=segment.written if is_counted else "",
            language=settings.language,
        )
        if not self._speech.progress.bytes_sent:
            self._first_attempt = attempt
        return attempt

    def _record(self, attempt: Attempt) -> None:
        """Record the current state of the attempt in the ledger."""
        self._set_first_chunk(attempt)
        self._dependencies.recorder.record(attempt)

    def _set_first_chunk(self, attempt: Attempt) -> None:
        """Copy the speech's time to first audio to the attempt that has sent the first audio."""
        if attempt is self._first_attempt:
            attempt.first_chunk_ms = self._speech.progress.response_ms

    def _record_saved(self, attempt: Attempt) -> None:
        attempt.outcome, attempt.saved_characters = Outcome.COMPLETED.value, attempt.requested_characters
        self._record(attempt)
