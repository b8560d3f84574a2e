"""A recording is uploaded over REST, a real worker creates the voice, and the next conversation uses it.

After the withdrawal the voice is not used again and all of its data is removed.
"""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import aiohttp
import pytest

from tests.clinicians import Clinician, clinician
from tests.cloning import at_provider
from tests.cloning.samples import recordings
from tests.conftest import Member
from tests.e2e.device import Device
from tests.e2e.worker import process_environment
from tests.sandbox import SandboxProcess
from tests.server import ROOT, ServerProcess
from tests.waiting import eventually
from voicecare.patients.models import Patient

CLONE_TIMEOUT_S = 60.0  # a withdrawal that still finds cached speech is repeated after 15 s
SWEEP_INTERVAL_S = 5.0
SENTENCE = "This is said in the voice of the daughter, as soon as there is one."


@pytest.fixture(scope="module")
def recording() -> bytes:
    return recordings.encoded(recordings.speech(65), "libmp3lame")


@pytest.fixture
def carol(alice: Member) -> Clinician:
    return clinician("carol", alice.patient)


class Api:
    """A REST client. `sweep` enqueues the task that Celery beat normally enqueues."""

    def __init__(self, http: aiohttp.ClientSession, url: str, sweep: Callable[[], object]) -> None:
        self._http = http
        self._url = f"{url}/api/v1/"
        self._sweep = sweep

    async def call(self, method: str, path: str, status: int, **request: Any) -> Any:
        async with self._http.request(method, self._url + path, **request) as reply:
            assert reply.status == status, await reply.text()
            return await reply.json() if reply.content_type == "application/json" else await reply.read()

    async def upload(self, patient: Patient, recording: bytes) -> str:
        form = aiohttp.FormData()
        for name, value in {"name": "Anna", "consent": "true", "consent_by": "Anna Archer"}.items():
            form.add_field(name, value)
        form.add_field("sample", recording, filename="anna.mp3", content_type="audio/mpeg")
        accepted = await self.call("POST", f"patients/{patient.pk}/clones/", 202, data=form)
        assert accepted["status"] == "pending"
        clone_id: str = accepted["id"]
        return clone_id

    async def until(self, clone: str, status: str) -> dict[str, Any]:
        shown: dict[str, Any] = {}
        swept_at = time.monotonic()

        async def reached() -> bool:
            nonlocal swept_at
            if time.monotonic() - swept_at > SWEEP_INTERVAL_S:  # repeats what has not succeeded yet
                swept_at = time.monotonic()
                await asyncio.to_thread(self._sweep)
            shown.update(await self.call("GET", f"clones/{clone}/", 200))
            return shown["status"] == status

        await eventually(reached, CLONE_TIMEOUT_S)
        return shown


@pytest.fixture
async def api(web: ServerProcess, sandbox: SandboxProcess, carol: Clinician) -> AsyncIterator[Api]:
    command = [
        sys.executable,
        "manage.py",
        "shell",
        "-c",
        "from voicecare.core import task_queue; task_queue.enqueue_on_commit('cloning.sweep')",
    ]
    sweep = partial(subprocess.run, command, cwd=ROOT, env=process_environment(web, sandbox), check=True)
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {carol.token}"}) as http:
        yield Api(http, web.url, sweep)


async def speak_in_conversation(web: ServerProcess, member: Member) -> dict[str, Any]:
    """Speaks one sentence in a new conversation. Returns its `conversation.started` message."""
    async with Device(web.ws, member.token) as device:
        started: dict[str, Any] = await device.start(greeting=False)
        spoken = await device.speak(SENTENCE)
        assert spoken.terminal["source"] == "live"
        await device.end()
        return started


@pytest.mark.timeout(180)
async def test_cloning_creates_voice(
    web: ServerProcess,
    worker: "subprocess.Popen[bytes]",
    api: Api,
    alice: Member,
    sandbox: SandboxProcess,
    recording: bytes,
) -> None:
    assert (await speak_in_conversation(web, alice))["voice"]["source"] == "selected"
    clone = await api.upload(alice.patient, recording)
    ready = await api.until(clone, "ready")
    assert ready["error"] is None
    assert 64 < ready["report"]["duration_s"] < 66
    (provider_voice,) = await asyncio.to_thread(at_provider.clones, sandbox)
    assert provider_voice["name"] == f"vc-{clone}"

    started = await speak_in_conversation(web, alice)
    assert started["voice"] == {"id": ready["voice"], "name": "Anna", "source": "cloned"}
    assert sandbox.requests()[-1]["voice_id"] == provider_voice["voice_id"]
    preview = await api.call("GET", ready["preview"].removeprefix("/api/v1/"), 200)
    assert len(preview) > 10_000

    await api.call("DELETE", f"clones/{clone}/", 202)
    assert (await speak_in_conversation(web, alice))["voice"]["source"] == "default"
    await api.until(clone, "withdrawn")
    assert await asyncio.to_thread(at_provider.clones, sandbox) == []
    assert list((web.log.parent / "samples").glob("*")) == []


async def test_an_interrupted_upload_leaves_nothing(
    web: ServerProcess, api: Api, alice: Member, carol: Clinician, recording: bytes
) -> None:
    """The connection is closed after a part of the body."""
    path = f"/api/v1/patients/{alice.patient.pk}/clones/"
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{web.port}\r\nAuthorization: Bearer {carol.token}\r\n"
        f"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: {len(recording)}\r\n\r\n"
    )
    partial_body = (
        b'--x\r\nContent-Disposition: form-data; name="sample"; filename="a.mp3"\r\n\r\n' + recording[:100_000]
    )
    for _ in range(3):
        _, writer = await asyncio.open_connection("127.0.0.1", web.port)
        writer.write(head.encode() + partial_body)
        await writer.drain()
        writer.transport.abort()
    await asyncio.sleep(0.5)
    assert (await api.call("GET", f"patients/{alice.patient.pk}/clones/", 200))["results"] == []
    assert "rest.failed" not in web.logged()
    assert os.listdir(web.log.parent).count("samples") == 0


async def chunked_form(sample: bytes, copies: int = 1) -> AsyncIterator[bytes]:
    """A form without a content length. It contains the recording `copies` times."""
    for name, value in {"name": "Anna", "consent": "true", "consent_by": "Anna Archer"}.items():
        yield f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
    yield b'--x\r\nContent-Disposition: form-data; name="sample"; filename="a.mp3"\r\n\r\n'
    for _ in range(copies):
        yield sample
    yield b"\r\n--x--\r\n"


async def test_an_upload_without_a_content_length_is_accepted_unless_it_is_too_large(
    api: Api, alice: Member, recording: bytes
) -> None:
    path, headers = f"patients/{alice.patient.pk}/clones/", {"Content-Type": "multipart/form-data; boundary=x"}
    copies = 11_000_000 // len(recording)
    refused = await api.call("POST", path, 413, data=chunked_form(recording, copies), headers=headers)
    assert refused["code"] == "too_large"
    accepted = await api.call("POST", path, 202, data=chunked_form(recording), headers=headers)
    assert [row["id"] for row in (await api.call("GET", path, 200))["results"]] == [accepted["id"]]
