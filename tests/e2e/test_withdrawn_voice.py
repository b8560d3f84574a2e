"""A voice that is withdrawn during a conversation (docs/protocol.md, rule 10)."""

from tests.conftest import DEFAULT_VOICE, OTHER_VOICE, Member
from tests.e2e.device import Device
from tests.e2e.rows import in_database
from tests.sandbox import SandboxProcess
from tests.server import ServerProcess
from voicecare.patients.models import Voice

LONG_TEXT = "This sentence is spoken very slowly, so that there is time to do something else meanwhile."


async def withdraw() -> None:
    await in_database(Voice.objects.filter(provider_id=OTHER_VOICE).update, state=Voice.State.WITHDRAWN)


async def test_a_withdrawn_voice_is_replaced_by_the_default_voice_and_the_device_is_notified_once(
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
    voice_by_text = {request["text"]: request["voice_id"] for request in sandbox.requests()}
    assert voice_by_text["And now I speak in the default voice."] == DEFAULT_VOICE
    async with Device(server.ws, alice.token) as device:
        resumed = await device.start(resume=started["conversation"])
        assert resumed["voice"]["source"] == "default"
        assert (await device.speak("It stays so.", id="stays")).frames_of("speech.started")[0]["voice"] == "Default"
        assert [notice["code"] for notice in device.notices] == []


async def test_a_speech_that_is_playing_continues_in_the_withdrawn_voice(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    sandbox.fault(kind="slow", bytes_per_s=8_000, match={"text": "very slowly"})
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        await device.start_speech("playing", LONG_TEXT)
        await withdraw()
        await device.wait_for_frame("notice", code="voice_changed")
        spoken = await device.wait_for("playing")
        assert (spoken.terminal["type"], spoken.terminal["source"]) == ("speech.finished", "live")
        assert not spoken.frames_of("speech.switched")
