"""Hints: heard by every process, once, and a Redis that goes and comes back ends no listening."""

import asyncio
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from tests.services import RedisProcess
from tests.waiting import eventually
from voicecare.core import pubsub
from voicecare.core.pubsub import PubSub

ROOT = Path(__file__).resolve().parents[3]
PATIENT = uuid.UUID("5d7e2b9c-0f6e-4f0d-9d11-3f1d2a7c8e55")
NOBODY = "redis://127.0.0.1:9/0"

PUBLISHER = """
import sys, uuid
from voicecare.core.pubsub import PubSub
hints = PubSub(sys.argv[1])
hints.publish_patient(uuid.UUID(sys.argv[2]))
hints.publish_provider()
"""


class Ear:
    """What was heard, in order; the hints of a provider are `"provider"`."""

    def __init__(self) -> None:
        self.heard: list[object] = []

    def patient(self, patient: uuid.UUID) -> None:
        self.heard.append(patient)

    def provider(self) -> None:
        self.heard.append("provider")

    @asynccontextmanager
    async def at(self, of: PubSub) -> AsyncIterator[None]:
        task = asyncio.create_task(of.run(self.patient, self.provider))
        try:
            await asyncio.sleep(0)
            yield
            assert not task.done()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def hears(self, *expected: object, within_s: float = 5) -> None:
        await eventually(lambda: self.heard, within_s, wanted=lambda heard: heard == list(expected))


async def listens(server: RedisProcess) -> None:
    with server.client() as client:
        await eventually(
            lambda: client.pubsub_numsub(pubsub.CHANNEL), wanted=lambda seen: seen == [(pubsub.CHANNEL, 1)]
        )


@pytest.fixture(scope="module")
def server() -> Iterator[RedisProcess]:
    with RedisProcess() as process:
        yield process


@pytest.fixture
def ear() -> Ear:
    return Ear()


async def test_a_message_of_another_process_is_handled(server: RedisProcess, ear: Ear):
    async with ear.at(PubSub(server.url)):
        await listens(server)
        command = [sys.executable, "-c", PUBLISHER, server.url, str(PATIENT)]
        await asyncio.to_thread(subprocess.run, command, cwd=ROOT, env=None, check=True)
        await ear.hears(PATIENT, "provider")


@pytest.mark.parametrize("reachable", ["server", "stopped", "none"])
async def test_own_messages_are_handled_once_with_and_without_redis(server: RedisProcess, ear: Ear, reachable: str):
    ours = PubSub({"server": server.url, "stopped": NOBODY, "none": ""}[reachable])
    async with ear.at(ours):
        if reachable == "server":
            await listens(server)
        await asyncio.to_thread(ours.publish_patient, PATIENT)
        await asyncio.to_thread(ours.publish_provider)
        await ear.hears(PATIENT, "provider")
        await asyncio.sleep(0.1)
        assert ear.heard == [PATIENT, "provider"]


async def test_a_cancelled_subscriber_is_not_called(ear: Ear):
    ours = PubSub("")
    async with ear.at(ours):
        pass
    ours.publish_provider()
    await asyncio.sleep(0)
    assert ear.heard == []


def test_a_subscriber_with_a_closed_loop_does_not_affect_publishing(ear: Ear):
    ours = PubSub("")

    async def scenario() -> None:
        async with ear.at(ours):
            ours._subscribers *= 2  # one stays, as after a loop that was torn down

    asyncio.run(scenario())
    ours.publish_provider()
    assert ear.heard == []


async def test_a_failing_handler_does_not_end_the_subscription(ear: Ear):
    def broken(patient: uuid.UUID) -> None:
        raise RuntimeError(f"nothing to say to {patient}")

    ours, ear.patient = PubSub(""), broken
    async with ear.at(ours):
        with capture_logs() as logs:
            ours.publish_patient(PATIENT)
            ours.publish_provider()
            await ear.hears("provider")
    assert logs == [{"event": "pubsub.handler_failed", "error": "RuntimeError", "log_level": "warning"}]


async def test_malformed_messages_are_ignored(server: RedisProcess, ear: Ear):
    async with ear.at(PubSub(server.url)):
        await listens(server)
        with server.client() as client:
            for nonsense in (b"", b"\xff\xfe", b"a b c", b"sender 12", b"sender"):
                client.publish(pubsub.CHANNEL, nonsense)
        await asyncio.sleep(0.3)
        await listens(server)
        await asyncio.to_thread(PubSub(server.url).publish_patient, PATIENT)
        await ear.hears(PATIENT)


async def test_the_subscriber_reconnects_after_a_restart_and_logs_it_once(server: RedisProcess, ear: Ear):
    async with ear.at(PubSub(server.url)):
        await listens(server)
        with capture_logs() as logs:
            server.kill()
            await asyncio.sleep(1)
            await asyncio.to_thread(server.start)
            await listens(server)
            await asyncio.to_thread(PubSub(server.url).publish_patient, PATIENT)
            await ear.hears(PATIENT)
    assert [entry["event"] for entry in logs] == ["pubsub.disconnected", "pubsub.reconnected"]


async def test_a_hanging_redis_is_detected(server: RedisProcess, ear: Ear, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pubsub, "PING_INTERVAL_S", 0.3)
    async with ear.at(PubSub(server.url)):
        await listens(server)
        await asyncio.sleep(1)  # quiet, yet there
        with capture_logs() as logs:
            server.pause()
            try:
                await eventually(lambda: bool(logs))
            finally:
                server.resume()
            await eventually(lambda: len(logs), wanted=lambda seen: seen == 2)
            await asyncio.to_thread(PubSub(server.url).publish_patient, PATIENT)
            await ear.hears(PATIENT)
    assert [entry["event"] for entry in logs] == ["pubsub.disconnected", "pubsub.reconnected"]


def test_publishing_to_a_hanging_redis_times_out_once(server: RedisProcess):
    ours, lost = PubSub(server.url), REGISTRY.get_sample_value("voicecare_hints_lost_total")
    server.pause()
    try:
        with capture_logs() as logs:
            began = time.monotonic()
            for _ in range(20):
                ours.publish_patient(PATIENT)
            assert time.monotonic() - began < 0.6
    finally:
        server.resume()
    assert [entry["event"] for entry in logs] == ["pubsub.publish_failed"]
    assert str(PATIENT) not in str(logs)
    assert REGISTRY.get_sample_value("voicecare_hints_lost_total") == lost + 20


async def test_publishing_is_retried_after_the_pause(server: RedisProcess, ear: Ear, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pubsub, "RETRY_INTERVAL_S", 0.1)
    publisher = PubSub(server.url)
    async with ear.at(PubSub(server.url)):
        server.kill()
        await asyncio.to_thread(publisher.publish_patient, PATIENT)
        await asyncio.to_thread(server.start)
        await listens(server)
        await asyncio.sleep(0.1)
        await asyncio.to_thread(publisher.publish_patient, PATIENT)
        await ear.hears(PATIENT)


async def test_the_module_functions_publish_with_the_pubsub_of_the_process(ear: Ear):
    async with ear.at(pubsub.process_pubsub()):
        pubsub.publish_patient(PATIENT)
        pubsub.publish_provider()
        await ear.hears(PATIENT, "provider")
