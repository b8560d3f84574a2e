"""A voice that nobody may hear any more (the contract, section 2, rule 10)."""

from tests.conftest import DEFAULT_VOICE, OTHER_VOICE, Member
from tests.e2e.device import Device
from tests.e2e.rows import in_database
from tests.sandbox import SandboxProcess
from tests.server import ServerProcess
from voicecare.patients.models import Voice

LONG = "This sentence is spoken very slowly, so that there is time to do something else meanwhile."


async def withdraw() -> None:
    await in_database(Voice.objects.filter(provider_id=OTHER_VOICE).update, state=Voice.State.WITHDRAWN)


async def test_from_the_next_speech_on_it_is_the_default_voice_and_the_device_is_told_once(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member, phrases: None
) -> None:
    async with Device(server.ws, alice.token) as device:
        started = await device.start(greeting=False)
        assert (await device.speak("I see.")).terminal["source"] in ("live", "cache")
        await withdraw()
        changed = await device.wait_for_frame("notice", code="voice_changed")
        assert changed["message"]
        spoken = await device.speak("And now I speak in the default voice.")
        assert (spoken.terminal["type"], spoken.terminal["source"]) == ("speech.finished", "live")
        assert spoken.frames_of("speech.started")[0]["voice"] == "Default"
        phrase = await device.speak("I see.")
        assert phrase.frames_of("speech.started")[0]["voice"] == "Default"
        device.drop_connection()
    asked = {request["text"]: request["voice_id"] for request in sandbox.requests()}
    assert asked["And now I speak in the default voice."] == DEFAULT_VOICE
    async with Device(server.ws, alice.token) as device:
        resumed = await device.start(resume=started["conversation"])
        assert resumed["voice"]["source"] == "default"
        assert (await device.speak("It stays so.", id="stays")).frames_of("speech.started")[0]["voice"] == "Default"
        assert [notice["code"] for notice in device.notices] == []


async def test_what_is_playing_plays_on(server: ServerProcess, sandbox: SandboxProcess, alice: Member) -> None:
    sandbox.fault(kind="slow", bytes_per_s=8_000, match={"text": "very slowly"})
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        await device.start_speech("playing", LONG)
        await withdraw()
        await device.wait_for_frame("notice", code="voice_changed")
        spoken = await device.wait_for("playing")
        assert (spoken.terminal["type"], spoken.terminal["source"]) == ("speech.finished", "live")
        assert not spoken.frames_of("speech.switched")
