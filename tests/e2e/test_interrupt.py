"""An interrupt takes effect immediately: no further audio, and no cost for text that will not be heard."""

import time

from tests.conftest import Member
from tests.e2e.device import Device
from tests.e2e.rows import accounts_of
from tests.sandbox import SandboxProcess
from tests.server import ServerProcess

LONG = " ".join(f"This is sentence number {number} of a story that has no end in sight." for number in range(60))


async def test_no_audio_follows_the_end_of_an_interrupted_speech(server: ServerProcess, alice: Member) -> None:
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        await device.start_speech("long", LONG)
        await device.interrupt()
        await device.wait_for("long")
        after = len(device.received)
        await device.assert_nothing_pending()
        assert device.speeches["long"].terminal["type"] == "speech.interrupted"
        assert [frame for frame in device.received[after:] if isinstance(frame, bytes)] == []


async def test_an_interrupt_takes_effect_while_the_provider_is_still_sending(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    sandbox.fault(kind="slow", bytes_per_s=20_000)
    async with Device(server.ws, alice.token) as device:
        started = await device.start(greeting=False)
        await device.start_speech("slow", "This sentence is on its way for quite a while, as slowly as it is sent.")
        sent_at = time.perf_counter()
        await device.interrupt("slow")
        spoken = await device.wait_for("slow")
        waited = time.perf_counter() - sent_at
        ended = await device.end()
    print(f"interrupted after {waited * 1000:.1f} ms")
    record = sandbox.requests()[0]
    assert record["outcome"] == "cancelled"
    assert record["bytes_sent"] < 60_000
    assert spoken.terminal["characters"] == record["characters"] == ended["characters"]
    account = await accounts_of(started["conversation"])
    assert account.counter == account.ledger == record["characters"]
    assert account.outcomes("slow") == [("live", "cancelled")]


async def test_interrupting_a_long_text_costs_at_most_two_segments(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        await device.start_speech("long", LONG)
        await device.request(type="ping")
        await device.interrupt()
        await device.wait_for("long")
    assert 1 <= len(sandbox.requests()) <= 2


async def test_the_speech_after_an_interrupted_one_is_spoken(server: ServerProcess, alice: Member) -> None:
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        await device.start_speech("long", LONG)
        await device.send({"type": "speak", "id": "next", "text": "Something shorter and more important instead."})
        await device.interrupt("long")
        assert (await device.wait_for("long")).terminal["type"] == "speech.interrupted"
        assert (await device.wait_for("next")).terminal["type"] == "speech.finished"


async def test_a_speech_can_be_interrupted_while_the_provider_does_not_answer(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    sandbox.fault(kind="stall_first", first=1)
    async with Device(server.ws, alice.token) as device:
        started = await device.start(greeting=False)
        await device.send({"type": "speak", "id": "mute", "text": "Nobody will hear this sentence, nor pay for it."})
        await device.request(type="ping")
        await device.interrupt("mute")
        spoken = await device.wait_for("mute")
        await device.end()
    assert (spoken.terminal["type"], spoken.terminal["bytes"]) == ("speech.interrupted", 0)
    account = await accounts_of(started["conversation"])
    assert account.counter == 0
    assert [outcome for _, outcome in account.outcomes("mute")] in (["unknown"], [])
