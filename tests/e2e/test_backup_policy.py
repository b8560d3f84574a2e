"""The backup voice of a patient, and patients who hear only their own voice (docs/protocol.md, rules 4 and 10)."""

from itertools import count

import pytest

from tests.conftest import DEFAULT_VOICE, OTHER_VOICE, Member
from tests.e2e.device import Device
from tests.e2e.provider import clone_voice, delete_voice
from tests.e2e.rows import in_database
from tests.sandbox import SandboxProcess
from tests.server import ServerProcess
from tests.waiting import eventually
from tts.conversations.voice import NO_VOICE
from tts.models import Phrase
from tts.outbox import store
from usage.models import UsageEvent
from voicecare.patients.models import Patient, Voice

BACKUP_VOICE = "ErXwobaYiN019PkySvjV"  # a stock voice of the sandbox
TEXT = "The doctor will be with you in about ten minutes, please stay in bed."
PHRASE = "This phrase is known before the voice is lost."
NOTICE = {"type": "notice", "code": "backup_voice", "message": "Temporary voice issue, using backup voice"}


def requested_voices(sandbox: SandboxProcess) -> list[str]:
    return [request["voice_id"] for request in sandbox.requests()]


async def give_backup_voice(member: Member) -> Voice:
    def give() -> Voice:
        voice = Voice.objects.create(name="Antoni", provider_id=BACKUP_VOICE)
        Patient.objects.filter(pk=member.patient.pk).update(backup_voice=voice)
        return voice

    return await in_database(give)


@pytest.fixture
def own_voice_only(alice: Member) -> Member:
    """Alice, who hears only her own voice. A backup voice that was chosen before makes no difference."""
    backup = Voice.objects.create(name="Antoni", provider_id=BACKUP_VOICE)
    Patient.objects.filter(pk=alice.patient.pk).update(backup_policy="own_voice_only", backup_voice=backup)
    return alice


# Switch


async def test_two_failures_lead_to_the_patients_backup_voice(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    backup = await give_backup_voice(alice)
    sandbox.fault(kind="error", preset="internal_error", first=2)
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        spoken = await device.speak(TEXT)
    assert (spoken.frames[0]["source"], spoken.frames[0]["voice"]) == ("backup", backup.name)
    assert spoken.frames[1] == NOTICE
    assert requested_voices(sandbox) == [OTHER_VOICE, OTHER_VOICE, BACKUP_VOICE]


async def test_the_default_voice_speaks_if_the_own_and_the_backup_voice_are_refused(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    await give_backup_voice(alice)
    for voice_id in (OTHER_VOICE, BACKUP_VOICE):
        sandbox.fault(kind="error", preset="paid_plan_required", match={"voice_id": voice_id})
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        spoken = await device.speak(TEXT)
    assert (spoken.terminal["source"], spoken.frames[0]["voice"]) == ("backup", "Default")
    assert requested_voices(sandbox) == [OTHER_VOICE, BACKUP_VOICE, DEFAULT_VOICE]


async def test_a_conversation_continues_in_the_backup_voice_when_the_own_voice_is_withdrawn(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    backup = await give_backup_voice(alice)
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        await in_database(Voice.objects.filter(provider_id=OTHER_VOICE).update, state="withdrawn")
        await device.wait_for_frame("notice", code="voice_changed")
        spoken = await device.speak(TEXT)
    assert (spoken.terminal["source"], spoken.frames[0]["voice"]) == ("live", backup.name)
    assert requested_voices(sandbox) == [BACKUP_VOICE]


# Only the own voice


async def test_a_deleted_voice_is_followed_by_cached_phrases_and_the_offline_voice(
    server: ServerProcess, sandbox: SandboxProcess, own_voice_only: Member
) -> None:
    await in_database(Phrase.objects.create, text=PHRASE)
    voice_id = await clone_voice(sandbox)
    voice = await in_database(_give_clone, own_voice_only, voice_id)
    async with Device(server.ws, own_voice_only.token) as device:
        own = (await device.start(greeting=False))["voice"]
        assert own["source"] == "cloned"
        await device.speak(PHRASE)
        await delete_voice(sandbox, voice_id)
        spoken = await device.speak(TEXT)
        assert [spoken.frames[0]["source"], spoken.terminal["source"]] == ["offline", "offline"]
        assert spoken.frames[1] == NOTICE
        await eventually(lambda: in_database(Voice.objects.filter(pk=voice.pk, state="gone").exists))
        await _until_nothing_is_requested(device, sandbox)
        phrase = await device.speak(PHRASE)
        assert (phrase.terminal["source"], phrase.frames[0]["voice"]) == ("cache", voice.name)
        assert phrase.frames_of("notice") == []
        await device.end()
        assert (await device.start(greeting=False))["voice"] == own
        before = len(sandbox.requests())
        phrase = await device.speak(PHRASE)
        assert (phrase.terminal["source"], phrase.frames[0]["voice"]) == ("cache", voice.name)
        assert (await device.speak(TEXT)).terminal["source"] == "offline"
        assert len(sandbox.requests()) == before
        assert "voice_changed" not in [notice["code"] for notice in device.notices]
    assert set(requested_voices(sandbox)) == {voice_id}
    assert await in_database(lambda: set(UsageEvent.objects.values_list("voice", flat=True))) == {voice.pk}


async def test_a_voice_that_is_back_speaks_again_in_the_running_conversation(
    server: ServerProcess, sandbox: SandboxProcess, own_voice_only: Member
) -> None:
    own = Voice.objects.filter(provider_id=OTHER_VOICE)
    await in_database(own.update, state="gone")
    async with Device(server.ws, own_voice_only.token) as device:
        await device.start(greeting=False)
        assert (await device.speak(TEXT)).terminal["source"] == "offline"
        assert sandbox.requests() == []
        await in_database(own.update, state="usable")

        async def source() -> str:
            return (await device.speak(TEXT)).terminal["source"]

        await eventually(source, 30, wanted=lambda found: found == "live")
        assert "voice_changed" not in [notice["code"] for notice in device.notices]
    assert requested_voices(sandbox) == [OTHER_VOICE]


async def test_nothing_is_played_in_a_withdrawn_voice_nor_in_another_one(
    server: ServerProcess, sandbox: SandboxProcess, own_voice_only: Member
) -> None:
    await in_database(Phrase.objects.create, text=PHRASE)
    async with Device(server.ws, own_voice_only.token) as device:
        await device.start(greeting=False)
        await device.speak(PHRASE)
        await in_database(_withdraw, own_voice_only)
        await device.wait_for_frame("notice", code="voice_changed")
        requests = len(sandbox.requests())
        for text in (PHRASE, TEXT):
            spoken = await device.speak(text)
            assert (spoken.terminal["type"], spoken.terminal["source"]) == ("speech.finished", "offline")
        device.drop_connection()
    async with Device(server.ws, own_voice_only.token) as device:
        started = await device.start(greeting=False)
        assert started["voice"] == {"id": str(NO_VOICE.id), "name": NO_VOICE.name, "source": "default"}
        for text in (PHRASE, TEXT):
            spoken = await device.speak(text)
            assert (spoken.terminal["source"], spoken.frames[1]) == ("offline", NOTICE)
    assert len(sandbox.requests()) == requests


async def test_the_end_of_the_default_voice_does_not_change_the_voice_of_a_patient_who_has_it(
    server: ServerProcess, sandbox: SandboxProcess, bob: Member
) -> None:
    """The default voice, chosen for the patient, is their own voice. The voice that takes over is not."""
    default = await in_database(Voice.objects.default)
    await in_database(Patient.objects.filter(pk=bob.patient.pk).update, voice=default, backup_policy="own_voice_only")
    async with Device(server.ws, bob.token) as device:
        assert (await device.start(greeting=False))["voice"]["name"] == default.name
        assert (await device.speak(TEXT)).terminal["source"] == "live"
        await in_database(Voice.objects.create, name="Antoni", provider_id=BACKUP_VOICE)
        await in_database(Voice.objects.filter(pk=default.pk).update, state="gone")
        await _until_nothing_is_requested(device, sandbox)
        await device.end()
        assert (await device.start(greeting=False))["voice"]["name"] == default.name
        assert (await device.speak(TEXT)).terminal["source"] == "offline"
        assert "voice_changed" not in [notice["code"] for notice in device.notices]
    assert set(requested_voices(sandbox)) == {DEFAULT_VOICE}


async def test_queued_speech_is_delivered_in_the_own_or_the_offline_voice(
    server: ServerProcess, sandbox: SandboxProcess, own_voice_only: Member
) -> None:
    sandbox.fault(kind="error", preset="voice_not_found", match={"text": "^The doctor"})
    await in_database(_queue, own_voice_only)
    async with Device(server.ws, own_voice_only.token) as device:
        started = await device.wait_for_frame("conversation.started", initiated="server")
        assert started["voice"]["source"] == "selected"
        announced = await device.wait_for_frame("speech.started")
        assert announced["source"] == "offline"
        await device.wait_for_frame("speech.finished")
    assert requested_voices(sandbox) == [OTHER_VOICE]


async def _until_nothing_is_requested(device: Device, sandbox: SandboxProcess) -> None:
    """Speak until the conversation knows that its voice is gone: then its speech causes no request."""
    numbers = count()

    async def is_quiet() -> bool:
        before = len(sandbox.requests())
        spoken = await device.speak(f"Is this sentence, number {next(numbers)}, requested?")
        return spoken.terminal["source"] == "offline" and len(sandbox.requests()) == before

    await eventually(is_quiet, 30)


def _give_clone(member: Member, provider_id: str) -> Voice:
    fields = {"name": "Anna", "source": "cloned", "patient": member.patient}
    voice = Voice.objects.create(provider_id=provider_id, **fields)
    Patient.objects.filter(pk=member.patient.pk).update(voice=voice)
    return voice


def _withdraw(member: Member) -> None:
    """As the withdrawal of a consent does."""
    Patient.objects.filter(pk=member.patient.pk).update(voice=None)
    Voice.objects.filter(provider_id=OTHER_VOICE).update(state="withdrawn")


def _queue(member: Member) -> None:
    store.submit(member.patient.pk, TEXT, expires_in_s=600, author=None)
