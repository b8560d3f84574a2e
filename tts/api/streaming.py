"""Speech as the body of an HTTP response, outside of any conversation, for clinicians.

It uses the same pipeline as devices: phrase cache, concurrency limit, fallback chain, ledger. There are three
differences. The audio is not paced. The utterance has no row. If the quota is exhausted, the speech does not wait: the
offline voice speaks immediately.
"""

import asyncio
import contextvars
import time
import uuid
from collections.abc import AsyncGenerator
from dataclasses import replace
from datetime import UTC, datetime

import structlog
from django.conf import settings

from tts.conversations.context import SpeechContext
from tts.conversations.voice import SpeechSettings, VoiceRef
from tts.models import Phrase
from tts.speech import Speech, SpeechProgress
from tts.states import Origin, UtteranceState
from tts.synthesis.dependencies import SpeechDependencies
from tts.synthesis.pipeline import QuotaDeferred, SpeechFailed, speak
from tts.synthesis.sink import record_audio
from tts.text.segmenter import normalise
from tts.text.stream import TextStream
from voicecare.audio.formats import FORMATS
from voicecare.audio.framing import FramePadder
from voicecare.patients.models import Voice

MAX_BUFFERED_CHUNKS = 64
READ_TIMEOUT_S = 30.0  # a client that reads nothing for this long counts as gone and must not keep its slot

PREVIEW_TEXTS = {
    "en": "Hello, it is good to be with you. Shall we have a little chat?",
    "de": "Guten Tag, schön, bei Ihnen zu sein. Wollen wir ein wenig plaudern?",
}

log = structlog.get_logger(__name__)


class ClientDisconnected(Exception):
    """The client has stopped reading the response."""


class _ResponseSink:
    """The `AudioSink` of one response: a bounded queue of chunks. None ends the body.

    `source` is the source of the first audio, as in `speech.started`. Sending raises ClientDisconnected.
    """

    def __init__(self, speech: Speech, format_name: str) -> None:
        self.source = ""
        self.chunks: asyncio.Queue[bytes | None] = asyncio.Queue(MAX_BUFFERED_CHUNKS)
        self._speech = speech
        self._padder = FramePadder(FORMATS[format_name])

    async def wait_for_capacity(self) -> None:
        """Do nothing: the client wants the audio as fast as possible, and a text has at most 5,000 characters."""

    async def send_audio(self, chunk: bytes, source: str, voice: str) -> None:
        self.source = self.source or source
        await self._put(chunk)
        record_audio(self._speech, len(chunk), source)
        self._padder.feed(chunk)

    async def pad_partial_frame(self) -> None:
        padding = self._padder.padding()
        if padding:
            await self._put(padding)
            self._speech.progress.padded(len(padding))

    async def notify_queued(self, reason: str, expires_in_s: float) -> None:
        """Do nothing: a response has no place for this message."""

    async def flush(self) -> None:
        """Do nothing: the end of the body comes after all chunks in the queue."""

    async def _put(self, chunk: bytes) -> None:
        try:
            async with asyncio.timeout(READ_TIMEOUT_S):
                await self.chunks.put(chunk)
        except TimeoutError:
            raise ClientDisconnected from None


class StreamingSpeech:
    """One speech for one response. `start` returns the body, which must be read or closed."""

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
        """The source of the first audio. It is known when `start` has returned."""
        return self._sink.source

    async def start(self) -> AsyncGenerator[bytes, None]:
        """Wait for the first audio and return the body. Raises SpeechFailed if there is no audio.

        The speech runs in a new task with an empty contextvars context. It may start the recorder, which serves the
        whole process. In the request's context, the recorder would be bound to the request's database thread, which
        ends with the request.
        """
        self._speech.progress.started(self._speech.progress.received_at_monotonic)
        self._task = asyncio.create_task(self._run(), context=contextvars.Context())
        try:
            first = await self._sink.chunks.get()
        except BaseException:
            await self._cancel()
            raise
        if first is None and self._error is not None:
            raise self._error
        return self._body(first)

    async def _body(self, chunk: bytes | None) -> AsyncGenerator[bytes, None]:
        """Yield the chunks. Closing the generator ends the speech and the provider's response.

        If the audio breaks off, it raises: a normal end would mean that the audio is complete.
        """
        try:
            while chunk is not None:
                yield chunk
                chunk = await self._sink.chunks.get()
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
        except ClientDisconnected:
            log.info("rest_speech.client_disconnected")
            self._error = ClientDisconnected()
            self._sink.chunks.get_nowait()  # makes room for the end, in case the client still reads
            self._sink.chunks.put_nowait(None)
            return
        except Exception as error:  # raised again in the reader
            self._error = error
            outcome = UtteranceState.FAILED
            code = error.code if isinstance(error, SpeechFailed) else ""
        finally:
            self._speech.finished(outcome, code)
        await self._sink.chunks.put(None)

    async def _speak(self) -> None:
        try:
            await speak(self._speech, self._context, self._sink, self._dependencies)
        except QuotaDeferred:
            self._speech.progress.repeated()
            await speak(self._speech, self._context, self._sink, self._dependencies, force_offline=True)


def context_for_voice(voice: Voice, audio_format: str) -> SpeechContext:
    """The context of a speech in this voice. Reads the database.

    A voice clone speaks as it does to its patient. A stock voice speaks in the default language and speed.
    """
    patient = voice.patient
    language = (patient.language if patient else settings.LANGUAGE_CODE).partition("-")[0].lower()
    phrases = Phrase.objects.for_language(language).exclude(kind=Phrase.Kind.GREETING).values_list("text", flat=True)
    speech_settings = SpeechSettings(
        voice=VoiceRef.from_voice(voice),
        model=settings.ELEVENLABS_MODEL_ID,
        language=language,
        speed=float(patient.speech_rate) if patient else 1.0,
        format=audio_format,
    )
    return SpeechContext(
        conversation_id=None,
        patient_id=voice.patient_id,
        speech_settings=speech_settings,
        backup_settings=replace(speech_settings, voice=VoiceRef.from_voice(Voice.objects.default())),
        phrases=frozenset(map(normalise, phrases)),
    )


def preview_for_voice(voice: Voice, audio_format: str) -> tuple[str, SpeechContext]:
    """The text and the context of a preview: the longest phrase of the voice's language, which is often cached."""
    context = context_for_voice(voice, audio_format)
    language = context.speech_settings.language
    common = Phrase.objects.for_language(language).filter(kind=Phrase.Kind.COMMON).values_list("text", flat=True)
    text = max(
        common, key=lambda phrase: (len(phrase), phrase), default=PREVIEW_TEXTS.get(language, PREVIEW_TEXTS["en"])
    )
    return text, replace(context, phrases=context.phrases | {normalise(text)})
