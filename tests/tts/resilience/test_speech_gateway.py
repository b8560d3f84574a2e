"""One request to the provider: the order of slot, booking, request and report, for every way it can end."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import repeat
from typing import Any, Self, cast

import pytest

from tests.tts.examples import OWN_VOICE, RENDERING
from tests.voicecare.audio.test_encoders import encode, frame_starts, tone
from tests.voicecare.audio.test_framing import ID3
from tts.resilience.concurrency import LocalLimiter, SlotTimeout
from tts.resilience.quota_gate import QuotaGate
from tts.resilience.speech_gateway import MAX_AUDIO_S, MAX_TOTAL_SILENCE_S, ResponseGuard, SpeechGateway
from usage.ledger.events import Attempt, Kind
from voicecare.audio.formats import FORMATS
from voicecare.providers.elevenlabs.client import SpeechClient
from voicecare.providers.elevenlabs.requests import ResponseMetadata
from voicecare.providers.errors import (
    AudioTooShort,
    BadRequest,
    ConnectionBroken,
    NotAudio,
    ProviderError,
    QuotaExceeded,
    ServerError,
    Stalled,
    Unreachable,
)

TEXT = "How are you?"
SOUND = encode(FORMATS["mp3_44100_128"], tone(0.5))
ONE, TWO = SOUND[:3000], SOUND[3000:]
STARTS = frame_starts(SOUND)


class ScriptedClient:
    """A provider that sends chunks and raises the exceptions among them. `refusal` is raised before the headers."""

    def __init__(self, *script: bytes | Exception, refusal: ProviderError | None = None) -> None:
        self.script = list(script)
        self.refusal = refusal
        self.requests = 0
        self.closed = 0
        self.metadata = ResponseMetadata(request_id="req-1", character_cost=6, concurrent_limit=4)

    def speak(self, request: object, *, first_byte_s: float, stall_s: float) -> Self:
        self.requests += 1
        return self

    async def __aenter__(self) -> Self:
        if self.refusal is not None:
            raise self.refusal
        return self

    async def __aexit__(self, *_: object) -> None:
        self.closed += 1

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if not self.script:
            raise StopAsyncIteration
        if isinstance(self.script[0], Exception):
            raise self.script[0]
        return cast(bytes, self.script.pop(0))


class Ledger:
    """Keeps each step with the outcome and the characters of the attempt at that moment."""

    def __init__(self) -> None:
        self.steps: list[tuple[str, str, int]] = []

    async def record_start(self, attempt: Attempt) -> None:
        self.steps.append(("start", attempt.outcome, attempt.characters))

    async def record_answer(self, attempt: Attempt) -> None:
        self.steps.append(("answer", attempt.outcome, attempt.characters))

    async def record_end(self, attempt: Attempt) -> None:
        self.steps.append(("end", attempt.outcome, attempt.characters))


class Bench:
    """A gateway, its collaborators and one attempt."""

    def __init__(self, client: ScriptedClient) -> None:
        self.client = client
        self.ledger = Ledger()
        self.slots = LocalLimiter()
        self.quota = QuotaGate(lambda work: work.close())
        self.reported: list[ProviderError] = []
        self.attempt = Attempt(
            uuid.uuid4(), 0, 1, Kind.LIVE.value, requested_characters=len(TEXT), voice_id=OWN_VOICE.id
        )
        self._gateway = SpeechGateway(cast(SpeechClient, client), self.ledger, limiter=self.slots, quota=self.quota)

    async def read(self, got: list[bytes] | None = None, **options: Any) -> list[bytes]:
        """Read the response and return its chunks. `got` also has those that came before an error."""
        got = [] if got is None else got
        options = {"slot": self.slots.acquire(None, wait_s=0.1), "on_error": self.reported.append, **options}
        request = RENDERING.build_request(TEXT, None, None, zero_retention=False)
        async with self._gateway.stream(request, self.attempt, first_byte_s=1, stall_s=1, **options) as audio:
            async for chunk in audio:
                got.append(chunk)
        return got


async def test_a_request_is_booked_before_it_is_sent_when_it_is_answered_and_at_its_end():
    bench = Bench(ScriptedClient(ONE, TWO))
    assert await bench.read() == [ONE, TWO]
    assert bench.ledger.steps == [("start", "unknown", 0), ("answer", "completed", 12), ("end", "completed", 12)]
    assert (bench.attempt.request_id, bench.attempt.credits) == ("req-1", 6)
    assert (bench.client.closed, bench.slots.held_count, bench.reported) == (1, 0, [])


async def test_the_region_of_a_response_and_of_a_refusal_is_kept_with_the_attempt():
    bench = Bench(ScriptedClient(ONE, ServerError(status=500, region="us-central1")))
    bench.client.metadata = ResponseMetadata(request_id="req-1", region="europe-west4")
    with pytest.raises(ServerError):
        await bench.read()
    assert bench.attempt.region == "us-central1"
    other = Bench(ScriptedClient(ONE))
    other.client.metadata = ResponseMetadata(request_id="req-1", region="europe-west4" + "x" * 80)
    await other.read()
    assert other.attempt.region == "europe-west4" + "x" * 52  # the length of the column


@pytest.mark.parametrize(("model", "credits"), [("eleven_flash_v2_5", 6), ("eleven_v3", 12), ("unknown", 12)])
async def test_without_a_stated_price_that_of_the_model_is_booked(model: str, credits: int):
    bench = Bench(ScriptedClient(ONE, TWO))
    bench.client.metadata = ResponseMetadata(request_id="req-1")
    bench.attempt.model = model
    await bench.read()
    assert bench.attempt.credits == credits


async def test_the_concurrency_limit_of_a_response_is_passed_on():
    bench = Bench(ScriptedClient(ONE))
    await bench.read()
    assert bench.slots.limit == 4


@pytest.mark.parametrize(
    ("refusal", "outcome"),
    [(BadRequest(status=400), "failed"), (Unreachable(), "failed"), (ConnectionBroken(), "unknown")],
)
async def test_a_refused_request_bills_nothing_and_is_reported(refusal: ProviderError, outcome: str):
    bench = Bench(ScriptedClient(refusal=refusal))
    with pytest.raises(type(refusal)):
        await bench.read()
    assert bench.ledger.steps == [("start", "unknown", 0), ("end", outcome, 0)]
    assert bench.reported == [refusal]
    assert bench.slots.held_count == 0


async def test_an_error_after_the_headers_is_billed_and_carries_the_request_id():
    bench = Bench(ScriptedClient(ONE, ConnectionBroken(status=200)))
    with pytest.raises(ConnectionBroken) as broken:
        await bench.read()
    assert bench.ledger.steps[-1] == ("end", "failed", 12)
    assert (bench.reported, broken.value.request_id) == ([broken.value], "req-1")


async def test_an_implausible_response_is_a_provider_error():
    bench = Bench(ScriptedClient(*[SOUND] * 100))
    with pytest.raises(BadRequest):
        await bench.read(guard=ResponseGuard("A", bytes_per_second=100))
    assert bench.ledger.steps[-1] == ("end", "failed", 12)
    assert [error.code for error in bench.reported] == ["endless_audio"]
    assert bench.client.closed == 1


async def test_no_request_is_sent_if_the_quota_ran_out_while_the_caller_waited():
    bench = Bench(ScriptedClient(ONE))

    @asynccontextmanager
    async def slot() -> AsyncIterator[None]:
        bench.quota.is_exhausted = True
        async with bench.slots.acquire(None, wait_s=0.1):
            yield

    with pytest.raises(QuotaExceeded):
        await bench.read(slot=slot())
    assert (bench.client.requests, bench.ledger.steps, bench.reported) == (0, [], [])
    assert bench.slots.held_count == 0


async def test_without_a_slot_nothing_is_sent_or_booked():
    bench = Bench(ScriptedClient(ONE))
    bench.slots.set_limit(1)
    async with bench.slots.acquire(None, wait_s=0.1):
        with pytest.raises(SlotTimeout):
            await bench.read(slot=bench.slots.acquire(None, wait_s=0.01))
    assert (bench.client.requests, bench.ledger.steps) == (0, [])


async def cancelled(reading: asyncio.Task[list[bytes]]) -> None:
    for _ in range(5):
        await asyncio.sleep(0)
    reading.cancel()
    await asyncio.wait({reading})
    assert reading.cancelled()


async def test_a_request_that_is_cancelled_before_its_answer_is_unknown(monkeypatch: pytest.MonkeyPatch):
    bench = Bench(ScriptedClient())
    monkeypatch.setattr(ScriptedClient, "__aenter__", lambda self: asyncio.sleep(60))
    await cancelled(asyncio.create_task(bench.read()))
    assert bench.ledger.steps == [("start", "unknown", 0), ("end", "unknown", 0)]
    assert (bench.slots.held_count, bench.reported) == (0, [])


async def test_a_request_that_is_cancelled_after_its_answer_is_billed(monkeypatch: pytest.MonkeyPatch):
    bench = Bench(ScriptedClient())
    monkeypatch.setattr(ScriptedClient, "__anext__", lambda self: asyncio.sleep(60))
    await cancelled(asyncio.create_task(bench.read()))
    assert bench.ledger.steps[-1] == ("end", "cancelled", 12)
    assert (bench.client.closed, bench.slots.held_count, bench.reported) == (1, 0, [])


# Whole sound


async def test_a_response_that_ends_in_a_frame_is_padded():
    bench = Bench(ScriptedClient(ONE, TWO[:500]))
    padded = await bench.read()
    assert padded[:2] == [ONE, TWO[:500]]
    assert await Bench(ScriptedClient(*padded)).read() == padded  # nothing is missing


async def test_a_response_that_breaks_in_a_frame_is_padded_before_the_error():
    bench, got = Bench(ScriptedClient(ONE[:1000], ConnectionBroken(status=200))), []
    with pytest.raises(ConnectionBroken):
        await bench.read(got)
    assert (got[0], b"".join(got)) == (ONE[:1000], ONE[:1000] + bytes(STARTS[3] - 1000))
    assert [error.code for error in bench.reported] == ["connection_broken"]


async def test_the_tag_of_a_response_is_not_sent():
    assert await Bench(ScriptedClient(ID3[:7], ID3[7:] + ONE, TWO)).read() == [ONE, TWO]


async def test_a_response_in_another_format_is_not_audio():
    wav = encode(FORMATS["wav_44100"], tone(0.5))
    bench, got = Bench(ScriptedClient(wav)), []
    with pytest.raises(NotAudio):
        await bench.read(got)
    assert got == []
    assert [error.code for error in bench.reported] == ["wrong_format"]
    assert bench.ledger.steps[-1] == ("end", "failed", 12)


async def test_a_response_that_is_too_short_for_its_text_has_failed():
    bench, got = Bench(ScriptedClient(ONE[: STARTS[2]])), []
    with pytest.raises(AudioTooShort):
        await bench.read(got, guard=ResponseGuard(TEXT, bytes_per_second=RATE))
    assert b"".join(got) == ONE[: STARTS[2]]
    assert [error.code for error in bench.reported] == ["audio_too_short"]


# Implausible responses

RATE = 16_000.0


def feed(reads: list[tuple[int, float]]) -> None:
    reply = ResponseGuard("a" * 100, RATE)
    for size, waited_s in reads:
        reply.on_chunk(size, waited_s)


@pytest.mark.parametrize(
    "reads",
    [
        [(320_000, 0.1)],  # all in one read
        [(1_600, 0.1)] * 300,  # as fast as it plays
        [(160_000, 0.1), (1, 9.0), (1, 1.5), (16_000, 1.9)],  # far ahead, then gaps
        [(8_000, 1.0)] * 18,  # half as fast: nine seconds of silence in sum
    ],
)
def test_plausible_responses_pass(reads: list[tuple[int, float]]):
    feed(reads)


@pytest.mark.parametrize("gap_s", [0.02, 0.5, 1.9])
def test_a_very_slow_response_has_stalled_even_without_long_gaps(gap_s: float):
    with pytest.raises(Stalled) as caught:
        feed([*repeat((1, gap_s), round(MAX_TOTAL_SILENCE_S / gap_s * 1.1))])
    assert caught.value.retryable


def test_an_endless_response_is_refused():
    with pytest.raises(BadRequest):
        feed([(int(RATE), 0.1)] * round(MAX_AUDIO_S + 101))
    feed([(int(RATE), 0.1)] * round(MAX_AUDIO_S + 100))


@pytest.mark.parametrize(
    ("text", "shortest_s"),
    [
        ("Tell me more.", 0.2),
        ("Yes.", 0.05),
        ("That is what the doctor said to all of us at the end of the visit, and she was quite sure of it.", 1.7),
        ("7", 0.02),
        ("おはようございます。", 0.2),
        ("Nooooooooooooooooo!", 0.04),
        ("AAAAaaaaaa", 0.015),
    ],
)
def test_audio_that_is_too_short_for_its_letters_is_refused(text: str, shortest_s: float):
    for seconds in (0.0, shortest_s / 2, shortest_s):
        guard = ResponseGuard(text, RATE)
        guard.on_chunk(int(seconds * RATE), 0.1)
        with pytest.raises(AudioTooShort):
            guard.on_end()
    guard = ResponseGuard(text, RATE)
    guard.on_chunk(int(2 * shortest_s * RATE), 0.1)
    guard.on_end()


@pytest.mark.parametrize(
    "text",
    ["", "...", "🙂🙂", " \n ", "\u200b", '<break time="3s"/>', "[laughs softly]", "-- ** --", "👩\u200d👩\u200d👧"],
)
def test_a_text_without_letters_may_be_silent(text: str):
    ResponseGuard(text, RATE).on_end()


@pytest.mark.parametrize("speed", [0.7, 1.2, 1.5])
def test_real_speech_is_long_enough(speed: float):
    """The offline voice at its usual rate needs 0.065 s for a character, the provider's fastest voices 0.04 s."""
    for text in (
        "Hm.",
        "I see.",
        "Strengths!",
        "Mr. Schwartz thrives.",
        "2 PM, 100 mg.",
        "https://example.org/a/b?c=1&d=2",
    ):
        guard = ResponseGuard(text, RATE)
        guard.on_chunk(int(len(text) * 0.04 / speed * RATE), 0.1)
        guard.on_end()
