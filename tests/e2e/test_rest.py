"""The REST API over real sockets: login, devices, speech on a device, odd requests."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest
from django.contrib.auth.models import User

from tests.conftest import Member
from tests.e2e.device import Device
from tests.e2e.rows import accounts_of, in_database, wait_for_state
from tests.roles import give_permissions
from tests.sandbox import SandboxProcess
from tests.server import ServerProcess
from tests.services import RedisProcess
from tts.models import Utterance
from voicecare.patients.access import CLINICIAN_PERMISSIONS
from voicecare.patients.models import Patient
from voicecare_client import ConnectionClosed, HandshakeRefused

PASSWORD = "correct horse battery"
CANARY = "xylophone-canary"
NOTICED_WITHIN_S = 2.0 + 0.3  # two seconds by docs/protocol.md, and a margin for a busy machine


class Api:
    """A logged-in clinician."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self._http = http
        self._url = f"{url}/api/v1/"

    async def call(self, method: str, path: str, status: int, **request: Any) -> Any:
        """Call the API, assert the status, and return the JSON of the response."""
        async with self._http.request(method, self._url + path, **request) as reply:
            assert reply.status == status, await reply.text()
            return await reply.json() if reply.content_type == "application/json" else await reply.read()

    async def log_in(self, username: str) -> None:
        credentials = {"username": username, "password": PASSWORD}
        token = (await self.call("POST", "auth/token/", 200, json=credentials))["token"]
        self._http.headers["Authorization"] = f"Bearer {token}"


@pytest.fixture
async def carol(server: ServerProcess) -> AsyncIterator[Api]:
    await in_database(User.objects.create_user, "carol", password=PASSWORD)
    async with aiohttp.ClientSession() as http:
        api = Api(http, server.url)
        await api.log_in("carol")
        yield api


async def test_a_clinician_logs_in_adds_a_device_revokes_it_and_logs_out(server: ServerProcess, carol: Api) -> None:
    patient = await carol.call("POST", "patients/", 201, json={"name": "Zoe Zimmer", "companion_name": "Clara"})
    issued = await carol.call("POST", f"patients/{patient['id']}/devices/", 201, json={"name": "Bedside"})
    async with Device(server.ws, issued["token"]) as device:
        started = await device.start(greeting=False)
        assert started["companion"] == "Clara"
        (conversation,) = (await carol.call("GET", f"conversations/?patient={patient['id']}", 200))["results"]
        assert (conversation["id"], conversation["ended_at"]) == (started["conversation"], None)
        await carol.call("DELETE", f"devices/{issued['id']}/", 204)
        with pytest.raises(ConnectionClosed) as closed:
            async with asyncio.timeout(NOTICED_WITHIN_S):
                await device.receive()
        assert closed.value.code == 4003
    await carol.call("POST", "auth/logout/", 204)
    assert (await carol.call("GET", "patients/", 401))["code"] == "authentication_failed"


async def test_a_rotated_token_works_and_the_old_one_is_refused(server: ServerProcess, carol: Api) -> None:
    patient = await carol.call("POST", "patients/", 201, json={"name": "Zoe Zimmer", "companion_name": "Clara"})
    issued = await carol.call("POST", f"patients/{patient['id']}/devices/", 201, json={"name": "Bedside"})
    async with Device(server.ws, issued["token"]) as device:
        renewed = await carol.call("POST", f"devices/{issued['id']}/rotate/", 200)
        with pytest.raises(ConnectionClosed):
            async with asyncio.timeout(NOTICED_WITHIN_S):
                await device.receive()
    with pytest.raises(HandshakeRefused):
        async with Device(server.ws, issued["token"]):
            pass
    async with Device(server.ws, renewed["token"]) as device:
        await device.start(greeting=False)


async def test_speech_is_accepted_once_per_idempotency_key(carol: Api) -> None:
    patient = await carol.call("POST", "patients/", 201, json={"name": "Zoe Zimmer", "companion_name": "Clara"})
    path, key = f"patients/{patient['id']}/speak/", {"Idempotency-Key": "lunch"}
    answers = await asyncio.gather(
        *(carol.call("POST", path, 202, json={"text": "Lunch is ready."}, headers=key) for _ in range(8))
    )
    assert len({answer["id"] for answer in answers}) == 1
    assert await in_database(Utterance.objects.count) == 1
    refused = await carol.call("POST", path, 409, json={"text": "Dinner is ready."}, headers=key)
    assert refused["code"] == "idempotency_conflict"
    utterance = await carol.call("GET", f"utterances/{answers[0]['id']}/", 200)
    assert (utterance["status"], utterance["patient"]) == ("waiting", patient["id"])
    short = await carol.call("POST", path, 202, json={"text": "Hello.", "expires_in_s": 1})
    await asyncio.sleep(1.1)
    assert (await carol.call("GET", f"utterances/{short['id']}/", 200))["status"] == "expired"


async def test_a_hanging_redis_delays_neither_the_response_nor_the_speech(
    own_server: Callable[..., ServerProcess], alice: Member
) -> None:
    await in_database(alice.patient.team.add, await in_database(User.objects.create_user, "carol", password=PASSWORD))
    with RedisProcess() as redis:
        server = await asyncio.to_thread(own_server, REDIS_URL=redis.url)
        async with aiohttp.ClientSession() as http, Device(server.ws, alice.token) as device:
            carol = Api(http, server.url)
            await carol.log_in("carol")
            await device.start(greeting=False)
            redis.pause()
            in_time = aiohttp.ClientTimeout(2)
            order = {"text": "Lunch is ready."}
            sent = await carol.call("POST", f"patients/{alice.patient.pk}/speak/", 202, json=order, timeout=in_time)
            assert (await device.wait_for(f"srv-{sent['id']}")).terminal["source"] == "live"
            await device.end()


async def test_speech_of_a_clinician_is_delivered_and_acknowledged(
    server: ServerProcess, sandbox: SandboxProcess, carol: Api, alice: Member
) -> None:
    await in_database(alice.patient.team.add, await in_database(User.objects.get, username="carol"))
    async with Device(server.ws, alice.token) as device:
        text = "Your daughter comes to see you at four."
        sent = await carol.call("POST", f"patients/{alice.patient.pk}/speak/", 202, json={"text": text})
        assert (await device.wait_for_frame("conversation.started"))["initiated"] == "server"
        spoken = await device.wait_for(f"srv-{sent['id']}")
        assert (spoken.terminal["type"], spoken.terminal["characters"]) == ("speech.finished", len(text))
        assert await wait_for_status(carol, sent["id"], "spoken") == {"spoken"}
        await device.send({"type": "ack", "id": spoken.id})
        await wait_for_status(carol, sent["id"], "heard")
        heard = await carol.call("GET", f"utterances/{sent['id']}/", 200)
        assert heard["spoken_at"] <= heard["heard_at"]


async def test_speech_after_rest_speech_is_written_immediately(
    server: ServerProcess, sandbox: SandboxProcess, carol: Api, alice: Member
) -> None:
    """Background work that a request has started must not depend on the request's thread."""
    logged_before = len(server.logged())
    await in_database(alice.patient.team.add, await in_database(User.objects.get, username="carol"))
    async with Device(server.ws, alice.token) as device:
        for number in range(3):
            order = {"text": f"Message number {number} from your nurse."}
            sent = await carol.call("POST", f"patients/{alice.patient.pk}/speak/", 202, json=order)
            await device.wait_for(f"srv-{sent['id']}")
        started = await device.start(greeting=False)
        spoken = await device.speak("And this is what the companion says.", id="own")
        await wait_for_state(started["conversation"], "own", "spoken", seconds=3)
        accounts = await accounts_of(started["conversation"])
        assert accounts.utterance("own").characters == spoken.terminal["characters"]
    assert "recorder.write_failed" not in server.logged()[logged_before:]


async def wait_for_status(api: Api, utterance: str, wanted: str) -> set[str]:
    """Poll until the utterance has this status. Only possible earlier statuses may come before it."""
    async with asyncio.timeout(5):
        while (answer := (await api.call("GET", f"utterances/{utterance}/", 200))["status"]) != wanted:
            assert answer in ("speaking", "spoken")
            await asyncio.sleep(0.02)
    return {answer}


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_that_is_too_large_is_refused(carol: Api, chunked: bool) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield b" " * 10_000

    body: Any = pieces() if chunked else b" " * 400_000
    headers = {"Content-Type": "application/json"}
    assert (await carol.call("POST", "patients/", 413, data=body, headers=headers))["code"] == "too_large"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Idempotency-Key": "x" * 10_240}, 400),
        ({"Content-Type": "application/json; charset=rot13"}, 202),
        ({"Content-Type": "application/json; charset=utf-16"}, 202),
        ({"Content-Type": "text/plain"}, 415),
        ({"Authorization": "Bearer " + "ü" * 20}, 401),
        ({"Accept": "text/html"}, 406),
        ({"Host": "evil.example"}, 400),
    ],
)
async def test_odd_headers_get_a_json_response(carol: Api, member: Any, headers: dict[str, str], status: int) -> None:
    alice: Member = await in_database(member)
    carol_row = await in_database(User.objects.get)
    await in_database(alice.patient.team.add, carol_row)
    sent = {"Content-Type": "application/json", **headers}
    answer = await carol.call(
        "POST", f"patients/{alice.patient.pk}/speak/?page=%ff", status, data=b'{"text": "Hello."}', headers=sent
    )
    assert set(answer) == ({"id", "status"} if status == 202 else {"detail", "code"})


async def test_a_body_may_be_chunked(carol: Api) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b'{"name": "Zoe Zimmer", '
        yield b'"companion_name": "Clara"}'

    headers = {"Content-Type": "application/json"}
    assert (await carol.call("POST", "patients/", 201, data=pieces(), headers=headers))["name"] == "Zoe Zimmer"


async def test_no_patient_data_is_logged(server: ServerProcess, carol: Api) -> None:
    named = {"name": CANARY, "preferred_name": CANARY, "companion_name": CANARY}
    patient = await carol.call("POST", "patients/", 201, json=named)
    path = f"patients/{patient['id']}/"
    await carol.call("PATCH", path, 400, json={"language": CANARY, "voice": CANARY})
    await carol.call("POST", f"{path}speak/", 202, json={"text": CANARY})
    await carol.call("POST", f"{path}speak/", 400, json={"text": f"{CANARY}\0"})
    await carol.call("POST", f"{path}speak/", 400, data=CANARY, headers={"Content-Type": "application/json"})
    issued = await carol.call("POST", f"{path}devices/", 201, json={"name": CANARY})
    user = await in_database(User.objects.get, username="carol")
    await in_database(give_permissions, user, *CLINICIAN_PERMISSIONS, "patients.erase_patient")
    await carol.call("DELETE", path, 202)
    assert await in_database(Patient.objects.remaining().filter(pk=patient["id"]).exists) is False
    assert CANARY not in server.logged()
    assert issued["token"] not in server.logged()


@pytest.mark.skipif(sys.platform != "linux", reason="counts open files in /proc, which is Linux")
async def test_a_request_leaves_no_database_connection_open(server: ServerProcess, carol: Api) -> None:
    async def open_files_after(rounds: int) -> int:
        for _ in range(rounds):
            await asyncio.gather(*(carol.call("GET", "patients/", 200) for _ in range(5)))
        return len(os.listdir(f"/proc/{server.process.pid}/fd"))

    before = await open_files_after(1)
    assert await open_files_after(6) <= before + 8


async def test_the_api_docs_load_only_from_this_server(server: ServerProcess) -> None:
    async with aiohttp.ClientSession() as http:
        async with http.get(f"{server.url}/api/docs/") as reply:
            page = await reply.text()
        assets = [part.split('"')[0] for part in page.split("/static/")[1:]]
        assert len(assets) >= 3
        for asset in assets:
            async with http.get(f"{server.url}/static/{asset}") as reply:
                assert (reply.status, len(await reply.read()) > 100) == (200, True), asset
        async with http.get(f"{server.url}/api/schema/") as reply:
            assert (await reply.json(content_type=None))["openapi"].startswith("3.")
