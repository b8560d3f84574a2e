"""The default voice: chosen from the account's own voices, replaced when it is lost, and moved before its end."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack

import pytest
from pytest_django import Settings

from cloning.voices import audit, sync
from tests.conftest import Member
from tests.e2e.device import Device
from tests.e2e.rows import in_database
from tests.sandbox import SandboxProcess
from tests.server import ServerProcess
from tests.waiting import eventually
from tts.conversations.voice import NO_VOICE
from usage.alerts.voices import ending
from usage.models import Incident
from voicecare.patients.models import DefaultVoice, Patient, Voice

TEXT = "The doctor will be with you in about ten minutes, please stay in bed."
DEVICES = 5

StartServer = Callable[..., ServerProcess]


@pytest.fixture
def start(own_server: StartServer, sandbox: SandboxProcess, settings: Settings) -> StartServer:
    """A function that starts a server without DEFAULT_VOICE_ID. This process has the same settings as its worker."""
    settings.DEFAULT_VOICE_ID, settings.ELEVENLABS_BASE_URL = "", sandbox.url
    return lambda: own_server(DEFAULT_VOICE_ID="")


def open_incidents() -> dict[str, str]:
    return dict(Incident.objects.filter(resolved_at=None).values_list("kind", "detail"))


async def test_the_first_speech_is_live_on_an_account_without_premade_voices(
    start: StartServer, sandbox: SandboxProcess, member: Callable[..., Member]
) -> None:
    sandbox.settings(premade_voices=False)
    sandbox.add_voice("Hazel", labels={"language": "en", "gender": "female"})
    server, bob = start(), await in_database(member, "Bob Baker")
    await in_database(sync.read_first_voices)
    async with Device(server.ws, bob.token) as device:
        started = await device.start(greeting=False)
        assert (started["voice"]["name"], started["voice"]["source"]) == ("Hazel", "default")
        assert (await device.speak(TEXT)).terminal["source"] == "live"
    hazel = await in_database(Voice.objects.get)
    assert (hazel.category, hazel.languages, hazel.gender) == ("generated", "en", "female")
    assert await in_database(open_incidents) == {}


async def test_without_any_voice_the_offline_voice_speaks_until_the_account_has_one(
    start: StartServer, sandbox: SandboxProcess, member: Callable[..., Member]
) -> None:
    sandbox.settings(premade_voices=False)
    server, bob = start(), await in_database(member, "Bob Baker")
    await in_database(sync.read_first_voices)
    async with Device(server.ws, bob.token) as device:
        started = await device.start()
        assert started["voice"] == {"id": str(NO_VOICE.id), "name": "Offline voice", "source": "default"}
        spoken = await device.speak(TEXT)
        assert (spoken.terminal["type"], spoken.terminal["source"]) == ("speech.finished", "offline")
        assert sandbox.requests() == []
        await eventually(lambda: "default_voice" in json.loads(server.get("/readyz")[1])["degraded"])
        assert await eventually(lambda: in_database(open_incidents)) == {
            "no_usable_voice": "The account has no stock voice that can be used, or its voices were not read yet."
        }
        device.drop_connection()
    async with Device(server.ws, bob.token) as device:
        assert (await device.start(resume=started["conversation"]))["voice"] == started["voice"]
        sandbox.add_voice("Hazel")
        await in_database(sync.read_first_voices)
        await device.wait_for_frame("notice", code="voice_changed")
        spoken = await device.speak("And now it is a voice of the provider.", id="resumed")
        assert (spoken.terminal["source"], spoken.frames[0]["voice"]) == ("live", "Hazel")
    assert await in_database(open_incidents) == {}
    assert "default_voice" not in json.loads(server.get("/readyz")[1])["degraded"]


async def test_another_voice_takes_over_for_everybody_when_the_default_voice_is_deleted(
    start: StartServer, sandbox: SandboxProcess, member: Callable[..., Member]
) -> None:
    """Two processes, running conversations, no notice.

    Usually nobody hears the offline voice, but a busy machine may answer too late once.
    """
    members = [await in_database(member, f"Patient {number}") for number in range(DEVICES)]
    await in_database(sync.read_first_voices)
    former = await in_database(Voice.objects.default)
    servers = [start(), start()]
    devices = [Device(servers[number % 2].ws, member.token) for number, member in enumerate(members)]
    heard: list[Counter[str]] = [Counter() for _ in devices]

    async def speak_until_it_is_live_in_another_voice(device: Device, sources: Counter[str]) -> str:
        async def voice() -> str | None:
            spoken = await device.speak(TEXT)
            sources[spoken.terminal["source"]] += 1
            last = [frame["voice"] for frame in spoken.frames if "voice" in frame][-1]
            return last if spoken.terminal["source"] == "live" and last != former.name else None

        return await eventually(voice, 60)

    async with AsyncExitStack() as connections:
        for device in devices:
            await connections.enter_async_context(device)
            assert (await device.start(greeting=False))["voice"]["name"] == former.name
            assert (await device.speak(TEXT)).terminal["source"] == "live"
        sandbox.retire_voice(former.provider_id)
        tasks = map(speak_until_it_is_live_in_another_voice, devices, heard)
        voices = set(await asyncio.gather(*tasks))
    successor = await in_database(Voice.objects.default)
    assert voices == {successor.name}
    assert all(sources["offline"] <= 1 for sources in heard), heard
    assert sum(sources["backup"] for sources in heard) >= 1
    assert await in_database(DefaultVoice.objects.filter(voice=successor).count) == 1
    incidents = await in_database(open_incidents)
    assert list(incidents) == ["default_voice"]
    assert former.name in incidents["default_voice"]
    assert successor.name in incidents["default_voice"]


async def test_another_voice_takes_over_when_the_plan_does_not_include_the_default_voice(
    start: StartServer, sandbox: SandboxProcess, member: Callable[..., Member]
) -> None:
    sandbox.settings(premade_voices=False)
    library = sandbox.add_voice("Library", category="professional", needs_plan=True)
    sandbox.add_voice("Hazel")
    server, bob = start(), await in_database(member, "Bob Baker")
    await in_database(sync.read_first_voices)
    voice = await in_database(Voice.objects.get, provider_id=library["voice_id"])
    await in_database(DefaultVoice.objects.create, voice=voice)
    async with Device(server.ws, bob.token) as device:
        assert (await device.start(greeting=False))["voice"]["name"] == "Library"
        refused = await device.speak(TEXT)
        assert [(frame["source"], frame["voice"]) for frame in refused.frames_of("speech.started")] == [
            ("backup", "Hazel")
        ]
        await device.wait_for_frame("notice", code="voice_changed")
        spoken = await device.speak(TEXT)
        assert (spoken.terminal["source"], spoken.frames[0]["voice"]) == ("live", "Hazel")
    await in_database(voice.refresh_from_db)
    assert (voice.state, voice.refusal) == ("usable", "refused")
    incidents = await in_database(open_incidents)
    assert list(incidents) == ["default_voice"]
    assert "Library" in incidents["default_voice"]
    assert "Hazel" in incidents["default_voice"]


async def test_an_announced_end_moves_patients_and_backup_voice_without_an_offline_segment(
    start: StartServer, sandbox: SandboxProcess, member: Callable[..., Member]
) -> None:
    await in_database(sync.read_first_voices)
    former = await in_database(Voice.objects.default)
    bob, carol = [await in_database(member, name) for name in ("Bob Baker", "Carol Cook")]
    await in_database(Patient.objects.filter(pk=carol.patient.pk).update, voice=former)
    server = start()
    async with Device(server.ws, bob.token) as device, Device(server.ws, carol.token) as other:
        assert (await device.start(greeting=False))["voice"]["name"] == former.name
        assert (await other.start(greeting=False))["voice"]["source"] == "selected"
        sandbox.retire_voice(former.provider_id, in_days=(3600 + 15) / 86400)  # moved an hour before
        await in_database(audit.audit_voices)
        await in_database(ending.check)
        incidents = await in_database(open_incidents)
        assert list(incidents) == ["voice_ending"]
        assert former.name in incidents["voice_ending"]
        assert "Patients who hear one of these voices: 2" in incidents["voice_ending"]
        successor = await in_database(lambda: Voice.objects.get(pk=former.pk).successor)
        assert successor.name in incidents["voice_ending"]
        assert (await device.speak(TEXT)).terminal["source"] == "live"
        for each in (device, other):
            await each.wait_for_frame("notice", code="voice_changed")
        sandbox.retire_voice(former.provider_id)
        for each in (device, other):
            spoken = await each.speak("This is the voice that follows, and nobody has noticed anything.")
            assert (spoken.terminal["source"], spoken.frames[0]["voice"]) == ("live", successor.name)
    await in_database(ending.check)
    patient = await in_database(Patient.objects.select_related("voice").get, pk=carol.patient.pk)
    assert patient.voice == successor
    assert await in_database(open_incidents) == {}
