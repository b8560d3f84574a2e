"""The outage detector: failures of one text open no circuit, evidence of an outage does."""

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import pytest

from tts.resilience import outage_detector
from tts.resilience.circuit_breaker import CircuitBreaker
from tts.resilience.outage_detector import OutageDetector
from usage.models import Incident
from voicecare.core.database import run_in_db_thread
from voicecare.providers import errors as e

pytestmark = pytest.mark.django_db(transaction=True)  # an open circuit is written in another thread

ANSWERED = [
    e.ServerError(status=500),
    e.NotAudio(status=200),
    e.AudioTooShort(status=200),
    e.Stalled(status=200),
    e.NoFirstByte(status=200),
]
UNANSWERED = [e.NoFirstByte(), e.ConnectionBroken(), e.Unreachable()]
REFUSALS = [
    e.VoiceUnavailable(status=404),
    e.AuthorizationError(status=401),
    e.RateLimited(status=429),
    e.QuotaExceeded(status=401),
    e.TextRejected(status=400),
    e.BadRequest(status=400),
]
TEXT = "This text fails."


class Process:
    """A detector with a scripted probe. `speaks` and `reaches` are the results of the two kinds of requests."""

    def __init__(self) -> None:
        self.tasks: list[asyncio.Task[Any]] = []
        self.speaks: e.ProviderError | None = None
        self.reaches: e.ProviderError | None = None
        self.probed: list[str] = []
        self.checks = 0
        self.answer = asyncio.Event()
        self.answer.set()
        self.circuit = CircuitBreaker()
        self.outages = OutageDetector(self.circuit, self.spawn)
        self.outages.probe = self

    def spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        self.tasks.append(asyncio.create_task(work))

    async def check(self) -> None:
        self.checks += 1
        if self.reaches is not None:
            raise self.reaches

    async def speak(self, *, avoid: str) -> None:
        self.probed.append(avoid)
        await self.answer.wait()
        if self.speaks is not None:
            raise self.speaks

    async def fail(self, error: e.ProviderError, text: str = TEXT) -> None:
        """All requests for a text fail with this error. Returns when the detector has decided."""
        since = time.monotonic()
        for _ in range(3):
            self.outages.request_failed(error)
            await self.settle()
        self.outages.segment_failed(error, since, text)
        await self.settle()

    async def settle(self) -> None:
        while self.tasks:
            await self.tasks.pop()


@pytest.fixture
async def process() -> AsyncIterator[Process]:
    running = Process()
    yield running
    for task in running.tasks:
        task.cancel()
    await asyncio.gather(*running.tasks, return_exceptions=True)


async def incidents() -> list[str]:
    return await run_in_db_thread(lambda: list(Incident.objects.values_list("kind", flat=True)))


@pytest.mark.parametrize("error", [*ANSWERED, *UNANSWERED], ids=repr)
async def test_one_text_that_fails_again_and_again_is_no_outage(process: Process, error: e.ProviderError):
    for text in (TEXT, f" {TEXT}  ", TEXT, TEXT):
        await process.fail(error, text)
    assert not process.circuit.is_open
    assert process.probed == [TEXT]  # once in ten seconds
    assert await incidents() == []


async def test_two_texts_that_fail_are_no_outage_if_the_probe_succeeds(process: Process):
    for number, error in enumerate((*ANSWERED, *UNANSWERED)):
        await process.fail(error, f"Text number {number}.")
        await process.fail(error, f"Text number {number}.")
    assert not process.circuit.is_open


@pytest.mark.parametrize("error", [*ANSWERED, *UNANSWERED], ids=repr)
async def test_a_probe_that_fails_too_opens_the_circuit_and_one_incident(process: Process, error: e.ProviderError):
    process.speaks = e.ServerError(status=503)
    await process.fail(error)
    await process.fail(error, "Another text.")
    assert process.circuit.is_open
    assert await incidents() == ["provider_down"]


@pytest.mark.parametrize("refusal", REFUSALS, ids=repr)
async def test_a_probe_that_is_refused_shows_that_the_provider_works(process: Process, refusal: e.ProviderError):
    process.speaks = refusal
    await process.fail(e.ServerError(status=500))
    assert not process.circuit.is_open


@pytest.mark.parametrize("refusal", REFUSALS, ids=repr)
async def test_a_refused_segment_is_not_probed_for(process: Process, refusal: e.ProviderError):
    await process.fail(refusal)
    assert (process.probed, process.checks) == ([], 0)


@pytest.mark.parametrize("error", UNANSWERED, ids=repr)
async def test_an_unanswered_text_and_an_unanswered_free_call_open_the_circuit_immediately(
    process: Process, error: e.ProviderError
):
    process.reaches = e.NoFirstByte()
    await process.fail(error)
    assert process.circuit.is_open
    assert process.probed == []


async def test_a_free_call_that_is_answered_proves_nothing(process: Process):
    process.speaks = e.NoFirstByte()
    await process.fail(e.NoFirstByte())
    assert process.checks == 3
    assert process.circuit.is_open


async def test_two_different_unanswered_texts_open_the_circuit_before_the_probe_ends(process: Process):
    process.answer.clear()
    now = time.monotonic()
    process.outages.segment_failed(e.NoFirstByte(), now, TEXT)
    process.outages.segment_failed(e.NoFirstByte(), now, TEXT)
    assert not process.circuit.is_open
    process.outages.segment_failed(e.NoFirstByte(), now, "Another text.")
    assert process.circuit.is_open
    process.answer.set()
    await process.settle()


async def test_two_different_texts_that_were_answered_with_errors_wait_for_the_probe(process: Process):
    process.answer.clear()
    now = time.monotonic()
    for text in (TEXT, "Another text."):
        process.outages.segment_failed(e.ServerError(status=500), now, text)
    assert not process.circuit.is_open
    process.answer.set()
    await process.settle()
    assert not process.circuit.is_open
    assert process.probed == [TEXT]


async def test_a_success_between_two_unanswered_texts_keeps_the_circuit_closed(process: Process):
    await process.fail(e.NoFirstByte())
    process.circuit.record_success()
    process.answer.clear()
    process.outages.segment_failed(e.NoFirstByte(), time.monotonic(), "Another text.")
    assert not process.circuit.is_open
    process.answer.set()
    await process.settle()


async def test_a_success_while_the_segment_failed_needs_no_probe(process: Process):
    since = time.monotonic()
    process.circuit.record_success()
    process.outages.segment_failed(e.ServerError(status=500), since, TEXT)
    assert process.tasks == []


async def test_a_success_during_a_probe_that_fails_keeps_the_circuit_closed(process: Process):
    process.speaks = e.NoFirstByte()
    process.answer.clear()
    process.outages.segment_failed(e.ServerError(status=500), time.monotonic(), TEXT)
    process.circuit.record_success()
    process.answer.set()
    await process.settle()
    assert not process.circuit.is_open


async def test_an_outage_is_noticed_although_the_same_text_failed_alone_before(
    process: Process, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(outage_detector, "SAME_FAILURE_S", 0.0)
    await process.fail(e.ServerError(status=500))
    process.speaks = e.ServerError(status=500)
    await process.fail(e.ServerError(status=500))
    assert process.circuit.is_open


async def test_nothing_is_probed_while_the_circuit_is_open(process: Process):
    process.circuit.is_open = True
    await process.fail(e.NoFirstByte())
    assert (process.checks, process.probed) == (0, [])
