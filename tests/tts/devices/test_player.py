"""The player's task: after every interruption of a delivery, its row has a valid state."""

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import pytest
from django.conf import settings
from structlog.testing import capture_logs

from tests.conftest import Member
from tests.e2e.database import locked_database
from tests.e2e.rows import in_database
from tests.sandbox import SandboxProcess
from tests.tts.examples import new_session
from tests.tts.examples import speech as example
from tests.tts.outbox.connections import PAST, connect, state_of, submit
from tests.waiting import PATIENCE_S, eventually
from tts.cache.phrase_cache import PhraseCache
from tts.cache.single_flight import SingleFlight
from tts.cache.stores import create_store
from tts.conversations import lifecycle
from tts.conversations.context import OpenConversation
from tts.devices.outbox_client import OutboxClient
from tts.devices.player import SpeechPlayer
from tts.devices.transport import DeviceTransport
from tts.models import Utterance
from tts.outbox import leases
from tts.queue_reason import QueueReason
from tts.recorder import Recorder
from tts.resilience.circuit_breaker import CircuitBreaker
from tts.resilience.concurrency import LocalLimiter
from tts.resilience.error_reporter import ErrorReporter
from tts.resilience.quota_gate import QuotaGate
from tts.resilience.speech_gateway import RecorderLedger, SpeechGateway
from tts.speech import Speech
from tts.synthesis.dependencies import SpeechDependencies
from tts.synthesis.hedging import HedgePolicy
from usage.provider_state.circuit import ProviderStatus
from voicecare.providers.elevenlabs.client import SpeechClient
from voicecare.providers.espeak.client import OfflineSynthesizer

pytestmark = pytest.mark.django_db(transaction=True)

TEXT = "Your tea is on the table beside the window."
SLOW = {"kind": "slow", "bytes_per_s": 20_000}


@pytest.fixture
async def services(sandbox: SandboxProcess) -> AsyncIterator[SpeechDependencies]:
    tasks: set[asyncio.Task[Any]] = set()

    def spawn(work: Coroutine[Any, Any, Any]) -> None:
        tasks.add(asyncio.create_task(work))

    circuit = CircuitBreaker()
    client = SpeechClient(sandbox.url, "key")
    quota, slots, recorder = QuotaGate(spawn), LocalLimiter(), Recorder()
    services = SpeechDependencies(
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
    yield services
    await services.recorder.flush()
    if tasks:
        _, waiting = await asyncio.wait(tasks, timeout=1)
        for task in waiting:  # for a quota that nobody restores
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    await services.offline_voice.close()
    await client.close()


class PlayerRig:
    """A player with the parts that a connection gives it. `frames` has the JSON frames for the device."""

    def __init__(self, member: Member, services: SpeechDependencies) -> None:
        self.member = member
        self.frames: list[dict[str, Any]] = []
        self.audio = asyncio.Event()
        self.session = new_session(1_000_000)
        self.open = self.conversation  # for a delivery
        self._services = services

    async def connect(self) -> "PlayerRig":
        socket = await in_database(connect, self.member)
        self.outbox = OutboxClient(self.member.device.pk, leases.owner_epoch(socket.owner), self.member.patient.pk)
        self.player = SpeechPlayer(
            DeviceTransport(self._receive), self._services, self.session, self.outbox, self._open_conversation
        )
        return self

    async def _open_conversation(self) -> OpenConversation | None:
        return await self.open()

    async def conversation(self) -> OpenConversation | None:
        """Open a conversation for a delivery, as a connection does."""
        if self.session.conversation is None:
            self.session.start_conversation(await in_database(lifecycle.start_for_delivery, self.member.device.pk))
        return self.session.conversation

    async def _receive(self, message: dict[str, Any]) -> None:
        if "bytes" in message:
            self.audio.set()
        else:
            self.frames.append(json.loads(message["text"]))

    @property
    def types(self) -> list[str]:
        return [frame["type"] for frame in self.frames]

    def speak(self, speech_id: str, text: str = TEXT) -> Speech:
        context = self.session.require_conversation().context
        speech = example(speech_id, text, conversation_id=context.conversation_id, patient_id=context.patient_id)
        self.session.queue.waiting.append(speech)
        self.player.enqueue(speech)
        return speech


@pytest.fixture
async def rig(alice: Member, services: SpeechDependencies) -> AsyncIterator[PlayerRig]:
    rig = await PlayerRig(alice, services).connect()
    yield rig
    rig.player.stop_accepting()
    await rig.player.cancel_all()


async def until(row: Utterance, state: str) -> None:
    await eventually(lambda: in_database(state_of, row), wanted=lambda found: found == state)


async def test_wake_plays_all_deliveries_of_the_outbox(rig: PlayerRig):
    rows = [await in_database(submit, rig.member.patient, text) for text in ("First.", "Second.")]
    rig.player.wake()
    for row in rows:
        await until(row, "spoken")
    assert rig.types == ["speech.started", "speech.finished"] * 2


async def test_the_devices_own_speech_comes_before_the_next_delivery(rig: PlayerRig, sandbox: SandboxProcess):
    sandbox.fault(**SLOW, first=1)
    rows = [await in_database(submit, rig.member.patient, text) for text in (TEXT, "Second.")]
    rig.player.wake()
    await rig.audio.wait()
    rig.speak("own")
    for row in rows:
        await until(row, "spoken")
    began = [frame["id"] for frame in rig.frames if frame["type"] == "speech.started"]
    assert began == [f"srv-{rows[0].pk}", "own", f"srv-{rows[1].pk}"]


async def test_a_delivery_survives_a_conversation_that_ends_after_its_claim(rig: PlayerRig):
    row = await in_database(submit, rig.member.patient)
    opened = await rig.conversation()
    ended = False

    async def ends_at_once() -> OpenConversation | None:
        nonlocal ended
        if ended:
            return await rig.conversation()
        ended = True
        rig.session.finish_conversation()
        rig.player.wake()  # as the connection does when a conversation ends
        return opened

    rig.open = ends_at_once
    rig.player.wake()
    await until(row, "spoken")
    assert ended
    assert rig.types == ["speech.started", "speech.finished"]
    now = await rig.conversation()
    assert opened is not None
    assert now is not None
    assert now.context.conversation_id != opened.context.conversation_id
    assert (await in_database(Utterance.objects.get)).conversation_id == now.context.conversation_id


async def test_a_delivery_waits_if_no_conversation_can_be_opened(rig: PlayerRig):
    row = await in_database(submit, rig.member.patient)

    async def cannot() -> OpenConversation | None:
        return None

    rig.open = cannot
    rig.player.wake()
    await asyncio.sleep(0.3)
    await until(row, "waiting")
    assert (await in_database(Utterance.objects.get)).attempts == 1
    assert rig.frames == []


async def test_stop_requeues_a_delivery_or_ends_it(rig: PlayerRig, sandbox: SandboxProcess):
    sandbox.fault(**SLOW)
    row = await in_database(submit, rig.member.patient, TEXT)
    rig.player.wake()
    await rig.audio.wait()
    await rig.player.stop(requeue=True)
    assert rig.types == ["speech.started", "speech.interrupted"]
    rig.audio.clear()
    await rig.audio.wait()  # it is repeated immediately
    await rig.player.stop(requeue=False)
    await until(row, "interrupted")
    assert rig.types == ["speech.started", "speech.interrupted"] * 2
    assert (await in_database(Utterance.objects.get)).attempts == 2


async def test_cancel_all_requeues_the_playing_delivery_and_interrupts_waiting_speech(
    rig: PlayerRig, sandbox: SandboxProcess, services: SpeechDependencies
):
    sandbox.fault(**SLOW)
    row = await in_database(submit, rig.member.patient, TEXT)
    rig.player.wake()
    await rig.audio.wait()
    waiting = rig.speak("own")
    rig.player.stop_accepting()
    await rig.player.cancel_all()
    await until(row, "waiting")
    await services.recorder.flush()
    own = await in_database(Utterance.objects.get, pk=waiting.utterance_id)
    assert (own.state, own.bytes_sent) == ("interrupted", 0)
    assert rig.types == ["speech.started", "speech.interrupted", "speech.interrupted"]


async def test_a_player_that_stops_while_it_looks_for_a_delivery_ends(rig: PlayerRig):
    """Its loop must not ask a closed outbox again and again, which would block all connections."""
    await in_database(submit, rig.member.patient)
    async with locked_database():
        rig.player.wake()
        await asyncio.sleep(0.1)
        rig.player.stop_accepting()
        rig.player.wake()
    async with asyncio.timeout(10):
        await rig.player.finish_current(10)
    assert rig.frames == []


async def test_a_stopped_player_claims_nothing(rig: PlayerRig):
    row = await in_database(submit, rig.member.patient)
    rig.player.stop_accepting()
    rig.player.wake()
    await asyncio.sleep(0.2)
    assert (await in_database(Utterance.objects.get)).attempts == 0
    assert await in_database(state_of, row) == "waiting"


async def test_finish_current_lets_the_current_speech_end_and_starts_no_other(rig: PlayerRig, sandbox: SandboxProcess):
    sandbox.fault(kind="slow", bytes_per_s=60_000)
    rows = [await in_database(submit, rig.member.patient, TEXT) for _ in range(2)]
    rig.player.wake()
    await rig.audio.wait()
    await rig.player.finish_current(10)
    assert rig.types == ["speech.started", "speech.finished"]
    for row, state in zip(rows, ("spoken", "waiting"), strict=True):
        await until(row, state)


# Deferred speech: the row decides who may speak it


async def defer(rig: PlayerRig, services: SpeechDependencies, *speech_ids: str) -> list[Speech]:
    """Request speeches while the quota is exhausted, and return when their rows are written."""
    services.quota.mark_exhausted(10)
    speeches = [rig.speak(speech_id) for speech_id in speech_ids]
    await eventually(lambda: rig.types, wanted=lambda types: types.count("speech.queued") == len(speeches))
    await services.recorder.flush()
    return speeches


async def restore_quota(services: SpeechDependencies) -> None:
    version = await eventually(services.quota.version, wanted=lambda version: version is not None)
    services.quota.apply(ProviderStatus(), version)


async def change_row(speech: Speech, **fields: object) -> None:
    await in_database(Utterance.objects.filter(pk=speech.utterance_id).update, **fields)


async def row_of(speech: Speech) -> Utterance:
    return await in_database(Utterance.objects.get, pk=speech.utterance_id)


def terminals(rig: PlayerRig) -> list[tuple[str, str]]:
    kinds = ("speech.finished", "speech.interrupted", "speech.failed")
    return [(frame["id"], frame["type"]) for frame in rig.frames if frame["type"] in kinds]


async def test_deferred_speech_is_spoken_once_after_its_lease_has_expired(rig: PlayerRig, services: SpeechDependencies):
    """As after a suspended process, or after a database that was away: its own row looks free to the connection."""
    await rig.conversation()
    speeches = await defer(rig, services, "first", "second")
    for speech in speeches:
        await change_row(speech, lease_until=PAST)
    await restore_quota(services)
    await eventually(lambda: terminals(rig), wanted=lambda found: len(found) >= 2)
    rig.player.wake()
    last = rig.speak("last")
    await eventually(lambda: terminals(rig), wanted=lambda found: (last.id, "speech.finished") in found)
    assert terminals(rig) == [(name, "speech.finished") for name in ("first", "second", "last")]
    await services.recorder.flush()
    assert [(row.state, row.attempts) for row in [await row_of(one) for one in speeches]] == [("spoken", 0)] * 2


@pytest.mark.parametrize(
    ("change", "terminal"),
    [
        ({"attempts": 1, "origin": "server", "state": "speaking", "owner": "other"}, "speech.interrupted"),
        ({"attempts": 1, "owner": "other"}, None),
        ({"state": "expired", "owner": ""}, "speech.failed"),
    ],
    ids=["claimed in another conversation", "moved with its conversation", "expired"],
)
async def test_deferred_speech_that_the_connection_has_lost_is_not_spoken(
    rig: PlayerRig, services: SpeechDependencies, change: dict[str, Any], terminal: str | None
):
    await rig.conversation()
    (speech,) = await defer(rig, services, "first")
    await change_row(speech, **change)
    await restore_quota(services)
    last = rig.speak("last")
    await eventually(lambda: terminals(rig), wanted=lambda found: (last.id, "speech.finished") in found)
    lost = [("first", terminal)] if terminal else []
    assert terminals(rig) == [*lost, ("last", "speech.finished")]
    await services.recorder.flush()
    row = await row_of(speech)
    assert {name: getattr(row, name) for name in change} == change


async def test_a_late_write_does_not_overwrite_the_claim_of_another_connection(
    rig: PlayerRig, services: SpeechDependencies
):
    await rig.conversation()
    (speech,) = await defer(rig, services, "first")
    claim = {"attempts": 1, "origin": "server", "state": "speaking", "owner": "other"}
    await change_row(speech, **claim)
    services.recorder.record(speech)
    await services.recorder.flush()
    row = await row_of(speech)
    assert {name: getattr(row, name) for name in claim} == claim


async def test_deferred_speech_that_a_stopping_player_has_taken_waits_again(
    rig: PlayerRig, services: SpeechDependencies
):
    await rig.conversation()
    (speech,) = await defer(rig, services, "first")
    async with locked_database():
        await restore_quota(services)
        await asyncio.sleep(0.2)
        rig.player.stop_accepting()
    await rig.player.finish_current(10)
    assert (await row_of(speech)).state == "queued"
    assert rig.types == ["speech.queued"]


async def test_a_playing_delivery_that_another_connection_has_claimed_is_stopped(
    rig: PlayerRig, sandbox: SandboxProcess
):
    sandbox.fault(**SLOW)
    row = await in_database(submit, rig.member.patient, TEXT)
    rig.player.wake()
    await rig.audio.wait()
    await rig.player.stop_lost_delivery()
    assert terminals(rig) == []
    claim = {"attempts": 2, "state": "speaking", "owner": "other"}
    await in_database(Utterance.objects.update, **claim)
    await rig.player.stop_lost_delivery()
    assert terminals(rig) == [(f"srv-{row.pk}", "speech.interrupted")]
    await rig.outbox.flush()
    assert {name: getattr(await in_database(Utterance.objects.get), name) for name in claim} == claim


async def test_an_acknowledged_delivery_plays_on(rig: PlayerRig, sandbox: SandboxProcess):
    sandbox.fault(**SLOW)
    row = await in_database(submit, rig.member.patient, TEXT)
    rig.player.wake()
    await rig.audio.wait()
    assert await rig.outbox.acknowledge(f"srv-{row.pk}")
    await rig.player.stop_lost_delivery()
    assert terminals(rig) == []


async def test_without_a_database_other_speech_plays_before_deferred_speech(
    rig: PlayerRig, services: SpeechDependencies
):
    await rig.conversation()
    await defer(rig, services, "first")
    async with locked_database():
        await restore_quota(services)
        rig.speak("second")
        await eventually(lambda: terminals(rig), wanted=lambda found: ("second", "speech.finished") in found)
        assert len(terminals(rig)) == 1
    await eventually(lambda: terminals(rig), wanted=lambda found: len(found) == 2)
    assert terminals(rig)[-1] == ("first", "speech.finished")


@pytest.mark.parametrize("returns_for_good", [True, False])
async def test_deferred_speech_plays_after_the_quota_returned_during_a_look_into_the_outbox(
    rig: PlayerRig, services: SpeechDependencies, returns_for_good: bool
):
    """The end of the wait for the quota does not start the player if it runs already.

    If the quota is exhausted again when the look ends, the speech must wait for it again.
    """
    await rig.conversation()
    await defer(rig, services, "first")
    await eventually(services.quota.version, wanted=lambda version: version is not None)  # its row is written
    looking, may_end = asyncio.Event(), asyncio.Event()

    async def opens_none() -> OpenConversation | None:
        looking.set()
        await may_end.wait()
        return None

    rig.open = opens_none
    await in_database(submit, rig.member.patient)
    rig.player.wake()
    await asyncio.wait_for(looking.wait(), PATIENCE_S)
    assert is_waiting_for_quota()
    await restore_quota(services)
    await eventually(is_waiting_for_quota, wanted=lambda waits: not waits)
    if not returns_for_good:
        services.quota.mark_exhausted(10)
    may_end.set()
    if not returns_for_good:
        await eventually(is_waiting_for_quota)
        assert rig.types == ["speech.queued"]
        await restore_quota(services)
    await eventually(lambda: terminals(rig), wanted=lambda found: found == [("first", "speech.finished")])


def is_waiting_for_quota() -> bool:
    """Whether the player has a task that waits for the quota."""
    return any("wait_for_quota" in repr(task.get_coro()) for task in asyncio.all_tasks())


async def test_deferred_speech_waits_while_no_conversation_is_open(rig: PlayerRig, services: SpeechDependencies):
    """As after another device has resumed the conversation, until the database says who speaks."""
    await rig.conversation()
    await defer(rig, services, "first")
    rig.session.finish_conversation()
    with capture_logs() as logs:
        await restore_quota(services)
        await asyncio.sleep(0.2)
    assert [entry["event"] for entry in logs] == []
    assert rig.types == ["speech.queued"]


# The log


def speech_events(logs: list[dict[str, Any]], event: str) -> list[dict[str, Any]]:
    """Return the events of this name. No event of a speech may contain its text or an unknown field."""
    known = {"event", "log_level", "conversation_id", "utterance_id", "request_id", "source", "reason", "ms"}
    known_at_the_end = {"outcome", "origin", "characters", "first_chunk_ms", "queued", "fallback", *known}
    names = {"speech.queued", "speech.started", "speech.fallback", "speech.finished"}
    events = [entry for entry in logs if entry["event"] in names]
    for entry in events:
        is_end = entry["event"] == "speech.finished"
        assert entry.keys() <= (known_at_the_end if is_end else known)
        assert entry["log_level"] == ("info" if is_end else "debug")  # one line for each speech at level info
    assert not any(TEXT in str(entry) for entry in events)
    return [entry for entry in events if entry["event"] == event]


async def test_the_start_and_the_end_of_a_speech_are_logged(rig: PlayerRig, services: SpeechDependencies):
    opened = await rig.conversation()
    with capture_logs() as logs:
        speech = rig.speak("own")
        await eventually(lambda: rig.types, wanted=lambda types: "speech.finished" in types)
    assert opened is not None
    (started,), (finished,) = speech_events(logs, "speech.started"), speech_events(logs, "speech.finished")
    for entry in (started, finished):
        assert entry["conversation_id"] == str(opened.context.conversation_id)
        assert entry["utterance_id"] == str(speech.utterance_id)
        assert entry["source"] == "live"
        assert entry["request_id"]
    assert (finished["outcome"], finished["reason"], finished["origin"]) == ("spoken", "", "device")
    assert finished["characters"] == len(TEXT)
    assert 0 < finished["first_chunk_ms"] <= finished["ms"] + 1
    assert (finished["queued"], finished["fallback"]) == ("", "")
    assert 0 < started["ms"] <= finished["ms"]
    assert speech_events(logs, "speech.fallback") == speech_events(logs, "speech.queued") == []


async def test_a_fallback_is_logged_with_its_cause(rig: PlayerRig, sandbox: SandboxProcess):
    sandbox.fault(kind="error", preset="internal_error", first=2)
    await rig.conversation()
    with capture_logs() as logs:
        speech = rig.speak("own")
        await eventually(lambda: rig.types, wanted=lambda types: "speech.finished" in types)
    (fallback,) = speech_events(logs, "speech.fallback")
    assert (fallback["source"], fallback["reason"]) == ("backup", "internal_error")
    assert fallback["request_id"]
    assert fallback["utterance_id"] == str(speech.utterance_id)
    (finished,) = speech_events(logs, "speech.finished")
    assert (finished["source"], finished["fallback"]) == ("backup", "internal_error")


async def test_a_deferred_speech_is_logged_once_and_has_its_reason_in_the_row(
    rig: PlayerRig, services: SpeechDependencies
):
    await rig.conversation()
    services.quota.mark_exhausted(10)
    with capture_logs() as logs:
        speech = rig.speak("own")
        await eventually(lambda: rig.types, wanted=lambda types: "speech.queued" in types)
    (queued,) = speech_events(logs, "speech.queued")
    assert (queued["reason"], queued["utterance_id"]) == ("quota", str(speech.utterance_id))
    await services.recorder.flush()
    assert (await in_database(Utterance.objects.get, pk=speech.utterance_id)).queue_reason == "quota"
    with capture_logs() as logs:
        speech.queued(QueueReason.BUSY)
    assert logs == []


async def test_a_delivery_that_waits_for_the_quota_has_its_reason_in_the_row(
    rig: PlayerRig, services: SpeechDependencies
):
    services.quota.mark_exhausted(10)
    row = await in_database(submit, rig.member.patient, TEXT)
    with capture_logs() as logs:
        rig.player.wake()
        await until(row, "queued")
    assert [entry["reason"] for entry in speech_events(logs, "speech.queued")] == ["quota"]
    assert (await in_database(Utterance.objects.get)).queue_reason == "quota"
