"""The circuit breaker of one process: what opens and closes it, and which reads of the row it applies."""

import asyncio
import time
from collections.abc import Callable

import pytest

from tts.resilience.circuit_breaker import CircuitBreaker, Probe
from usage.models import Incident, ProviderState
from usage.provider_state import circuit as provider
from usage.provider_state.circuit import ProviderStatus
from voicecare.core.database import run_in_db_thread
from voicecare.providers import errors as e

pytestmark = pytest.mark.django_db(transaction=True)  # the circuit breaker writes in another thread

DOWN = [e.Unreachable, e.NoFirstByte, e.Stalled, e.ConnectionBroken, e.NotAudio, e.AudioTooShort, e.ServerError]
REFUSALS = [e.RateLimited, e.QuotaExceeded, e.VoiceUnavailable, e.AuthorizationError, e.TextRejected, e.BadRequest]


@pytest.fixture
def circuit() -> CircuitBreaker:
    return CircuitBreaker()


def raising(error: Exception | None) -> Probe:
    async def probe() -> None:
        if error is not None:
            raise error

    return probe


def row() -> ProviderState:
    return ProviderState.objects.get()


async def in_database(work: Callable[[], object]) -> object:
    return await run_in_db_thread(work)


def open_and_due() -> None:
    ProviderState.objects.update_or_create(pk=1, defaults={"circuit": "open", "next_probe_at": None})


def test_an_outage_opens_the_circuit(circuit: CircuitBreaker):
    assert circuit.record_outage(time.monotonic())
    assert circuit.is_open


def test_a_success_of_another_request_keeps_the_circuit_closed(circuit: CircuitBreaker):
    since = time.monotonic()
    circuit.record_success()
    assert not circuit.record_outage(since)
    assert circuit.record_outage(time.monotonic() + 1)


def test_only_the_first_report_is_published(circuit: CircuitBreaker):
    assert [circuit.record_outage(time.monotonic()) for _ in range(3)] == [True, False, False]


@pytest.mark.parametrize("is_open", [True, False])
def test_the_circuit_applies_the_row(circuit: CircuitBreaker, is_open: bool):
    circuit.is_open = not is_open
    circuit.apply(ProviderStatus(circuit_open=is_open), circuit.version())
    assert circuit.is_open is is_open


async def test_a_read_from_before_or_during_the_write_is_ignored(circuit: CircuitBreaker):
    before = circuit.version()
    circuit.record_outage(time.monotonic())
    during = circuit.version()
    circuit.apply(ProviderStatus(), during)
    await circuit.publish_open(time.monotonic())
    for mark in (before, during):
        circuit.apply(ProviderStatus(), mark)
    assert circuit.is_open
    circuit.apply(ProviderStatus(), circuit.version())
    assert not circuit.is_open


async def test_an_open_circuit_is_written_and_opens_an_incident(circuit: CircuitBreaker):
    since = time.monotonic() - 3
    circuit.record_outage(since)
    await circuit.publish_open(since)
    incident = await in_database(Incident.objects.get)
    state = await in_database(row)
    assert state.circuit == "open"
    assert 2.5 < (state.changed_at - incident.opened_at).total_seconds() < 20


@pytest.mark.parametrize("error", [None, *REFUSALS])
async def test_a_probe_that_is_answered_closes_the_circuit(
    circuit: CircuitBreaker, error: type[e.ProviderError] | None
):
    await in_database(open_and_due)
    circuit.apply(await run_in_db_thread(provider.read_status), circuit.version())
    await in_database(lambda: ProviderState.objects.update(next_probe_at="2020-01-01T00:00Z"))
    await circuit.probe(raising(error and error()))
    assert not circuit.is_open
    assert (await in_database(row)).circuit == "closed"


@pytest.mark.parametrize("error", [*DOWN, TimeoutError])
async def test_a_probe_that_fails_leaves_the_circuit_open(circuit: CircuitBreaker, error: type[Exception]):
    await in_database(open_and_due)
    await in_database(lambda: ProviderState.objects.update(next_probe_at="2020-01-01T00:00Z"))
    await circuit.probe(raising(error()))
    state = await in_database(row)
    assert (state.circuit, state.probes) == ("open", 1)


async def test_only_one_of_two_processes_probes():
    probes = []

    async def probe() -> None:
        probes.append(1)
        await asyncio.sleep(0.1)

    await in_database(open_and_due)
    await in_database(lambda: ProviderState.objects.update(next_probe_at="2020-01-01T00:00Z"))
    await asyncio.gather(*(CircuitBreaker().probe(probe) for _ in range(4)))
    assert len(probes) == 1
