"""Speech of the sandbox: real audio in every format, with the provider's checks, headers and timing."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import numpy as np
import pytest

from tests.openapi import validate_schema
from tests.sandbox import SandboxProcess
from tests.sound import decode
from voicecare.audio.formats import FORMATS

RACHEL = "21m00Tcm4TlvDq8ikWAM"
ADAM = "pNInz6obpgDQGcFmaJgB"
FLASH = "eleven_flash_v2_5"
TEXT = "Good morning. It is time for your medicine, please drink a glass of water."
STREAMED = [name for name in FORMATS if not name.startswith("wav_")]


class Caller:
    """A client with a key. `speak` returns status, headers and body."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.session = session
        self.url = url

    async def speak(
        self, text: Any = TEXT, *, voice: str = RACHEL, path: str = "/stream", query: str = "", **fields: Any
    ) -> tuple[int, Any, bytes]:
        body = {"text": text, "model_id": FLASH, **fields}
        return await self.post(f"/v1/text-to-speech/{voice}{path}?{query}", json=body)

    async def post(self, path: str, **arguments: Any) -> tuple[int, Any, bytes]:
        async with self.session.post(self.url + path, **arguments) as reply:
            return reply.status, reply.headers, await reply.read()


@pytest.fixture
async def caller(sandbox: SandboxProcess) -> AsyncIterator[Caller]:
    sandbox.settings(first_byte_ms=0)
    async with aiohttp.ClientSession(headers={"xi-api-key": "any"}) as session:
        yield Caller(session, sandbox.url)


@pytest.mark.parametrize("format_name", STREAMED)
async def test_speech_is_streamed_in_each_format(caller: Caller, format_name: str) -> None:
    status, headers, audio = await caller.speak(query=f"output_format={format_name}")
    assert status == 200
    assert headers["Content-Type"] == FORMATS[format_name].mime
    assert headers["Transfer-Encoding"] == "chunked"
    assert 3 < decode(audio, format_name).seconds < 8
    assert decode(audio, format_name).loudness > 0.01
    assert 3 < len(audio) / FORMATS[format_name].bytes_per_second < 9


@pytest.mark.parametrize("format_name", ["mp3_44100_128", "wav_22050", "pcm_16000"])
async def test_a_complete_response_has_a_content_length(caller: Caller, format_name: str) -> None:
    status, headers, audio = await caller.speak(path="", query=f"output_format={format_name}")
    assert status == 200
    assert int(headers["Content-Length"]) == len(audio)
    assert 3 < decode(audio, format_name).seconds < 8


async def test_the_audio_depends_on_the_voice_only(caller: Caller) -> None:
    first, again, other = [(await caller.speak(voice=voice))[2] for voice in (RACHEL, RACHEL, ADAM)]
    assert first == again
    assert first != other
    assert abs(pitch_hz(first) - pitch_hz(other)) > 20


def pitch_hz(audio: bytes) -> float:
    """The frequency with the strongest autocorrelation between 70 and 350 Hz."""
    sound = decode(audio, "mp3_44100_128")
    samples, rate = sound.samples, sound.rate
    spectrum = np.abs(np.fft.rfft(samples, 2 * len(samples))) ** 2
    echo = np.fft.irfft(spectrum)
    lags = slice(rate // 350, rate // 70)
    return rate / (int(np.argmax(echo[lags])) + rate // 350)


async def test_speed_and_language_change_the_audio(caller: Caller) -> None:
    slow, fast = [
        decode((await caller.speak(voice_settings={"speed": speed}))[2], "mp3_44100_128").seconds
        for speed in (0.7, 1.2)
    ]
    assert slow > 1.3 * fast
    assert (await caller.speak(language_code="de"))[2] != (await caller.speak())[2]


async def test_a_language_that_the_model_does_not_list_is_ignored_or_refused(
    caller: Caller, sandbox: SandboxProcess
) -> None:
    assert (await caller.speak(language_code="nb"))[0] == 200
    sandbox.settings(strict_language=True)
    assert (await caller.speak(language_code="no"))[0] == 200
    status, _, body = await caller.speak(language_code="nb")
    detail = json.loads(body)["detail"]
    assert (status, detail["code"], detail["param"]) == (400, "unsupported_language", "language_code")


async def test_the_headers_of_a_response(caller: Caller, sandbox: SandboxProcess) -> None:
    _, headers, _ = await caller.speak("12345")
    assert headers["character-cost"] == "3"  # half a credit per character, rounded up
    assert len(headers["request-id"]) == len(headers["history-item-id"]) == 20
    assert headers["current-concurrent-requests"] == "1"
    assert headers["maximum-concurrent-requests"] == "10"
    assert headers["tts-latency-ms"].isdigit()
    assert len(headers["x-trace-id"]) == 32
    assert headers["x-region"] == "us-central1"
    assert sandbox.requests()[0]["request_id"] == headers["request-id"]


async def test_every_response_names_the_region(caller: Caller, sandbox: SandboxProcess) -> None:
    sandbox.settings(region="europe-west4")
    assert (await caller.speak())[1]["x-region"] == "europe-west4"
    sandbox.fault(kind="error", preset="internal_error")
    status, headers, _ = await caller.speak()
    assert (status, headers["x-region"]) == (500, "europe-west4")


async def test_query_parameters_of_the_provider(caller: Caller, sandbox: SandboxProcess) -> None:
    status, headers, _ = await caller.speak(query="enable_logging=false&optimize_streaming_latency=3")
    assert status == 200
    assert "history-item-id" not in headers
    assert sandbox.requests()[0]["enable_logging"] is False


async def test_complete_speech_with_timestamps(caller: Caller) -> None:
    status, headers, body = await caller.speak(path="/with-timestamps")
    assert (status, headers["Content-Type"]) == (200, "application/json")
    reply = validate_schema(json.loads(body), "AudioWithTimestampsResponseModel")
    alignment = reply["alignment"]
    duration = decode(base64.b64decode(reply["audio_base64"]), "mp3_44100_128").seconds
    assert "".join(alignment["characters"]) == TEXT
    assert alignment["character_start_times_seconds"][0] == 0
    assert alignment["character_end_times_seconds"][-1] == pytest.approx(duration, abs=0.1)
    assert alignment["character_start_times_seconds"][1:] == alignment["character_end_times_seconds"][:-1]


async def test_streamed_speech_with_timestamps(caller: Caller) -> None:
    _, _, body = await caller.speak(path="/stream/with-timestamps", query="output_format=pcm_22050")
    lines = [
        validate_schema(json.loads(line), "StreamingAudioChunkWithTimestampsResponseModel")
        for line in body.splitlines()
    ]
    assert len(lines) > 3
    alignments = [line["alignment"] for line in lines if line["alignment"]]
    assert "".join(character for alignment in alignments for character in alignment["characters"]) == TEXT
    audio = b"".join(base64.b64decode(line["audio_base64"]) for line in lines)
    assert alignments[-1]["character_end_times_seconds"][-1] == pytest.approx(len(audio) / 44100, abs=0.01)


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"voice": "nobody"}, 404, "voice_not_found"),
        ({"model_id": "eleven_nothing"}, 400, "model_not_found"),
        ({"query": "output_format=mp3_1_1"}, 400, "invalid_output_format"),
        ({"query": "output_format=wav_16000"}, 400, "invalid_output_format"),
        ({"voice_settings": {"stability": 1.1}}, 400, "invalid_voice_settings"),
        ({"voice_settings": {"speed": 0.5}}, 400, "invalid_voice_settings"),
        ({"text": ""}, 400, "empty_text"),
        ({"text": " \n"}, 400, "empty_text"),
        ({"text": "a" * 40_001}, 400, "text_too_long"),
        ({"text": "a" * 10_001, "model_id": "eleven_multilingual_v2"}, 400, "text_too_long"),
        ({"text": "\ud800"}, 400, "invalid_text"),
    ],
)
async def test_invalid_requests_are_rejected_as_by_the_provider(
    caller: Caller, sandbox: SandboxProcess, fields: dict[str, Any], status: int, code: str
) -> None:
    answered, _, body = await caller.speak(**fields)
    detail = json.loads(body)["detail"]
    assert (answered, detail.get("code", detail["status"])) == (status, code)
    request = sandbox.requests()[0]
    assert (request["status"], request["outcome"], request["billed"]) == (status, "failed", False)
    assert sandbox.account()["character_count"] == 0


@pytest.mark.parametrize(
    ("arguments", "place"),
    [
        ({"json": {}}, ["body", "text"]),
        ({"json": {"text": 5}}, ["body", "text"]),
        ({"json": {"text": None}}, ["body", "text"]),
        ({"json": []}, ["body"]),
        ({"data": b"{"}, ["body", 0]),
        ({"json": {"text": "a", "seed": "1"}}, ["body", "seed"]),
        ({"json": {"text": "a", "seed": True}}, ["body", "seed"]),
        ({"json": {"text": "a", "voice_settings": []}}, ["body", "voice_settings"]),
        ({"json": {"text": "a", "voice_settings": {"speed": "1"}}}, ["body", "voice_settings", "speed"]),
        ({"json": {"text": "a", "apply_text_normalization": "x"}}, ["body", "apply_text_normalization"]),
        ({"json": {"text": "a"}, "params": {"enable_logging": "perhaps"}}, ["query", "enable_logging"]),
        (
            {"json": {"text": "a"}, "params": {"optimize_streaming_latency": "5"}},
            ["query", "optimize_streaming_latency"],
        ),
    ],
)
async def test_a_malformed_request_gets_validation_errors(
    caller: Caller, arguments: dict[str, Any], place: list[str | int]
) -> None:
    status, _, body = await caller.post(f"/v1/text-to-speech/{RACHEL}/stream", **arguments)
    assert status == 422
    assert validate_schema(json.loads(body), "HTTPValidationError")["detail"][0]["loc"] == place


async def test_any_key_is_accepted_but_not_an_empty_one(caller: Caller) -> None:
    status, headers, body = await caller.post(
        f"/v1/text-to-speech/{RACHEL}/stream", json={"text": "a"}, headers={"xi-api-key": ""}
    )
    assert (status, json.loads(body)["detail"]["status"]) == (401, "needs_authorization")
    assert headers["x-trace-id"]


@pytest.mark.parametrize(
    ("method", "path", "status", "detail"),
    [("GET", "/v1/nothing", 404, "Not Found"), ("GET", "/v1/text-to-speech/a", 405, "Method Not Allowed")],
)
async def test_unknown_routes_get_plain_errors(
    caller: Caller, method: str, path: str, status: int, detail: str
) -> None:
    async with caller.session.request(method, caller.url + path) as reply:
        assert (reply.status, await reply.json()) == (status, {"detail": detail})


async def test_a_disconnected_client_is_detected_and_billed(caller: Caller, sandbox: SandboxProcess) -> None:
    sandbox.fault(kind="stall_middle", after_bytes=2000)
    async with caller.session.post(
        f"{caller.url}/v1/text-to-speech/{RACHEL}/stream", json={"text": TEXT, "model_id": FLASH}
    ) as reply:
        assert len(await reply.content.readexactly(2000)) == 2000
    request = (await asyncio.to_thread(sandbox.wait_until_idle))[0]
    assert (request["outcome"], request["bytes_sent"], request["billed"]) == ("cancelled", 2000, True)
    assert sandbox.account()["character_count"] == request["credits"] > 0


async def test_requests_are_recorded(caller: Caller, sandbox: SandboxProcess) -> None:
    await caller.speak("One.", query="output_format=pcm_8000", next_text="Two.")
    _, _, audio = await caller.speak("Two.", voice=ADAM, previous_text="One.", model_id="eleven_multilingual_v2")
    one, two = sandbox.requests()
    assert one["at"] < two["at"]
    assert (one["text"], one["next_text"], one["output_format"], one["credits"]) == ("One.", "Two.", "pcm_8000", 2)
    assert (two["voice_id"], two["previous_text"], two["model_id"]) == (ADAM, "One.", "eleven_multilingual_v2")
    assert (two["status"], two["outcome"], two["fault"], two["billed"]) == (200, "completed", None, True)
    assert (two["characters"], two["credits"], two["bytes_sent"]) == (4, 4, len(audio))


async def test_requests_over_the_limit_are_queued_or_rejected(caller: Caller, sandbox: SandboxProcess) -> None:
    sandbox.settings(concurrency=1, queue_limit=1)
    sandbox.fault(kind="stall_headers", seconds=0.5)
    replies = await asyncio.gather(*(caller.speak(f"Request number {number}.") for number in range(3)))
    assert sorted(status for status, _, _ in replies) == [200, 200, 429]
    assert sandbox.account()["in_flight"] == {"standard": 0, "turbo": 0}
    sandbox.settings(strict_concurrency=True)
    replies = await asyncio.gather(*(caller.speak(f"Request number {number}.") for number in range(2)))
    refused = next(body for status, _, body in replies if status == 429)
    assert json.loads(refused)["detail"]["status"] == "too_many_concurrent_requests"
    assert "maximum of 1 concurrent" in json.loads(refused)["detail"]["message"]


async def test_each_model_group_has_its_own_limit(caller: Caller, sandbox: SandboxProcess) -> None:
    sandbox.settings(concurrency=1, strict_concurrency=True)
    sandbox.fault(kind="stall_headers", seconds=0.3)
    replies = await asyncio.gather(caller.speak(), caller.speak(model_id="eleven_multilingual_v2"))
    assert [status for status, _, _ in replies] == [200, 200]


async def test_twenty_concurrent_requests_are_all_served(caller: Caller, sandbox: SandboxProcess) -> None:
    sandbox.settings(first_byte_ms=120)
    texts = [f"This is number {number}, and it is spoken to a patient of its own." for number in range(20)]
    replies = await asyncio.gather(*(caller.speak(text) for text in texts))
    assert {status for status, _, _ in replies} == {200}
    assert len({audio for _, _, audio in replies}) == 20
    assert {request["outcome"] for request in sandbox.requests()} == {"completed"}


async def test_the_first_byte_is_delayed_and_silent_text_gives_audio(caller: Caller, sandbox: SandboxProcess) -> None:
    sandbox.settings(first_byte_ms=150)
    _, headers, audio = await caller.speak("...")
    assert int(headers["tts-latency-ms"]) >= 150
    assert decode(audio, "mp3_44100_128").seconds > 0


# Models of 2026

V3, V4 = "eleven_v3", "eleven_v4_turbo"


def dialogue(*texts: str, voice: str = RACHEL, **fields: Any) -> dict[str, Any]:
    return {"inputs": [{"text": text, "voice_id": voice} for text in texts], "model_id": V4, **fields}


async def test_a_dialogue_is_spoken_and_billed_like_speech(caller: Caller, sandbox: SandboxProcess) -> None:
    status, headers, audio = await caller.post(
        "/v1/text-to-dialogue/stream?output_format=pcm_16000", json=dialogue(TEXT, "Bye.")
    )
    assert status == 200
    assert 3 < decode(audio, "pcm_16000").seconds < 9
    assert int(headers["character-cost"]) == -(-len(f"{TEXT} Bye.") // 2)
    [record] = sandbox.requests()
    assert (record["voice_id"], record["model_id"], record["billed"]) == (RACHEL, V4, True)


@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        ({}, 422, "inputs"),
        ({"inputs": []}, 422, "too_short"),
        ({"inputs": ["x"]}, 422, "text"),
        ({"inputs": [{"text": "a"}]}, 422, "voice_id"),
        (dialogue("a", voice="nobody"), 404, "voice_not_found"),
        (dialogue("a", model_id=FLASH), 400, "unsupported_model"),
        (dialogue("x" * 10_001), 400, "text_too_long"),
    ],
)
async def test_a_wrong_dialogue_is_refused(caller: Caller, body: object, status: int, word: str) -> None:
    got, _, reply = await caller.post("/v1/text-to-dialogue/stream", json=body)
    assert (got, word in reply.decode()) == (status, True)


@pytest.mark.parametrize(
    ("accepted", "speech", "dialogue_status"), [("dialogue", 400, 200), ("speech", 200, 400), ("both", 200, 200)]
)
async def test_the_endpoint_of_the_newer_models_can_be_chosen(
    caller: Caller, sandbox: SandboxProcess, accepted: str, speech: int, dialogue_status: int
) -> None:
    sandbox.settings(newer_models=accepted)
    assert (await caller.speak(model_id=V4))[0] == speech
    assert (await caller.post("/v1/text-to-dialogue/stream", json=dialogue("Hello.")))[0] == dialogue_status
    assert (await caller.speak(model_id=V3))[0] == 200


async def test_v3_refuses_neighbour_text(caller: Caller, sandbox: SandboxProcess) -> None:
    sandbox.settings(newer_models="speech")
    assert (await caller.speak(model_id=V3, previous_text="Before."))[0] == 400
    assert (await caller.speak(model_id=V4, previous_text="Before."))[0] == 200


async def test_a_tag_is_performed_by_some_models_and_read_aloud_by_others(
    caller: Caller, sandbox: SandboxProcess
) -> None:
    sandbox.settings(newer_models="speech")
    seconds = {}
    for model in (FLASH, V3, V4):
        for text in ("[sigh] Yes.", "Yes."):
            _, _, audio = await caller.speak(text, model_id=model, query="output_format=pcm_16000")
            seconds[model, text] = decode(audio, "pcm_16000").seconds
    assert seconds[FLASH, "Yes."] == seconds[V3, "Yes."] == seconds[V4, "Yes."]
    assert seconds[FLASH, "Yes."] + 0.2 < seconds[FLASH, "[sigh] Yes."] < seconds[V3, "[sigh] Yes."] - 0.4
    assert seconds[V3, "[sigh] Yes."] == seconds[V4, "[sigh] Yes."]


async def test_an_expressive_model_has_no_speech_rate(caller: Caller) -> None:
    slow, normal = [(await caller.speak(model_id=V3, voice_settings={"speed": rate}))[2] for rate in (0.7, 1.0)]
    assert slow == normal
