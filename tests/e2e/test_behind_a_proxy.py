"""Requests as proxies, load balancers and container platforms send them."""

import asyncio
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

from tests.clinicians import clinician
from tests.conftest import Member
from tests.e2e.rows import in_database
from tests.server import ServerProcess

PROXY = {"X-Forwarded-For": "203.0.113.9"}

OwnServer = Callable[..., ServerProcess]


async def get(url: str, **headers: str) -> tuple[int, Any]:
    async with aiohttp.ClientSession(headers=headers) as http, http.get(url) as reply:
        return reply.status, await reply.json(content_type=None) if reply.ok else None


@pytest.mark.parametrize("host", ["10.1.2.3:8000", "voicecare-web", "[fd00::1]:8000", "localhost"])
async def test_health_checks_answer_for_any_host(server: ServerProcess, host: str) -> None:
    assert await get(f"{server.url}/healthz", Host=host) == (200, {"status": "up"})
    assert (await get(f"{server.url}/readyz", Host=host))[0] == 200
    strict = 200 if host == "localhost" else 400
    assert (await get(f"{server.url}/api/schema/", Host=host))[0] == strict


SCHEMES = {
    "https": "https",
    "https, http": "https",
    "https,https": "https",
    "HTTPS": "https",
    " https ,http": "https",
    "http, https": "http",
    "http": "http",
    "ftp": "http",
    "": "http",
}


async def test_the_scheme_is_that_of_the_client(own_server: OwnServer, alice: Member, bob: Member) -> None:
    carol = await in_database(clinician, "carol", alice.patient, bob.patient)
    server = await asyncio.to_thread(own_server, "--proxy-headers")  # as in the Procfile
    for forwarded, scheme in SCHEMES.items():
        headers = {"Authorization": f"Bearer {carol.token}", **PROXY, "X-Forwarded-Proto": forwarded}
        status, page = await get(f"{server.url}/api/v1/patients/?page_size=1", **headers)
        assert (status, page["next"].partition(":")[0]) == (200, scheme), forwarded
