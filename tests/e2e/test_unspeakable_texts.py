"""A text that the provider cannot speak affects nobody else. A text without a letter or digit is not requested."""

import asyncio
import uuid
from typing import Any

import aiohttp
import pytest

from tests.clinicians import clinician
from tests.conftest import DEFAULT_VOICE, Member
from tests.e2e.device import Device
from tests.e2e.rows import in_database
from tests.sandbox import SandboxProcess
from tests.server import ServerProcess
from tests.waiting import eventually
from tts.models import Phrase, Utterance
from usage.models import BudgetMonth, Incident, ProviderState, UsageEvent
from voicecare.patients.models import Patient

pytestmark = pytest.mark.usefixtures("circuit_closed_after")

SILENT = {
    "emoji": "\U0001f642",
    "family": "👩\u200d👩\u200d👧🇩🇪❤\ufe0f",
    "dots": "...",
    "asterisks": "***",
    "punctuation": "?!... --- ,,, ;;; !!!",
    "zero width space": "\u200b",
    "invisible letters": "\u3164\u115f\uffa0",
    "marks": "\u0301\u0335\u0489",
    "symbols": "% € → °",
    "many dots": "." * 5000,
}
BAD = "This text cannot be spoken by anybody."
GOOD = "Everything else is spoken as ever."
FOR_THIS_TEXT_ALONE: dict[str, dict[str, Any]] = {
    "500": {"kind": "error", "preset": "internal_error"},
    "empty": {"kind": "empty"},
    "json": {"kind": "json"},
    "no answer": {"kind": "refuse"},
    "silence": {"kind": "stall_first"},
    "cut": {"kind": "cut", "after_bytes": 1500},
}


async def assert_no_outage(server: ServerProcess) -> None:
    assert server.gauge("voicecare_circuit_open") == 0
    assert not await in_database(Incident.objects.exists)
    assert not await in_database(ProviderState.objects.filter(circuit="open").exists)


# Texts without a letter or digit


@pytest.mark.parametrize("text", SILENT.values(), ids=SILENT.keys())
async def test_a_text_without_letter_or_digit_finishes_without_a_request(
    text: str, server: ServerProcess, sandbox: SandboxProcess, alice: Member, bob: Member
) -> None:
    sandbox.fault(kind="error", preset="internal_error", match={"text": "^[^a-z]*$"})  # what is sent fails
    async with Device(server.ws, alice.token) as device, Device(server.ws, bob.token) as other:
        await device.start(greeting=False)
        await other.start(greeting=False)
        spoken = await device.speak(text)
        assert (await other.speak(GOOD)).terminal["source"] == "live"
        ended = await device.end()
    assert spoken.frames == [
        {
            "type": "speech.finished",
            "id": spoken.id,
            "source": "",
            "first_chunk_ms": None,
            "bytes": 0,
            "characters": 0,
        }
    ]
    assert ended["characters"] == 0
    assert [request["text"] for request in sandbox.requests()] == [GOOD]
    await assert_no_outage(server)


async def test_signs_with_a_sound_are_spoken(server: ServerProcess, sandbox: SandboxProcess, alice: Member) -> None:
    text = "*** Well… 🙂 that is 50 % of it, isn't it?! 👍🏽"
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        assert (await device.speak(text)).terminal["source"] == "live"
    assert [request["text"] for request in sandbox.requests()] == ["Well… that is fifty percent of it, isn't it?!"]


async def test_a_streamed_text_without_letter_or_digit_finishes(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        for piece in ("...", "\u200b", " 🙂"):
            await device.send({"type": "speak.delta", "id": "silent", "text": piece})
        await device.send({"type": "speak.done", "id": "silent"})
        spoken = await device.wait_for("silent")
    assert [frame["type"] for frame in spoken.frames] == ["speech.finished"]
    assert sandbox.requests() == []


async def test_a_silent_phrase_and_greeting_are_neither_requested_nor_looked_up(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    def seed() -> None:
        Phrase.objects.create(kind="greeting", text="... 🙂")
        Phrase.objects.create(text="***")

    await in_database(seed)
    async with Device(server.ws, alice.token) as device:
        await device.start()
        greeting = await device.wait_for("greeting")
        spoken = await device.speak("***")
    assert [greeting.terminal["type"], spoken.terminal["type"]] == ["speech.finished"] * 2
    assert sandbox.requests() == []
    assert not await in_database(UsageEvent.objects.exists)


async def test_a_silent_text_needs_no_budget(server: ServerProcess, sandbox: SandboxProcess, alice: Member) -> None:
    budget = Patient.objects.filter(pk=alice.patient.pk).update
    await in_database(budget, monthly_character_budget=1)
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        assert (await device.speak("*" * 60)).terminal["type"] == "speech.finished"
    assert not await in_database(BudgetMonth.objects.filter(used__gt=0).exists)


async def test_a_silent_text_does_not_wait_for_the_quota(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    sandbox.settings(characters_used=100_000, character_limit=100_000)
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        await device.send({"type": "speak", "id": "held", "text": GOOD})
        await device.wait_for_frame("speech.queued", id="held")
        assert (await device.speak("...")).terminal["type"] == "speech.finished"
        sandbox.settings(characters_used=0)
        assert (await device.wait_for("held")).terminal["source"] == "live"


async def test_silent_rest_speech_is_an_empty_body(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    carol = await in_database(clinician, "carol", alice.patient)
    headers = {"Authorization": f"Bearer {carol.token}"}
    async with (
        aiohttp.ClientSession(headers=headers) as http,
        http.post(f"{server.url}/api/v1/speech/", json={"text": "🙂 ..."}) as reply,
    ):
        assert (reply.status, await reply.read()) == (200, b"")
        assert "Speech-Source" not in reply.headers
    assert sandbox.requests() == []


async def test_silent_speech_of_the_server_is_delivered_and_acknowledged(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    carol = await in_database(clinician, "carol", alice.patient)
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        answer = await asyncio.to_thread(
            lambda: carol.call("POST", f"patients/{alice.patient.pk}/speak/", {"text": "🙂"}).json()
        )
        spoken = await device.wait_for(f"srv-{answer['id']}")
        assert (spoken.terminal["type"], spoken.terminal["bytes"]) == ("speech.finished", 0)
        await device.send({"type": "ack", "id": spoken.id})
        row = Utterance.objects.filter(pk=uuid.UUID(answer["id"])).values_list("state", flat=True)
        await eventually(lambda: in_database(row.get), wanted=lambda state: state == "heard")
    assert sandbox.requests() == []


# Texts that fail alone


@pytest.mark.parametrize("fault", FOR_THIS_TEXT_ALONE.values(), ids=FOR_THIS_TEXT_ALONE.keys())
async def test_a_text_that_fails_alone_opens_no_circuit(
    fault: dict[str, Any], server: ServerProcess, sandbox: SandboxProcess, alice: Member, bob: Member
) -> None:
    """Two patients repeat it, in a moment without other traffic."""
    sandbox.fault(**fault, match={"text": "cannot be spoken"})
    async with Device(server.ws, alice.token) as device, Device(server.ws, bob.token) as other:
        await device.start(greeting=False)
        await other.start(greeting=False)
        for speaker in (device, other, device):
            assert (await speaker.speak(BAD)).terminal["source"] == "offline"
            await asyncio.sleep(0.3)  # the time of a probe
        assert (await other.speak(GOOD)).terminal["source"] == "live"
    await assert_no_outage(server)
    assert "circuit.text_failed_alone" in server.logged()


async def test_different_texts_that_fail_one_after_the_other_open_no_circuit(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member, bob: Member
) -> None:
    sandbox.fault(kind="error", preset="internal_error", match={"text": "cannot be spoken"})
    async with Device(server.ws, alice.token) as device, Device(server.ws, bob.token) as other:
        await device.start(greeting=False)
        await other.start(greeting=False)
        texts = [f"Text number {number} cannot be spoken." for number in range(4)]
        spoken = await asyncio.gather(device.speak(texts[0]), other.speak(texts[1]))
        spoken += [await device.speak(text) for text in texts[2:]]
        assert {speech.terminal["source"] for speech in spoken} == {"offline"}
        assert (await other.speak(GOOD)).terminal["source"] == "live"
    await assert_no_outage(server)


@pytest.mark.parametrize("kind", ["common", "greeting"])
async def test_a_known_phrase_that_fails_alone_opens_no_circuit(
    kind: str, server: ServerProcess, sandbox: SandboxProcess, alice: Member, bob: Member
) -> None:
    await in_database(lambda: Phrase.objects.create(kind=kind, text=BAD))
    sandbox.fault(kind="empty", match={"text": "cannot be spoken"})
    async with Device(server.ws, alice.token) as device, Device(server.ws, bob.token) as other:
        for speaker in (device, other):
            await speaker.start(greeting=kind == "greeting")
            spoken = await (speaker.wait_for("greeting") if kind == "greeting" else speaker.speak(BAD))
            assert spoken.terminal["source"] == "offline"
            await asyncio.sleep(0.3)  # the time of a probe
        assert (await other.speak(GOOD)).terminal["source"] == "live"
    await assert_no_outage(server)


# An outage


@pytest.mark.parametrize("fault", FOR_THIS_TEXT_ALONE.values(), ids=FOR_THIS_TEXT_ALONE.keys())
async def test_an_outage_is_noticed_with_one_device_that_repeats_one_text(
    fault: dict[str, Any], server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    """Only speech fails. The provider's other calls work."""
    sandbox.fault(**fault)
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        assert (await device.speak(GOOD)).terminal["source"] == "offline"
        await eventually(lambda: server.gauge("voicecare_circuit_open"), 4)
        await eventually(lambda: in_database(Incident.objects.filter(kind="provider_down").exists), 4)
        requests_before = [request["text"] for request in sandbox.requests()].count(GOOD)
        assert (await device.speak(GOOD)).terminal["source"] == "offline"
        assert [request["text"] for request in sandbox.requests()].count(GOOD) == requests_before


async def test_the_probe_before_the_circuit_opens_is_one_short_request_in_the_default_voice(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    sandbox.fault(kind="error", preset="internal_error", match={"text": "cannot be spoken"})
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        for _ in range(3):
            await device.speak(BAD)
    probes = [request for request in sandbox.requests() if request["text"] != BAD]
    assert [request["voice_id"] for request in probes] == [DEFAULT_VOICE]
    assert probes[0]["characters"] < 20
