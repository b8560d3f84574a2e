"""The checks of the public URL against a real server behind a proxy, with each mistake that the proxy can make."""

import asyncio
import json
import os
import ssl
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from django.conf import settings

from tests.server import ROOT, ServerProcess, free_port
from tests.voicecare.health.http_proxy import Mistakes, http_proxy
from voicecare.health import diagnostics
from voicecare.health.parts import Part
from voicecare.health.public_url import check_public_url

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def web(start_server: Callable[..., ServerProcess]) -> ServerProcess:
    return start_server("--proxy-headers")  # as in the Procfile


async def problems(url: str) -> dict[str, Part]:
    """Return the parts that are not ok, without the one that the test proxy has no TLS."""
    return {part.name: part for part in await check_public_url(url) if part.status != "ok" and part.name != "tls"}


async def test_a_good_proxy_has_no_problem(web: ServerProcess):
    async with http_proxy(web.url) as url:
        parts = {part.name: part for part in await check_public_url(url)}
    assert {name: part.state for name, part in parts.items() if part.status != "ok"} == {"tls": "not used"}
    assert parts.keys() == {
        *("tls", "public_url", "forwarded_proto", "forwarded_for", "forwarded_host", "buffering", "websocket"),
    }
    assert parts["forwarded_for"].state == "the proxy replaces it; the server sees 127.0.0.1"


@pytest.mark.parametrize(
    ("mistake", "name", "state"),
    [
        ("buffers", "buffering", "the proxy keeps replies until they are complete"),
        ("drops_upgrade", "websocket", "not passed on (HTTP 404)"),
        ("adds_address", "forwarded_for", "the server believes an address that the client has made up"),
        ("drops_address", "forwarded_for", "not set; the server sees 127.0.0.1"),
        ("drops_host", "forwarded_host", "the server sees 127.0.0.1:"),
    ],
)
async def test_each_mistake_of_a_proxy_is_named(web: ServerProcess, mistake: str, name: str, state: str):
    async with http_proxy(web.url, Mistakes(**{mistake: True})) as url:
        found = await problems(url)
    assert list(found) == [name]
    assert found[name].state.startswith(state)
    assert found[name].advice


async def test_without_a_proxy_anybody_can_make_up_an_address(web: ServerProcess):
    found = await problems(web.url)
    assert found["forwarded_for"].status == "failure"


async def test_a_server_that_does_not_answer_is_one_line():
    found = await problems(f"http://127.0.0.1:{free_port()}")
    assert list(found) == ["public_url"]
    assert "Connect call failed" in found["public_url"].state


async def test_a_host_that_is_not_allowed_is_named(web: ServerProcess):
    async with http_proxy(web.url, Mistakes(host="other.example.org")) as url:
        found = await problems(url)
    assert "is not in ALLOWED_HOSTS" in found["public_url"].state


async def test_another_server_is_not_taken_for_this_one(start_server: Callable[..., ServerProcess]):
    other = start_server("--proxy-headers", SECRET_KEY="another")
    found = await problems(other.url)
    assert "it has another SECRET_KEY" in found["public_url"].state


@pytest.mark.parametrize("authorization", ["", "Bearer x", "Basic eA=="])
async def test_nobody_else_can_use_the_diagnostics(web: ServerProcess, authorization: str):
    headers = {"Authorization": authorization}
    async with aiohttp.ClientSession(headers=headers) as http:
        async with http.get(web.url + diagnostics.PATH) as reply:
            assert reply.status == 403
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await http.ws_connect(web.url + diagnostics.SOCKET_PATH)
        assert refused.value.status == 403


def self_signed(folder: Path, *, days: int) -> tuple[ssl.SSLContext, Path]:
    """Return a certificate for localhost, for a server, and the file with it for clients that trust it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=days, hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    trusted, secret = folder / "certificate.pem", folder / "key.pem"
    trusted.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    formats = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    secret.write_bytes(key.private_bytes(serialization.Encoding.PEM, *formats))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(trusted, secret)
    return context, trusted


async def doctor(url: str, trusted: Path) -> dict[str, dict[str, str]]:
    """Run the command in a process that trusts the certificate."""
    command = [sys.executable, "manage.py", "doctor", "--no-speech", "--json", "--url", url]
    env = {**os.environ, "SSL_CERT_FILE": str(trusted), "SECRET_KEY": settings.SECRET_KEY}
    run = asyncio.to_thread(subprocess.run, command, cwd=ROOT, env=env, capture_output=True, check=False, timeout=300)
    return {part["name"]: part for part in json.loads((await run).stdout)["parts"]}


@pytest.mark.parametrize(
    ("days", "mistakes", "problems"),
    [
        (3, Mistakes(), {"tls": "the certificate is valid for 3 days"}),
        (90, Mistakes(drops_scheme=True), {"forwarded_proto": "the server sees http"}),
    ],
)
async def test_tls(web: ServerProcess, tmp_path: Path, days: int, mistakes: Mistakes, problems: dict[str, str]):
    context, trusted = self_signed(tmp_path, days=days)
    async with http_proxy(web.url, mistakes, context) as url:
        parts = await doctor(url, trusted)
    of_url = list(parts)[list(parts).index("tls") :]
    assert len(of_url) == 7
    assert {name: parts[name]["state"] for name in of_url if parts[name]["status"] != "ok"} == problems


async def test_a_certificate_that_nobody_trusts_is_a_failure(web: ServerProcess, tmp_path: Path):
    context, _ = self_signed(tmp_path, days=90)
    async with http_proxy(web.url, None, context) as url:
        parts = {part.name: part for part in await check_public_url(url)}
    assert parts["tls"].status == "failure"
    assert "certificate verify failed" in parts["tls"].state
    assert parts["public_url"].status == "failure"
