"""The handshake over real sockets: which devices may connect, and which connections are closed later.

test_refusals.py has what a refused device is told.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import aiohttp
import pytest
from django.utils import timezone

from tests.conftest import Member
from tests.e2e.device import Device
from tests.e2e.rows import in_database, wait_for_state
from tests.sandbox import SandboxProcess
from tests.server import ServerProcess
from voicecare.patients import erasure
from voicecare.patients.models import Device as DeviceRow
from voicecare.patients.models import Patient

V1 = "voicecare.v1"
NOTICED_WITHIN_S = 2.0 + 0.3  # two seconds by docs/protocol.md, and a margin for a busy machine
LONG = "This sentence is spoken very slowly, so that there is time to do something else meanwhile."


async def status_of(url: str, *, protocols: tuple[str, ...] = (V1,), headers: Mapping[str, str] | None = None) -> int:
    """Return the HTTP status of the handshake: 101 if it is accepted."""
    async with aiohttp.ClientSession() as session:
        try:
            async with session.ws_connect(url, protocols=protocols, headers=headers) as socket:
                assert socket.protocol == V1  # the server echoes it and nothing else
                return 101
        except aiohttp.WSServerHandshakeError as error:
            return error.status


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


WRONG_TOKENS = {
    "empty": "",
    "no dot": "abcdef",
    "only a dot": ".",
    "unknown": "deadbeef." + "A" * 43,
    "long": "deadbeef." + "A" * 10_000,
    "not ASCII": "dëadbeef.ünïcödé",
    "emoji": "🦜🦜🦜🦜🦜🦜🦜🦜.🦜",
    "SQL": "' OR 1=1.--",
}


@pytest.mark.parametrize("token", WRONG_TOKENS.values(), ids=WRONG_TOKENS.keys())
async def test_a_wrong_token_is_refused(server: ServerProcess, alice: Member, token: str) -> None:
    assert await status_of(server.ws, headers=bearer(token)) == 403


async def test_a_complete_bearer_token_is_required(server: ServerProcess, alice: Member, bob: Member) -> None:
    prefix, _, secret = alice.token.partition(".")
    mixed = f"{prefix}.{bob.token.partition('.')[2]}"
    wrong = [
        {},
        {"Authorization": alice.token},
        {"Authorization": f"Token {alice.token}"},
        {"Authorization": f"Basic {alice.token}"},
        *map(bearer, (f"{prefix}.", f".{secret}", secret, mixed, alice.token + "x", alice.token[:-1])),
    ]
    for headers in wrong:
        assert await status_of(server.ws, headers=headers) == 403, headers
    assert await status_of(server.ws, headers=bearer(alice.token)) == 101


async def test_a_token_in_the_query_string_is_refused(server: ServerProcess, alice: Member) -> None:
    for name in ("token", "access_token", "authorization"):
        assert await status_of(f"{server.ws}?{name}={alice.token}") == 403


async def test_the_subprotocol_must_be_offered(server: ServerProcess, alice: Member) -> None:
    headers = bearer(alice.token)
    for protocols in ((), ("voicecare.v2",), ("voicecare",), ("VOICECARE.V1",), ("chat", f"token.{alice.token}")):
        assert await status_of(server.ws, protocols=protocols, headers=headers) == 403, protocols
    assert await status_of(server.ws, protocols=("chat", V1), headers=headers) == 101


async def test_a_browser_sends_its_token_as_a_subprotocol(server: ServerProcess, alice: Member) -> None:
    assert await status_of(server.ws, protocols=(f"token.{alice.token}", V1)) == 101
    assert await status_of(server.ws, protocols=(V1, f"token.{alice.token}")) == 101
    assert await status_of(server.ws, protocols=(V1, "token.")) == 403
    assert await status_of(server.ws, protocols=(V1, f"token.{alice.token}x")) == 403


async def test_the_origin_of_a_browser_must_be_allowed(server: ServerProcess, alice: Member) -> None:
    async def with_origin(origin: str) -> int:
        return await status_of(server.ws, headers={**bearer(alice.token), "Origin": origin})

    for allowed in (server.url, "http://localhost:3000", "https://127.0.0.1", "http://[::1]:8000"):
        assert await with_origin(allowed) == 101, allowed
    foreign = (
        "https://evil.example",
        "http://localhost.evil.example",
        "http://evil.example/localhost",
        "http://localhost@evil.example",
        "chrome-extension://localhost.evil",
    )
    for origin in foreign:
        assert await with_origin(origin) == 403, origin
    for no_site in ("null", "file://"):  # libraries of devices send these; no page can set the header
        assert await with_origin(no_site) == 101, no_site
    for nonsense in ("", "garbage", "http://[::1"):  # no browser sends these; daphne answers before our code
        assert await with_origin(nonsense) == 400, nonsense


@pytest.mark.parametrize("path", ["/ws/", "/ws/device", "/ws/device/x/", "/", "/ws/devices/"])
async def test_other_paths_are_refused(server: ServerProcess, alice: Member, path: str) -> None:
    url = server.url.replace("http", "ws") + path
    assert await status_of(url, headers=bearer(alice.token)) == 403


def _revoke(member: Member) -> None:
    DeviceRow.objects.filter(pk=member.device.pk).update(revoked_at=timezone.now())


def _archive(member: Member) -> None:
    Patient.objects.filter(pk=member.patient.pk).update(archived_at=timezone.now())


def _erase(member: Member) -> None:
    Patient.objects.filter(pk=member.patient.pk).update(erased_at=timezone.now())


def _erase_in_a_week(member: Member) -> None:
    assert erasure.start_erasure(member.patient.pk)


BANS = pytest.mark.parametrize("ban", [_revoke, _archive, _erase, _erase_in_a_week])


@BANS
async def test_revoked_archived_and_erased_devices_are_refused(
    server: ServerProcess, alice: Member, ban: Callable[[Member], None]
) -> None:
    await in_database(ban, alice)
    assert await status_of(server.ws, headers=bearer(alice.token)) == 403
    assert await status_of(server.ws, protocols=(V1, f"token.{alice.token}")) == 403


async def test_after_an_erasure_was_undone_only_a_new_device_is_accepted(server: ServerProcess, alice: Member) -> None:
    await in_database(_erase_in_a_week, alice)
    assert await in_database(erasure.undo_erasure, alice.patient.pk)
    assert await status_of(server.ws, headers=bearer(alice.token)) == 403
    _, token = await in_database(DeviceRow.objects.issue, alice.patient, "new")
    async with Device(server.ws, token) as device:
        await device.start(greeting=False)


@BANS
async def test_a_connected_device_is_disconnected_when_it_is_banned(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member, bob: Member, ban: Callable[[Member], None]
) -> None:
    """The playing speech ends as interrupted first. Other devices are not disturbed."""
    sandbox.fault(kind="slow", bytes_per_s=8_000)
    async with Device(server.ws, alice.token) as device, Device(server.ws, bob.token) as other:
        started = await device.start(greeting=False)
        await other.start(greeting=False)
        await device.start_speech("last", LONG)
        await in_database(ban, alice)
        async with asyncio.timeout(NOTICED_WITHIN_S):
            assert await device.wait_closed() == 4003
        assert device.speeches["last"].terminal["type"] == "speech.interrupted"
        await other.assert_nothing_pending()
    await wait_for_state(started["conversation"], "last", "interrupted")
    assert await status_of(server.ws, headers=bearer(alice.token)) == 403


async def check_replaced(first: ServerProcess, second: ServerProcess, member: Member) -> None:
    async with Device(first.ws, member.token) as older:
        started = await older.start(greeting=False)
        await older.start_speech("last", LONG)
        async with Device(second.ws, member.token) as newer:
            async with asyncio.timeout(NOTICED_WITHIN_S):
                assert await older.wait_closed() == 4001
            assert older.speeches["last"].terminal["type"] == "speech.interrupted"
            resumed = await newer.start(resume=started["conversation"])
            assert resumed["conversation"] == started["conversation"]
            spoken = await newer.speak("I am the newer of the two.")
            assert spoken.terminal["type"] == "speech.finished"
            await asyncio.sleep(1.2)  # no sweep of the two processes may close the newer connection
            await newer.assert_nothing_pending()


async def test_a_second_connection_replaces_the_first(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    sandbox.fault(kind="slow", bytes_per_s=8_000, match={"text": "very slowly"})
    await check_replaced(server, server, alice)


async def test_a_second_connection_replaces_the_first_on_another_server(
    server: ServerProcess, second_server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    sandbox.fault(kind="slow", bytes_per_s=8_000, match={"text": "very slowly"})
    await check_replaced(server, second_server, alice)
    await check_replaced(second_server, server, alice)


async def test_of_many_simultaneous_connections_one_stays(server: ServerProcess, alice: Member) -> None:
    """The latest connection stays. All others are closed as replaced."""
    devices = [Device(server.ws, alice.token) for _ in range(12)]
    await asyncio.gather(*(device.__aenter__() for device in devices))
    try:
        open_ones = []

        async def ends(device: Device) -> Any:
            try:
                async with asyncio.timeout(NOTICED_WITHIN_S):
                    return await device.wait_closed()
            except TimeoutError:
                open_ones.append(device)
                return None

        codes = await asyncio.gather(*map(ends, devices))
        assert sorted(codes, key=str) == [4001] * 11 + [None]
        started = await open_ones[0].start(greeting=False)
        assert started["type"] == "conversation.started"
    finally:
        for device in devices:
            await device.__aexit__(None, None, None)
