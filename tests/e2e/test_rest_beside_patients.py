"""Speech for clinicians beside patients: it delays no patient, and clients that do not read cost little."""

import asyncio
import json
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

from tests.clinicians import Clinician, clinician
from tests.conftest import Member
from tests.e2e.device import Device
from tests.e2e.rows import in_database
from tests.sandbox import SandboxProcess
from tests.server import ServerProcess
from tests.services import RedisProcess
from tests.waiting import eventually
from tts.models import Phrase
from tts.synthesis.response_speeches import MAX_SPEECHES_PER_USER
from usage.models import UsageEvent
from voicecare.patients.models import Voice

LIMIT = 4
PROMPT_S = 2.0  # less than a sentence of the slow provider takes
RATE = 40_000  # bytes per second of a slow provider; a sentence takes two to three seconds
LONG = " ".join(f"This is sentence number {n} of a text that takes quite a while to say." for n in range(12))
ENDLESS = " ".join(f"Sentence {n} is part of a text of nearly five thousand characters." for n in range(74))
MEGABYTE = 1024 * 1024

OwnServer = Callable[..., ServerProcess]


@pytest.fixture
def carol(alice: Member, bob: Member) -> Clinician:
    return clinician("carol", alice.patient)


@pytest.fixture
def dave(alice: Member, bob: Member) -> Clinician:
    return clinician("dave", alice.patient)


async def speak(url: str, user: Clinician, text: str, **body: Any) -> tuple[int, str]:
    """Read all of a response. Return its status and source, or its error code."""
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {user.token}"}) as http,
        http.post(f"{url}/api/v1/speech/", json={"text": text, **body}) as reply,
    ):
        await reply.read()
        return reply.status, reply.headers.get("Speech-Source", "")


async def preview(url: str, user: Clinician, voice: Voice, **headers: str) -> tuple[int, bytes]:
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {user.token}", **headers}) as http,
        http.get(f"{url}/api/v1/voices/{voice.pk}/preview/") as reply,
    ):
        return reply.status, await reply.read()


@asynccontextmanager
async def running(*work: Any) -> AsyncIterator[list[asyncio.Task[Any]]]:
    tasks = [asyncio.create_task(one) for one in work]
    yield tasks
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def requests_in_flight(sandbox: SandboxProcess) -> int:
    return max(sandbox.account()["in_flight"].values())


@pytest.mark.parametrize("is_limit_known", [True, False], ids=["known limit", "unknown limit"])
@pytest.mark.parametrize("limit", [2, LIMIT])
async def test_a_patient_is_heard_live_beside_sixteen_texts(
    own_server: OwnServer,
    sandbox: SandboxProcess,
    alice: Member,
    carol: Clinician,
    dave: Clinician,
    limit: int,
    is_limit_known: bool,
) -> None:
    server = await asyncio.to_thread(own_server, REDIS_URL="")
    sandbox.settings(concurrency=limit, strict_concurrency=True)
    if is_limit_known:
        assert await speak(server.url, carol, "The first answer says the limit.") == (200, "live")
    sandbox.fault(kind="slow", bytes_per_s=RATE)
    texts = [speak(server.url, user, f"{n}. {LONG}") for n in range(8) for user in (carol, dave)]
    async with Device(server.ws, alice.token) as device, running(*texts):
        await device.start(greeting=False)
        await eventually(lambda: asyncio.to_thread(lambda: requests_in_flight(sandbox) > 0))
        for number in range(4):
            spoken = await device.speak(f"This is what the patient hears for the time number {number}.")
            assert spoken.terminal["source"] == "live"
            assert spoken.first_audio_s is not None
            assert spoken.first_audio_s < PROMPT_S
            assert not spoken.frames_of("speech.queued")


async def test_a_patient_of_another_process_is_heard_live(
    own_server: OwnServer, sandbox: SandboxProcess, alice: Member, carol: Clinician
) -> None:
    with RedisProcess() as redis:
        servers = [await asyncio.to_thread(own_server, REDIS_URL=redis.url) for _ in range(2)]
        sandbox.settings(concurrency=2, strict_concurrency=True)
        assert await speak(servers[0].url, carol, "The first answer says the limit.") == (200, "live")
        sandbox.fault(kind="slow", bytes_per_s=RATE)
        texts = [speak(servers[0].url, carol, f"{n}. {LONG}") for n in range(8)]
        async with Device(servers[1].ws, alice.token) as device, running(*texts):
            await device.start(greeting=False)
            await eventually(lambda: asyncio.to_thread(lambda: requests_in_flight(sandbox) > 0))
            for number in range(3):
                spoken = await device.speak(f"This is what the patient hears for the time number {number}.")
                assert spoken.terminal["source"] == "live"
                assert spoken.first_audio_s is not None
                assert spoken.first_audio_s < PROMPT_S


async def test_a_patient_is_heard_live_beside_previews_of_the_same_phrase(
    own_server: OwnServer, sandbox: SandboxProcess, alice: Member, carol: Clinician, phrases: None
) -> None:
    """A preview that waits for its slot must not be what the patient's speech waits for."""
    server = await asyncio.to_thread(own_server, REDIS_URL="")
    sandbox.settings(concurrency=2, strict_concurrency=True)
    assert await speak(server.url, carol, "The first answer says the limit.") == (200, "live")
    sandbox.fault(kind="slow", bytes_per_s=RATE)
    previews = [preview(server.url, carol, alice.patient.voice) for _ in range(MAX_SPEECHES_PER_USER - 1)]
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        async with running(speak(server.url, carol, LONG)):
            await eventually(lambda: asyncio.to_thread(lambda: requests_in_flight(sandbox) > 0))
            async with running(*previews):
                await asyncio.sleep(0.2)  # the previews wait in line
                spoken = await device.speak("That's wonderful!")  # the phrase of the preview
                # On a busy machine a preview may have had its turn before, and then its audio is in the cache.
                assert spoken.terminal["source"] in ("live", "cache")
                assert spoken.first_audio_s is not None
                assert spoken.first_audio_s < PROMPT_S


async def test_too_many_speeches_of_one_user_are_refused(
    own_server: OwnServer, sandbox: SandboxProcess, carol: Clinician, dave: Clinician, alice: Member
) -> None:
    server = await asyncio.to_thread(own_server, REDIS_URL="")
    sandbox.fault(kind="slow", bytes_per_s=RATE)
    headers = {"Authorization": f"Bearer {carol.token}"}
    async with running(*(speak(server.url, carol, LONG) for _ in range(MAX_SPEECHES_PER_USER))) as tasks:

        def running_speeches() -> float:
            return server.gauge("voicecare_slots_held") + server.gauge("voicecare_slots_waiting")

        await eventually(
            partial(asyncio.to_thread, running_speeches), wanted=lambda seen: seen == MAX_SPEECHES_PER_USER
        )
        async with aiohttp.ClientSession(headers=headers) as http:
            for request in (
                http.get(f"{server.url}/api/v1/voices/{alice.patient.voice_id}/preview/"),
                http.post(f"{server.url}/api/v1/speech/", json={"text": "One more."}),
            ):
                async with request as reply:
                    assert (reply.status, (await reply.json())["code"]) == (429, "too_many_speeches")
                    assert int(reply.headers["Retry-After"]) > 0
        assert (await speak(server.url, dave, "Another user is not affected."))[0] == 200
        # On a busy machine those without a slot may have given up by now.
        assert not all(task.done() for task in tasks)
    sandbox.clear_faults()
    await eventually(lambda: speak(server.url, carol, "Now there is room."), wanted=lambda seen: seen[0] == 200)


class NonReader:
    """An HTTP client on a raw socket that requests a speech and reads nothing."""

    def __init__(self, url: str, token: str, text: str) -> None:
        parts = urlsplit(url)
        body = json.dumps({"text": text, "format": "pcm_24000"}).encode()
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._socket.settimeout(20)
        self._socket.connect((parts.hostname, parts.port))
        self._socket.sendall(
            f"POST /api/v1/speech/ HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Bearer {token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )

    def read_all(self) -> bytes:
        """Read until the end of the chunked body, or until the connection breaks off."""
        received = bytearray()
        while not received.endswith(b"\r\n0\r\n\r\n") and (chunk := self._socket.recv(65536)):
            received += chunk
        return bytes(received)

    def close(self) -> None:
        self._socket.close()


def resident_bytes(server: ServerProcess) -> int:
    pages = int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the memory of a process from /proc")
async def test_clients_that_do_not_read_hold_little_memory_and_no_slot(
    own_server: OwnServer, sandbox: SandboxProcess, alice: Member, carol: Clinician
) -> None:
    server = await asyncio.to_thread(own_server, REDIS_URL="")
    assert await speak(server.url, carol, "Now everything is in memory that ever will be.") == (200, "live")
    before = resident_bytes(server)
    clients = [NonReader(server.url, carol.token, ENDLESS) for _ in range(4)]
    try:

        async def is_settled() -> bool:
            known = len(sandbox.requests())
            await asyncio.sleep(1)
            return known > 4 and known == len(sandbox.requests()) and not requests_in_flight(sandbox)

        await eventually(is_settled)
        assert await asyncio.to_thread(server.gauge, "voicecare_slots_held") == 0
        held = resident_bytes(server) - before
        print(f"held {held / MEGABYTE:.1f} MB")
        assert held < 16 * MEGABYTE  # all of it would be 60 MB
        asked = len(sandbox.requests())
        response = await asyncio.to_thread(clients[0].read_all)
        assert response.startswith(b"HTTP/1.1 200 ")
        assert response.endswith(b"\r\n0\r\n\r\n")
        assert len(sandbox.requests()) > asked
    finally:
        for client in clients:
            client.close()
    with suppress(ProcessLookupError):
        await eventually(lambda: speak(server.url, carol, "There is room again."), wanted=lambda seen: seen[0] == 200)


async def test_audio_that_breaks_off_breaks_the_connection_off(
    server: ServerProcess, sandbox: SandboxProcess, carol: Clinician
) -> None:
    """A normal end of the response would say that the audio is complete."""
    sandbox.fault(kind="error", preset="invalid_text", match={"text": "number 9"})
    for _ in range(2):
        with pytest.raises(aiohttp.ClientPayloadError):
            await asyncio.wait_for(speak(server.url, carol, LONG), 20)
    sandbox.clear_faults()
    assert await speak(server.url, carol, "The server goes on.") == (200, "live")


# Shutdown


async def test_a_response_is_completed_at_shutdown(
    own_server: OwnServer, sandbox: SandboxProcess, carol: Clinician
) -> None:
    server = await asyncio.to_thread(own_server, DRAIN_TIMEOUT_S=20)
    text = "This sentence is spoken very slowly, so that there is time to stop the server meanwhile."
    whole = await read_speech(server, carol, text)
    sandbox.fault(kind="slow", bytes_per_s=RATE)
    reading = asyncio.create_task(read_speech(server, carol, text))
    await eventually(lambda: asyncio.to_thread(lambda: requests_in_flight(sandbox) == 1))
    server.signal(signal.SIGTERM)
    assert await reading == whole
    assert await asyncio.to_thread(server.wait) == 0


async def test_a_response_that_takes_too_long_is_cut_off_at_shutdown_and_counted_as_that(
    own_server: OwnServer, sandbox: SandboxProcess, carol: Clinician
) -> None:
    server = await asyncio.to_thread(own_server, DRAIN_TIMEOUT_S=0.5)
    sandbox.fault(kind="slow", bytes_per_s=RATE)
    reading = asyncio.create_task(read_speech(server, carol, LONG))
    await eventually(lambda: asyncio.to_thread(lambda: requests_in_flight(sandbox) == 1))
    server.signal(signal.SIGTERM)
    with pytest.raises(aiohttp.ClientError):
        await reading
    assert await asyncio.to_thread(server.wait) == 0
    events = await in_database(lambda: list(UsageEvent.objects.filter(kind="preview")))
    assert [event.outcome for event in events] == ["cancelled"]


async def read_speech(server: ServerProcess, user: Clinician, text: str) -> bytes:
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {user.token}"}) as http,
        http.post(f"{server.url}/api/v1/speech/", json={"text": text}) as reply,
    ):
        assert reply.status == 200
        return await reply.read()


# Previews


async def test_a_preview_answers_range_requests(server: ServerProcess, alice: Member, carol: Clinician) -> None:
    await in_database(lambda: Phrase.objects.create(text="It is good to see you again."))
    voice = alice.patient.voice
    status, whole = await preview(server.url, carol, voice)
    assert (status, len(whole) > 10_000) == (200, True)
    assert await preview(server.url, carol, voice, Range="bytes=0-1") == (206, whole[:2])
    assert await preview(server.url, carol, voice, Range="bytes=1000-") == (206, whole[1000:])
    assert await preview(server.url, carol, voice, Range="bytes=-500") == (206, whole[-500:])
    assert (await preview(server.url, carol, voice, Range=f"bytes={len(whole)}-"))[0] == 416
