"""An exhausted quota (docs/protocol.md, rule 8): no further requests, no lost speech, one alert."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from tests.conftest import Member, wait_until_idle
from tests.e2e.device import Device, spoken_order
from tests.e2e.rows import accounts_of, in_database, state_of, wait_for_state
from tests.sandbox import SandboxProcess
from tests.server import ServerProcess
from tests.usage.alerts.postbox import Webhook
from tests.waiting import eventually, until
from tts.models import Phrase, Utterance
from tts.outbox import leases, store
from usage.models import Incident, ProviderState
from usage.provider_state.circuit import HOLD_S

FIRST = "This is the first thing to be said while nothing is left."
SECOND = "And this is the second thing, which waits behind it."


@pytest.fixture
def server(shared_server: ServerProcess, sandbox: SandboxProcess, transactional_db: None) -> Iterator[ServerProcess]:
    yield shared_server
    restore_quota(sandbox)
    wait_until_available(shared_server)
    wait_until_idle(shared_server)


@pytest.fixture
def other_server(
    second_server: ServerProcess, server: ServerProcess, sandbox: SandboxProcess
) -> Iterator[ServerProcess]:
    """Another server process on the same database."""
    yield second_server
    restore_quota(sandbox)
    wait_until_available(second_server)
    wait_until_idle(second_server)


def exhaust_quota(sandbox: SandboxProcess, form: str = "legacy") -> None:
    sandbox.settings(characters_used=100_000, character_limit=100_000, quota_form=form)


def restore_quota(sandbox: SandboxProcess) -> None:
    sandbox.settings(characters_used=0, character_limit=100_000)


def wait_until_available(server: ServerProcess) -> None:
    until(lambda: server.gauge("voicecare_quota_spent"), wanted=lambda spent: not spent)


async def wait_until_exhausted(server: ServerProcess) -> None:
    async def spent() -> bool:
        return await asyncio.to_thread(server.gauge, "voicecare_quota_spent") == 1

    await eventually(spent)


async def end_first_minute() -> None:
    """Move the incident's start back by a minute, so that its first 60 s, in which live speech waits, are over."""
    began = timezone.now() - timedelta(seconds=HOLD_S)

    async def written() -> bool:
        return await in_database(ProviderState.objects.filter(quota="spent").update, quota_changed_at=began) == 1

    await eventually(written)


async def speak_queued(device: Device, speech_id: str, text: str) -> datetime:
    """Request a speech, wait until it is queued, and return its expiry time."""
    await device.send({"type": "speak", "id": speech_id, "text": text})
    frame = await device.wait_for_frame("speech.queued", id=speech_id, reason="quota")
    return datetime.fromisoformat(frame["expires_at"])


@pytest.mark.parametrize("form", ["legacy", "new"])
async def test_live_speech_waits_and_is_spoken_in_order_when_the_quota_is_back(
    form: str, server: ServerProcess, other_server: ServerProcess, sandbox: SandboxProcess, alice: Member, bob: Member
) -> None:
    exhaust_quota(sandbox, form)
    async with Device(server.ws, alice.token) as device, Device(other_server.ws, bob.token) as other:
        started = await device.start(greeting=False)
        await other.start(greeting=False)
        expires_at = await speak_queued(device, "first", FIRST)
        assert 50 < (expires_at - timezone.now()).total_seconds() <= HOLD_S
        await wait_until_exhausted(other_server)
        requests_before = len(sandbox.requests())
        await speak_queued(device, "second", SECOND)
        await speak_queued(other, "elsewhere", FIRST)
        # There is none if the server still knows the exhausted quota of an earlier test.
        assert len(sandbox.requests()) == requests_before <= 1
        await wait_for_state(started["conversation"], "second", "queued")
        restore_quota(sandbox)
        back = time.monotonic()
        speeches = [await device.wait_for("first"), await device.wait_for("second"), await other.wait_for("elsewhere")]
        assert time.monotonic() - back < 15
        await device.end()
    assert [one.terminal["source"] for one in speeches] == ["live"] * 3
    assert None not in (speeches[0].first_audio_at, speeches[1].first_audio_at)
    assert speeches[0].first_audio_at < speeches[1].first_audio_at
    assert speeches[0].terminal["characters"] == len(FIRST)
    spoken = [request["text"] for request in sandbox.requests() if request["outcome"] == "completed"]
    assert sorted(spoken) == sorted([FIRST, SECOND, FIRST])
    accounts = await accounts_of(started["conversation"])
    assert accounts.counter == accounts.ledger == len(FIRST) + len(SECOND)


async def test_there_is_one_incident_and_it_is_resolved(
    server: ServerProcess, other_server: ServerProcess, sandbox: SandboxProcess, alice: Member, bob: Member
) -> None:
    exhaust_quota(sandbox)
    async with Device(server.ws, alice.token) as device, Device(other_server.ws, bob.token) as other:
        await device.start(greeting=False)
        await other.start(greeting=False)
        await asyncio.gather(speak_queued(device, "a", FIRST), speak_queued(other, "b", FIRST))
        await eventually(lambda: in_database(Incident.objects.exists))
        incident = await in_database(Incident.objects.get)
        assert (incident.kind, incident.resolved_at) == ("quota", None)
        restore_quota(sandbox)
        await device.wait_for("a")
        await other.wait_for("b")
    incident = await in_database(Incident.objects.get)
    assert incident.resolved_at is not None


async def test_after_a_minute_queued_and_new_speech_is_spoken_offline(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    exhaust_quota(sandbox)
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        await speak_queued(device, "first", FIRST)
        await speak_queued(device, "second", SECOND)
        await end_first_minute()
        first, second = await device.wait_for("first"), await device.wait_for("second")
        later = await device.speak("This comes when the minute is over.", id="later")
    for spoken in (first, second, later):
        assert (spoken.terminal["type"], spoken.terminal["source"]) == ("speech.finished", "offline")
        assert [notice["code"] for notice in spoken.frames_of("notice")] == ["backup_voice"]
    assert not later.frames_of("speech.queued")
    assert first.terminal["characters"] == second.terminal["characters"] == 0
    assert len(sandbox.requests()) == 1


async def test_cached_phrases_play_before_queued_speech(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member, phrases: None
) -> None:
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        await device.speak("I see.")
        exhaust_quota(sandbox)
        await speak_queued(device, "first", FIRST)
        spoken = await device.speak("I see.")
        assert spoken.terminal["source"] == "cache"
        assert not device.speeches["first"].is_done


async def test_a_cached_hold_message_is_spoken_once_in_a_conversation(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    holding = "One moment, please."
    await in_database(Phrase.objects.create, kind="holding", text=holding)
    async with Device(server.ws, alice.token) as device:
        started = await device.start(greeting=False)
        await device.speak(holding)  # puts it into the cache
        exhaust_quota(sandbox)
        await speak_queued(device, "first", FIRST)
        hold_message = await device.wait_for_frame("speech.started")
        assert (hold_message["id"][:4], hold_message["source"]) == ("srv-", "cache")
        assert hold_message["hold_message"] is True
        await device.wait_for_frame("speech.finished", id=hold_message["id"])
        await speak_queued(device, "second", SECOND)
        await device.assert_nothing_pending()
        device.drop_connection()
    async with Device(server.ws, alice.token) as device:
        await device.start(resume=started["conversation"])
        await speak_queued(device, "third", "A third thing to be said.")
        await device.assert_nothing_pending()
        assert not device.speeches.get("third") or "speech.started" not in device.types()
        await device.end()
    kinds = await in_database(list, Utterance.objects.filter(origin="holding").values_list("state", flat=True))
    assert kinds == ["spoken"]


async def test_when_the_quota_runs_out_inside_a_speech_the_rest_is_spoken_offline(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    lost = "The second sentence finds the quota spent, and nothing is left."
    sandbox.fault(kind="error", preset="quota_exceeded", match={"text": "^The second"}, first=1)
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        spoken = await device.speak(f"The first sentence of this is spoken as ever. {lost}")
    assert spoken.terminal["source"] == "offline"
    assert not spoken.frames_of("speech.queued")
    assert [frame["source"] for frame in spoken.frames_of("speech.switched")] == ["offline"]


async def test_an_interrupt_ends_queued_speech(server: ServerProcess, sandbox: SandboxProcess, alice: Member) -> None:
    exhaust_quota(sandbox)
    async with Device(server.ws, alice.token) as device:
        started = await device.start(greeting=False)
        await speak_queued(device, "first", FIRST)
        await speak_queued(device, "second", SECOND)
        await device.interrupt("first")
        assert (await device.wait_for("first")).terminal["type"] == "speech.interrupted"
        ended = await device.end()
        assert device.speeches["second"].terminal["type"] == "speech.interrupted"
    assert ended["characters"] == 0
    for speech_id in ("first", "second"):
        assert await state_of(started["conversation"], speech_id) == "interrupted"


async def test_after_a_resume_queued_speech_is_spoken_under_its_own_id(
    server: ServerProcess, other_server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    exhaust_quota(sandbox)
    async with Device(server.ws, alice.token) as device:
        started = await device.start(greeting=False)
        await speak_queued(device, "first", FIRST)
        device.drop_connection()
    await still_queued(started["conversation"])
    async with Device(other_server.ws, alice.token) as device:
        await device.start(resume=started["conversation"])
        restore_quota(sandbox)
        spoken = await device.wait_for("first")
        assert (spoken.terminal["source"], spoken.terminal["characters"]) == ("live", len(FIRST))
        assert "of" not in spoken.frames_of("speech.started")[0]
        assert (await device.end())["characters"] == len(FIRST)


async def test_in_another_conversation_queued_speech_has_a_server_id_and_names_its_origin(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    exhaust_quota(sandbox)
    async with Device(server.ws, alice.token) as device:
        former = await device.start(greeting=False)
        await speak_queued(device, "first", FIRST)
        device.drop_connection()
    await still_queued(former["conversation"])
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        restore_quota(sandbox)
        began = await device.wait_for_frame("speech.started")
        assert began["id"].startswith("srv-")
        assert began["of"] == {"conversation": former["conversation"], "id": "first"}
        await device.wait_for_frame("speech.finished", id=began["id"])
        await device.send({"type": "ack", "id": began["id"]})
        await device.assert_nothing_pending()

        async def heard() -> bool:
            return await state_of(former["conversation"], "first") == "heard"

        await eventually(heard)


async def test_queued_speech_can_be_interrupted_after_a_resume(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    exhaust_quota(sandbox)
    async with Device(server.ws, alice.token) as device:
        started = await device.start(greeting=False)
        await speak_queued(device, "first", FIRST)
        await speak_queued(device, "second", SECOND)
        device.drop_connection()
    await still_queued(started["conversation"])
    async with Device(server.ws, alice.token) as device:
        await device.start(resume=started["conversation"])
        await device.interrupt("first")
        assert (await device.wait_for("first")).terminal["type"] == "speech.interrupted"
        await device.end()
        assert device.speeches["second"].terminal["type"] == "speech.interrupted"
    for speech_id in ("first", "second"):
        await wait_for_state(started["conversation"], speech_id, "interrupted")


async def still_queued(conversation: str) -> None:
    async def free() -> bool:
        rows = Utterance.objects.filter(conversation=conversation, client_speech_id="first", state="queued", owner="")
        return await in_database(rows.exists)

    await eventually(free)


async def test_alerts_are_sent_within_seconds_of_exhaustion_and_recovery(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member, webhook: Webhook
) -> None:
    exhaust_quota(sandbox)
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        await speak_queued(device, "first", FIRST)
        began = time.monotonic()
        await eventually(lambda: in_database(Incident.objects.exists))
        incident = await in_database(lambda: str(Incident.objects.get().pk))
        await wait_for_alerts(webhook, incident, 1)
        assert time.monotonic() - began < 5
        await speak_queued(device, "second", SECOND)
        restore_quota(sandbox)
        await device.wait_for("second")
        opened, resolved = await wait_for_alerts(webhook, incident, 2)
    assert (opened["kind"], opened["state"], resolved["state"]) == ("quota", "opened", "resolved")
    assert opened["url"].startswith("https://voice.example/admin/")
    assert FIRST not in opened["text"]
    assert alice.patient.name not in opened["text"]


async def wait_for_alerts(webhook: Webhook, incident: str, times: int) -> list[dict[str, Any]]:
    """Wait for this many alerts of this incident and return them. Alerts of an earlier test may come late."""

    async def received() -> bool:
        return len(of_this_incident()) == times

    def of_this_incident() -> list[dict[str, Any]]:
        return [body for body in webhook.received if incident in body["url"]]

    await eventually(received)
    return of_this_incident()


# Server-started speech


async def submit(member: Member, text: str, expires_in_s: float = 900) -> str:
    row = await in_database(store.submit, member.patient.id, text, expires_in_s=expires_in_s, author=None)
    return f"srv-{row.id}"


async def test_server_started_speech_waits_longer_than_a_minute_and_comes_in_order(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    exhaust_quota(sandbox)
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        await speak_queued(device, "own", FIRST)
        ids = [await submit(alice, f"The server has the message number {number} for you.") for number in range(3)]
        for speech_id in ids:
            await device.wait_for_frame("speech.queued", id=speech_id, reason="quota")
        await end_first_minute()
        assert (await device.wait_for("own")).terminal["source"] == "offline"
        await asyncio.sleep(1.5)
        assert not {"speech.started"} & {frame["type"] for i in ids for frame in device.speeches[i].frames}
        restore_quota(sandbox)
        spoken = [await device.wait_for(speech_id) for speech_id in ids]
    assert [one.terminal["source"] for one in spoken] == ["live"] * 3
    began = [one.first_audio_at for one in spoken]
    assert None not in began
    assert began == sorted(began)


async def test_queued_speech_of_the_device_comes_before_server_started_speech(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    """Server-started speech never holds back the device's own speech, even if it has waited longer."""
    exhaust_quota(sandbox)
    speech_id = await submit(alice, "The server has a message for you, and had it first.")
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        await device.wait_for_frame("speech.queued", id=speech_id)
        await speak_queued(device, "first", FIRST)
        await speak_queued(device, "second", SECOND)
        restore_quota(sandbox)
        for each in ("first", "second", speech_id):
            assert (await device.wait_for(each)).terminal["source"] == "live"
    assert spoken_order(device.received) == ["first", "second", speech_id]


@pytest.mark.timed
async def test_queued_speech_is_spoken_within_two_seconds_of_the_recovery(
    server: ServerProcess, other_server: ServerProcess, sandbox: SandboxProcess, alice: Member, bob: Member
) -> None:
    """In the process that read the subscription, and in another one that may have no Redis."""
    exhaust_quota(sandbox)
    text = "The server has a message for you."
    alices, bobs = await submit(alice, text), await submit(bob, text)
    async with Device(server.ws, alice.token) as device, Device(other_server.ws, bob.token) as other:
        await device.start(greeting=False)
        await other.wait_for_frame("speech.queued", id=bobs)
        await device.wait_for_frame("speech.queued", id=alices)
        await speak_queued(device, "own", FIRST)
        restore_quota(sandbox)

        async def began(of: Device, speech_id: str) -> datetime:
            await of.wait_for_frame("speech.started", id=speech_id)
            return timezone.now()

        first, others = await asyncio.gather(began(device, "own"), began(other, bobs))
        back = await in_database(lambda: ProviderState.objects.get().quota_changed_at)
        await device.wait_for(alices)
        await other.wait_for_frame("speech.finished", id=bobs)
    assert max(first, others) - back < timedelta(seconds=2)


async def test_queued_speech_respects_the_concurrency_limit_and_keeps_its_voice(
    own_server: Callable[..., ServerProcess], sandbox: SandboxProcess, member: Callable[..., Member]
) -> None:
    """All speeches come at the same time. The wait for a slot is longer than BUSY_WAIT_S, which does not apply here."""
    hasty = await asyncio.to_thread(own_server, BUSY_WAIT_S=0.5)
    members = [await in_database(member, f"Patient {number}") for number in range(6)]
    exhaust_quota(sandbox)
    sandbox.settings(concurrency=1, strict_concurrency=True)
    sandbox.fault(kind="slow", bytes_per_s=160_000)
    ids = [await submit(one, "The server has a message for you.") for one in members]
    devices = [Device(hasty.ws, one.token) for one in members]
    async with AsyncExitStack() as connected:
        for device, speech_id in zip(devices, ids, strict=True):
            await connected.enter_async_context(device)
            await device.wait_for_frame("speech.queued", id=speech_id, reason="quota")
        restore_quota(sandbox)
        speeches = await asyncio.gather(*(d.wait_for(speech_id) for d, speech_id in zip(devices, ids, strict=True)))
    assert [one.terminal["source"] for one in speeches] == ["live"] * len(members)


async def test_queued_speech_fails_when_it_expires(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    exhaust_quota(sandbox)
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        await speak_queued(device, "own", FIRST)
        speech_id = await submit(alice, "This text expires after two seconds.", expires_in_s=2)
        await device.wait_for_frame("speech.queued", id=speech_id)
        failed = await device.wait_for_frame("speech.failed", id=speech_id)
        assert failed["code"] == "expired"
    await in_database(leases.reap_expired)
    row = await in_database(Utterance.objects.get, pk=speech_id.removeprefix("srv-"))
    assert (row.state, row.code) == ("expired", "expired")


async def test_a_wrong_key_is_not_an_exhausted_quota(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    sandbox.fault(kind="error", preset="invalid_api_key")
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        spoken = await device.speak(FIRST)
        assert spoken.terminal["source"] == "offline"
        assert not spoken.frames_of("speech.queued")
    assert not server.gauge("voicecare_quota_spent")
