"""A conversation moves to another device. The device that loses it gets one end of each speech, and then nothing."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from tests.conftest import Member
from tests.e2e.device import Device
from tests.e2e.rows import in_database, state_of, wait_for_state
from tests.e2e.test_quota import FIRST, exhaust_quota, restore_quota, speak_queued, wait_until_available
from tests.sandbox import SandboxProcess
from tests.server import ServerProcess
from tts.outbox import store
from voicecare.patients.models import Device as DeviceRow
from voicecare_client import TERMINAL_TYPES, ConnectionClosed, Frame

TEXT = "This is one of many short texts, number {number}."
RUNS = 4  # each moves the conversation at another moment of the speech


@pytest.fixture
def other_server(second_server: ServerProcess, server: ServerProcess) -> ServerProcess:
    """Another server process on the same database."""
    return second_server


async def another_device(member: Member) -> str:
    _, token = await in_database(DeviceRow.objects.issue, member.patient, "kitchen")
    return token


def terminals(*devices: Device) -> Counter[str]:
    """Count the terminal messages of each speech, on all these devices."""
    frames = [frame for device in devices for frame in device.received if isinstance(frame, dict)]
    return Counter(frame["id"] for frame in frames if frame["type"] in TERMINAL_TYPES)


def refused(device: Device) -> int:
    """Count the texts that were refused because no conversation is open. That error has no id."""
    frames = [frame for frame in device.received if isinstance(frame, dict)]
    return sum(frame["type"] == "error" and frame["code"] == "no_conversation" for frame in frames)


@asynccontextmanager
async def talking(device: Device) -> AsyncIterator[list[str]]:
    """Inside the block the device sends one short text after the other. Yields their ids."""
    sent: list[str] = []

    async def talk() -> None:
        while True:
            speech_id = f"s{len(sent)}"
            sent.append(speech_id)
            await device.send({"type": "speak", "id": speech_id, "text": TEXT.format(number=len(sent))})
            await asyncio.sleep(0.06)  # slowly enough for the limits of a device

    talk_task = asyncio.create_task(talk())
    try:
        yield sent
    finally:
        talk_task.cancel()
        await asyncio.wait({talk_task})


@pytest.mark.parametrize("run", range(RUNS))
async def test_the_device_that_loses_its_conversation_gets_an_end_of_each_speech_and_then_nothing(
    run: int, server: ServerProcess, other_server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    token = await another_device(alice)
    async with Device(server.ws, alice.token) as device, Device(other_server.ws, token) as other:
        started = await device.start(greeting=False)
        async with talking(device) as sent:
            await device.wait_for("s0")
            await asyncio.sleep(0.05 * run)
            await other.start(resume=started["conversation"])
            ended = await device.wait_for_frame("conversation.ended")
            before = len(device.received)
            deadline = time.monotonic() + 0.5
            while time.monotonic() < deadline:  # further texts are refused, each with its own error
                await device.next_frame()
        await device.send({"type": "ping", "t": "last"})
        await device.wait_for_frame("pong", t="last")
        assert ended["conversation"] == started["conversation"]
        late = [frame for frame in device.received[before:] if not isinstance(frame, dict) or frame["type"] != "error"]
        assert late == [{"type": "pong", "t": "last"}]
        assert refused(device) > 0
        accepted = sent[: -refused(device)]
        assert terminals(device) == dict.fromkeys(accepted, 1)
        assert (await device.start(greeting=False))["conversation"] != started["conversation"]
        await device.speak("The next conversation is undisturbed.", id="next")
        assert device.speeches["next"].terminal["type"] == "speech.finished"


@pytest.mark.parametrize("pause_s", [0.0, 0.3, 1.5])
async def test_queued_speech_of_a_conversation_that_moves_and_ends_has_one_end(
    pause_s: float, server: ServerProcess, other_server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    """The conversation ends on the other device before or after the first device knows that it has moved."""
    token = await another_device(alice)
    exhaust_quota(sandbox)
    async with Device(server.ws, alice.token) as device, Device(other_server.ws, token) as other:
        started = await device.start(greeting=False)
        names = ["first", "second"]
        for name in names:
            await speak_queued(device, name, FIRST)
        await other.start(resume=started["conversation"])
        await asyncio.sleep(pause_s)
        await other.end()
        await device.wait_for_frame("conversation.ended")
        for each in (device, other):
            await each.assert_nothing_pending()
        assert terminals(device, other) == dict.fromkeys(names, 1)
        assert [await state_of(started["conversation"], name) for name in names] == ["interrupted"] * 2
    await restored(sandbox, server, other_server)


async def test_queued_speech_moves_with_its_conversation_and_is_spoken_once(
    server: ServerProcess, other_server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    token = await another_device(alice)
    exhaust_quota(sandbox)
    async with Device(server.ws, alice.token) as device, Device(other_server.ws, token) as other:
        started = await device.start(greeting=False)
        await speak_queued(device, "first", FIRST)
        await wait_for_state(started["conversation"], "first", "queued")
        await other.start(resume=started["conversation"])
        restore_quota(sandbox)
        spoken = await other.wait_for("first")
        assert spoken.terminal["type"] == "speech.finished"
        assert "of" not in spoken.frames_of("speech.started")[0]
        await device.wait_for_frame("conversation.ended")
        for each in (device, other):
            await each.assert_nothing_pending()
        assert terminals(device, other) == {"first": 1}
    await restored(sandbox, server, other_server)


async def restored(sandbox: SandboxProcess, *servers: ServerProcess) -> None:
    restore_quota(sandbox)
    for server in servers:
        await asyncio.to_thread(wait_until_available, server)


async def test_a_conversation_that_moves_while_the_device_ends_it_ends_once(
    server: ServerProcess, other_server: ServerProcess, alice: Member
) -> None:
    token = await another_device(alice)
    async with Device(server.ws, alice.token) as device, Device(other_server.ws, token) as other:
        for _ in range(3):
            started = await device.start(greeting=False)
            await other.start(resume=started["conversation"])
            await asyncio.sleep(0.9)
            # If the device is losing the conversation at this moment, an error comes before the end.
            await device.send({"type": "conversation.end"})
            await device.wait_for_frame("conversation.ended", conversation=started["conversation"])
            await other.end()
            await device.send({"type": "ping", "t": started["conversation"]})
            await device.wait_for_frame("pong", t=started["conversation"])
    ends = Counter(frame["conversation"] for frame in device.received if is_end(frame))
    assert set(ends.values()) == {1}
    assert len(ends) == 3


def is_end(frame: Frame | bytes) -> bool:
    return isinstance(frame, dict) and frame["type"] == "conversation.ended"


@pytest.mark.parametrize("change", [str.upper, str.title, lambda text: text.replace("-", "")])
async def test_a_conversation_of_the_server_can_be_taken_over_with_its_id_in_any_letter_case(
    change: Callable[[str], str], server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    async with Device(server.ws, alice.token) as device:
        await in_database(submit_text, alice)
        opened = await device.wait_for_frame("conversation.started", initiated="server")
        taken = await device.start(resume=change(opened["conversation"]))
        assert (taken["conversation"], taken["initiated"]) == (opened["conversation"], "device")
        device.drop_connection()
        with pytest.raises(ConnectionClosed):
            await device.wait_for_frame("never")
    async with Device(server.ws, alice.token) as device:
        assert (await device.start(resume=opened["conversation"]))["conversation"] == opened["conversation"]


def submit_text(member: Member) -> None:
    store.submit(member.patient.id, "The server has a message for you.", expires_in_s=900, author=None)
