"""Devices that read slowly or not at all: they lose nothing, hold no slot and little memory, and disturb nobody."""

import asyncio
import json
import signal
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

import pytest

from tests.conftest import Member
from tests.e2e.device import Device
from tests.e2e.raw_device import BINARY, CLOSE, RawDevice, play
from tests.e2e.rows import in_database, state_of
from tests.sandbox import SandboxProcess
from tests.server import ServerProcess
from tests.waiting import eventually
from tts.devices.daphne_fast_path import CLOSE_TIMEOUT_S

ENDLESS = " ".join(f"Sentence {number} is part of a text that no socket will hold to its end." for number in range(64))
MEGABYTE = 1024 * 1024


@pytest.fixture
def pinging_server(own_server: Callable[..., ServerProcess]) -> ServerProcess:
    """A server with the ping settings of production, ten times as fast."""
    return own_server("--ping-interval", "2", "--ping-timeout", "3")


async def test_a_stuck_device_holds_at_most_a_megabyte_and_is_closed_after_missed_pings(
    pinging_server: ServerProcess, sandbox: SandboxProcess, alice: Member, bob: Member
) -> None:
    server = pinging_server
    async with Device(server.ws, bob.token) as other:
        await other.start(greeting=False)
        await other.speak("A first speech, so that everything is in memory that ever will be.")
        stuck = RawDevice(server.ws, alice.token)
        conversation = stuck.speak(ENDLESS, "pcm_24000", "endless")
        held = 0.0
        closed = asyncio.create_task(eventually(lambda: is_closed(server), within_s=20))
        while not closed.done():
            if held < MEGABYTE / 16:  # the system's buffers do not count, so it requests more by false reports
                stuck.send(type="progress", id="endless", ms=3_600_000)
            spoken = await other.speak("Nobody else notices that a device is stuck.")
            assert (spoken.terminal["type"], spoken.terminal["source"]) == ("speech.finished", "live")
            held = max(held, server.gauge("voicecare_held_bytes"))
        await closed
        stuck.close()
    print(f"held {held / MEGABYTE:.2f} MB")
    assert MEGABYTE / 16 < held <= MEGABYTE

    async def interrupted() -> bool:
        return await state_of(conversation, "endless") == "interrupted"

    await eventually(interrupted)


async def test_a_device_that_closes_but_never_reads_is_disconnected(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    connected = server.gauge("voicecare_devices_connected")
    stuck = RawDevice(server.ws, alice.token)
    conversation = stuck.speak(ENDLESS, "pcm_24000", "endless")

    async def bytes_are_held() -> bool:
        stuck.send(type="progress", id="endless", ms=3_600_000)
        return server.gauge("voicecare_held_bytes") > 0

    async def interrupted() -> bool:
        return await state_of(conversation, "endless") == "interrupted"

    await eventually(bytes_are_held)
    stuck.send_frame(CLOSE, (1000).to_bytes(2))
    await eventually(interrupted, within_s=CLOSE_TIMEOUT_S + 10)
    assert server.gauge("voicecare_devices_connected") == connected
    assert server.gauge("voicecare_slots_held") == 0
    stuck.close()


LONG_SENTENCE = "She told him that the garden had been full of roses when she was a child, and that her mother had "
LONG_TEXT = " ".join(f"{LONG_SENTENCE * 2}planted every single one of the {number} herself." for number in range(2, 9))
"""Segments of nearly 300 characters, the longest that there are: 20 s of audio and more."""


@pytest.mark.parametrize("audio_format", ["mp3_44100_128", "pcm_16000"])
async def test_stuck_devices_hold_no_slot_when_the_provider_has_finished(
    own_server: Callable[..., ServerProcess],
    sandbox: SandboxProcess,
    member: Callable[..., Member],
    bob: Member,
    audio_format: str,
) -> None:
    sandbox.settings(concurrency=3, strict_concurrency=True)
    server = own_server()
    async with Device(server.ws, bob.token) as other:
        await other.start(greeting=False)
        await other.speak("The provider says with this how many it serves at the same time.")
        with ExitStack() as stack:
            for name in ("Ann", "Ben", "Cleo"):
                patient = await in_database(member, name)
                stuck = stack.enter_context(RawDevice(server.ws, patient.token))
                stuck.speak(LONG_TEXT, audio_format)
            await eventually(lambda: len(sandbox.requests()), wanted=lambda number: number >= 4)
            await eventually(lambda: server.gauge("voicecare_slots_held") == 0)
            held = server.gauge("voicecare_held_bytes")
            spoken = await other.speak("And somebody else is heard immediately.")
            assert (spoken.terminal["type"], spoken.terminal["source"]) == ("speech.finished", "live")
            assert not spoken.frames_of("speech.queued")
            assert server.gauge("voicecare_devices_connected") == 4
        await eventually(lambda: server.gauge("voicecare_held_bytes") == 0)
    print(f"held {held / MEGABYTE:.2f} MB")
    assert MEGABYTE / 16 < held < 3 * MEGABYTE


async def test_no_segment_is_requested_while_the_one_before_is_unread(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    with RawDevice(server.ws, alice.token) as stuck:
        stuck.speak(LONG_TEXT, "pcm_24000")
        await eventually(lambda: server.gauge("voicecare_held_bytes") > MEGABYTE / 4)
        for _ in range(8):
            stuck.send(type="progress", id="s", ms=3_600_000)
            await asyncio.sleep(0.25)
        assert len(sandbox.requests()) == 1


async def test_an_interrupt_drops_what_a_slow_device_has_not_been_sent(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    with RawDevice(server.ws, alice.token) as slow:
        slow.speak(LONG_TEXT, "pcm_24000")
        await eventually(lambda: server.gauge("voicecare_held_bytes") > MEGABYTE / 4)
        slow.send(type="interrupt")
        received = 0
        async for opcode, payload in slow.frames():
            if opcode == BINARY:
                received += len(payload)
            elif (frame := json.loads(payload))["type"] == "speech.interrupted":
                break
        assert frame["bytes"] == received < MEGABYTE / 2


@pytest.mark.parametrize(("audio_format", "rate"), [("ulaw_8000", "0.80"), ("mp3_44100_128", "1.00")])
async def test_a_device_that_plays_while_it_reads_stays_connected(
    pinging_server: ServerProcess,
    sandbox: SandboxProcess,
    member: Callable[..., Member],
    audio_format: str,
    rate: str,
) -> None:
    """There is more audio in front of the pings than the server's time for an answer."""
    text = LONG_TEXT[: LONG_TEXT.index(".") + 1]
    patient = await in_database(partial(member, "Ann", speech_rate=rate))
    with RawDevice(pinging_server.ws, patient.token) as device:
        device.speak(text, audio_format)
        frames = await play(device, audio_format)
    assert frames[-1]["type"] == "speech.finished", frames


async def test_devices_stay_connected_when_the_server_was_frozen(
    own_server: Callable[..., ServerProcess], alice: Member
) -> None:
    """Their answers have waited in the socket for longer than they may take."""
    server = own_server("--ping-interval", "1", "--ping-timeout", "2")
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        reading = asyncio.create_task(device.wait_for_frame("speech.finished"))
        await asyncio.sleep(1.5)  # pings are under way all the time
        server.signal(signal.SIGSTOP)
        await asyncio.sleep(4)
        server.signal(signal.SIGCONT)
        await asyncio.sleep(0.5)
        await device.send({"type": "speak", "id": "after", "text": "Here we are again."})
        await reading


async def is_closed(server: ServerProcess) -> bool:
    return server.gauge("voicecare_devices_connected") == 1


async def test_a_slow_reader_gets_all_audio(server: ServerProcess, sandbox: SandboxProcess, alice: Member) -> None:
    text = " ".join(f"Sentence {number} is heard by a device that takes its time." for number in range(4))
    async with Device(server.ws, alice.token, format="pcm_24000") as device:
        await device.start(greeting=False)
        await device.send({"type": "speak", "id": "slow", "text": text})
        while not (spoken := device.speeches["slow"]).is_done:
            await device.receive()
            await asyncio.sleep(0.05)
    assert spoken.terminal["type"] == "speech.finished"
    assert spoken.terminal["bytes"] == len(spoken.audio)
    assert "".join(request["text"] for request in sandbox.requests()) == text
