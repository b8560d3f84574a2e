"""The probe over a real socket: its time limit is for the provider only."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from tests.tts.synthesis.test_pipeline import LIVE, Setup
from tests.voicecare.providers.elevenlabs.test_client import (
    END,
    REACHED_S,
    UNREACHED_S,
    Exchange,
    Provider,
    Script,
    chunk,
    head,
    provider_and_client,
    reply_with,
)
from tests.waiting import eventually
from tts.synthesis import probe
from voicecare.core.database import MAX_THREADS, run_in_db_thread
from voicecare.providers.errors import ServerError

pytestmark = pytest.mark.django_db(transaction=True)  # the default voice is read in another thread

SPOKEN = reply_with(head(), chunk(LIVE), END)


class Process:
    """The outage detector of one process with its probe."""

    def __init__(self, setup: Setup, provider: Provider) -> None:
        self.circuit, self.provider = setup.circuit, provider
        self.outages = setup.dependencies.error_reporter.outages
        self._background = setup.background

    async def fail(self) -> None:
        """All requests for a text fail. Returns when the detector has decided."""
        self.outages.segment_failed(ServerError(status=500), time.monotonic(), "This text fails.")
        while self._background:
            await self._background.pop(0)


@asynccontextmanager
async def running_process(script: Script) -> AsyncIterator[Process]:
    async with provider_and_client(script) as (provider, client):
        setup = Setup()
        dependencies = replace(setup.dependencies, client=client, first_byte_s=UNREACHED_S, stall_s=UNREACHED_S)
        setup.dependencies.error_reporter.outages.probe = probe.ProviderProbe(dependencies)
        yield Process(setup, provider)


@asynccontextmanager
async def busy_database() -> AsyncIterator[None]:
    """All database threads of the process are busy inside the block, as with a database that does not respond."""
    may_end = threading.Event()
    async with asyncio.TaskGroup() as threads:
        for _ in range(MAX_THREADS):
            threads.create_task(run_in_db_thread(may_end.wait))
        await asyncio.sleep(0)  # so that they are the first in the queue
        try:
            yield
        finally:
            may_end.set()


async def test_the_wait_for_the_database_does_not_count(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(probe, "SPEECH_TIMEOUT_S", REACHED_S)
    async with running_process(SPOKEN) as process:
        async with busy_database():
            decided = asyncio.create_task(process.fail())
            await asyncio.sleep(3 * REACHED_S)
            monkeypatch.setattr(probe, "SPEECH_TIMEOUT_S", UNREACHED_S)
        await decided
        assert not process.circuit.is_open
        assert len(process.provider.requests) == 1


async def test_a_response_without_an_end_counts_as_failed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(probe, "SPEECH_TIMEOUT_S", REACHED_S)

    async def script(exchange: Exchange) -> None:
        await exchange.write(head(), chunk(LIVE))
        await exchange.wait_for_close()

    async with running_process(script) as process:
        await process.fail()
        assert process.circuit.is_open
        await eventually(lambda: process.provider.open, wanted=lambda count: count == 0)
