"""Server-started speech (docs/protocol.md): played in its turn, under one id, delivered again until acknowledged."""

import asyncio
import signal
import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import Member
from tests.e2e.device import Device, spoken_order
from tests.e2e.rows import accounts_of, in_database, total_characters
from tests.sandbox import SandboxProcess
from tests.server import ServerProcess
from tests.waiting import eventually
from tts.models import Conversation, Utterance
from tts.outbox import leases, store
from usage.models import UsageEvent
from voicecare.patients.models import Device as DeviceRow

TEXT = "Your tea is on the table beside the window."
LONG = "This sentence is spoken very slowly, so that there is time to do something else meanwhile."
SLOW: dict[str, Any] = {"kind": "slow", "bytes_per_s": 40_000, "match": {"text": "very slowly"}}
"""LONG takes a little over two seconds."""
SWEEPS_S = 2.5  # at least one sweep runs in this time

OwnServer = Callable[..., ServerProcess]


async def submit(member: Member, text: str = TEXT, expires_in_s: float = 900) -> str:
    row = await in_database(store.submit, member.patient.id, text, expires_in_s=expires_in_s, author=None)
    return f"srv-{row.id}"


async def row_of(speech_id: str) -> Utterance:
    return await in_database(Utterance.objects.get, pk=speech_id.removeprefix("srv-"))


async def wait_until_state(speech_id: str, state: str) -> None:
    async def reached() -> str:
        return (await row_of(speech_id)).state

    await eventually(reached, wanted=lambda found: found == state)


async def ack(device: Device, speech_id: str) -> None:
    """Acknowledge the speech and return when that is written."""
    await device.send({"type": "ack", "id": speech_id})
    await wait_until_state(speech_id, "heard")


async def assert_nothing_comes(device: Device, seconds: float = SWEEPS_S) -> None:
    await asyncio.sleep(seconds)
    await device.assert_nothing_pending()


async def another_device(member: Member) -> str:
    """Issue a second device for this patient and return its token."""
    _, token = await in_database(DeviceRow.objects.issue, member.patient, "kitchen")
    return token


async def wait_until_charged(speech_id: str, characters: int) -> None:
    """Wait until the ledger has this many characters for the speech, summed over all attempts in all conversations."""
    events = UsageEvent.objects.filter(source=speech_id.removeprefix("srv-")).values_list("characters", flat=True)

    await eventually(lambda: in_database(list, events.all()), wanted=lambda charged: sum(charged) == characters)


# With an open conversation


async def test_it_plays_after_the_current_speech_and_counts_in_this_conversation(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    sandbox.fault(**SLOW)
    async with Device(server.ws, alice.token) as device:
        started = await device.start(greeting=False)
        await device.start_speech("own", LONG)
        speech_id = await submit(alice)
        await device.wait_for("own")
        spoken = await device.wait_for(speech_id)
        assert spoken_order(device.received) == ["own", speech_id]
        (began,) = spoken.frames_of("speech.started")
        assert began["source"] == "live"
        assert "of" not in began
        assert spoken.terminal["characters"] == len(TEXT)
        await wait_until_state(speech_id, "spoken")
        await ack(device, speech_id)
        ended = await device.end()
    assert ended["characters"] == len(LONG) + len(TEXT)
    accounts = await accounts_of(started["conversation"])
    assert accounts.counter == accounts.ledger == len(LONG) + len(TEXT)
    row = await row_of(speech_id)
    assert str(row.conversation_id) == started["conversation"]
    assert (row.characters, row.attempts, row.heard_at is not None) == (len(TEXT), 1, True)
    assert row.spoken_at is not None


async def test_the_devices_own_speech_comes_before_server_started_speech(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    sandbox.fault(**SLOW)
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        await device.start_speech("first", LONG)
        speech_id = await submit(alice)
        await device.send({"type": "speak", "id": "second", "text": TEXT})
        await device.wait_for(speech_id)
    assert spoken_order(device.received) == ["first", "second", speech_id]


async def test_several_are_delivered_in_the_order_of_submission(server: ServerProcess, alice: Member) -> None:
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        ids = [await submit(alice, f"This is the message number {number} for you.") for number in range(4)]
        for speech_id in ids:
            await device.wait_for(speech_id)
        await assert_nothing_comes(device)
    assert spoken_order(device.received) == ids


async def test_an_unacknowledged_speech_is_not_repeated_in_the_same_connection(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        speech_id = await submit(alice)
        await device.wait_for(speech_id)
        await assert_nothing_comes(device)
        await device.end()
        await device.start(greeting=False)
        await assert_nothing_comes(device)
    assert spoken_order(device.received) == [speech_id]
    assert len(sandbox.requests()) == 1


# Acknowledgements


async def test_an_ack_may_come_twice_and_during_playback(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    sandbox.fault(**SLOW)
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        speech_id = await submit(alice, LONG)
        await device.wait_for_audio(speech_id)
        await ack(device, speech_id)
        spoken = await device.wait_for(speech_id)
        assert spoken.terminal["type"] == "speech.finished"
        heard_at = (await row_of(speech_id)).heard_at
        await device.send({"type": "ack", "id": speech_id})
        await assert_nothing_comes(device, 0.5)
    row = await row_of(speech_id)
    assert (row.state, row.heard_at, row.characters) == ("heard", heard_at, len(LONG))


async def test_acks_of_unknown_and_foreign_speeches_are_refused_and_change_nothing(
    server: ServerProcess, alice: Member, bob: Member
) -> None:
    async with Device(server.ws, alice.token) as device, Device(server.ws, bob.token) as other:
        theirs = await submit(bob)
        await other.wait_for(theirs)
        await wait_until_state(theirs, "spoken")
        for speech_id in (theirs, f"srv-{uuid.uuid4()}", "srv-", "srv-nonsense"):
            error = await device.request(type="ack", id=speech_id)
            assert (error["type"], error["code"], error["id"]) == ("error", "unknown_id", speech_id)
        for wrong in ({}, {"id": None}, {"id": 7}, {"id": ""}, {"id": "x" * 65}, {"id": "srv-\x00"}):
            error = await device.request(type="ack", **wrong)
            assert (error["type"], error["code"]) == ("error", "bad_message")
        assert (await row_of(theirs)).state == "spoken"


async def test_an_undelivered_speech_cannot_be_acknowledged_or_interrupted(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    sandbox.fault(**SLOW)
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        await device.start_speech("own", LONG)
        speech_id = await submit(alice)
        for kind in ("ack", "interrupt"):
            error = await device.request(type=kind, id=speech_id)
            assert (error["type"], error["code"]) == ("error", "unknown_id")
        assert (await device.wait_for("own")).terminal["type"] == "speech.finished"
        while not device.speeches.get(speech_id) or not device.speeches[speech_id].is_done:
            await device.receive()
    assert spoken_order(device.received) == ["own", speech_id]


async def test_an_ack_of_the_devices_own_speech_has_no_reply(server: ServerProcess, alice: Member) -> None:
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        await device.speak(TEXT, id="own")
        await device.send({"type": "ack", "id": "own"})
        await device.assert_nothing_pending()
        error = await device.request(type="ack", id="never")
        assert (error["code"], error["id"]) == ("unknown_id", "never")


async def test_another_device_of_the_patient_may_acknowledge(server: ServerProcess, alice: Member) -> None:
    token = await another_device(alice)
    async with Device(server.ws, alice.token) as device:
        speech_id = await submit(alice)
        await device.wait_for(speech_id)
        await wait_until_state(speech_id, "spoken")
        async with Device(server.ws, token) as other:
            await ack(other, speech_id)
            await assert_nothing_comes(other, 0.3)
    async with Device(server.ws, alice.token) as device:
        await assert_nothing_comes(device)
    assert (await row_of(speech_id)).attempts == 1


# Without an open conversation


async def test_the_server_opens_a_conversation_in_the_last_format_without_a_greeting(
    server: ServerProcess, alice: Member, phrases: None
) -> None:
    async with Device(server.ws, alice.token, format="pcm_16000") as device:
        earlier = await device.start(greeting=False)
        await device.end()
        speech_id = await submit(alice)
        started = await device.wait_for_frame("conversation.started")
        assert (started["initiated"], started["format"], started["companion"]) == ("server", "pcm_16000", "Clara")
        assert started["conversation"] != earlier["conversation"]
        spoken = await device.wait_for(speech_id)
        assert spoken.frames_of("speech.started")[0]["format"] == "pcm_16000"
        await assert_nothing_comes(device, 0.5)
        ended = await device.end()
        assert (ended["conversation"], ended["characters"]) == (started["conversation"], len(TEXT))
    assert spoken_order(device.received) == [speech_id]
    row = await in_database(Conversation.objects.get, pk=started["conversation"])
    assert (row.initiated, row.tts_characters_used, row.ended_at is not None) == ("server", len(TEXT), True)


async def test_the_device_takes_over_the_conversation_of_the_server(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member, phrases: None
) -> None:
    sandbox.fault(**SLOW)
    async with Device(server.ws, alice.token, format="pcm_16000") as device:
        speech_id = await submit(alice, LONG)
        opened = await device.wait_for_frame("conversation.started")
        await device.wait_for_audio(speech_id)
        taken = await device.start()
        assert opened["initiated"] == "server"
        assert taken == {**opened, "initiated": "device", "format": "pcm_16000"}
        first = await device.wait_for(speech_id)
        greeting = await device.wait_for("greeting")
        assert first.frames_of("speech.started")[0]["format"] == opened["format"] == "mp3_44100_128"
        assert greeting.frames_of("speech.started")[0]["format"] == "pcm_16000"
        error = await device.request(type="conversation.start")
        assert error["code"] == "already_started"
        ended = await device.end()
    assert ended["conversation"] == opened["conversation"]
    assert spoken_order(device.received) == [speech_id, "greeting"]
    accounts = await accounts_of(opened["conversation"])
    assert ended["characters"] == accounts.counter == accounts.ledger > len(LONG)
    assert accounts.conversation.initiated == "device"


async def test_resuming_another_conversation_ends_the_one_of_the_server(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    sandbox.fault(**SLOW)
    async with Device(server.ws, alice.token) as device:
        mine = await device.start(greeting=False)
        await device.speak(TEXT, id="before")
        device.drop_connection()
    async with Device(server.ws, alice.token) as device:
        speech_id = await submit(alice, LONG)
        servers = await device.wait_for_frame("conversation.started")
        await device.wait_for_audio(speech_id)
        resumed = await device.start(resume=mine["conversation"])
        assert (resumed["conversation"], resumed["initiated"]) == (mine["conversation"], "device")
        await device.interrupt(speech_id)
        assert (await device.wait_for(speech_id)).terminal["type"] == "speech.interrupted"
        assert (await device.speak(TEXT, id="after")).terminal["type"] == "speech.finished"
        ended = await device.end()
    assert ended["characters"] == 2 * len(TEXT)
    for conversation, characters in ((mine, 2 * len(TEXT)), (servers, len(LONG))):
        accounts = await accounts_of(conversation["conversation"])
        assert accounts.counter == accounts.ledger == characters
        assert accounts.conversation.ended_at is not None


async def test_speech_requested_in_the_servers_conversation_ends_with_it(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    """The device resumes another conversation. Speech is not spoken in a conversation in which it was not requested."""
    sandbox.fault(**SLOW)
    async with Device(server.ws, alice.token) as device:
        mine = await device.start(greeting=False)
        device.drop_connection()
    async with Device(server.ws, alice.token) as device:
        speech_id = await submit(alice, LONG)
        servers = await device.wait_for_frame("conversation.started")
        await device.wait_for_audio(speech_id)
        await device.send({"type": "speak", "id": "own", "text": TEXT})
        await device.assert_nothing_pending()
        await device.start(resume=mine["conversation"])
        assert (await device.wait_for("own")).terminal == {
            "type": "speech.interrupted",
            "id": "own",
            "bytes": 0,
            "characters": 0,
        }
        assert (await device.wait_for(speech_id)).terminal["type"] == "speech.finished"
        assert (await device.end())["characters"] == 0
    accounts = await accounts_of(servers["conversation"])
    assert accounts.counter == accounts.ledger == len(LONG)


# How it ends


async def test_it_is_interrupted_by_the_end_of_the_conversation_and_delivered_again(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    sandbox.fault(**SLOW)
    async with Device(server.ws, alice.token) as device:
        first = await device.start(greeting=False)
        speech_id = await submit(alice, LONG)
        await device.wait_for_audio(speech_id)
        ended = await device.end()
        assert (
            device.types().count("conversation.started") == 1
        )  # the next conversation begins after this one has ended
        cut_off = device.speeches[speech_id]
        assert cut_off.terminal["type"] == "speech.interrupted"
        assert cut_off.terminal["characters"] == ended["characters"] == len(LONG)
        second = await device.wait_for_frame("conversation.started")
        assert second["initiated"] == "server"
        await device.wait_for_frame("speech.started", id=speech_id)
        spoken = await device.wait_for(speech_id)
        assert spoken is not cut_off
        assert spoken.terminal["type"] == "speech.finished"
        await ack(device, speech_id)
        await device.end()
    for conversation in (first, second):
        accounts = await accounts_of(conversation["conversation"])
        assert accounts.counter == accounts.ledger == len(LONG)
    row = await row_of(speech_id)
    assert row.attempts == 2
    await wait_until_charged(speech_id, 2 * len(LONG))


@pytest.mark.parametrize("pause_s", [0.0, 0.005, 0.02, 0.06])
async def test_a_conversation_may_end_while_a_delivery_is_being_prepared(
    pause_s: float, server: ServerProcess, alice: Member
) -> None:
    """The conversation of a claimed row may end before the first audio. The speech is still delivered."""
    async with Device(server.ws, alice.token) as device:
        ids = [await submit(alice, f"This is the message number {number} for you.") for number in range(3)]
        for _ in range(4):
            try:
                async with asyncio.timeout(1.5):
                    await device.wait_for_frame("speech.finished")
            except TimeoutError:
                break
            await asyncio.sleep(pause_s)
            await device.send({"type": "conversation.end"})
        for speech_id in ids:
            while not (spoken := device.speeches.get(speech_id)) or spoken.terminal.get("type") != "speech.finished":
                async with asyncio.timeout(8):
                    await device.receive()
            await ack(device, speech_id)
    assert set(spoken_order(device.received)) == set(ids)
    assert "player.crashed" not in server.logged()


async def test_only_an_interrupt_that_names_it_ends_it_permanently(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    sandbox.fault(**SLOW)
    async with Device(server.ws, alice.token) as device:
        started = await device.start(greeting=False)
        speech_id = await submit(alice, LONG)
        await device.wait_for_audio(speech_id)
        await device.send({"type": "speak", "id": "own", "text": TEXT})
        await device.interrupt()
        assert (await device.wait_for("own")).terminal["type"] == "speech.interrupted"
        await device.assert_nothing_pending()
        assert not device.speeches[speech_id].is_done
        await device.interrupt(speech_id)
        spoken = await device.wait_for(speech_id)
        assert (spoken.terminal["type"], spoken.terminal["characters"]) == ("speech.interrupted", len(LONG))
        await wait_until_state(speech_id, "interrupted")
        await device.interrupt(speech_id)
        await assert_nothing_comes(device, 0.3)
        device.drop_connection()
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        await assert_nothing_comes(device)
    accounts = await accounts_of(started["conversation"])
    assert accounts.counter == accounts.ledger == len(LONG)


async def test_a_speech_that_waits_for_redelivery_can_be_interrupted(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    token = await another_device(alice)
    sandbox.fault(**SLOW)
    async with Device(server.ws, token) as other:
        await other.start(greeting=False)
        async with Device(server.ws, alice.token) as device:
            speech_id = await submit(alice)
            await device.wait_for(speech_id)
            await wait_until_state(speech_id, "spoken")
            await other.start_speech("own", LONG)
        await wait_until_state(speech_id, "waiting")
        await other.interrupt(speech_id)
        await wait_until_state(speech_id, "interrupted")
        assert (await other.wait_for("own")).terminal["type"] == "speech.finished"
        await assert_nothing_comes(other)
    assert spoken_order(other.received) == ["own"]
    assert (await row_of(speech_id)).attempts == 1


# Redelivery until it is acknowledged or has expired


async def test_it_is_redelivered_at_every_connection_under_the_same_id_until_acknowledged(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    speech_id = await submit(alice)
    conversations = []
    for number in range(3):
        async with Device(server.ws, alice.token) as device:
            conversations.append((await device.start(greeting=False))["conversation"])
            spoken = await device.wait_for(speech_id)
            assert spoken.terminal["type"] == "speech.finished"
            await wait_until_state(speech_id, "spoken")
            if number == 2:
                await ack(device, speech_id)
            device.drop_connection()
    async with Device(server.ws, alice.token) as device:
        await assert_nothing_comes(device)
        assert device.types() == ["pong"]
    for conversation in conversations:
        accounts = await accounts_of(conversation)
        assert accounts.counter == accounts.ledger == len(TEXT)
    assert (await row_of(speech_id)).characters == 3 * len(TEXT) == sandbox.account()["characters"]


async def test_an_expired_speech_is_not_redelivered(server: ServerProcess, alice: Member) -> None:
    async with Device(server.ws, alice.token) as device:
        speech_id = await submit(alice, expires_in_s=3)
        await device.wait_for(speech_id)
        await wait_until_state(speech_id, "spoken")
        device.drop_connection()
    await wait_until_state(speech_id, "waiting")
    await asyncio.sleep(3)
    async with Device(server.ws, alice.token) as device:
        await assert_nothing_comes(device)
    await in_database(leases.reap_expired)
    assert (await row_of(speech_id)).state == "expired"


async def test_a_speech_that_expires_while_no_device_is_connected_is_never_spoken(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    speech_id = await submit(alice, expires_in_s=1)
    await asyncio.sleep(1.1)
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        await assert_nothing_comes(device)
    assert sandbox.requests() == []
    assert (await row_of(speech_id)).attempts == 0


async def test_after_a_dropped_connection_it_is_delivered_from_the_beginning(
    server: ServerProcess, second_server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    sandbox.fault(**SLOW, first=1)
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        speech_id = await submit(alice, LONG)
        await device.wait_for_audio(speech_id)
        device.drop_connection()
    async with Device(second_server.ws, alice.token) as device:
        began = time.monotonic()
        spoken = await device.wait_for(speech_id)
        assert time.monotonic() - began < 10
        assert spoken.terminal["type"] == "speech.finished"
        await ack(device, speech_id)
    await wait_until_charged(speech_id, 2 * len(LONG))
    assert await total_characters() == 2 * len(LONG)


# Several devices


async def test_it_goes_to_the_latest_device_and_to_the_other_one_after_a_disconnect(
    server: ServerProcess, second_server: ServerProcess, alice: Member
) -> None:
    token = await another_device(alice)
    async with Device(server.ws, alice.token) as early:
        async with Device(second_server.ws, token) as late:
            speech_id = await submit(alice)
            await late.wait_for(speech_id)
            await assert_nothing_comes(early, 1.5)
            await wait_until_state(speech_id, "spoken")
        spoken = await early.wait_for(speech_id)
        assert spoken.terminal["type"] == "speech.finished"
        await ack(early, speech_id)
    assert early.types()[:2] == ["pong", "conversation.started"]


async def test_a_patient_with_two_devices_gets_one_delivery_at_a_time(
    server: ServerProcess, second_server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    """The second device connects while the first one plays a delivery. The next delivery is for the second device."""
    sandbox.fault(**SLOW, first=1)
    token = await another_device(alice)
    async with Device(server.ws, alice.token) as early:
        first = await submit(alice, LONG)
        await early.wait_for_audio(first)
        async with Device(second_server.ws, token) as late:
            second = await submit(alice)
            ended, began = await asyncio.gather(finished_at(early, first), started_at(late, second))
            assert ended < began
            await late.wait_for(second)
            await assert_nothing_comes(early, 0.3)


async def finished_at(device: Device, speech_id: str) -> float:
    await device.wait_for_frame("speech.finished", id=speech_id)
    return time.monotonic()


async def started_at(device: Device, speech_id: str) -> float:
    await device.wait_for_frame("speech.started", id=speech_id)
    return time.monotonic()


async def test_two_racing_connections_of_a_device_neither_lose_nor_repeat_a_delivery(
    server: ServerProcess, second_server: ServerProcess, alice: Member
) -> None:
    ids = [await submit(alice, f"This is the message number {number} for you.") for number in range(6)]
    heard: list[list[str]] = []
    acknowledged: set[str] = set()

    async def connect(url: str, number: int) -> None:
        await asyncio.sleep(number * 0.35)
        async with Device(url, alice.token) as device:
            await listen(device, acknowledged, None if number == 5 else 30)
            heard.append(spoken_ids(device))

    urls = [server.ws, second_server.ws] * 3
    connections = [asyncio.create_task(connect(url, number)) for number, url in enumerate(urls)]

    states = Utterance.objects.filter(patient=alice.patient).values_list("state", flat=True)
    await eventually(lambda: in_database(list, states.all()), 25, wanted=lambda found: set(found) == {"heard"})
    connections[-1].cancel()
    await asyncio.wait(connections)
    for spoken in heard:
        assert len(spoken) == len(set(spoken)), "twice in one connection"
    assert acknowledged == set(ids)


async def listen(device: Device, acknowledged: set[str], seconds: float | None) -> None:
    """Acknowledge every finished speech. Assert that no acknowledged speech comes again."""
    async with asyncio.timeout(seconds):
        while True:
            try:
                frame = await device.receive()
            except Exception:
                return  # replaced by the other connection
            if not isinstance(frame, dict):
                continue
            if frame["type"] == "speech.started":
                assert frame["id"] not in acknowledged
            if frame["type"] == "speech.finished":
                await device.send({"type": "ack", "id": frame["id"]})
                acknowledged.add(frame["id"])


def spoken_ids(device: Device) -> list[str]:
    return [frame["id"] for frame in device.received if isinstance(frame, dict) and frame["type"] == "speech.started"]


# Processes that stop


async def test_a_killed_process_loses_no_delivery(
    own_server: OwnServer, server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    doomed = await asyncio.to_thread(own_server)
    sandbox.fault(**SLOW, first=1)
    async with Device(doomed.ws, alice.token) as device:
        await device.start(greeting=False)
        heard, cut_off = await submit(alice), await submit(alice, LONG)
        await device.wait_for(heard)
        await ack(device, heard)
        await device.wait_for_audio(cut_off)
        doomed.signal(signal.SIGKILL)
        await device.wait_closed()
    async with Device(server.ws, alice.token) as device:
        began = time.monotonic()
        spoken = await device.wait_for(cut_off)
        assert time.monotonic() - began < 10  # the next process does not wait for the end of the lease
        assert spoken.terminal["type"] == "speech.finished"
        await ack(device, cut_off)
        await assert_nothing_comes(device, 1.5)
    assert spoken_order(device.received) == [cut_off]


async def test_a_process_that_shuts_down_finishes_it_and_without_an_ack_it_is_redelivered(
    own_server: OwnServer, server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    leaving = await asyncio.to_thread(own_server)
    sandbox.fault(**SLOW, first=1)
    async with Device(leaving.ws, alice.token) as device:
        playing, waiting = await submit(alice, LONG), await submit(alice)
        await device.wait_for_audio(playing)
        leaving.signal(signal.SIGTERM)
        assert await device.wait_closed() == 4012
    assert spoken_order(device.received) == [playing]
    assert device.speeches[playing].terminal["type"] == "speech.finished"
    async with Device(server.ws, alice.token) as device:
        for speech_id in (playing, waiting):
            await device.wait_for(speech_id)
            await ack(device, speech_id)
    assert spoken_order(device.received) == [playing, waiting]
    await wait_until_charged(playing, 2 * len(LONG))


async def test_a_process_that_shuts_down_waits_for_the_ack_of_what_the_device_plays(
    own_server: OwnServer, alice: Member
) -> None:
    leaving = await asyncio.to_thread(own_server)
    async with Device(leaving.ws, alice.token) as device:
        speech_id = await submit(alice)
        await device.wait_for(speech_id)  # all audio has been sent
        leaving.signal(signal.SIGTERM)
        await asyncio.sleep(1)
        await device.send({"type": "ack", "id": speech_id})
        began = time.monotonic()
        assert await device.wait_closed() == 4012
        assert time.monotonic() - began < 5  # not the whole DRAIN_TIMEOUT_S
    assert (await row_of(speech_id)).state == "heard"


async def test_an_ack_during_the_shutdown_counts(
    own_server: OwnServer, server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    leaving = await asyncio.to_thread(own_server)
    sandbox.fault(**SLOW, first=1)
    async with Device(leaving.ws, alice.token) as device:
        speech_id = await submit(alice, LONG)
        await device.wait_for_audio(speech_id)
        leaving.signal(signal.SIGTERM)
        await device.send({"type": "ack", "id": speech_id})
        assert await device.wait_closed() == 4012
    async with Device(server.ws, alice.token) as device:
        await assert_nothing_comes(device)
        assert device.types() == ["pong"]
    assert (await row_of(speech_id)).state == "heard"
