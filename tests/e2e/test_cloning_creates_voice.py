"""The owner's test by name: a recording is sent over REST, a real worker makes the voice, and the next conversation
speaks in it. Its withdrawal takes it away again.
"""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.clinicians import Clinician, clinician
from tests.cloning import at_provider
from tests.cloning.samples import recordings
from tests.conftest import Member, database_url
from tests.e2e.device import Device
from tests.sandbox import SandboxProcess
from tests.server import ROOT, ServerProcess, environment
from tests.waiting import eventually
from voicecare.patients.models import Patient

MADE_WITHIN_S = 60.0  # a withdrawal that finds sound left looks again after 15 s
SWEEP_EVERY_S = 5.0
SENTENCE = "This is said in the voice of the daughter, as soon as there is one."
WORKER = (
    "worker",
    "--loglevel",
    "INFO",
    "--pool",
    "solo",
    "--without-gossip",
    "--without-mingle",
    "--without-heartbeat",
    "--purge",
)


@pytest.fixture(scope="module")
def recording() -> bytes:
    return recordings.encoded(recordings.speech(65), "libmp3lame")


@pytest.fixture
def web(own_server: Callable[..., ServerProcess]) -> ServerProcess:
    """A server with a data directory of its own: its broker, and where recordings are kept."""
    return own_server()


def beside(web: ServerProcess, sandbox: SandboxProcess) -> dict[str, str]:
    """The environment of a process that shares the server's database, broker and files."""
    env = environment(DATABASE_URL=database_url(), ELEVENLABS_BASE_URL=sandbox.url, VOICECARE_DATA_DIR=web.data_dir)
    return {**os.environ, **env}


@pytest.fixture
def worker(web: ServerProcess, sandbox: SandboxProcess) -> Iterator["subprocess.Popen[bytes]"]:
    """Celery as in production, on the broker of that server."""
    command = [sys.executable, "-m", "celery", "-q", "-A", "voicecare", *WORKER]
    with (web.data_dir / "worker.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=beside(web, sandbox), stdout=log, stderr=log)
    until_ready(process, web.data_dir / "worker.log")
    yield process
    process.terminate()
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def until_ready(worker: "subprocess.Popen[bytes]", log: Path) -> None:
    """What it finds waiting when it starts is of other tests, and purged."""
    deadline = time.monotonic() + 60
    while " ready." not in log.read_text(errors="replace"):
        if worker.poll() is not None or time.monotonic() > deadline:
            worker.kill()
            raise RuntimeError(log.read_text(errors="replace")[-3000:])
        time.sleep(0.05)


@pytest.fixture
def carol(alice: Member) -> Clinician:
    return clinician("carol", alice.patient)


class Api:
    """`sweep` tells the worker to do what beat has it do."""

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
        key: str = accepted["id"]
        return key

    async def until(self, clone: str, status: str) -> dict[str, Any]:
        shown: dict[str, Any] = {}
        swept_at = time.monotonic()

        async def reached() -> bool:
            nonlocal swept_at
            if time.monotonic() - swept_at > SWEEP_EVERY_S:  # what did not succeed at once is tried again
                swept_at = time.monotonic()
                await asyncio.to_thread(self._sweep)
            shown.update(await self.call("GET", f"clones/{clone}/", 200))
            return shown["status"] == status

        await eventually(reached, MADE_WITHIN_S)
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
    sweep = partial(subprocess.run, command, cwd=ROOT, env=beside(web, sandbox), check=True)
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {carol.token}"}) as http:
        yield Api(http, web.url, sweep)


async def conversation(web: ServerProcess, member: Member) -> dict[str, Any]:
    """One in which a sentence is said; how it began."""
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
    assert (await conversation(web, alice))["voice"]["source"] == "selected"
    clone = await api.upload(alice.patient, recording)
    made = await api.until(clone, "ready")
    assert made["error"] is None
    assert 64 < made["report"]["duration_s"] < 66
    (there,) = await asyncio.to_thread(at_provider.clones, sandbox)
    assert there["name"] == f"vc-{clone}"

    started = await conversation(web, alice)
    assert started["voice"] == {"id": made["voice"], "name": "Anna", "source": "cloned"}
    assert sandbox.requests()[-1]["voice_id"] == there["voice_id"]
    preview = await api.call("GET", made["preview"].removeprefix("/api/v1/"), 200)
    assert len(preview) > 10_000

    await api.call("DELETE", f"clones/{clone}/", 202)
    assert (await conversation(web, alice))["voice"]["source"] == "default"
    await api.until(clone, "withdrawn")
    assert await asyncio.to_thread(at_provider.clones, sandbox) == []
    assert list((web.log.parent / "samples").glob("*")) == []


async def test_an_upload_that_breaks_off_leaves_nothing(
    web: ServerProcess, api: Api, alice: Member, carol: Clinician, recording: bytes
) -> None:
    """Half of a body, and the connection is closed."""
    path = f"/api/v1/patients/{alice.patient.pk}/clones/"
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{web.port}\r\nAuthorization: Bearer {carol.token}\r\n"
        f"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: {len(recording)}\r\n\r\n"
    )
    begun = b'--x\r\nContent-Disposition: form-data; name="sample"; filename="a.mp3"\r\n\r\n' + recording[:100_000]
    for _ in range(3):
        _, writer = await asyncio.open_connection("127.0.0.1", web.port)
        writer.write(head.encode() + begun)
        await writer.drain()
        writer.transport.abort()
    await asyncio.sleep(0.5)
    assert (await api.call("GET", f"patients/{alice.patient.pk}/clones/", 200))["results"] == []
    assert "rest.failed" not in web.logged()
    assert os.listdir(web.log.parent).count("samples") == 0


async def in_pieces(sample: bytes, times: int = 1) -> AsyncIterator[bytes]:
    """A form whose length nobody says; the recording `times` over."""
    for name, value in {"name": "Anna", "consent": "true", "consent_by": "Anna Archer"}.items():
        yield f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
    yield b'--x\r\nContent-Disposition: form-data; name="sample"; filename="a.mp3"\r\n\r\n'
    for _ in range(times):
        yield sample
    yield b"\r\n--x--\r\n"


async def test_an_upload_without_a_length_is_taken_in_and_one_that_is_too_long_refused(
    api: Api, alice: Member, recording: bytes
) -> None:
    path, headers = f"patients/{alice.patient.pk}/clones/", {"Content-Type": "multipart/form-data; boundary=x"}
    times = 11_000_000 // len(recording)
    refused = await api.call("POST", path, 413, data=in_pieces(recording, times), headers=headers)
    assert refused["code"] == "too_large"
    accepted = await api.call("POST", path, 202, data=in_pieces(recording), headers=headers)
    assert [row["id"] for row in (await api.call("GET", path, 200))["results"]] == [accepted["id"]]
