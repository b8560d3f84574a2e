"""The poller: changes of the row are applied within a second, due work is done, and no error ends it."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from pytest_django import Settings

from tests.sandbox import SandboxProcess
from tests.waiting import eventually
from tts.resilience.circuit_breaker import CircuitBreaker
from tts.resilience.concurrency import LocalLimiter
from tts.resilience.quota_gate import QuotaGate
from tts.resilience.speech_gateway import SpeechGateway
from tts.resilience.state_watcher import ProviderStatePoller
from usage.ledger.events import Attempt
from usage.models import Incident, ProviderState
from usage.provider_state import circuit as provider_state
from voicecare.core.database import run_in_db_thread
from voicecare.providers.elevenlabs.client import SpeechClient
from voicecare.providers.errors import QuotaExceeded

pytestmark = pytest.mark.django_db(transaction=True)


class NoLedger:
    """No request is sent in these tests."""

    async def record_start(self, attempt: Attempt) -> None:
        raise AssertionError

    record_answer = record_end = record_start


class Process:
    """The circuit, the quota and the poller of one process. `probes` counts its requests to the provider."""

    def __init__(self) -> None:
        self.tasks: set[asyncio.Task[Any]] = set()
        self.probes = 0
        self.error: Exception | None = None
        self.answer = asyncio.Event()
        self.answer.set()
        self.circuit = CircuitBreaker()
        self.quota = QuotaGate(self.own)
        self.slots = LocalLimiter()
        self.gateway = SpeechGateway(SpeechClient("http://127.0.0.1:1", "key"), NoLedger())
        self.watch = ProviderStatePoller(
            self.circuit, self.quota, self.slots, self.probe, self.own, gateway=self.gateway
        )

    def own(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def probe(self) -> None:
        self.probes += 1
        await self.answer.wait()
        if self.error is not None:
            raise self.error

    async def stop(self) -> None:
        for task in list(self.tasks):
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


@pytest.fixture
async def process() -> AsyncIterator[Process]:
    running = Process()
    yield running
    await running.stop()


@pytest.fixture
async def other() -> AsyncIterator[Process]:
    running = Process()
    yield running
    await running.stop()


async def given(**columns: object) -> None:
    await run_in_db_thread(ProviderState.objects.update_or_create, pk=1, defaults=columns)


async def until(condition: Callable[[], object], within_s: float = 15) -> float:
    began = time.monotonic()
    await eventually(condition, within_s)
    return time.monotonic() - began


async def test_other_processes_know_a_change_within_a_second(process: Process, other: Process):
    for each in (process, other):
        each.own(each.watch.run())
    await asyncio.sleep(0.1)
    process.quota.mark_exhausted(10)
    assert await until(lambda: other.quota.is_exhausted) < 1.5


async def test_poll_now_polls_immediately(process: Process):
    process.own(process.watch.run())
    await asyncio.sleep(0.2)
    await given(circuit="open", next_probe_at="2999-01-01T00:00Z")
    process.watch.poll_now()
    assert await until(lambda: process.circuit.is_open) < 0.5


async def test_polling_continues_during_a_probe(process: Process):
    process.answer.clear()
    await given(circuit="open")
    process.own(process.watch.run())
    await until(lambda: process.circuit.is_open)

    async def probes() -> bool:  # the server of another test may send the probe instead
        await given(circuit="open", next_probe_at="2020-01-01T00:00Z")
        return bool(process.probes)

    await eventually(probes)
    await given(quota="spent", next_poll_at="2999-01-01T00:00Z")
    await until(lambda: process.quota.is_exhausted)


async def test_polling_continues_after_an_error(process: Process, monkeypatch: pytest.MonkeyPatch):
    class Broken(CircuitBreaker):
        def mark(self) -> int | None:
            raise RuntimeError("broken")

    healthy, process.watch._circuit = process.circuit, Broken()
    process.own(process.watch.run())
    await asyncio.sleep(0.05)
    process.watch._circuit = healthy
    await given(circuit="open", next_probe_at="2999-01-01T00:00Z")
    process.watch.poll_now()
    await until(lambda: healthy.is_open)


async def test_no_probe_is_sent_while_the_quota_is_exceeded(process: Process):
    await given(circuit="open", next_probe_at="2020-01-01T00:00Z", quota="spent", next_poll_at="2999-01-01T00:00Z")
    await process.watch.poll()
    await asyncio.sleep(0.1)
    assert process.probes == 0


async def test_a_probe_that_is_refused_for_the_quota_reports_it(process: Process):
    process.error = QuotaExceeded(code="quota_exceeded", status=401, request_id="r1")

    async def is_refused() -> bool:
        # The web server of other tests may claim the probe first, so the row is written again.
        await given(circuit="open", next_probe_at="2020-01-01T00:00Z")
        await process.watch.poll()
        await until(lambda: not process.tasks)
        return process.quota.is_exhausted

    await eventually(is_refused)
    row = await run_in_db_thread(ProviderState.objects.get)
    assert (row.quota, row.circuit) == ("spent", "closed")
    incident = await run_in_db_thread(Incident.objects.get, kind="quota")
    assert incident.detail == "quota_exceeded, HTTP 401, request r1"


async def test_the_result_of_a_subscription_poll_is_applied_immediately(
    process: Process, sandbox: SandboxProcess, settings: Settings
):
    settings.ELEVENLABS_BASE_URL = sandbox.url
    await given(quota="spent", next_poll_at="2999-01-01T00:00Z")
    process.own(process.watch.run())
    await until(lambda: process.quota.is_exhausted)
    await given(next_poll_at="2020-01-01T00:00Z")
    await until(lambda: not process.quota.is_exhausted)


async def test_all_processes_know_within_two_seconds_that_the_quota_is_back(
    process: Process, other: Process, sandbox: SandboxProcess, settings: Settings
):
    settings.ELEVENLABS_BASE_URL, settings.QUOTA_POLL_S = sandbox.url, 0.3
    sandbox.settings(characters_used=100_000, character_limit=100_000)
    process.quota.mark_exhausted(10)
    await until(lambda: not process.tasks)
    for each in (process, other):
        each.own(each.watch.run())
    await until(lambda: other.quota.is_exhausted)
    await asyncio.sleep(1.5)  # these polls still show an exceeded quota
    assert process.quota.is_exhausted
    sandbox.settings(characters_used=0)
    assert await until(lambda: not (process.quota.is_exhausted or other.quota.is_exhausted)) < 2.5
    assert (await run_in_db_thread(Incident.objects.get)).resolved_at is not None


async def test_a_change_of_the_plan_reaches_all_processes(process: Process, other: Process):
    process.slots.set_limit(6)
    for limit in (6, 30, 4):
        await run_in_db_thread(provider_state.set_plan_limit, limit)
        for each in (process, other):
            await each.watch.poll()
            await asyncio.gather(*each.tasks)
        assert (process.slots.limit, other.slots.limit) == (limit, limit)
    assert await run_in_db_thread(ProviderState.objects.values_list("concurrency_limit", flat=True).get) == 4


async def test_the_concurrency_limit_is_written_once_and_read_by_new_processes(process, other):
    process.slots.set_limit(7)
    await process.watch.poll()
    await asyncio.gather(*process.tasks)
    assert await run_in_db_thread(ProviderState.objects.values_list("concurrency_limit", flat=True).get) == 7
    await other.watch.poll()
    assert other.slots.limit == 7
    other.slots.set_limit(3)
    await other.watch.poll()
    await asyncio.gather(*other.tasks)
    await process.watch.poll()
    assert process.slots.limit == 7  # its own responses correct it
    assert await run_in_db_thread(ProviderState.objects.values_list("concurrency_limit", flat=True).get) == 3


# The API key


async def test_the_refusal_of_the_key_ends_when_the_provider_has_accepted_a_request_since(process: Process):
    await given(access="permission", next_poll_at=timezone.now() + timedelta(hours=1))
    process.gateway.accepted_at = time.monotonic()  # before this process knows of the refusal
    await process.watch.poll()
    await process.watch.poll()
    assert process.watch.access_refused
    assert not process.tasks
    process.gateway.accepted_at = time.monotonic()
    await process.watch.poll()
    await asyncio.gather(*process.tasks)
    await process.watch.poll()
    assert not process.watch.access_refused
    row = await run_in_db_thread(ProviderState.objects.get)
    assert row.access == "granted"


async def test_an_acceptance_before_a_second_refusal_does_not_end_it(process: Process):
    later = timezone.now() + timedelta(hours=1)
    await given(access="key", access_changed_at=timezone.now(), next_poll_at=later)
    await process.watch.poll()
    process.gateway.accepted_at = time.monotonic()  # then another process grants, and the key is refused again
    await given(access="key", access_changed_at=timezone.now(), next_poll_at=later)
    await process.watch.poll()
    assert not process.tasks


async def test_while_the_key_is_refused_the_subscription_is_polled(process: Process, settings: Settings):
    settings.ELEVENLABS_BASE_URL = "http://127.0.0.1:1"
    await given(access="key")
    await process.watch.poll()
    assert process.tasks
    await asyncio.gather(*process.tasks)
    row = await run_in_db_thread(ProviderState.objects.get)
    assert row.next_poll_at is not None
