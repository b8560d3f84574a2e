"""Speech as the body of a response: how it ends if the client or the speech ends early. Over HTTP: tests/e2e."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import pytest
from django.conf import settings
from structlog.testing import capture_logs

from tests.conftest import Member
from tests.sandbox import SandboxProcess
from tests.waiting import eventually
from tts.api import streaming
from tts.api.streaming import (
    MAX_BUFFERED_S,
    PREVIEW_TEXTS,
    ClientDisconnected,
    ShuttingDown,
    StreamingSpeech,
    context_for_voice,
    preview_for_voice,
)
from tts.cache.phrase_cache import PhraseCache
from tts.cache.single_flight import SingleFlight
from tts.cache.stores import create_store
from tts.conversations.context import Context
from tts.conversations.voice import NO_VOICE
from tts.models import Phrase
from tts.recorder import Recorder
from tts.resilience.circuit_breaker import CircuitBreaker
from tts.resilience.concurrency import LocalLimiter
from tts.resilience.error_reporter import ErrorReporter
from tts.resilience.quota_gate import QuotaGate
from tts.resilience.speech_gateway import RecorderLedger, SpeechGateway
from tts.synthesis.dependencies import SpeechDependencies
from tts.synthesis.hedging import HedgePolicy
from tts.synthesis.pipeline import SpeechFailed
from tts.synthesis.response_speeches import MAX_SPEECHES_PER_USER, ResponseSpeeches, TooManySpeeches
from voicecare.audio.formats import FORMATS
from voicecare.patients.models import Voice
from voicecare.providers.elevenlabs.client import SpeechClient
from voicecare.providers.espeak.client import OfflineSynthesizer

pytestmark = pytest.mark.django_db(transaction=True)

TEXT = "This sentence is spoken to a clinician, over HTTP and not to a device."
USER = 7  # the primary key of a user
LONG = " ".join(f"{TEXT[:-1]}, for the time number {n}." for n in range(60))


@pytest.fixture
async def dependencies(sandbox: SandboxProcess) -> AsyncIterator[SpeechDependencies]:
    tasks: set[asyncio.Task[Any]] = set()

    def spawn(work: Coroutine[Any, Any, Any]) -> None:
        tasks.add(asyncio.create_task(work))

    circuit, client = CircuitBreaker(), SpeechClient(sandbox.url, "key")
    quota, slots, recorder = QuotaGate(spawn), LocalLimiter(), Recorder()
    dependencies = SpeechDependencies(
        client=client,
        gateway=SpeechGateway(client, RecorderLedger(recorder), limiter=slots, quota=quota),
        offline_voice=OfflineSynthesizer(),
        circuit=circuit,
        quota=quota,
        limiter=slots,
        error_reporter=ErrorReporter(circuit, spawn),
        phrase_cache=PhraseCache(create_store(settings), settings.PHRASE_SECRET, 3600),
        single_flight=SingleFlight(),
        recorder=recorder,
        hedging=HedgePolicy(0),
        spawn=spawn,
        first_byte_s=5,
        stall_s=5,
        busy_wait_s=5,
        zero_retention=False,
    )
    await client.open()
    yield dependencies
    await dependencies.recorder.flush()
    if tasks:
        await asyncio.wait(tasks)
    await dependencies.offline_voice.close()
    await client.close()


@pytest.fixture
def context(alice: Member) -> Context:
    return context_for_voice(alice.patient.voice, "mp3_44100_128")


@pytest.fixture
async def speeches() -> AsyncIterator[ResponseSpeeches]:
    speeches = ResponseSpeeches()
    yield speeches
    await speeches.cancel()


async def until_free(sandbox: SandboxProcess) -> None:
    await eventually(lambda: asyncio.to_thread(sandbox.account), wanted=lambda now: not any(now["in_flight"].values()))


async def test_the_body_is_the_audio_and_the_source_is_known_before_it(
    dependencies: SpeechDependencies, context: Context, speeches: ResponseSpeeches
):
    speech = StreamingSpeech(TEXT, context, dependencies)
    with capture_logs() as logs:
        body = await speech.start(speeches, USER)
        assert speech.source == "live"
        assert len(b"".join([chunk async for chunk in body])) > 10_000
    assert [entry["event"] for entry in logs] == ["speech.started", "speech.finished"]
    assert (logs[1]["outcome"], logs[1]["source"]) == ("spoken", "live")


async def test_closing_the_body_ends_the_request(
    dependencies: SpeechDependencies, context: Context, speeches: ResponseSpeeches, sandbox: SandboxProcess
):
    sandbox.fault(kind="slow", bytes_per_s=20_000)
    body = await StreamingSpeech(LONG, context, dependencies).start(speeches, USER)
    await anext(body)
    await body.aclose()
    await until_free(sandbox)


async def test_a_body_that_is_not_read_holds_no_slot_and_a_bounded_part_of_the_audio(
    dependencies: SpeechDependencies, context: Context, speeches: ResponseSpeeches, sandbox: SandboxProcess
):
    body = await StreamingSpeech(LONG, context, dependencies).start(speeches, USER)
    await until_free(sandbox)
    requested = len(sandbox.requests())
    rest = b"".join([chunk async for chunk in body])
    assert len(sandbox.requests()) > 2 * requested
    assert len(rest) > 2 * MAX_BUFFERED_S * FORMATS["mp3_44100_128"].bytes_per_second


async def test_a_body_that_is_never_read_ends_the_speech(
    dependencies: SpeechDependencies,
    context: Context,
    speeches: ResponseSpeeches,
    sandbox: SandboxProcess,
    monkeypatch: pytest.MonkeyPatch,
):
    """The client disconnects between its request and its first read, so the body is never closed."""
    monkeypatch.setattr(streaming, "READ_TIMEOUT_S", 0.3)
    for text in (LONG, TEXT):
        speech = StreamingSpeech(text, context, dependencies)
        body = await speech.start(speeches, USER)
        async with asyncio.timeout(10):
            await speech._task
        await until_free(sandbox)
        with pytest.raises(ClientDisconnected):
            async for _ in body:
                pass


async def test_each_user_has_a_maximum_of_speeches(
    dependencies: SpeechDependencies, context: Context, speeches: ResponseSpeeches
):
    def start(user: int) -> Any:
        return StreamingSpeech(TEXT, context, dependencies).start(speeches, user)

    bodies = [await start(USER) for _ in range(MAX_SPEECHES_PER_USER)]
    with pytest.raises(TooManySpeeches):
        await start(USER)
    bodies.append(await start(USER + 1))
    await anext(bodies[0])
    await bodies[0].aclose()
    async for _ in bodies[1]:
        pass
    bodies += [await start(USER), await start(USER)]
    with pytest.raises(TooManySpeeches):
        await start(USER)


async def test_the_end_of_the_server_breaks_the_body_off(
    dependencies: SpeechDependencies, context: Context, speeches: ResponseSpeeches, sandbox: SandboxProcess
):
    body = await StreamingSpeech(LONG, context, dependencies).start(speeches, USER)
    await speeches.cancel()
    await until_free(sandbox)
    with pytest.raises(ShuttingDown):
        async for _ in body:
            pass


async def test_collected_audio_is_complete(
    dependencies: SpeechDependencies, context: Context, speeches: ResponseSpeeches, sandbox: SandboxProcess
):
    audio = await StreamingSpeech(LONG, context, dependencies).collect(speeches, USER)
    body = await StreamingSpeech(LONG, context, dependencies).start(speeches, USER)
    assert audio == b"".join([chunk async for chunk in body])
    sandbox.fault(kind="error", preset="invalid_text", match={"text": "number 1"})
    with pytest.raises(SpeechFailed):
        await StreamingSpeech(LONG, context, dependencies).collect(speeches, USER)


async def test_audio_that_breaks_off_raises_in_the_body(
    dependencies: SpeechDependencies, context: Context, speeches: ResponseSpeeches, sandbox: SandboxProcess
):
    """The provider refuses a later segment, after audio of the first ones was sent."""
    sandbox.fault(kind="error", preset="invalid_text", match={"text": "number 1"})
    body = await StreamingSpeech(LONG, context, dependencies).start(speeches, USER)
    with pytest.raises(SpeechFailed):
        async for _ in body:
            pass


async def test_a_failure_before_the_first_byte_is_raised_by_start(
    dependencies: SpeechDependencies, context: Context, speeches: ResponseSpeeches, sandbox: SandboxProcess
):
    sandbox.fault(kind="error", preset="invalid_text")
    with pytest.raises(SpeechFailed) as failed:
        await StreamingSpeech(TEXT, context, dependencies).start(speeches, USER)
    assert failed.value.code == "text_rejected"


async def test_a_client_that_leaves_before_the_first_byte_ends_the_request(
    dependencies: SpeechDependencies, context: Context, speeches: ResponseSpeeches, sandbox: SandboxProcess
):
    sandbox.fault(kind="slow_headers", seconds=3)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await StreamingSpeech(TEXT, context, dependencies).start(speeches, USER)
    await until_free(sandbox)


def test_a_voice_clone_uses_the_settings_of_its_patient(member: Any):
    patient = member("Ingrid Vogel", language="de-AT", speech_rate="0.85").patient
    clone = Voice.objects.create(name="Anna", provider_id="anna", source="cloned", patient=patient)
    context = context_for_voice(clone, "pcm_16000")
    assert (context.speech_settings.language, context.speech_settings.speed, context.patient_id) == (
        "de",
        0.85,
        patient.pk,
    )
    assert context.backup_settings.voice.provider_id == settings.DEFAULT_VOICE_ID
    patient.backup_voice = Voice.objects.create(name="Backup", provider_id="backup")
    patient.save()
    context = context_for_voice(Voice.objects.get(pk=clone.pk), "pcm_16000")
    assert context.backup_settings.voice.provider_id == "backup"
    assert context.reserve_voice.provider_id == settings.DEFAULT_VOICE_ID
    patient.backup_policy = "own_voice_only"
    patient.save()
    context = context_for_voice(Voice.objects.get(pk=clone.pk), "pcm_16000")
    assert (context.backup_settings.voice, context.reserve_voice) == (NO_VOICE, NO_VOICE)


def test_without_a_usable_voice_the_offline_voice_speaks():
    Voice.objects.default()
    Voice.objects.update(state="gone")
    context = context_for_voice(None, "pcm_16000")
    assert (context.speech_settings.voice, context.backup_settings.voice, context.patient_id) == (
        NO_VOICE,
        NO_VOICE,
        None,
    )


def test_a_preview_is_the_longest_phrase_of_the_language(member: Any, phrases: None):
    stock = Voice.objects.default()
    patient = member("Ingrid Vogel", language="de").patient
    clone = Voice.objects.create(name="Anna", provider_id="anna", source="cloned", patient=patient)
    assert preview_for_voice(stock, "pcm_16000")[0] == "That's wonderful!"
    text, context = preview_for_voice(stock, "pcm_16000", "de-AT")
    assert (text, context.speech_settings.language) == (PREVIEW_TEXTS["de"], "de")
    assert preview_for_voice(clone, "pcm_16000")[0] == PREVIEW_TEXTS["de"]
    Phrase.objects.create(language="de", text="Ich bin bei Ihnen.")
    assert preview_for_voice(clone, "pcm_16000")[0] == "Ich bin bei Ihnen."
