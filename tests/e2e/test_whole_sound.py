"""The sound of one speech is whole, whatever its sources are and however each reply ends or begins."""

import asyncio
import itertools
from collections.abc import Callable

import aiohttp
import pytest

from tests.clinicians import clinician
from tests.conftest import OTHER_VOICE, Member
from tests.e2e.device import Device, instant_playback
from tests.e2e.provider import repeat_request
from tests.e2e.rows import in_database
from tests.sandbox import SandboxProcess
from tests.server import ServerProcess
from tests.sound import decode, decode_strictly
from tests.voicecare.audio.test_encoders import encode, tone
from tests.voicecare.audio.test_framing import ID3
from tests.voicecare.audio.test_received import info_frame
from tts.models import Clip, Phrase
from voicecare.audio.formats import FORMATS
from voicecare_client import SpeechResult

FIRST = "This is a sentence that comes from the provider itself. "
LAST = "And this is another one of them, with which it ends."
ODD_BYTES = 70_001  # more than the letters of the phrase need, and less than all of it


_numbers = itertools.count(1)


async def new_phrase() -> str:
    """A phrase that no other test has put into the cache, as it is in a text."""
    text = f"Tell me some more about tree number {next(_numbers)} in your garden."
    await in_database(Phrase.objects.create, text=text)
    return f"{text} "


async def speak(server: ServerProcess, member: Member, format_name: str, *texts: str) -> list[SpeechResult]:
    """Speak the texts one after the other on one device."""
    async with Device(server.ws, member.token, format=format_name) as device:
        await device.start(greeting=False)
        spoken = []
        for number, text in enumerate(texts):
            async with instant_playback(device, f"s{number}"):
                spoken.append(await device.speak(text, id=f"s{number}"))
        return spoken


async def references(
    server: ServerProcess, sandbox: SandboxProcess, member: Member, format_name: str, *texts: str
) -> list[bytes]:
    """The provider's audio of each text. From now on it sends exactly these bytes, because the sandbox keeps them."""
    await speak(server, member, format_name, "Good morning to you.")
    record = sandbox.requests()[-1]
    return [await asyncio.to_thread(repeat_request, sandbox, {**record, "text": text}) for text in texts]


@pytest.mark.parametrize("format_name", ["pcm_16000", "pcm_24000"])
async def test_a_reply_that_ends_in_a_sample_moves_no_later_sample(
    format_name: str, server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    """The phrase live, in front of a text, behind one, between two, and alone: each has the same samples."""
    phrase_text = await new_phrase()
    first, phrase, last = await references(server, sandbox, alice, format_name, FIRST, phrase_text, LAST)
    phrase = phrase[:ODD_BYTES] + b"\0"
    sandbox.fault(kind="cut_clean", after_bytes=ODD_BYTES, match={"text": "^Tell me some more"})
    texts = [
        FIRST + phrase_text + LAST,
        phrase_text + LAST,
        FIRST + phrase_text,
        FIRST + phrase_text + LAST,
        phrase_text,
    ]
    spoken = await speak(server, alice, format_name, *texts)
    assert [speech.terminal["source"] for speech in spoken] == ["live"] * 4 + ["cache"]
    assert [speech.audio for speech in spoken] == [
        first + phrase + last,
        phrase + last,
        first + phrase,
        first + phrase + last,
        phrase,
    ]
    assert (await in_database(Clip.objects.get)).size == ODD_BYTES + 1


async def test_all_followers_of_a_reply_get_whole_samples(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member, member: Callable[..., Member]
) -> None:
    phrase_text = await new_phrase()
    carol = await in_database(member, "Carol", voice=OTHER_VOICE)
    phrase, last = await references(server, sandbox, alice, "pcm_16000", phrase_text, LAST)
    sandbox.fault(kind="cut_clean", after_bytes=ODD_BYTES, match={"text": "^Tell me some more"})
    one, other = await asyncio.gather(
        speak(server, alice, "pcm_16000", phrase_text + LAST), speak(server, carol, "pcm_16000", phrase_text + LAST)
    )
    are_whole = one[0].audio == other[0].audio == phrase[:ODD_BYTES] + b"\0" + last
    assert are_whole
    assert [record["text"] for record in sandbox.requests()].count(phrase_text) == 2  # the reference, and one for both


async def test_a_follower_whose_leader_fails_in_a_sample_gets_whole_samples(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member, member: Callable[..., Member]
) -> None:
    phrase_text = await new_phrase()
    carol = await in_database(member, "Carol", voice=OTHER_VOICE)
    (phrase,) = await references(server, sandbox, alice, "pcm_16000", phrase_text)
    sandbox.fault(kind="stall_middle", after_bytes=9001, seconds=20, match={"text": "^Tell me some more"}, first=1)
    async with (
        Device(server.ws, alice.token, format="pcm_16000") as leader,
        Device(server.ws, carol.token, format="pcm_16000") as follower,
    ):
        await leader.start(greeting=False)
        await follower.start(greeting=False)
        await leader.start_speech("p", phrase_text)
        await follower.start_speech("p", phrase_text)
        while len(follower.speeches["p"].audio) < 9000:
            await follower.receive()
        await leader.interrupt("p")
        spoken = await follower.wait_for("p")
    is_whole = spoken.audio == phrase[:9001] + b"\0" + phrase
    assert is_whole, len(spoken.audio)  # a comparison of so many bytes takes minutes to print


async def test_audio_behind_the_offline_voice_is_not_moved(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    phrase_text = await new_phrase()
    (phrase,) = await references(server, sandbox, alice, "pcm_16000", phrase_text)
    phrase = phrase[:ODD_BYTES] + b"\0"
    sandbox.fault(kind="cut_clean", after_bytes=ODD_BYTES, match={"text": "^Tell me some more"})
    await speak(server, alice, "pcm_16000", phrase_text)
    sandbox.fault(kind="error", preset="invalid_api_key", match={"text": "^(This|And)"})
    before, behind, between = await speak(
        server, alice, "pcm_16000", phrase_text + LAST, FIRST + phrase_text, FIRST + phrase_text + LAST
    )
    offline = before.audio.removeprefix(phrase), behind.audio.removesuffix(phrase)
    assert (before.audio.startswith(phrase), behind.audio.endswith(phrase), phrase in between.audio) == (True,) * 3
    everything = (*offline, between.audio)
    assert [len(audio) % 2 for audio in everything] == [0, 0, 0]
    assert all(decode(audio, "pcm_16000").loudness < 0.3 for audio in everything)  # moved by a byte, speech is noise


MP3 = ("mp3_44100_128", "mp3_22050_32")


def tag(format_name: str) -> str:
    """What a reply begins with at some encoders: an ID3 tag and a frame with notes."""
    return (ID3 + info_frame(FORMATS[format_name])).hex()


@pytest.mark.parametrize("format_name", MP3)
async def test_mp3_with_tags_decodes_without_an_error_or_a_lost_frame(
    format_name: str, server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    phrase_text = await new_phrase()
    first, phrase, last = await references(server, sandbox, alice, format_name, FIRST, phrase_text, LAST)
    sandbox.fault(kind="prefix", hex=tag(format_name))
    live, mixed, cached = await speak(
        server, alice, format_name, FIRST + phrase_text + LAST, FIRST + phrase_text + LAST, phrase_text
    )
    are_whole = live.audio == mixed.audio == first + phrase + last
    assert are_whole
    assert cached.audio == phrase
    assert decode_strictly(live.audio) == sum(map(decode_strictly, (first, phrase, last)))


@pytest.mark.parametrize("format_name", MP3)
async def test_mp3_of_live_cached_and_offline_audio_decodes_without_an_error(
    format_name: str, server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    phrase_text = await new_phrase()
    first, phrase = await references(server, sandbox, alice, format_name, FIRST, phrase_text)
    sandbox.fault(kind="prefix", hex=tag(format_name), match={"text": "^(Tell|This)"})
    sandbox.fault(kind="error", preset="invalid_api_key", match={"text": "^And"})
    await speak(server, alice, format_name, phrase_text)
    (spoken,) = await speak(server, alice, format_name, FIRST + phrase_text + LAST + " " + phrase_text)
    assert spoken.terminal["source"] == "live"
    sources = [frame["source"] for frame in spoken.frames_of("speech.started", "speech.switched")]
    assert sources == ["live", "offline", "cache"]
    assert spoken.audio.startswith(first + phrase)
    assert spoken.audio.endswith(phrase)
    offline = spoken.audio.removeprefix(first + phrase).removesuffix(phrase)
    assert decode_strictly(spoken.audio) == sum(map(decode_strictly, (first, phrase, offline, phrase)))


async def test_speech_over_rest_has_no_tags(server: ServerProcess, sandbox: SandboxProcess, alice: Member) -> None:
    carol = await in_database(clinician, "carol", alice.patient)
    headers = {"Authorization": f"Bearer {carol.token}", "Accept": "audio/*"}
    body = {"text": FIRST + LAST, "format": "mp3_44100_128"}
    audio = []
    async with aiohttp.ClientSession(headers=headers) as http:
        for _ in range(2):
            async with http.post(f"{server.url}/api/v1/speech/", json=body) as reply:
                audio.append(await reply.read())
            sandbox.fault(kind="prefix", hex=tag("mp3_44100_128"))
    assert audio[0] == audio[1]
    assert decode_strictly(audio[1]) > 5 * 44100
    assert len(sandbox.requests()) == 4


@pytest.mark.parametrize(
    ("format_name", "begin"),
    [
        ("pcm_16000", encode(FORMATS["wav_16000"], b"")),
        ("pcm_16000", encode(FORMATS["mp3_44100_128"], tone(0.3))),
        ("pcm_22050", ID3),
        ("pcm_24000", encode(FORMATS["opus_48000_64"], tone(0.1))),
        ("ulaw_8000", encode(FORMATS["wav_8000"], b"")),
        ("mp3_44100_128", encode(FORMATS["wav_44100"], b"")),
        ("mp3_44100_128", encode(FORMATS["pcm_44100"], tone(0.3))),
    ],
    ids=["WAV", "MP3", "tagged MP3", "Ogg", "WAV for G.711", "WAV for MP3", "PCM for MP3"],
)
async def test_a_reply_in_another_format_is_not_heard(
    format_name: str, begin: bytes, server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    sandbox.fault(kind="prefix", hex=begin.hex(), first=2)
    (spoken,) = await speak(server, alice, format_name, FIRST)
    assert spoken.terminal["source"] == "backup"
    assert len(sandbox.requests()) == 3
    voice_id = sandbox.requests()[2]["voice_id"]
    sandbox.clear_faults()
    whole = await asyncio.to_thread(repeat_request, sandbox, sandbox.requests()[2])
    assert (spoken.audio, voice_id != OTHER_VOICE) == (whole, True)


@pytest.mark.parametrize(("times", "source"), [(1, "live"), (2, "backup"), (3, "offline")])
async def test_a_reply_that_ends_far_too_early_is_repeated_and_never_cached(
    times: int, source: str, server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    text = (await new_phrase()).strip()
    sandbox.fault(kind="cut_clean", after_bytes=417, first=times)
    short, again = await speak(server, alice, "mp3_44100_128", text, text)
    assert short.terminal["source"] == source
    assert decode(short.audio, "mp3_44100_128").seconds > 1
    assert again.terminal["source"] == "live"  # nothing was cached
    clips = await in_database(lambda: list(Clip.objects.values_list("size", flat=True)))
    assert all(size > 10_000 for size in clips)
