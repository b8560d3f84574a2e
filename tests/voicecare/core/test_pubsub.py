"""Pub/sub: every process handles a message once, and subscribers survive a Redis restart."""

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
UNREACHABLE = "redis://127.0.0.1:9/0"

PUBLISHER = """
import sys, uuid
from voicecare.core.pubsub import PubSub
publisher = PubSub(sys.argv[1])
publisher.publish_patient(uuid.UUID(sys.argv[2]))
publisher.publish_provider()
"""


class RecordingSubscriber:
    """Collects patient ids and, for provider messages, the string "provider"."""

    def __init__(self) -> None:
        self.received: list[object] = []

    def patient(self, patient: uuid.UUID) -> None:
        self.received.append(patient)

    def provider(self) -> None:
        self.received.append("provider")

    @asynccontextmanager
    async def subscribed_to(self, pubsub_: PubSub) -> AsyncIterator[None]:
        task = asyncio.create_task(pubsub_.run(self.patient, self.provider))
        try:
            await asyncio.sleep(0)
            yield
            assert not task.done()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def expect(self, *expected: object, timeout_s: float = 5) -> None:
        await eventually(lambda: self.received, timeout_s, wanted=lambda received: received == list(expected))


async def until_subscribed(server: RedisProcess) -> None:
    with server.client() as client:
        await eventually(
            lambda: client.pubsub_numsub(pubsub.CHANNEL), wanted=lambda seen: seen == [(pubsub.CHANNEL, 1)]
        )


@pytest.fixture(scope="module")
def server() -> Iterator[RedisProcess]:
    with RedisProcess() as process:
        yield process


@pytest.fixture
def subscriber() -> RecordingSubscriber:
    return RecordingSubscriber()


async def test_a_message_of_another_process_is_handled(server: RedisProcess, subscriber: RecordingSubscriber):
    async with subscriber.subscribed_to(PubSub(server.url)):
        await until_subscribed(server)
        command = [sys.executable, "-c", PUBLISHER, server.url, str(PATIENT)]
        await asyncio.to_thread(subprocess.run, command, cwd=ROOT, env=None, check=True)
        await subscriber.expect(PATIENT, "provider")


@pytest.mark.parametrize("reachable", ["server", "stopped", "none"])
async def test_own_messages_are_handled_once_with_and_without_redis(
    server: RedisProcess, subscriber: RecordingSubscriber, reachable: str
):
    own = PubSub({"server": server.url, "stopped": UNREACHABLE, "none": ""}[reachable])
    async with subscriber.subscribed_to(own):
        if reachable == "server":
            await until_subscribed(server)
        await asyncio.to_thread(own.publish_patient, PATIENT)
        await asyncio.to_thread(own.publish_provider)
        await subscriber.expect(PATIENT, "provider")
        await asyncio.sleep(0.1)
        assert subscriber.received == [PATIENT, "provider"]


async def test_a_cancelled_subscriber_is_not_called(subscriber: RecordingSubscriber):
    own = PubSub("")
    async with subscriber.subscribed_to(own):
        pass
    own.publish_provider()
    await asyncio.sleep(0)
    assert subscriber.received == []


def test_a_subscriber_with_a_closed_loop_does_not_affect_publishing(subscriber: RecordingSubscriber):
    own = PubSub("")

    async def scenario() -> None:
        async with subscriber.subscribed_to(own):
            own._subscribers *= 2  # one entry stays, as after a loop that was closed early

    asyncio.run(scenario())
    own.publish_provider()
    assert subscriber.received == []


async def test_a_failing_handler_does_not_end_the_subscription(subscriber: RecordingSubscriber):
    def broken(patient: uuid.UUID) -> None:
        raise RuntimeError(f"nothing to say to {patient}")

    own, subscriber.patient = PubSub(""), broken
    async with subscriber.subscribed_to(own):
        with capture_logs() as logs:
            own.publish_patient(PATIENT)
            own.publish_provider()
            await subscriber.expect("provider")
    assert logs == [{"event": "pubsub.handler_failed", "error": "RuntimeError", "log_level": "warning"}]


async def test_malformed_messages_are_ignored(server: RedisProcess, subscriber: RecordingSubscriber):
    async with subscriber.subscribed_to(PubSub(server.url)):
        await until_subscribed(server)
        with server.client() as client:
            for nonsense in (b"", b"\xff\xfe", b"a b c", b"sender 12", b"sender"):
                client.publish(pubsub.CHANNEL, nonsense)
        await asyncio.sleep(0.3)
        await until_subscribed(server)
        await asyncio.to_thread(PubSub(server.url).publish_patient, PATIENT)
        await subscriber.expect(PATIENT)


async def test_the_subscriber_reconnects_after_a_restart_and_logs_it_once(
    server: RedisProcess, subscriber: RecordingSubscriber
):
    async with subscriber.subscribed_to(PubSub(server.url)):
        await until_subscribed(server)
        with capture_logs() as logs:
            server.kill()
            await asyncio.sleep(1)
            await asyncio.to_thread(server.start)
            await until_subscribed(server)
            await asyncio.to_thread(PubSub(server.url).publish_patient, PATIENT)
            await subscriber.expect(PATIENT)
    assert [entry["event"] for entry in logs] == ["pubsub.disconnected", "pubsub.reconnected"]


async def test_a_hanging_redis_is_detected(
    server: RedisProcess, subscriber: RecordingSubscriber, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(pubsub, "PING_INTERVAL_S", 0.3)
    async with subscriber.subscribed_to(PubSub(server.url)):
        await until_subscribed(server)
        await asyncio.sleep(1)  # silent but reachable
        with capture_logs() as logs:
            server.pause()
            try:
                await eventually(lambda: bool(logs))
            finally:
                server.resume()
            await eventually(lambda: len(logs), wanted=lambda seen: seen == 2)
            await asyncio.to_thread(PubSub(server.url).publish_patient, PATIENT)
            await subscriber.expect(PATIENT)
    assert [entry["event"] for entry in logs] == ["pubsub.disconnected", "pubsub.reconnected"]


def test_publishing_to_a_hanging_redis_times_out_once(server: RedisProcess):
    own, lost = PubSub(server.url), REGISTRY.get_sample_value("voicecare_hints_lost_total")
    server.pause()
    try:
        with capture_logs() as logs:
            began = time.monotonic()
            for _ in range(20):
                own.publish_patient(PATIENT)
            assert time.monotonic() - began < 2
    finally:
        server.resume()
    assert [entry["event"] for entry in logs] == ["pubsub.publish_failed"]
    assert str(PATIENT) not in str(logs)
    assert REGISTRY.get_sample_value("voicecare_hints_lost_total") == lost + 20


async def test_publishing_is_retried_after_the_pause(
    server: RedisProcess, subscriber: RecordingSubscriber, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(pubsub, "RETRY_INTERVAL_S", 0.1)
    publisher = PubSub(server.url)
    async with subscriber.subscribed_to(PubSub(server.url)):
        server.kill()
        await asyncio.to_thread(publisher.publish_patient, PATIENT)
        await asyncio.to_thread(server.start)
        await until_subscribed(server)
        await asyncio.sleep(0.1)
        await asyncio.to_thread(publisher.publish_patient, PATIENT)
        await subscriber.expect(PATIENT)


async def test_the_module_functions_publish_with_the_pubsub_of_the_process(subscriber: RecordingSubscriber):
    async with subscriber.subscribed_to(pubsub.process_pubsub()):
        pubsub.publish_patient(PATIENT)
        pubsub.publish_provider()
        await subscriber.expect(PATIENT, "provider")
