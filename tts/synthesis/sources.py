"""Where a segment's sound comes from: the phrase cache, the provider, the offline voice. Each books its attempt.

Accounts are kept by noting what happened; the recorder writes it behind our back (the contract, section 2, rule 9).
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
from tts.synthesis.admission import Turn
from tts.synthesis.dependencies import Services
from tts.synthesis.pacing import LEAD_S
from tts.synthesis.sink import AudioSink
from tts.text.stream import Segment
from usage.ledger.events import Attempt, Kind, Outcome
from voicecare.audio.formats import FORMATS
from voicecare.providers.errors import ProviderError
from voicecare.providers.espeak.client import EspeakVoice, SynthesizerUnavailable

OFFLINE_AHEAD_S = LEAD_S  # it is made no further ahead of playback: 200 listeners share one process for it
OFFLINE_WORDS_PER_MINUTE = 165
OFFLINE_NAME = "Offline voice"
CLIP_CHUNK_BYTES = 16 * 1024

_SOURCES = {Strategy.LIVE: Source.LIVE, Strategy.RETRY: Source.LIVE, Strategy.BACKUP: Source.BACKUP}


class Sources:
    """The three sources for one speech. Each forwards what it brings."""

    def __init__(self, speech: Speech, context: SpeechContext, sink: AudioSink, services: Services) -> None:
        self._speech = speech
        self._context = context
        self._sink = sink
        self._services = services
        self._opening: Attempt | None = None  # the latest one made while nothing of the speech was heard

    async def play(self, segment: Segment) -> bool:
        """The clip of this text; false if the cache has none."""
        phrases = self._services.phrases
        key = self._key(segment)
        clip = phrases.get_cached(key)
        if clip is None and (clip := await phrases.get(key)) is None:
            return False
        attempt = self._attempt(segment, 1, Kind.CACHE, self._context.speech_settings)
        for start in range(0, len(clip), CLIP_CHUNK_BYTES):
            chunk = clip[start : start + CLIP_CHUNK_BYTES]
            await self._sink.send_audio(chunk, Source.CACHE.value, self._context.speech_settings.voice.name)
        phrases.record_hit(key)
        self._saved(attempt)
        return True

    def follow(self, segment: Segment) -> Flight | None:
        """What another speech of this process is having made of the same text right now."""
        return self._services.fills.join(self._key(segment))

    async def join(self, segment: Segment, fill: Flight) -> None:
        """Plays along with the speech that has it made. Raises FillFailed where that one did not end well."""
        attempt = self._attempt(
            segment, 0, Kind.CACHE, self._context.speech_settings
        )  # 1 is whoever asks after it failed
        try:
            async with aclosing(fill.chunks(self._services.stall_s)) as chunks:
                async for chunk in chunks:
                    await self._sink.send_audio(chunk, Source.CACHE.value, self._context.speech_settings.voice.name)
        except FlightFailed:
            attempt.outcome, attempt.code = Outcome.FAILED.value, "fill_failed"
            self._note(attempt)
            raise
        self._saved(attempt)

    def lead(self, segment: Segment) -> AbstractContextManager[Flight]:
        """To be entered in the same turn of the loop in which `follow` found nothing."""
        return self._services.fills.start(self._key(segment))

    def keep(self, segment: Segment, fill: Flight) -> None:
        """All of it is there, in the conversation's own voice: into the cache, in the background."""
        audio = fill.complete()
        if audio:
            greeted = self._context.patient_id if self._speech.origin == Origin.GREETING else None
            phrases = self._services.phrases
            phrases.keep_in_memory(self._key(segment), audio)
            self._services.own(phrases.store(self._context.speech_settings, segment.text, audio, greeted))

    def _key(self, segment: Segment) -> str:
        return self._services.phrases.key(self._context.speech_settings, segment.text)

    async def ask(self, segment: Segment, rung: Strategy, number: int, turn: Turn, fill: Flight | None) -> None:
        """One request to the provider; every read of its reply is one frame, and goes into `fill`.

        `turn` is the segment's. Raises ProviderError, and SlotsFull where no slot became free. Cancelling closes the
        response and books what it bills.
        """
        rendering = self._context.backup_settings if rung is Strategy.BACKUP else self._context.speech_settings
        request = rendering.build_request(
            segment.text, segment.previous_text, segment.next_text, zero_retention=self._services.zero_retention
        )
        attempt = self._attempt(segment, number, self._kind(rung), rendering)

        def report(error: ProviderError) -> None:
            if fill is not None:
                fill.fail()  # half of a sound is in it
            self._services.trouble.report_failure(error, rung, self._context.conversation_id, rendering.voice.id)

        async with self._services.gateway.stream(
            request,
            attempt,
            slot=turn.slot(),
            first_byte_s=first_byte_limit(rung, self._services.first_byte_s, turn.silence_s()),
            stall_s=self._services.stall_s,
            guard=ResponseGuard(len(segment.text), FORMATS[rendering.format].bytes_per_second),
            on_error=report,
        ) as audio:
            self._speech.progress.billed(attempt.characters)
            try:
                async for chunk in audio:
                    await self._sink.send_audio(chunk, _SOURCES[rung].value, rendering.voice.name)
                    if attempt.first_byte_ms is None:
                        attempt.first_byte_ms = audio.elapsed_ms()
                    if fill is not None:
                        fill.add(chunk)
            finally:
                self._set_first_chunk(attempt)
        self._services.circuit.record_success()

    async def improvise(self, segment: Segment, number: int) -> None:
        """The offline voice, made on this machine. Raises SynthesizerUnavailable."""
        rendering = self._context.speech_settings
        voice = EspeakVoice(language=rendering.language, rate=round(OFFLINE_WORDS_PER_MINUTE * rendering.speed))
        attempt = self._attempt(segment, number, Kind.OFFLINE, rendering)
        sound = self._services.offline.speak(segment.text, voice, rendering.format, max_lead_s=OFFLINE_AHEAD_S)
        try:
            async with aclosing(sound):
                async for chunk in sound:
                    await self._sink.send_audio(chunk, Source.OFFLINE.value, OFFLINE_NAME)
        except SynthesizerUnavailable:
            attempt.outcome, attempt.code = Outcome.FAILED.value, "offline_voice_died"
            self._note(attempt)
            raise
        except asyncio.CancelledError:
            self._saved(attempt)
            raise
        self._saved(attempt)

    def _attempt(self, segment: Segment, number: int, kind: Kind, rendering: SpeechSettings) -> Attempt:
        attempt = Attempt(
            source_id=self._speech.utterance_id,
            segment=segment.index,
            attempt=self._speech.attempt_number(number),
            kind=kind.value,
            requested_characters=len(segment.text),
            conversation_id=self._context.conversation_id,
            patient_id=self._context.patient_id,
            voice_id=rendering.voice.id,
            model=rendering.model,
        )
        if not self._speech.progress.bytes_sent:
            self._opening = attempt
        return attempt

    def _kind(self, rung: Strategy) -> Kind:
        """A clinician listens outside of any conversation."""
        return Kind.PREVIEW if self._context.conversation_id is None else Kind(rung.value)

    def _note(self, attempt: Attempt) -> None:
        """All that is known of it by now."""
        self._set_first_chunk(attempt)
        self._services.recorder.record(attempt)

    def _set_first_chunk(self, attempt: Attempt) -> None:
        """The first sound of the speech is that of the attempt that brought it."""
        if attempt is self._opening:
            attempt.first_chunk_ms = self._speech.progress.response_ms

    def _saved(self, attempt: Attempt) -> None:
        attempt.outcome, attempt.saved_characters = Outcome.COMPLETED.value, attempt.requested_characters
        self._note(attempt)
