"""Concurrent calls with the same `Idempotency-Key`, and cursors while rows are inserted, on a real PostgreSQL."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest

from tests.chaos.cluster import Cluster
from tests.cloning.samples import recordings
from tests.sandbox import SandboxProcess
from tests.services import PostgresProcess, RedisProcess

pytestmark = [pytest.mark.services, pytest.mark.timeout(300)]

CONCURRENT = 8
PATIENT = {"name": "Zoe Zimmer", "companion_name": "Clara"}
CREATE_USER = """
from django.contrib.auth.models import Group, User
User.objects.create_superuser("boss", password="correct horse battery")
"""
INSERT = """
from datetime import timedelta
from django.utils import timezone
from tts.models import Conversation
from voicecare.patients.models import Patient, Voice
patient, voice, now = Patient.objects.first(), Voice.objects.first(), timezone.now()
for number in range({count}):
    Conversation.objects.create(
        patient=patient, voice=voice, voice_source="default", format="mp3_44100_128",
        started_at=now - timedelta(seconds=number % 7),
    )
    if number == {first}:
        print("ready", flush=True)
"""


@pytest.fixture(scope="module")
def cluster(sandbox_process: SandboxProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with PostgresProcess() as postgres, RedisProcess() as redis:
        cluster = Cluster(tmp_path_factory.mktemp("cluster"), sandbox_process, postgres, redis)
        cluster.seed(1)
        cluster.run_code(CREATE_USER)
        cluster.start_server()
        yield cluster
        cluster.close()


class Boss:
    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self._http, self._url = http, f"{url}/api/v1/"

    async def call(self, method: str, path: str, **request: Any) -> tuple[int, Any]:
        """Call the API. Return the status and the JSON body."""
        async with self._http.request(method, self._url + path, **request) as reply:
            return reply.status, await reply.json()

    async def get(self, path: str) -> Any:
        status, body = await self.call("GET", path)
        assert status == 200, body
        return body

    async def at_once(self, path: str, key: str, *bodies: Any) -> list[tuple[int, Any]]:
        """Send the same key with each body at the same time."""
        headers = {"Idempotency-Key": key}
        calls = (self.call("POST", path, json=body, headers=headers) for body in bodies)
        return list(await asyncio.gather(*calls))


@pytest.fixture
async def boss(cluster: Cluster) -> AsyncIterator[Boss]:
    async with aiohttp.ClientSession() as http:
        boss = Boss(http, cluster.servers[0].url)
        credentials = {"username": "boss", "password": "correct horse battery"}
        _, token = await boss.call("POST", "auth/token/", json=credentials)
        http.headers["Authorization"] = f"Bearer {token['token']}"
        yield boss


async def test_concurrent_calls_create_one_patient(boss: Boss) -> None:
    for number in range(5):
        answers = await boss.at_once("patients/", f"patient-{number}", *[PATIENT] * CONCURRENT)
        assert {status for status, _ in answers} == {201}
        assert len({body["id"] for _, body in answers}) == 1
    assert (await boss.get("patients/?search=Zimmer"))["count"] == 5


async def test_of_concurrent_calls_with_different_bodies_one_succeeds(boss: Boss) -> None:
    bodies = [{**PATIENT, "name": f"Different {number}"} for number in range(CONCURRENT)]
    answers = await boss.at_once("patients/", "different", *bodies)
    assert sorted(status for status, _ in answers) == [201] + [409] * (CONCURRENT - 1)
    assert {body["code"] for status, body in answers if status == 409} == {"idempotency_conflict"}
    assert (await boss.get("patients/?search=Different"))["count"] == 1


async def test_of_concurrent_calls_one_gets_the_token_of_the_device(boss: Boss) -> None:
    _, patient = await boss.call("POST", "patients/", json=PATIENT)
    path = f"patients/{patient['id']}/devices/"
    answers = await boss.at_once(path, "bed", *[{"name": "Bed"}] * CONCURRENT)
    assert sorted(status for status, _ in answers) == [201] + [409] * (CONCURRENT - 1)
    assert {body["code"] for status, body in answers if status == 409} == {"secret_already_shown"}
    assert len({body["id"] for _, body in answers}) == (await boss.get(path))["count"] == 1


async def test_concurrent_uploads_of_a_recording_create_one_clone(boss: Boss) -> None:
    """Each call inspects the recording first, which takes seconds. All of them are then at the same point."""
    _, patient = await boss.call("POST", "patients/", json=PATIENT)
    path = f"patients/{patient['id']}/clones/"
    recording = await asyncio.to_thread(lambda: recordings.encoded(recordings.speech(62), "libmp3lame"))

    async def upload(name: str) -> tuple[int, Any]:
        form = aiohttp.FormData({"name": name, "consent": "true", "consent_by": "Anna Archer"})
        form.add_field("sample", recording, filename="anna.mp3", content_type="audio/mpeg")
        return await boss.call("POST", path, data=form, headers={"Idempotency-Key": "anna"})

    answers = await asyncio.gather(upload("Anna"), upload("Anna"), upload("Berta"))
    assert len({body["id"] for status, body in answers if status == 202}) == (await boss.get(path))["count"] == 1
    assert {body["code"] for status, body in answers if status != 202} == {"idempotency_conflict"}
    assert {status for status, _ in answers} == {202, 409}


async def test_a_refused_call_lets_a_waiting_one_continue(boss: Boss) -> None:
    """Both have the same key. The one that is refused must not take the key with it."""
    bodies = [{**PATIENT, "speech_rate": 9}, PATIENT] * (CONCURRENT // 2)
    answers = await boss.at_once("patients/", "refused", *bodies)
    assert {201} <= {status for status, _ in answers} <= {201, 400, 409}
    assert len({body["id"] for status, body in answers if status == 201}) == 1


async def test_cursors_lose_and_repeat_nothing_while_another_process_inserts(boss: Boss, cluster: Cluster) -> None:
    """The rows are inserted in no order of their times, and many have equal ones."""
    writer = cluster.start_code(INSERT.format(count=600, first=100))
    assert writer.stdout is not None
    while "ready" not in await asyncio.to_thread(writer.stdout.readline):
        assert writer.poll() is None
    existing = {str(key) for (key,) in cluster.query("SELECT id FROM conversations")}
    seen: list[str] = []
    cursor, deadline = "", time.monotonic() + 120
    while cursor is not None:
        page = await boss.get(f"conversations/?cursor={quote(cursor)}&page_size=5")
        seen += [row["id"] for row in page["results"]]
        cursor = page["next_cursor"]
        assert time.monotonic() < deadline
    writer.wait(120)
    assert len(existing) >= 100
    assert len(seen) == len(set(seen))
    assert existing <= set(seen)
