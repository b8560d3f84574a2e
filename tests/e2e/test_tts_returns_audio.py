"""A text of a device comes back as audio, in each format, and is counted once."""

import pytest

from tests.conftest import Member
from tests.e2e.device import Device, spoken_order
from tests.e2e.provider import assert_sounds_like_requests, repeat_requests
from tests.e2e.rows import accounts_of
from tests.sandbox import SandboxProcess
from tests.server import ServerProcess
from tests.sound import MIN_LOUDNESS, decode
from voicecare.audio.formats import DEVICE_FORMATS

SENTENCES = "Good morning, Alice, it is Tuesday and the sun is shining. Your daughter wrote a letter, shall I read it?"
MP3_PADDING_S = 0.15  # for each stream: the encoder's delay and the padding of its last frame


def check_frames(device: Device) -> None:
    assert device.types() == [
        "conversation.started",
        "speech.started",
        "speech.finished",
        "conversation.ended",
    ]
    assert spoken_order(device.received) == ["morning"]
    assert [type(frame) for frame in device.received[1:-2]] == [dict, *[bytes] * (len(device.received) - 4)]


@pytest.mark.parametrize("format_name", DEVICE_FORMATS)
async def test_a_text_comes_back_as_audio(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member, format_name: str
) -> None:
    async with Device(server.ws, alice.token, format=format_name) as device:
        started = await device.start(greeting=False)
        spoken = await device.speak(SENTENCES, id="morning")
        ended = await device.end()

    check_frames(device)
    announced, finished = spoken.frames
    voice = started["voice"]["name"]
    assert announced == {
        "type": "speech.started",
        "id": "morning",
        "source": "live",
        "voice": voice,
        "format": format_name,
    }
    assert finished == {
        "type": "speech.finished",
        "id": "morning",
        "source": "live",
        "characters": len(SENTENCES),
        "bytes": len(spoken.audio),
        "first_chunk_ms": finished["first_chunk_ms"],
    }
    assert spoken.first_audio_s is not None
    assert 100 <= finished["first_chunk_ms"] <= spoken.first_audio_s * 1000 + 5

    requests, account = sandbox.requests(), sandbox.account()
    assert "".join(request["text"] for request in requests) == SENTENCES
    assert len(requests) == 2  # one request for each sentence
    assert {request["voice_id"] for request in requests} == {alice.patient.voice.provider_id}
    assert {request["output_format"] for request in requests} == {format_name}
    if not format_name.startswith("opus"):  # whose streams are joined
        assert sum(request["bytes_sent"] for request in requests) == len(spoken.audio)
    await assert_sounds_like_requests(spoken.audio, sandbox, requests, format_name)

    accounts = await accounts_of(started["conversation"])
    assert ended == {
        "type": "conversation.ended",
        "conversation": started["conversation"],
        "characters": len(SENTENCES),
    }
    assert accounts.counter == accounts.ledger == account["characters"] == len(SENTENCES)
    assert sum(event.credits for event in accounts.events) == account["credits"]
    assert [event.request_id for event in accounts.events] == [request["request_id"] for request in requests]
    assert accounts.conversation.ended_at is not None
    utterance = accounts.utterance("morning")
    assert (utterance.state, utterance.source, utterance.text) == ("spoken", "live", SENTENCES)
    assert (utterance.characters, utterance.bytes_sent) == (len(SENTENCES), len(spoken.audio))

    reference = decode(await repeat_requests(sandbox, requests, "pcm_24000"), "pcm_24000")
    sound = decode(spoken.audio, format_name)
    padding = len(requests) * {"mp3": MP3_PADDING_S, "opu": 0.03}.get(format_name[:3], 0.01)
    assert sound.seconds > 1
    assert reference.seconds - 0.01 <= sound.seconds <= reference.seconds + padding
    assert sound.loudness > MIN_LOUDNESS


async def test_audio_is_sent_in_pieces_while_the_provider_is_still_sending(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    sandbox.fault(kind="slow", bytes_per_s=40_000)
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        await device.start_speech("slow", "This sentence is spoken slowly, so that it is still going on.")
        assert sandbox.requests()[0]["outcome"] == "open"
        spoken = await device.wait_for("slow")
    assert len(spoken.chunks) > 10
    assert spoken.audio == await repeat_requests(sandbox, sandbox.requests())
