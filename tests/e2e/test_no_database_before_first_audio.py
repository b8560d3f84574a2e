"""There is no database query between a text and its first audio. These tests lock the whole database."""

import asyncio
import uuid
from itertools import count

import pytest

from tests.conftest import Member
from tests.e2e.database import locked_database
from tests.e2e.device import Device, spoken_order
from tests.e2e.rows import accounts_of, in_database
from tests.sandbox import SandboxProcess
from tests.server import ServerProcess
from tests.waiting import eventually
from tts.models import Conversation, Phrase
from tts.outbox import store

TEXT = "Nobody can read a row now, and still this sentence is heard from its beginning to its end."


@pytest.fixture
def phrase(server: ServerProcess) -> str:
    text = f"That is known by heart, number {uuid.uuid4().hex[:6]}!"
    Phrase.objects.create(text=text)
    return text


async def test_speech_is_spoken_while_the_database_is_locked(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member, phrase: str
) -> None:
    sandbox.fault(kind="error", preset="internal_error", match={"text": "^Again"}, first=1)
    async with Device(server.ws, alice.token) as device:
        started = await device.start(greeting=False)
        numbers = count(1)

        async def phrase_is_cached() -> bool:
            return (await device.speak(phrase, id=f"before {next(numbers)}")).terminal["source"] == "cache"

        await eventually(phrase_is_cached)
        async with locked_database():
            reader = asyncio.create_task(in_database(Conversation.objects.count))
            spoken = await device.speak(TEXT, id="locked")
            known = await device.speak(phrase, id="known")
            retried = await device.speak("Again and again it is tried, and again it is heard.", id="retried")
            await device.send({"type": "speak", "id": "stopped", "text": TEXT * 5})
            await device.wait_for_audio("stopped")
            await device.interrupt()
            stopped = await device.wait_for("stopped")
            await device.assert_nothing_pending()
            assert not reader.done()  # database queries still wait
        assert await reader == 1
        for one in (spoken, known, retried):
            assert one.terminal["type"] == "speech.finished", one.frames
        assert stopped.terminal["type"] == "speech.interrupted"
        assert spoken.terminal["first_chunk_ms"] < 1000
        assert known.terminal["source"] == "cache"

        async def written() -> bool:
            accounts = await accounts_of(started["conversation"])
            states = {utterance.client_speech_id: utterance.state for utterance in accounts.utterances}
            wanted = {"locked": "spoken", "known": "spoken", "retried": "spoken", "stopped": "interrupted"}
            return wanted.items() <= states.items()

        await eventually(written, 15)
        ended = await device.end()
    accounts = await accounts_of(started["conversation"])
    assert ended["characters"] == accounts.counter == accounts.ledger == sandbox.account()["characters"]
    assert accounts.outcomes("retried") == [("live", "failed"), ("retry", "completed")]


async def test_the_devices_own_speech_does_not_wait_for_rows_of_deliveries(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    """One delivery has ended but is not written yet, and the next one is not claimed yet."""
    sandbox.fault(kind="slow", bytes_per_s=60_000, first=1)
    first, second = [await submit(alice, f"The server has the message {number} for you.") for number in (1, 2)]
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        await device.wait_for_audio(first)
        async with locked_database():
            assert (await device.wait_for(first)).terminal["type"] == "speech.finished"
            for speech_id in ("one", "two"):
                spoken = await device.speak(TEXT, id=speech_id)
                assert spoken.terminal["type"] == "speech.finished"
                assert spoken.terminal["first_chunk_ms"] < 1000
            await device.send({"type": "speak", "id": "stopped", "text": TEXT * 5})
            await device.wait_for_audio("stopped")
            await device.interrupt()
            assert (await device.wait_for("stopped")).terminal["type"] == "speech.interrupted"
        await device.wait_for_frame("speech.finished", id=second)
        await device.assert_nothing_pending()
    assert spoken_order(device.received) == [first, "one", "two", "stopped", second]


async def submit(member: Member, text: str) -> str:
    row = await in_database(store.submit, member.patient.id, text, expires_in_s=900, author=None)
    return f"srv-{row.id}"


async def test_a_ping_does_not_wait_for_the_database(server: ServerProcess, alice: Member) -> None:
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        async with locked_database(), asyncio.timeout(5):
            for _ in range(10):
                await device.assert_nothing_pending()
