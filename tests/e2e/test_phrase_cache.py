"""The phrase cache: many listeners cost one request, and outdated audio is never played."""

import asyncio
from collections.abc import Callable

from tests.conftest import OTHER_VOICE, Member
from tests.e2e.device import Device
from tests.e2e.provider import repeat_request
from tests.e2e.rows import in_database, total_characters
from tests.sandbox import SandboxProcess
from tests.server import ServerProcess
from tests.waiting import eventually
from tts.models import Clip, Phrase
from voicecare.patients.models import Voice

LISTENERS = 100


async def new_phrase(text: str) -> str:
    """A phrase that no other test has put into the cache."""
    await in_database(Phrase.objects.create, text=text)
    return text


async def test_a_hundred_concurrent_speeches_of_one_phrase_cost_one_request(
    server: ServerProcess, sandbox: SandboxProcess, member: Callable[..., Member]
) -> None:
    text = await new_phrase("A hundred of us are listening to this.")
    members = await in_database(lambda: [member(f"Patient {n}", voice=OTHER_VOICE) for n in range(LISTENERS)])
    sandbox.fault(kind="slow", bytes_per_s=20_000, match={"text": "^A hundred"})
    devices = [Device(server.ws, one.token, timeout_s=60) for one in members]
    async with asyncio.TaskGroup() as connecting:
        for device in devices:
            connecting.create_task(device.__aenter__())
    try:
        await asyncio.gather(*(device.start(greeting=False) for device in devices))
        speeches = await asyncio.gather(*(device.speak(text) for device in devices))
    finally:
        await asyncio.gather(*(device.__aexit__(None, None, None) for device in devices))
    (request,) = sandbox.requests()
    assert {spoken.audio for spoken in speeches} == {repeat_request(sandbox, request)}
    sources = [spoken.terminal["source"] for spoken in speeches]
    assert (sources.count("live"), sources.count("cache")) == (1, LISTENERS - 1)
    assert sum(spoken.terminal["characters"] for spoken in speeches) == len(text) == await total_characters()


async def test_followers_get_the_audio_while_it_is_being_generated(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member, member: Callable[..., Member]
) -> None:
    text = await new_phrase("This phrase is spoken so slowly that others can join in.")
    carol = await in_database(member, "Carol", voice=OTHER_VOICE)
    sandbox.fault(kind="slow", bytes_per_s=12_000, match={"text": "so slowly"})
    async with Device(server.ws, alice.token) as first, Device(server.ws, carol.token) as second:
        await first.start(greeting=False)
        await second.start(greeting=False)
        await first.start_speech("p", text)
        await second.start_speech("p", text)
        assert not first.speeches["p"].is_done
        one, other = await asyncio.gather(first.wait_for("p"), second.wait_for("p"))
    assert one.audio == other.audio
    assert len(sandbox.requests()) == 1


async def test_when_the_leader_is_interrupted_a_follower_takes_over(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member, member: Callable[..., Member]
) -> None:
    text = await new_phrase("The one who asked first will not hear this to its end.")
    carol = await in_database(member, "Carol", voice=OTHER_VOICE)
    sandbox.fault(kind="slow", bytes_per_s=8_000, match={"text": "not hear this"}, first=1)
    async with Device(server.ws, alice.token) as first, Device(server.ws, carol.token) as second:
        await first.start(greeting=False)
        await second.start(greeting=False)
        await first.start_speech("p", text)
        await second.start_speech("p", text)
        await first.interrupt("p")
        assert (await first.wait_for("p")).terminal["type"] == "speech.interrupted"
        spoken = await second.wait_for("p")
        assert spoken.terminal["type"] == "speech.finished"
        whole = repeat_request(sandbox, sandbox.requests()[1])
        assert spoken.audio.endswith(whole)
        again = await first.speak(text, id="again")
    assert (again.terminal["source"], again.audio) == ("cache", whole)


async def test_a_remade_voice_does_not_play_its_old_audio(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    text = await new_phrase("The voice behind this will be made again.")

    async def speak_and_get_source() -> str:
        async with Device(server.ws, alice.token) as device:
            await device.start(greeting=False)
            source: str = (await device.speak(text)).terminal["source"]
            return source

    assert [await speak_and_get_source(), await speak_and_get_source()] == ["live", "cache"]
    await in_database(Voice.objects.filter(provider_id=OTHER_VOICE).update, revision=2)
    assert [await speak_and_get_source(), await speak_and_get_source()] == ["live", "cache"]


async def test_hits_are_counted(server: ServerProcess, sandbox: SandboxProcess, alice: Member) -> None:
    text = await new_phrase("This phrase is counted whenever it is heard.")
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        sources = [(await device.speak(text)).terminal["source"] for _ in range(3)]
        assert sources == ["live", "cache", "cache"]
        clips = Clip.objects.filter(phrase__text=text)

        async def counted() -> bool:
            return await in_database(clips.filter(hits=2).exists)

        await eventually(counted, within_s=15)
        clip = await in_database(clips.get)
        assert (clip.characters, clip.format, clip.language) == (len(text), "mp3_44100_128", "en")
