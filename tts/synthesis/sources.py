"""The sources of a segment's audio: the phrase cache, the provider and the offline voice.

Each source books its attempts with the recorder, which writes them in the background (docs/protocol.md, rule 9).
"""

import asyncio
from contextlib import AbstractContextManager, aclosing

from tts.cache.single_flight import Flight, FlightFailed
from tts.conversations.context import SpeechContext
from tts.conversations.voice import SpeechSettings
from tts.resilience.retry_policy import Strategy, first_byte_limit
from tts.resilience.speech_gateway import ResponseGuard
from tts.speech import Speech
from tts.states import Origin, Source
from tts.synthesis.admission import AdmissionTicket
from tts.synthesis.dependencies import SpeechDependencies
from tts.synthesis.pacing import MAX_LEAD_S
from tts.synthesis.sink import AudioSink
from tts.text.stream import Segment
from usage.ledger.events import Attempt, Kind, Outcome
from voicecare.audio.formats import FORMATS
from voicecare.providers.errors import ProviderError
from voicecare.providers.espeak.client import EspeakVoice, SynthesizerUnavailable

OFFLINE_MAX_LEAD_S = MAX_LEAD_S  # generated no further ahead of playback: 200 listeners may share one espeak process
OFFLINE_WORDS_PER_MINUTE = 165
OFFLINE_VOICE_NAME = "Offline voice"
CLIP_CHUNK_BYTES = 16 * 1024

_SOURCES = {Strategy.LIVE: Source.LIVE, Strategy.RETRY: Source.LIVE, Strategy.BACKUP: Source.BACKUP}


class AudioSources:
    """The sources for one speech. They send the audio to the sink."""

    def __init__(
        self, speech: Speech, context: SpeechContext, sink: AudioSink, dependencies: SpeechDependencies
    ) -> None:
        self._speech = speech
        self._context = context
        self._sink = sink
        self._dependencies = dependencies
        self._first_attempt: Attempt | None = None  # the latest one that began before any audio was sent

    async def play_cached(self, segment: Segment) -> bool:
        """Play the clip of this text. Returns False if the cache has none."""
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
        """The audio of the same text that another speech of this process is generating, if there is one."""
        return self._dependencies.single_flight.join(self._key(segment))

    async def follow_flight(self, segment: Segment, flight: Flight) -> None:
        """Send the audio that another speech is generating, as it arrives. Raises FlightFailed if that speech fails.

        The attempt has the number 0, because 1 is the number of a request of our own after such a failure.
        """
        attempt = self._new_attempt(segment, 0, Kind.CACHE, self._context.speech_settings)
        try:
            async with aclosing(flight.chunks(self._dependencies.stall_s)) as chunks:
                async for chunk in chunks:
                    await self._sink.send_audio(chunk, Source.CACHE.value, self._context.speech_settings.voice.name)
        except FlightFailed:
            attempt.outcome, attempt.code = Outcome.FAILED.value, "fill_failed"
            self._record(attempt)
            raise
        self._record_saved(attempt)

    def start_fill(self, segment: Segment) -> AbstractContextManager[Flight]:
        """Generate the audio for all who need it. Enter the block without an await after `find_in_flight`, so that no
        other speech starts the same.
        """
        return self._dependencies.single_flight.start(self._key(segment))

    def store(self, segment: Segment, flight: Flight) -> None:
        """Store the complete audio of the flight in the cache, in the background. Call it only if all of the audio is
        in the conversation's own voice.
        """
        audio = flight.complete()
        if audio:
            greeted_patient_id = self._context.patient_id if self._speech.origin == Origin.GREETING else None
            phrases = self._dependencies.phrase_cache
            phrases.keep_in_memory(self._key(segment), audio)
            settings = self._context.speech_settings
            self._dependencies.spawn(phrases.store(settings, segment.text, audio, greeted_patient_id))

    def _key(self, segment: Segment) -> str:
        return self._dependencies.phrase_cache.key(self._context.speech_settings, segment.text)

    async def request_provider(
        self, segment: Segment, strategy: Strategy, number: int, ticket: AdmissionTicket, flight: Flight | None
    ) -> None:
        """Request the segment from the provider and send the audio on, chunk by chunk. The audio also goes to `flight`.

        Raises ProviderError, and SlotTimeout if no slot became free in time. Cancellation closes the response and books
        what the provider bills.
        """
        settings = self._context.backup_settings if strategy is Strategy.BACKUP else self._context.speech_settings
        request = settings.build_request(
            segment.text, segment.previous_text, segment.next_text, zero_retention=self._dependencies.zero_retention
        )
        is_preview = self._context.conversation_id is None  # clinicians listen outside of any conversation
        kind = Kind.PREVIEW if is_preview else Kind(strategy.value)
        attempt = self._new_attempt(segment, number, kind, settings)

        def report(error: ProviderError) -> None:
            if flight is not None:
                flight.fail()  # it may have part of the audio
            self._dependencies.error_reporter.report_failure(
                error, strategy, self._context.conversation_id, settings.voice.id
            )

        async with self._dependencies.gateway.stream(
            request,
            attempt,
            slot=ticket.slot(),
            first_byte_s=first_byte_limit(strategy, self._dependencies.first_byte_s, ticket.elapsed_s()),
            stall_s=self._dependencies.stall_s,
            guard=ResponseGuard(len(segment.text), FORMATS[settings.format].bytes_per_second),
            on_error=report,
        ) as audio:
            self._speech.progress.billed(attempt.characters, attempt.request_id)
            try:
                async for chunk in audio:
                    await self._sink.send_audio(chunk, _SOURCES[strategy].value, settings.voice.name)
                    if attempt.first_byte_ms is None:
                        attempt.first_byte_ms = audio.elapsed_ms()
                    if flight is not None:
                        flight.add(chunk)
            finally:
                self._set_first_chunk(attempt)
        self._dependencies.circuit.record_success()

    async def speak_offline(self, segment: Segment, number: int) -> None:
        """Speak the segment in the offline voice of this server. Raises SynthesizerUnavailable."""
        settings = self._context.speech_settings
        voice = EspeakVoice(language=settings.language, rate=round(OFFLINE_WORDS_PER_MINUTE * settings.speed))
        attempt = self._new_attempt(segment, number, Kind.OFFLINE, settings)
        audio = self._dependencies.offline_voice.speak(
            segment.text, voice, settings.format, max_lead_s=OFFLINE_MAX_LEAD_S
        )
        try:
            async with aclosing(audio):
                async for chunk in audio:
                    await self._sink.send_audio(chunk, Source.OFFLINE.value, OFFLINE_VOICE_NAME)
        except SynthesizerUnavailable:
            attempt.outcome, attempt.code = Outcome.FAILED.value, "offline_voice_died"
            self._record(attempt)
            raise
        except asyncio.CancelledError:
            self._record_saved(attempt)
            raise
        self._record_saved(attempt)

    def _new_attempt(self, segment: Segment, number: int, kind: Kind, settings: SpeechSettings) -> Attempt:
        attempt = Attempt(
            source_id=self._speech.utterance_id,
            segment=segment.index,
            attempt=self._speech.attempt_number(number),
            kind=kind.value,
            requested_characters=len(segment.text),
            conversation_id=self._context.conversation_id,
            patient_id=self._context.patient_id,
            voice_id=settings.voice.id,
            model=settings.model,
        )
        if not self._speech.progress.bytes_sent:
            self._first_attempt = attempt
        return attempt

    def _record(self, attempt: Attempt) -> None:
        """Book the attempt as it is now."""
        self._set_first_chunk(attempt)
        self._dependencies.recorder.record(attempt)

    def _set_first_chunk(self, attempt: Attempt) -> None:
        """Copy the speech's time to first audio to the attempt that may have sent it."""
        if attempt is self._first_attempt:
            attempt.first_chunk_ms = self._speech.progress.response_ms

    def _record_saved(self, attempt: Attempt) -> None:
        attempt.outcome, attempt.saved_characters = Outcome.COMPLETED.value, attempt.requested_characters
        self._record(attempt)
