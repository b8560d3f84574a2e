"""Direct requests to the sandbox. They show independently which audio a device should have received."""

import asyncio
import json
import urllib.error
import urllib.request
from typing import Any

import aiohttp

from tests.sandbox import SandboxProcess
from tests.sound import decode
from voicecare.audio.ogg import StreamJoiner

Record = dict[str, Any]


def repeat_request(sandbox: SandboxProcess, record: Record, output_format: str | None = None) -> bytes:
    """Repeat a recorded speech request, in its own format or another. The repeat is billed and recorded, too."""
    body = {name: record[name] for name in ("text", "model_id", "language_code", "voice_settings")}
    url = f"{sandbox.url}{record['path']}?output_format={output_format or record['output_format']}"
    headers = {"Content-Type": "application/json", "xi-api-key": "direct"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers, method="POST")
    with urllib.request.urlopen(request, timeout=20) as reply:
        return reply.read()


async def repeat_requests(sandbox: SandboxProcess, records: list[Record], output_format: str | None = None) -> bytes:
    parts = [await asyncio.to_thread(repeat_request, sandbox, record, output_format) for record in records]
    return b"".join(parts)


async def assert_sounds_like_requests(
    audio: bytes, sandbox: SandboxProcess, records: list[Record], output_format: str
) -> None:
    """Assert that the audio is what the sandbox answers to these requests. Of Opus, only the pages may differ."""
    expected = await repeat_requests(sandbox, records)
    if not output_format.startswith("opus"):
        assert audio == expected
        return
    joiner = StreamJoiner()
    joined = joiner.feed(expected) + joiner.finish()
    assert (decode(audio, output_format).samples == decode(joined, output_format).samples).all()


async def clone_voice(sandbox: SandboxProcess) -> str:
    """Create a cloned voice in the sandbox and return its id."""
    form = aiohttp.FormData()
    form.add_field("name", "vc-test")
    form.add_field("files", b"RIFF" + bytes(64), filename="sample.wav", content_type="audio/wav")
    headers = {"xi-api-key": "direct"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(f"{sandbox.url}/v1/voices/add", data=form) as reply,
    ):
        assert reply.status == 200, await reply.text()
        voice_id: str = (await reply.json())["voice_id"]
        return voice_id


async def delete_voice(sandbox: SandboxProcess, voice_id: str) -> None:
    async with (
        aiohttp.ClientSession(headers={"xi-api-key": "direct"}) as session,
        session.delete(f"{sandbox.url}/v1/voices/{voice_id}") as reply,
    ):
        assert reply.status == 200, await reply.text()
