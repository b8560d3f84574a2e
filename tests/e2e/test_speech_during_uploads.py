"""Uploads and inspections of recordings do not delay live speech."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from statistics import quantiles

import aiohttp
import pytest

from tests.clinicians import Clinician, clinician
from tests.cloning.samples import recordings
from tests.conftest import Member
from tests.e2e.device import Device
from tests.server import ServerProcess

SPEECHES = 15
PARALLEL_UPLOADS = 2
MIN_INSPECTIONS = 4
SECONDS = 180
MAX_SLOWDOWN = 1.5  # allowed latency during uploads, relative to the latency without uploads


@pytest.fixture(scope="module")
def noisy_recording() -> bytes:
    """Three minutes, 6 MB. It is refused after the whole inspection, so nothing is stored and it can be sent again."""
    voice = recordings.speech(SECONDS, rate=16000)
    return recordings.encoded(recordings.mixed(voice, recordings.white(len(voice)), 5), "pcm_s16le", 16000)


@pytest.fixture
def carol(alice: Member) -> Clinician:
    return clinician("carol", alice.patient)


async def latency_p90(device: Device, *, name: str, until: Callable[[], bool]) -> float:
    """The 90th percentile of the time to first audio, in seconds.

    Speaks SPEECHES texts, and continues until `until` returns true.
    """
    latencies: list[float] = []
    while len(latencies) < SPEECHES or not until():
        text = f"This is {name}, turn {len(latencies)}: how did you sleep last night, my dear?"
        spoken = await device.speak(text)
        assert spoken.frames[0]["source"] == "live"
        assert spoken.first_audio_s is not None
        latencies.append(spoken.first_audio_s)
    return quantiles(latencies, n=10)[-1]


@asynccontextmanager
async def uploading(
    server: ServerProcess, carol: Clinician, member: Member, noisy_recording: bytes
) -> AsyncIterator[list[str]]:
    """Uploads the recording repeatedly, several in parallel. Yields the list of refusal codes."""
    refused: list[str] = []
    url = f"{server.url}/api/v1/patients/{member.patient.pk}/clones/"

    async def upload(http: aiohttp.ClientSession) -> None:
        while True:
            form = aiohttp.FormData({"name": "Anna", "consent": "true", "consent_by": "Anna Archer"})
            form.add_field("sample", noisy_recording, filename="anna.wav", content_type="audio/wav")
            async with http.post(url, data=form) as reply:
                refused.append((await reply.json())["code"])

    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {carol.token}"}) as http:
        uploads = [asyncio.create_task(upload(http)) for _ in range(PARALLEL_UPLOADS)]
        try:
            yield refused
        finally:
            for task in uploads:
                task.cancel()
            await asyncio.wait(uploads)


@pytest.mark.timed
@pytest.mark.timeout(180)
async def test_live_speech_is_not_delayed_by_inspections_of_recordings(
    own_server: Callable[..., ServerProcess], alice: Member, carol: Clinician, noisy_recording: bytes
) -> None:
    server = own_server(DEVICE_CHARACTERS_PER_MINUTE=1_000_000)
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        alone = await latency_p90(device, name="alone", until=lambda: True)
        async with uploading(server, carol, alice, noisy_recording) as refused:
            during_uploads = await latency_p90(device, name="busy", until=lambda: len(refused) >= MIN_INSPECTIONS)
        await device.end()
    print(
        f"\ntime to first audio: {alone * 1000:.0f} ms alone, {during_uploads * 1000:.0f} ms during uploads, "
        f"{len(refused)} inspections"
    )
    assert set(refused) == {"too_noisy"}
    assert during_uploads < alone * MAX_SLOWDOWN
