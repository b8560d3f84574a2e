"""Recordings are uploaded and judged all the time, and nobody who is spoken to has to wait for that."""

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
UPLOADS_AT_ONCE = 2
JUDGED = 4
SECONDS = 180
TIMES = 1.5  # what live speech may take beside uploads, of what it takes alone


@pytest.fixture(scope="module")
def noisy() -> bytes:
    """Three minutes, 6 MB, that are refused when all has been judged: nothing is stored, and the next may come."""
    voice = recordings.speech(SECONDS, rate=16000)
    return recordings.encoded(recordings.mixed(voice, recordings.white(len(voice)), 5), "pcm_s16le", 16000)


@pytest.fixture
def carol(alice: Member) -> Clinician:
    return clinician("carol", alice.patient)


async def heard_after(device: Device, *, name: str, until: Callable[[], bool]) -> float:
    """Seconds from a text to its first sound: nine of ten came sooner. At least SPEECHES, and on `until` that is so."""
    waited: list[float] = []
    while len(waited) < SPEECHES or not until():
        text = f"This is {name}, turn {len(waited)}: how did you sleep last night, my dear?"
        spoken = await device.speak(text)
        assert spoken.frames[0]["source"] == "live"
        assert spoken.first_audio_s is not None
        waited.append(spoken.first_audio_s)
    return quantiles(waited, n=10)[-1]


@asynccontextmanager
async def uploading(server: ServerProcess, carol: Clinician, member: Member, noisy: bytes) -> AsyncIterator[list[str]]:
    """Several at a time, one after the other; how each was refused."""
    refused: list[str] = []
    url = f"{server.url}/api/v1/patients/{member.patient.pk}/clones/"

    async def upload(http: aiohttp.ClientSession) -> None:
        while True:
            form = aiohttp.FormData({"name": "Anna", "consent": "true", "consent_by": "Anna Archer"})
            form.add_field("sample", noisy, filename="anna.wav", content_type="audio/wav")
            async with http.post(url, data=form) as reply:
                refused.append((await reply.json())["code"])

    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {carol.token}"}) as http:
        uploads = [asyncio.create_task(upload(http)) for _ in range(UPLOADS_AT_ONCE)]
        try:
            yield refused
        finally:
            for task in uploads:
                task.cancel()
            await asyncio.wait(uploads)


@pytest.mark.timed
@pytest.mark.timeout(180)
async def test_live_speech_is_not_held_up_by_recordings_that_are_judged(
    own_server: Callable[..., ServerProcess], alice: Member, carol: Clinician, noisy: bytes
) -> None:
    server = own_server(DEVICE_CHARACTERS_PER_MINUTE=1_000_000)
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        alone = await heard_after(device, name="alone", until=lambda: True)
        async with uploading(server, carol, alice, noisy) as refused:
            beside = await heard_after(device, name="beside", until=lambda: len(refused) >= JUDGED)
        await device.end()
    print(
        f"\nfirst sound alone {alone * 1000:.0f} ms, beside uploads {beside * 1000:.0f} ms, {len(refused)} were judged"
    )
    assert set(refused) == {"too_noisy"}
    assert beside < alone * TIMES
