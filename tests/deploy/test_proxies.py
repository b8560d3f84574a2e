"""The shipped configurations of nginx and Caddy: a real proxy in front of a real server, over TLS."""

import asyncio
import os
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator

import aiohttp
import pytest

from tests.clinicians import Clinician, clinician
from tests.conftest import Member, wait_until_idle
from tests.deploy.proxies import CaddyProxy, NginxProxy, Proxy
from tests.e2e.rows import in_database
from tests.sandbox import SandboxProcess
from tests.server import ROOT, ServerProcess, free_port
from voicecare.audit.models import AuditEntry

SLOW_TEXT = "This sentence is spoken very slowly, so that there is time to do something else meanwhile."
SPOOFED = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "http"}
CANARY = "canary"  # is in queries, so it must not be in a log
PROXIES = [NginxProxy, CaddyProxy]

pytestmark = pytest.mark.services


@pytest.fixture(scope="module")
def web(start_server: Callable[..., ServerProcess]) -> ServerProcess:
    return start_server("--proxy-headers")  # as in the Procfile


@pytest.fixture(scope="module", params=PROXIES)
def running_proxy(request: pytest.FixtureRequest, web: ServerProcess) -> Iterator[Proxy]:
    with request.param(f"127.0.0.1:{web.port}") as proxy:
        yield proxy


@pytest.fixture
def proxy(running_proxy: Proxy, web: ServerProcess, sandbox: SandboxProcess, transactional_db: None) -> Iterator[Proxy]:
    yield running_proxy
    wait_until_idle(web)


@pytest.fixture
def carol(alice: Member, bob: Member) -> Clinician:
    return clinician("carol", alice.patient, bob.patient)


@pytest.fixture
async def http(proxy: Proxy) -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=proxy.ca))
    async with aiohttp.ClientSession(proxy.url, connector=connector) as http:
        yield http


async def outcomes(sandbox: SandboxProcess) -> list[str]:
    return [request["outcome"] for request in await asyncio.to_thread(sandbox.requests)]


async def test_a_device_hears_the_beginning_of_a_speech_while_it_is_generated(
    http: aiohttp.ClientSession, sandbox: SandboxProcess, alice: Member
) -> None:
    sandbox.fault(kind="slow", bytes_per_s=20_000)
    headers = {"Authorization": f"Bearer {alice.token}"}
    async with http.ws_connect("/ws/device/", protocols=["voicecare.v1"], headers=headers) as socket:
        await socket.send_json({"type": "conversation.start", "greeting": False})
        await socket.send_json({"type": "speak", "id": "1", "text": SLOW_TEXT})
        received = []
        while (message := await socket.receive(timeout=30)).type is not aiohttp.WSMsgType.BINARY:
            received.append(message.json()["type"])
        assert received == ["conversation.started", "speech.started"]
        assert await outcomes(sandbox) == ["open"]
        while (message := await socket.receive(timeout=30)).type is aiohttp.WSMsgType.BINARY:
            pass
        assert message.json()["type"] == "speech.finished"


async def test_speech_over_rest_arrives_while_it_is_generated(
    http: aiohttp.ClientSession, sandbox: SandboxProcess, carol: Clinician
) -> None:
    sandbox.fault(kind="slow", bytes_per_s=20_000)
    headers = {"Authorization": f"Bearer {carol.token}"}
    async with http.post("/api/v1/speech/", json={"text": SLOW_TEXT}, headers=headers) as reply:
        assert await reply.content.readany()
        assert await outcomes(sandbox) == ["open"]
        assert await reply.content.read()


def test_talk_speaks_through_the_proxy(proxy: Proxy, alice: Member) -> None:
    url = f"{proxy.url.replace('https', 'wss')}/ws/device/"
    talked = subprocess.run(
        [sys.executable, "manage.py", "talk", "--url", url, "--token", alice.token, "--out", os.devnull, "Good day."],
        cwd=ROOT,
        env={**os.environ, "SSL_CERT_FILE": str(proxy.ca)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert talked.returncode == 0, talked.stderr
    assert "live, voice" in talked.stdout


async def test_recordings_of_ten_megabytes_reach_the_server(
    http: aiohttp.ClientSession, alice: Member, carol: Clinician
) -> None:
    async def upload(megabytes: float) -> tuple[int, str]:
        form = aiohttp.FormData({"name": "Anna", "consent": "true", "consent_by": "Anna Archer"})
        form.add_field("sample", bytes(int(megabytes * 1_000_000)), filename="anna.wav", content_type="audio/wav")
        headers = {"Authorization": f"Bearer {carol.token}"}
        async with http.post(f"/api/v1/patients/{alice.patient.pk}/clones/", data=form, headers=headers) as reply:
            is_ours = reply.content_type == "application/json"
            return reply.status, (await reply.json())["code"] if is_ours else ""

    assert await upload(9.9) == (400, "unsupported_format")
    assert await upload(11) == (413, "too_large")
    assert await upload(13) in [(413, ""), (502, "")]  # refused by the proxy; Caddy before 2.7 answers 502


async def test_the_server_sees_the_address_and_the_scheme_of_the_client(
    http: aiohttp.ClientSession, proxy: Proxy, carol: Clinician
) -> None:
    headers = {"Authorization": f"Bearer {carol.token}", **SPOOFED}
    async with http.get("/api/v1/patients/?page_size=1", headers=headers) as reply:
        assert (await reply.json())["next"].startswith(f"{proxy.url}/api/v1/patients/")
    async with http.post("/api/v1/auth/token/", json={"username": "carol", "password": "x"}, headers=SPOOFED) as reply:
        assert reply.status == 401
    entry = await in_database(AuditEntry.objects.get, user_name="carol")
    assert entry.address == "127.0.0.1"


async def test_metrics_are_not_public(http: aiohttp.ClientSession) -> None:
    async with http.get("/metrics") as reply:
        assert reply.status == 404


async def test_plain_http_leads_to_tls(proxy: Proxy) -> None:
    address = f"http://localhost:{proxy.http_port}/admin/"
    async with aiohttp.ClientSession() as http, http.get(address, allow_redirects=False) as reply:
        assert reply.status in (301, 308)
        assert reply.headers["Location"].startswith("https://localhost")


async def test_logs_have_no_queries(http: aiohttp.ClientSession, proxy: Proxy) -> None:
    referrer = {"Referer": f"{proxy.url}/admin/?q={CANARY}"}
    async with http.get(f"/admin/patients/patient/?q={CANARY}", headers=referrer, allow_redirects=False) as reply:
        assert CANARY in reply.headers["Location"]  # login, and back to the search
    async with http.get("/healthz", headers=referrer) as reply:
        assert reply.status == 200
    async with http.get(f"http://localhost:{proxy.http_port}/?q={CANARY}", allow_redirects=False) as reply:
        assert reply.status in (301, 308)
    assert "/admin/patients/patient/" in proxy.logged()
    assert CANARY not in proxy.logged()


@pytest.mark.parametrize("kind", PROXIES)
async def test_logs_have_no_queries_while_the_server_is_down(kind: type[Proxy]) -> None:
    with kind(f"127.0.0.1:{free_port()}") as proxy:
        tls = ssl.create_default_context(cafile=proxy.ca)
        async with aiohttp.ClientSession() as http, http.get(f"{proxy.url}/admin/?q={CANARY}", ssl=tls) as reply:
            assert reply.status == 502
        assert CANARY not in proxy.logged()
