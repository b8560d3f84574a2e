"""Speech as the body of an HTTP response, outside of any conversation, for clinicians.

It uses the same pipeline as devices: phrase cache, concurrency limit, fallback chain, ledger. There are four
differences. The speech is background work for the concurrency limit, so that it never delays a patient. The audio is
not paced. The utterance has no row. If the quota is exhausted, the speech does not wait: the offline voice speaks
immediately.

A client may read slowly or not at all. Such a client occupies neither a provider slot nor much memory: the audio of a
segment is buffered until its end, and the next segment is requested only when the client has read most of the buffer.
"""

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime

import structlog
from django.conf import settings

from tts.conversations.context import SpeechContext
from tts.conversations.lexicon import load_lexicon
from tts.conversations.voice import NO_VOICE, SpeechSettings, VoiceRef
from tts.models import Phrase
from tts.speech import Speech, SpeechProgress
from tts.states import Origin, UtteranceState
from tts.synthesis.dependencies import SpeechDependencies
from tts.synthesis.pipeline import QuotaDeferred, SpeechFailed, speak
from tts.synthesis.response_speeches import ResponseSpeeches
from tts.synthesis.sink import record_audio
from tts.text.lexicon import Lexicon, LexiconLayer, Replacement
from tts.text.segmenter import normalise
from tts.text.speakable import is_speakable
from tts.text.stream import TextStream
from voicecare.audio.formats import DEVICE_FORMATS, FORMATS
from voicecare.core import languages
from voicecare.patients.models import DefaultVoices, Patient, Voice

MAX_BUFFERED_S = 15.0  # seconds of audio; with less, the next segment is requested
READ_TIMEOUT_S = 120.0  # a client that reads nothing for this long counts as gone

PREVIEW_TEXTS = {
    "en": "Hello, it is good to be with you. Shall we have a little chat?",
    "de": "Guten Tag, schön, bei Ihnen zu sein. Wollen wir ein wenig plaudern?",
}

log = structlog.get_logger(__name__)


class ClientDisconnected(Exception):
    """The client has read nothing for READ_TIMEOUT_S seconds, so it counts as disconnected."""


class ShuttingDown(Exception):
    """The server is shutting down and has ended the speech."""


class _ResponseSink:
    """The `AudioSink` of one response: a queue of chunks. It holds at most MAX_BUFFERED_S of audio and one segment.

    `source` is the source of the first audio, as in the frame `speech.started`. The methods that wait raise
    ClientDisconnected if the client reads nothing.
    """

    def __init__(self, speech: Speech, format_name: str) -> None:
        self.source = ""
        self._speech = speech
        self._chunks: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._buffered_bytes = 0
        self._in_hand_bytes = 0
        self._max_bytes = round(MAX_BUFFERED_S * FORMATS[format_name].bytes_per_second)
        self._read = asyncio.Event()

    async def read(self) -> bytes | None:
        """Return the next chunk, or None after the last one.

        The server has sent the chunk of the call before, so that chunk no longer counts as buffered.
        """
        self._buffered_bytes -= self._in_hand_bytes
        self._read.set()
        chunk = await self._chunks.get()
        self._in_hand_bytes = len(chunk or b"")
        return chunk

    def end(self) -> None:
        """Make `read` return None after the chunks that are in the queue."""
        self._chunks.put_nowait(None)

    async def wait_for_capacity(self) -> None:
        await self._wait_until_at_most(self._max_bytes)

    async def send_audio(self, chunk: bytes, source: str, voice: str) -> None:
        """Put a chunk into the queue. Never waits, because the speech occupies a provider slot during the call."""
        self.source = self.source or source
        self._buffered_bytes += len(chunk)
        self._chunks.put_nowait(chunk)
        record_audio(self._speech, len(chunk), source)

    async def wait_for_listener(self) -> None:
        await self.wait_for_capacity()

    async def notify_queued(self, reason: str, expires_in_s: float) -> None:
        """Do nothing: an HTTP response cannot carry this message."""

    async def flush(self) -> None:
        """Wait until the client has read everything. Until then, the speech counts towards the limit of its user."""
        await self._wait_until_at_most(0)

    async def _wait_until_at_most(self, size: int) -> None:
        while self._buffered_bytes > size:
            self._read.clear()
            try:
                async with asyncio.timeout(READ_TIMEOUT_S):
                    await self._read.wait()
            except TimeoutError:
                raise ClientDisconnected from None


class StreamingSpeech:
    """The speech for one HTTP response. Call `start` or `collect` once."""

    def __init__(self, text: str, context: SpeechContext, dependencies: SpeechDependencies) -> None:
        self._context = context
        self._dependencies = dependencies
        self._speech = Speech(
            id=str(uuid.uuid4()),
            text_stream=TextStream(text, complete=True),
            origin=Origin.DEVICE.value,
            conversation_id=context.conversation_id,
            patient_id=context.patient_id,
            utterance_id=uuid.uuid4(),
            received_at=datetime.now(UTC),
            progress=SpeechProgress(received_at_monotonic=time.monotonic()),
        )
        self._sink = _ResponseSink(self._speech, context.speech_settings.format)
        self._error: Exception | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def source(self) -> str:
        """The source of the first audio, which is known when `start` has returned. Empty without audio."""
        return self._sink.source

    async def collect(self, speeches: ResponseSpeeches, user_id: int) -> bytes:
        """Return the complete audio. Raises as `start` does, also if the audio breaks off later."""
        async with aclosing(await self.start(speeches, user_id)) as body:
            return b"".join([chunk async for chunk in body])

    async def start(self, speeches: ResponseSpeeches, user_id: int) -> AsyncGenerator[bytes, None]:
        """Wait for the first audio and return the body, which must be read to its end or closed.

        Raises TooManySpeeches if the user has too many running speeches, SpeechFailed if there is no audio, and
        ShuttingDown.
        """
        self._speech.progress.started(self._speech.progress.received_at_monotonic)
        self._task = speeches.start(self._run(), user_id)
        try:
            first = await self._sink.read()
        except BaseException:  # also after a cancellation: without a reader, nobody would end the speech
            await self._cancel()
            raise
        if first is None and self._error is not None:
            raise self._error
        body = self._body(first)
        await anext(body)  # only a generator that has begun ends the speech when it is closed or garbage-collected
        return body

    async def _body(self, chunk: bytes | None) -> AsyncGenerator[bytes, None]:
        """Yield an empty chunk first, then `chunk` and all chunks after it.

        Closing the generator ends the speech and the provider's response. Raises an error if the audio breaks off,
        because a normal end would mean that the audio is complete.
        """
        try:
            yield b""
            while chunk is not None:
                yield chunk
                chunk = await self._sink.read()
            if self._error is not None:
                raise self._error
        finally:
            await self._cancel()

    async def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _run(self) -> None:
        outcome, code = UtteranceState.INTERRUPTED, ""
        try:
            await self._speak()
            outcome = UtteranceState.SPOKEN
        except ClientDisconnected as error:
            log.info("rest_speech.client_disconnected")
            self._error = error
        except asyncio.CancelledError:
            self._error = ShuttingDown()  # if the reader has cancelled, this error is never read
            raise
        except Exception as error:  # raised again in the reader
            self._error = error
            outcome = UtteranceState.FAILED
            code = error.code if isinstance(error, SpeechFailed) else ""
        finally:
            self._speech.finished(outcome, code)
            self._sink.end()

    async def _speak(self) -> None:
        try:
            await speak(self._speech, self._context, self._sink, self._dependencies)
        except QuotaDeferred:
            self._speech.progress.repeated()
            await speak(self._speech, self._context, self._sink, self._dependencies, force_offline=True)


def context_for_voice(
    voice: Voice | None, audio_format: str, spoken_language: str = languages.DEFAULT, speed: float = 1.0
) -> SpeechContext:
    """Return the context of a speech in this voice, or else in the default voice. Reads the database.

    A voice clone speaks as it does to its patient. A stock voice speaks `spoken_language` at `speed`.
    """
    patient = voice.patient if voice else None
    language = languages.code_of(patient.language if patient else spoken_language)
    phrases = Phrase.objects.for_language(language).exclude(kind=Phrase.Kind.GREETING).values_list("text", flat=True)
    defaults = DefaultVoices()
    default = defaults.for_language(language)
    backup, reserve = default, defaults.reserve(language)
    if patient is not None:  # the same voices as in the patient's conversations
        backup, reserve = defaults.backup_for(patient), defaults.reserve_for(patient)
    speech_settings = SpeechSettings(
        voice=VoiceRef.from_voice(voice or default),
        model=settings.ELEVENLABS_MODEL_ID,
        language=language,
        speed=float(patient.speech_rate) if patient else speed,
        format=audio_format,
    )
    return SpeechContext(
        conversation_id=None,
        patient_id=patient.pk if patient else None,
        speech_settings=speech_settings,
        backup_settings=replace(speech_settings, voice=VoiceRef.from_voice(backup)),
        reserve_voice=VoiceRef.from_voice(reserve),
        phrases=frozenset(map(normalise, phrases)),
        lexicon=load_lexicon(language, patient),
    )


def context_for_entry(draft: Replacement, patient: Patient | None, spoken_language: str) -> SpeechContext:
    """Return the context in which the written form of this entry of the lexicon is said, before the entry is saved.

    It is said in the voice of the patient's next conversation, or else in the default voice. The audio is cached, so
    that listening again costs nothing. Reads the database.
    """
    language = languages.code_of(patient.language if patient else spoken_language)
    speed = float(patient.speech_rate) if patient else 1.0
    voice = DefaultVoices().for_patient(patient) if patient else None
    context = context_for_voice(voice, DEVICE_FORMATS[0], language, speed)
    lexicon = load_lexicon(language, patient)
    return replace(
        context,
        phrases=frozenset({normalise(draft.written)}),
        lexicon=Lexicon((LexiconLayer([draft]), *lexicon.layers)),
    )


def preview_for_voice(
    voice: Voice, audio_format: str, spoken_language: str = languages.DEFAULT, speed: float = 1.0
) -> tuple[str, SpeechContext]:
    """Return the text and the context of a preview of this voice. Reads the database.

    The text is the longest phrase of the language, because its audio is often in the phrase cache.
    `spoken_language` and `speed` are for stock voices, as in `context_for_voice`. There is no backup voice: whoever
    chooses a voice must not mistake another voice for it.
    """
    context = context_for_voice(voice, audio_format, spoken_language, speed)
    language = context.speech_settings.language
    common = Phrase.objects.for_language(language).filter(kind=Phrase.Kind.COMMON).values_list("text", flat=True)
    text = max(
        filter(is_speakable, common),
        key=lambda phrase: (len(phrase), phrase),
        default=PREVIEW_TEXTS.get(language, PREVIEW_TEXTS["en"]),
    )
    return text, replace(
        context,
        phrases=context.phrases | {normalise(text)},
        backup_settings=replace(context.backup_settings, voice=NO_VOICE),
        reserve_voice=NO_VOICE,
    )
