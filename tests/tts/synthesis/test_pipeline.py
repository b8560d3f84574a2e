"""The pipeline without network and database: the source of each segment, and what is sent, stored and booked."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, cast

import pytest

from tests.tts import examples
from tests.tts.synthesis.recording import RecordingSink
from tests.tts.text.golden import golden, pronunciation
from tests.tts.text.test_tags import TAGS, generated
from tests.voicecare.audio.test_encoders import encode, frame_starts, tone
from tts.cache.phrase_cache import PhraseCache
from tts.cache.single_flight import SingleFlight
from tts.conversations.context import SpeechContext
from tts.conversations.voice import NO_VOICE, VoiceRef
from tts.recorder import Recorder
from tts.resilience.circuit_breaker import CircuitBreaker
from tts.resilience.concurrency import LocalLimiter
from tts.resilience.error_reporter import ErrorReporter
from tts.resilience.quota_gate import QuotaGate
from tts.resilience.speech_gateway import RecorderLedger, SpeechGateway
from tts.speech import Speech
from tts.synthesis.dependencies import SpeechDependencies
from tts.synthesis.hedging import HedgePolicy
from tts.synthesis.pipeline import QuotaDeferred, SpeechFailed, speak
from tts.text.tags import strip_tags
from usage.ledger.events import Attempt
from voicecare.audio.formats import FORMATS
from voicecare.providers.elevenlabs.client import SpeechClient
from voicecare.providers.elevenlabs.requests import ResponseMetadata, SpeechRequest
from voicecare.providers.errors import (
    ProviderError,
    QuotaExceeded,
    ServerError,
    Stalled,
    TextRejected,
    VoiceUnavailable,
)
from voicecare.providers.espeak.client import OfflineSynthesizer, SynthesizerUnavailable

FIRST = "This is the first of the two sentences in this text. "
SECOND = "And this one is the second of them, which is the last."
PHRASE = "I see, my dear."
LIVE = encode(FORMATS["mp3_44100_128"], tone(2.0))  # long enough for each of these texts
CUT, PADDING = LIVE[:1000], bytes(frame_starts(LIVE)[3] - 1000)


class Response:
    """One scripted response: chunks, and the error that ends them."""

    metadata = ResponseMetadata(request_id="req-1", character_cost=None, concurrent_limit=None)

    def __init__(self, chunks: list[bytes], error: ProviderError | None) -> None:
        self._chunks = list(chunks)
        self._error = error

    def __aiter__(self) -> "Response":
        return self

    async def __anext__(self) -> bytes:
        if self._chunks:
            return self._chunks.pop(0)
        if self._error is not None:
            raise self._error
        raise StopAsyncIteration


class Provider:
    """Answers with the scripted items in order, then with audio. An error is raised after the chunks before it."""

    def __init__(self) -> None:
        self.script: list[ProviderError | tuple[bytes, ProviderError | None]] = []
        self.requests: list[SpeechRequest] = []

    @asynccontextmanager
    async def speak(self, request: SpeechRequest, *, first_byte_s: float, stall_s: float) -> AsyncIterator[Response]:
        self.requests.append(request)
        match self.script.pop(0) if self.script else None:
            case ProviderError() as refusal:
                raise refusal
            case (chunk, error):
                yield Response([chunk], error)
            case None:
                yield Response([LIVE], None)


class Offline:
    """An offline voice that fails as often as `failures` says."""

    failures = 0

    def __init__(self) -> None:
        self.texts: list[str] = []

    async def speak(self, text: str, *_: object, **__: object) -> AsyncIterator[bytes]:
        self.texts.append(text)
        if self.failures:
            self.failures -= 1
            raise SynthesizerUnavailable
        yield b"robot"


class Phrases:
    """A phrase cache in memory. `stored` has the texts that were stored."""

    def __init__(self) -> None:
        self.clips: dict[str, bytes] = {}
        self.stored: list[str] = []

    def key(self, speech_settings: object, text: str) -> str:
        return text.strip()

    def get_cached(self, key: str) -> bytes | None:
        return self.clips.get(key)

    async def get(self, key: str) -> bytes | None:
        return self.clips.get(key)

    def keep_in_memory(self, key: str, audio: bytes) -> None:
        self.clips[key] = audio

    async def store(self, speech_settings: object, text: str, *_: object, written: str | None = None) -> None:
        self.stored.append(text)

    def record_hit(self, key: str) -> None:
        """Hits are not counted here."""


class Setup:
    """A pipeline with everything around it. `say` speaks a text and returns the sink."""

    def __init__(self) -> None:
        self.provider, self.offline, self.phrases = Provider(), Offline(), Phrases()
        self.attempts: dict[tuple[object, ...], Attempt] = {}
        self.background: list[Coroutine[Any, Any, Any]] = []
        self.circuit, self.quota, self.limiter = CircuitBreaker(), QuotaGate(self.background.append), LocalLimiter()
        self.context: SpeechContext = replace(examples.CONTEXT, phrases=frozenset({PHRASE}))
        recorder, client = cast(Recorder, self), cast(SpeechClient, self.provider)
        self.dependencies = SpeechDependencies(
            client=client,
            gateway=SpeechGateway(client, RecorderLedger(recorder), limiter=self.limiter, quota=self.quota),
            offline_voice=cast(OfflineSynthesizer, self.offline),
            circuit=self.circuit,
            quota=self.quota,
            limiter=self.limiter,
            error_reporter=ErrorReporter(self.circuit, self.background.append),
            phrase_cache=cast(PhraseCache, self.phrases),
            single_flight=SingleFlight(),
            recorder=recorder,
            hedging=HedgePolicy(0),
            spawn=self.background.append,
            first_byte_s=1,
            stall_s=1,
            busy_wait_s=1,
            zero_retention=False,
        )

    def record(self, attempt: Attempt) -> None:
        """The recorder: keeps the last state of each attempt."""
        self.attempts[attempt.key] = attempt

    @property
    def booked(self) -> list[tuple[str, str]]:
        return [(attempt.kind, attempt.outcome) for attempt in self.attempts.values()]

    async def say(self, speech: Speech, **options: bool) -> RecordingSink:
        sink = self.sink = RecordingSink(speech)
        await speak(speech, self.context, sink, self.dependencies, **options)
        return sink


@pytest.fixture
def setup() -> Any:
    setup = Setup()
    yield setup
    for work in setup.background:
        work.close()


def sources(sink: RecordingSink) -> list[str]:
    return [source for source, _, _ in sink.sent]


async def test_each_segment_is_requested_when_the_sink_has_capacity(setup: Setup):
    speech = examples.speech(text=FIRST + SECOND)
    sink = await setup.say(speech)
    assert [request.text for request in setup.provider.requests] == [FIRST, SECOND]
    assert (setup.provider.requests[0].next_text, setup.provider.requests[1].previous_text) == (SECOND, FIRST)
    segment = ["wait_for_capacity", "send_audio"]
    assert sink.calls == [*segment, *segment, "flush"]
    assert (speech.progress.characters, setup.booked) == (len(FIRST + SECOND), [("live", "completed")] * 2)


async def test_a_known_phrase_is_stored_once_and_then_plays_from_the_cache(setup: Setup):
    assert sources(await setup.say(examples.speech(text=PHRASE))) == ["live"]
    assert set(sources(await setup.say(examples.speech(text=PHRASE)))) == {"cache"}
    assert len(setup.provider.requests) == 1
    for work in setup.background:
        await work
    assert setup.phrases.stored == [PHRASE]
    assert setup.booked == [("live", "completed"), ("cache", "completed")]


async def test_audio_that_is_too_short_for_its_text_is_repeated_and_not_stored(setup: Setup):
    setup.provider.script = [(CUT, None)]
    sink = await setup.say(examples.speech(text=PHRASE))
    assert (setup.booked, setup.phrases.clips) == ([("live", "failed"), ("retry", "completed")], {})
    assert [chunk for _, _, chunk in sink.sent] == [CUT, PADDING, LIVE]


async def test_a_clip_is_stored_with_its_last_frame_whole(setup: Setup):
    setup.provider.script = [(LIVE[:-100], None)]
    sink = await setup.say(examples.speech(text=PHRASE))
    assert setup.phrases.clips == {PHRASE: LIVE[:-100] + bytes(100)}
    assert [chunk for _, _, chunk in sink.sent] == [LIVE[:-100], bytes(100)]


async def test_a_greeting_is_stored_as_a_whole(setup: Setup):
    await setup.say(examples.speech(text=FIRST + SECOND, origin="greeting"))
    assert setup.phrases.clips == {(FIRST + SECOND).strip(): LIVE + LIVE}
    sink = await setup.say(examples.speech(text=FIRST + SECOND, origin="greeting"))
    assert (set(sources(sink)), b"".join(chunk for _, _, chunk in sink.sent)) == ({"cache"}, LIVE + LIVE)


async def test_a_phrase_that_was_not_spoken_in_one_response_is_not_stored(setup: Setup):
    setup.provider.script = [(CUT, Stalled(status=200))]
    sink = await setup.say(examples.speech(text=PHRASE))
    assert [chunk for _, _, chunk in sink.sent] == [CUT, PADDING, LIVE]
    assert setup.phrases.clips == {}


async def test_a_failed_segment_is_padded_and_spoken_again_with_the_next_strategy(setup: Setup):
    setup.provider.script = [(CUT, Stalled(status=200)), ServerError(status=500)]
    sink = await setup.say(examples.speech(text=FIRST))
    assert sink.sent == [("live", "Rachel", CUT), ("live", "Rachel", PADDING), ("backup", "Default", LIVE)]
    assert sink.calls.count("wait_for_listener") == 2
    assert setup.booked == [("live", "failed"), ("retry", "failed"), ("backup", "completed")]


async def test_a_speech_stays_in_the_backup_voice(setup: Setup):
    setup.provider.script = [ServerError(status=500), ServerError(status=500)]
    assert sources(await setup.say(examples.speech(text=FIRST + SECOND))) == ["backup", "backup"]
    assert len(setup.provider.requests) == 4


async def test_a_successful_retry_does_not_change_the_next_segment(setup: Setup):
    setup.provider.script = [ServerError(status=500)]
    await setup.say(examples.speech(text=FIRST + SECOND))
    assert setup.booked == [("live", "failed"), ("retry", "completed"), ("live", "completed")]


async def test_the_offline_voice_speaks_while_the_circuit_is_open(setup: Setup):
    setup.circuit.is_open = True
    assert sources(await setup.say(examples.speech(text=FIRST))) == ["offline"]
    assert setup.provider.requests == []


async def test_forced_offline_speech_still_plays_cached_phrases(setup: Setup):
    setup.phrases.clips[PHRASE] = b"clip"
    sink = await setup.say(examples.speech(text=f"{PHRASE} {FIRST}"), force_offline=True)
    assert sources(sink) == ["cache", "offline"]
    assert setup.provider.requests == []


async def test_no_audio_at_all_is_an_error(setup: Setup):
    setup.circuit.is_open, setup.offline.failures = True, 2
    with pytest.raises(SpeechFailed) as failed:
        await setup.say(examples.speech(text=FIRST))
    assert (failed.value.code, setup.sink.sent) == ("no_voice", [])


async def test_a_rejected_text_is_not_spoken_by_another_source(setup: Setup):
    setup.provider.script = [TextRejected(status=400)]
    with pytest.raises(SpeechFailed) as failed:
        await setup.say(examples.speech(text=FIRST))
    assert (failed.value.code, len(setup.provider.requests)) == ("text_rejected", 1)


async def test_speech_without_audio_is_deferred_when_the_quota_runs_out(setup: Setup):
    setup.provider.script = [QuotaExceeded(status=401)]
    with pytest.raises(QuotaDeferred):
        await setup.say(examples.speech(text=FIRST))
    assert (setup.quota.is_exhausted, setup.sink.sent) == (True, [])


async def test_speech_that_has_begun_continues_offline_when_the_quota_runs_out(setup: Setup):
    setup.provider.script = [(LIVE, QuotaExceeded(status=401))]
    assert sources(await setup.say(examples.speech(text=FIRST))) == ["live", "offline"]


@pytest.mark.parametrize(("origin", "is_deferred"), [("device", False), ("server", True)])
async def test_after_the_hold_only_server_started_speech_is_deferred(setup: Setup, origin: str, is_deferred: bool):
    setup.quota.is_exhausted = True  # without a hold
    speech = examples.speech(text=FIRST, origin=origin)
    if is_deferred:
        with pytest.raises(QuotaDeferred):
            await setup.say(speech)
    else:
        assert sources(await setup.say(speech)) == ["offline"]
    assert setup.provider.requests == []


async def test_the_offline_voice_speaks_if_no_slot_becomes_free(setup: Setup):
    setup.limiter.set_limit(1)
    setup.dependencies = replace(setup.dependencies, busy_wait_s=0.01)
    async with setup.limiter.acquire(None, wait_s=1):
        assert sources(await setup.say(examples.speech(text=FIRST))) == ["offline"]
    assert setup.booked == [("offline", "completed")]


async def test_two_speeches_share_one_request_for_the_same_phrase(setup: Setup):
    first, second = examples.speech(text=PHRASE), examples.speech(text=PHRASE)
    setup.limiter.set_limit(1)
    async with setup.limiter.acquire(None, wait_s=1):
        speaking = [asyncio.create_task(setup.say(speech)) for speech in (first, second)]
        await asyncio.sleep(0)
    sinks = await asyncio.gather(*speaking)
    assert [sources(sink) for sink in sinks] == [["live"], ["cache"]]
    assert len(setup.provider.requests) == 1


# Without a voice of the provider


RESERVE = VoiceRef(uuid.uuid4(), "RESERVEvoice", "Sarah", 1)
REFUSED = VoiceUnavailable(status=404, code="voice_not_found")


def in_default_voice(setup: Setup, **changes: Any) -> None:
    """Let the conversation be in the default voice, which is also its backup voice."""
    setup.context = replace(setup.context, speech_settings=setup.context.backup_settings, **changes)


async def test_another_voice_speaks_if_the_default_voice_is_refused(setup: Setup):
    in_default_voice(setup, reserve_voice=RESERVE)
    setup.provider.script = [REFUSED]
    sink = await setup.say(examples.speech(text=FIRST + SECOND))
    assert sink.sent == [("backup", "Sarah", LIVE), ("backup", "Sarah", LIVE)]
    assert [request.voice_id for request in setup.provider.requests] == ["DEFAULTvoice", "RESERVEvoice", "RESERVEvoice"]


async def test_own_backup_and_reserve_voice_are_tried_in_this_order(setup: Setup):
    setup.context = replace(setup.context, reserve_voice=RESERVE)
    setup.provider.script = [REFUSED, REFUSED]
    assert sources(await setup.say(examples.speech(text=FIRST))) == ["backup"]
    setup.provider.script = [REFUSED] * 3
    assert sources(await setup.say(examples.speech(text=FIRST))) == ["offline"]
    voices = [request.voice_id for request in setup.provider.requests]
    assert voices == ["OWNvoice", "DEFAULTvoice", "RESERVEvoice"] * 2


async def test_without_a_reserve_voice_the_offline_voice_speaks(setup: Setup):
    in_default_voice(setup)
    setup.provider.script = [REFUSED]
    assert sources(await setup.say(examples.speech(text=FIRST))) == ["offline"]
    assert len(setup.provider.requests) == 1


async def test_without_any_voice_no_request_is_made(setup: Setup):
    nothing = replace(setup.context.speech_settings, voice=NO_VOICE)
    setup.context = replace(setup.context, speech_settings=nothing, backup_settings=nothing)
    for text in (FIRST, PHRASE):
        assert sources(await setup.say(examples.speech(text=text))) == ["offline"]
    assert (setup.provider.requests, setup.phrases.clips) == ([], {})
    assert {attempt.voice_id for attempt in setup.attempts.values()} == {None}


async def test_without_a_backup_voice_the_offline_voice_follows_the_retry(setup: Setup):
    setup.context = replace(setup.context, backup_settings=replace(setup.context.backup_settings, voice=NO_VOICE))
    setup.provider.script = [ServerError(status=500)] * 2
    assert sources(await setup.say(examples.speech(text=FIRST))) == ["offline"]
    assert [request.voice_id for request in setup.provider.requests] == ["OWNvoice", "OWNvoice"]


# Audio tags

TAGGED = "[laughs] This is the first of the two sentences [1]. "


def use_model(setup: Setup, model: str) -> None:
    settings = replace(examples.RENDERING, model=model)
    backup = replace(examples.CONTEXT.backup_settings, model=model)
    setup.context = replace(setup.context, speech_settings=settings, backup_settings=backup)


@pytest.mark.parametrize(("model", "text"), [("eleven_flash_v2_5", strip_tags(TAGGED)), ("eleven_v3", TAGGED)])
async def test_tags_are_requested_and_counted_for_models_that_perform_them(setup: Setup, model: str, text: str):
    use_model(setup, model)
    speech = examples.speech(text=TAGGED)
    await setup.say(speech)
    assert [request.text for request in setup.provider.requests] == [text]
    assert speech.progress.characters == len(text)


async def test_a_substitute_voice_gets_no_tags_and_counts_none(setup: Setup):
    use_model(setup, "eleven_v3")
    setup.provider.script = [ServerError(status=500)] * 3
    setup.offline.failures = 1
    await setup.say(examples.speech(text=TAGGED))
    plain = strip_tags(TAGGED)
    assert [request.text for request in setup.provider.requests] == [TAGGED, TAGGED, plain]
    assert setup.offline.texts == [plain, plain]
    assert [attempt.requested_characters for attempt in setup.attempts.values()][2:] == [len(plain)] * 3


async def test_the_phrase_cache_has_no_tags(setup: Setup):
    use_model(setup, "eleven_v3")
    await setup.say(examples.speech(text=f"[sighs] {PHRASE}"))
    assert ([request.text for request in setup.provider.requests], set(setup.phrases.clips)) == ([PHRASE], {PHRASE})
    await setup.say(examples.speech(text=f"[laughs] {FIRST}", origin="greeting"))
    assert setup.provider.requests[-1].text == FIRST
    assert FIRST.strip() in setup.phrases.clips


async def test_neighbour_text_has_no_tags(setup: Setup):
    await setup.say(examples.speech(text=f"{FIRST}[sighs] {SECOND}"))
    first, second = setup.provider.requests
    assert (first.next_text, second.previous_text) == (SECOND, FIRST)


async def test_tags_alone_are_never_requested(setup: Setup):
    use_model(setup, "eleven_v3")
    sink = await setup.say(examples.speech(text="[laughs] [short pause]"))
    assert (sink.sent, setup.provider.requests) == ([], [])


@pytest.mark.parametrize("model", ["eleven_flash_v2_5", "eleven_v3"])
async def test_no_tag_of_1000_texts_reaches_a_voice_that_would_read_it(setup: Setup, model: str):
    use_model(setup, model)
    for number in range(1000):
        setup.provider.script = [ServerError(status=500)] * (0, 2, 3)[number % 3]
        setup.circuit.is_open = number % 7 == 0
        text, _ = generated(number)
        await setup.say(examples.speech(text=text))
        for attempt in setup.attempts.values():
            assert attempt.characters in (0, attempt.requested_characters)
        setup.attempts.clear()
    spoken = {True: [], False: setup.offline.texts}
    for request in setup.provider.requests:
        performs = model == "eleven_v3" and request.voice_id == examples.OWN_VOICE.provider_id
        spoken[performs].append(request.text)
        spoken[False] += [neighbour for neighbour in (request.previous_text, request.next_text) if neighbour]
    assert len(setup.offline.texts) > 100
    assert len(spoken[False]) > 500
    assert not [text for text in spoken[False] if any(tag in text for tag in TAGS)]
    assert any("[1]" in text for text in spoken[False])
    assert bool(spoken[True]) == (model == "eleven_v3")


@pytest.mark.parametrize("language", ["en", "de"])
async def test_every_voice_says_the_golden_texts(setup: Setup, language: str):
    """200 doses, times, dates and names: live, retry, backup voice and offline voice get the same text."""
    settings = replace(examples.RENDERING, language=language)
    backup = replace(examples.CONTEXT.backup_settings, language=language)
    lexicon = pronunciation(language).lexicon
    setup.context = replace(setup.context, speech_settings=settings, backup_settings=backup, lexicon=lexicon)
    for written, spoken in golden(language):
        setup.provider.script = [ServerError(status=500)] * 3
        setup.provider.requests.clear()
        setup.offline.texts.clear()
        setup.attempts.clear()
        await setup.say(examples.speech(text=written))
        assert [request.text for request in setup.provider.requests] == [spoken] * 3
        assert setup.offline.texts == [spoken]
        assert {attempt.requested_characters for attempt in setup.attempts.values()} == {len(spoken)}


async def test_a_phrase_is_cached_as_it_is_said(setup: Setup):
    written, spoken = "Take 2 tablets **now**.", "Take two tablets now."
    setup.context = replace(setup.context, phrases=frozenset({written}))
    await setup.say(examples.speech(text=written))
    assert ([request.text for request in setup.provider.requests], set(setup.phrases.clips)) == ([spoken], {spoken})
    assert set(sources(await setup.say(examples.speech(text=written)))) == {"cache"}
