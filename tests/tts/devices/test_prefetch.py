"""Prefetching the next delivery while the database is slow and the device sends its own speech."""

import asyncio
from collections.abc import Coroutine
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.conftest import Member
from tests.e2e.database import locked_database
from tests.e2e.rows import in_database
from tests.tts.examples import new_session
from tests.tts.outbox.connections import DeviceConnection, connect, queue, state_of, submit
from tests.waiting import eventually
from tts.conversations import lifecycle
from tts.conversations.context import OpenConversation
from tts.devices.outbox_client import OutboxClient
from tts.devices.prefetch import OutboxPrefetcher
from tts.models import Utterance
from tts.outbox import leases
from tts.resilience.quota_gate import QuotaGate
from tts.synthesis.dependencies import SpeechDependencies

pytestmark = pytest.mark.django_db(transaction=True)  # the prefetcher uses its own threads


class PrefetcherRig:
    """A prefetcher with the parts that a connection gives it."""

    def __init__(self, member: Member) -> None:
        self.member = member
        self.session = new_session(1_000_000)
        self.work: set[asyncio.Task[Any]] = set()

    async def connect(self) -> OutboxPrefetcher:
        socket = await in_database(connect, self.member)
        deliveries = OutboxClient(self.member.device.pk, leases.owner_epoch(socket.owner), self.member.patient.pk)
        services = cast(SpeechDependencies, SimpleNamespace(quota=QuotaGate(self.spawn), spawn=self.spawn))
        return OutboxPrefetcher(services, self.session, deliveries, self.conversation)

    def spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        self.work.add(asyncio.create_task(work))

    async def conversation(self) -> OpenConversation | None:
        if self.session.conversation is None:
            self.session.start_conversation(await in_database(lifecycle.start_for_delivery, self.member.device.pk))
        return self.session.conversation


@pytest.fixture
def rig(alice: Member) -> PrefetcherRig:
    return PrefetcherRig(alice)


async def until(row: Utterance, state: str) -> None:
    async def reached() -> bool:
        return await in_database(state_of, row) == state

    await eventually(reached)


async def test_a_waiting_delivery_is_returned_and_more_may_follow(rig: PrefetcherRig):
    row = await in_database(submit, rig.member.patient)
    prefetcher = await rig.connect()
    assert not prefetcher
    prefetcher.pending_hint = True
    speech = await prefetcher.next_delivery()
    assert speech is not None
    assert (speech.utterance_id, rig.session.queue.playing) == (row.pk, speech)
    assert prefetcher
    assert await prefetcher.next_delivery() is None  # one at a time
    assert not prefetcher


async def test_the_devices_own_speech_does_not_wait_for_the_database(rig: PrefetcherRig):
    row = await in_database(submit, rig.member.patient)
    prefetcher = await rig.connect()
    prefetcher.pending_hint = True
    async with locked_database():
        fetching = asyncio.create_task(prefetcher.next_delivery())
        await asyncio.sleep(0.1)
        prefetcher.client_activity()
        async with asyncio.timeout(1):
            assert await fetching is None
        assert prefetcher  # the fetch still runs
    assert (
        await prefetcher.next_delivery() is None
    )  # a delivery fetched while the device spoke may have been acknowledged
    speech = await prefetcher.next_delivery()
    assert speech is not None
    assert (speech.utterance_id, speech.claim and speech.claim.attempt) == (row.pk, 2)


async def test_live_only_fetches_live_speech_and_waits_a_short_time(rig: PrefetcherRig):
    await in_database(submit, rig.member.patient)
    prefetcher = await rig.connect()
    prefetcher.pending_hint = True
    assert await prefetcher.next_delivery(live_only=True) is None
    assert prefetcher
    former = await in_database(lambda: connect(rig.member, talking=True))
    live = await in_database(queue, former, rig.member.patient)
    prefetcher = await rig.connect()
    speech = await prefetcher.next_delivery(live_only=True)
    assert speech is not None
    assert (speech.utterance_id, speech.origin) == (live.pk, "server")
    async with locked_database(), asyncio.timeout(3):
        assert await prefetcher.next_delivery(live_only=True) is None


async def test_a_delivery_that_is_fetched_during_close_waits_again(rig: PrefetcherRig):
    row = await in_database(submit, rig.member.patient)
    prefetcher = await rig.connect()
    async with locked_database():
        fetching = asyncio.create_task(prefetcher.next_delivery())
        await asyncio.sleep(0.1)
        prefetcher.close()
    assert await fetching is None
    await until(row, "waiting")


async def test_live_speech_keeps_its_id_only_in_its_own_conversation(rig: PrefetcherRig):
    """The conversation ends during the fetch."""
    prefetcher = await rig.connect()
    opened = await rig.conversation()
    assert opened is not None
    socket = DeviceConnection(rig.member.device.pk, "", opened.context.conversation_id)
    row = await in_database(queue, socket, rig.member.patient, "a1")
    async with locked_database():
        fetching = asyncio.create_task(prefetcher.next_delivery())
        await asyncio.sleep(0.1)
        rig.session.finish_conversation()
    assert await fetching is None
    speech = await prefetcher.next_delivery()
    assert speech is not None
    assert (speech.utterance_id, speech.id) == (row.pk, f"srv-{row.pk}")
    assert speech.conversation_id != opened.context.conversation_id


async def test_nothing_follows_after_the_prefetcher_is_closed(rig: PrefetcherRig):
    """The player asks as long as something may follow, so a wrong answer would block the event loop for ever."""
    prefetcher = await rig.connect()
    prefetcher.pending_hint = True
    async with locked_database():
        fetching = asyncio.create_task(prefetcher.next_delivery())
        await asyncio.sleep(0.1)
        prefetcher.close()
        prefetcher.client_activity()
        assert await fetching is None
        prefetcher.pending_hint = True
        assert not prefetcher
        assert await prefetcher.next_delivery() is None
