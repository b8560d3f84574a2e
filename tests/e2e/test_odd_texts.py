"""Odd texts are spoken or refused with a clear code. They never hang, and the next text is spoken."""

from collections.abc import Callable

import pytest

from tests.conftest import Member
from tests.e2e.device import Device, instant_playback
from tests.e2e.rows import in_database
from tests.sandbox import SandboxProcess
from tests.server import ServerProcess
from tests.sound import MIN_LOUDNESS, decode

ODD = {
    "emoji": "👵🏽👨‍👩‍👧‍👦🎉🎉🎉 Hooray ?!... --- ,,, ;;; !!!",
    "one word": "a" * 400,
    "no sentence end": "and then we went on and on "
    * 12,  # more than one segment; the offline voice speaks in real time
    "mixed scripts": "Guten Morgen, 早上好。Доброе утро! صباح الخير؟ नमस्ते। Good morning.",
    "control characters": "Good morning\x07,\x1b[31m how\x7f are\x85 you\u2028 today\ufeff?",
    "ssml": '<speak>Good <break time="3s"/> morning <prosody rate="x-slow">dear</prosody></speak>',
    "phoneme brackets": "Say [[h@l'oU]] and [[ and ]] and [[[[ to me.",
    "right to left": "\u202eשלום עולם\u202c, good morning, \u2067مرحبا\u2069.",
    "combining bomb": "Z" + "\u0301\u0335\u0489" * 400 + " good morning",
    "template": "{{7*7}} ${7*7} <script>alert(1)</script> =cmd|' /C calc'!A0",
    "newlines": "\n\n\nGood\n\n\nmorning\r\n\r\n",
    "zero width": "G\u200bo\u200co\u200dd\u2060 morning",
}

SAID = {  # without markup and emoji
    ODD["emoji"]: "Hooray ?!... --- ,,, ;;; !!!",
    ODD["ssml"]: "Good morning dear",
    ODD["template"]: "{{7*7}} ${7*7} alert(1) =cmd|' /C calc'!A0",
}


@pytest.mark.parametrize("offline", [False, True], ids=["provider", "offline"])
@pytest.mark.parametrize("text", ODD.values(), ids=ODD.keys())
async def test_odd_text_is_spoken(
    text: str, offline: bool, server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    if offline:
        sandbox.fault(kind="error", preset="invalid_api_key")  # directly to the offline voice; the circuit stays closed
    async with Device(server.ws, alice.token, format="mp3_22050_32") as device:
        await device.start(greeting=False)
        async with instant_playback(device, "odd"):
            spoken = await device.speak(text, id="odd")
        assert spoken.terminal["type"] == "speech.finished"
        assert spoken.terminal["source"] == ("offline" if offline else "live")
        assert decode(spoken.audio, "mp3_22050_32").seconds > 0.1
        assert (await device.speak("And this is spoken as ever.")).terminal["type"] == "speech.finished"
    if not offline:
        assert "".join(request["text"] for request in sandbox.requests()[:-1]) == SAID.get(text, text)


UNREADABLE = {
    "kanji": ("ja", "お薬を飲んでください。" * 40),  # several segments
    "Khmer": ("km", "សូមលេបថ្នាំរបស់អ្នកឥឡូវនេះ។"),
    "Lao": ("lo", "ກະລຸນາກິນຢາຂອງທ່ານດຽວນີ້"),
    "Khmer in English": ("en", "សូមលេបថ្នាំរបស់អ្នកឥឡូវនេះ។"),
}


@pytest.mark.parametrize(("language", "text"), UNREADABLE.values(), ids=UNREADABLE)
async def test_the_offline_voice_says_a_sentence_for_what_it_cannot_read(
    language: str, text: str, server: ServerProcess, sandbox: SandboxProcess, member: Callable[..., Member]
) -> None:
    """The names and numbers of these characters take half a minute and more."""
    sandbox.fault(kind="error", preset="invalid_api_key")
    patient = await in_database(member, "Yuki Sato", language=language)
    async with Device(server.ws, patient.token, format="mp3_22050_32") as device:
        await device.start(greeting=False)
        async with instant_playback(device, "odd"):
            spoken = await device.speak(text, id="odd")
    assert (spoken.terminal["type"], spoken.terminal["source"]) == ("speech.finished", "offline")
    sound = decode(spoken.audio, "mp3_22050_32")
    assert 2 < sound.seconds < 9
    assert sound.loudness > MIN_LOUDNESS


async def test_the_offline_voice_reads_no_markup(server: ServerProcess, sandbox: SandboxProcess, alice: Member) -> None:
    plain = "Take the blue pill now, with a glass of water."
    marked = "**Take** the <b>blue</b> _pill_ `now`, with [a glass](https://example.org/water) of ***water***."
    sandbox.fault(kind="error", preset="invalid_api_key")
    lengths = []
    async with Device(server.ws, alice.token, format="mp3_22050_32") as device:
        await device.start(greeting=False)
        for number, text in enumerate((plain, marked)):
            async with instant_playback(device, f"s{number}"):
                spoken = await device.speak(text, id=f"s{number}")
            lengths.append(decode(spoken.audio, "mp3_22050_32").seconds)
    assert lengths[1] == pytest.approx(lengths[0], rel=0.05)


async def test_speech_starts_early_in_5000_characters_without_a_sentence_end(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        await device.start_speech("long", ("and then we went on " * 250)[:5000])
        assert len(sandbox.requests()[0]["text"]) <= 310
        await device.interrupt()
        assert (await device.wait_for("long")).terminal["type"] == "speech.interrupted"
