"""Unexpected behaviour of daphne and Channels: signals, no lifespan, lost connections, exceptions, kills."""

import asyncio
import json
import signal
import time
import uuid
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.conftest import Member
from tests.e2e.database import missing_table
from tests.e2e.device import Device, spoken_order
from tests.e2e.provider import repeat_requests
from tests.e2e.rows import accounts_of, in_database, state_of, wait_for_state
from tests.sandbox import SandboxProcess
from tests.server import ServerProcess, free_port
from tests.waiting import eventually
from usage.ledger import journal
from usage.ledger.events import Attempt
from usage.ledger.journal import Journal
from usage.models import UsageEvent
from voicecare_client import HandshakeRefused

TEXT = "Your tea is on the table beside the window."
LONG = "This sentence is spoken very slowly, so that there is time to do something else meanwhile."
SLOW: dict[str, Any] = {"kind": "slow", "bytes_per_s": 40_000, "match": {"text": "very slowly"}}
"""LONG takes a little over two seconds."""

OwnServer = Callable[..., ServerProcess]


async def outcome_of(sandbox: SandboxProcess, number: int, outcome: str) -> bool:
    return bool(sandbox.requests()[number]["outcome"] == outcome)


async def readiness(server: ServerProcess) -> int:
    status, _ = await asyncio.to_thread(server.get, "/readyz")
    return status


# Shutdown


async def test_the_playing_speech_ends_before_the_shutdown(
    own_server: OwnServer, sandbox: SandboxProcess, alice: Member, bob: Member
) -> None:
    server = await asyncio.to_thread(own_server)
    sandbox.fault(**SLOW)
    async with Device(server.ws, alice.token) as device, Device(server.ws, bob.token) as idle:
        started = await device.start(greeting=False)
        await idle.start(greeting=False)
        await device.start_speech("playing", LONG)
        await device.send({"type": "speak", "id": "waiting", "text": TEXT})
        await device.assert_nothing_pending()
        idle_closed = asyncio.create_task(idle.wait_closed())
        server.signal(signal.SIGTERM)

        async def draining() -> bool:
            return await readiness(server) == 503

        await eventually(draining, 2)
        with pytest.raises(HandshakeRefused):
            async with Device(server.ws, bob.token):
                pass
        await device.send({"type": "speak", "id": "late", "text": TEXT})
        assert await device.wait_closed() == 4012
        assert await idle_closed == 4012
    exit_code = await asyncio.to_thread(server.wait)

    playing = device.speeches["playing"]
    assert playing.terminal["type"] == "speech.finished"
    for id in ("waiting", "late"):
        assert device.speeches[id].frames == [
            {"type": "speech.interrupted", "id": id, "bytes": 0, "characters": 0},
        ]
    assert spoken_order(device.received) == ["playing"]
    assert exit_code == 0, server.logged()[-2000:]
    sandbox.clear_faults()
    requests = sandbox.requests()
    assert [request["text"] for request in requests] == [LONG]
    assert playing.audio == await repeat_requests(sandbox, requests)
    accounts = await accounts_of(started["conversation"])
    assert accounts.counter == accounts.ledger == len(LONG)
    assert accounts.utterance("playing").state == "spoken"
    assert accounts.utterance("waiting").state == accounts.utterance("late").state == "interrupted"
    assert accounts.conversation.ended_at is None  # it can be resumed


async def test_a_speech_longer_than_the_drain_timeout_is_cut(
    own_server: OwnServer, sandbox: SandboxProcess, alice: Member
) -> None:
    server = await asyncio.to_thread(own_server, DRAIN_TIMEOUT_S=1)
    sandbox.fault(**{**SLOW, "bytes_per_s": 4_000})
    async with Device(server.ws, alice.token) as device:
        started = await device.start(greeting=False)
        await device.start_speech("endless", LONG)
        began = time.monotonic()
        server.signal(signal.SIGTERM)
        assert await device.wait_closed() == 4012
        assert 0.9 < time.monotonic() - began < 8
    assert await asyncio.to_thread(server.wait) == 0
    assert device.speeches["endless"].terminal["type"] == "speech.interrupted"
    accounts = await accounts_of(started["conversation"])
    assert accounts.counter == accounts.ledger == len(LONG)
    assert accounts.utterance("endless").state == "interrupted"
    assert accounts.outcomes("endless") == [("live", "cancelled")]
    await eventually(lambda: outcome_of(sandbox, 0, "cancelled"))


async def test_a_server_without_devices_shuts_down_immediately(own_server: OwnServer, sandbox: SandboxProcess) -> None:
    server = await asyncio.to_thread(own_server)
    began = time.monotonic()
    server.signal(signal.SIGTERM)
    assert await asyncio.to_thread(server.wait) == 0
    assert time.monotonic() - began < 8


async def test_requests_that_keep_coming_do_not_hold_up_the_shutdown(own_server: OwnServer) -> None:
    """Some of them are in a thread that waits for the event loop when it stops."""
    server = await asyncio.to_thread(own_server)
    statuses: Counter[int] = Counter()

    async def log_in_again_and_again(http: aiohttp.ClientSession) -> None:
        with suppress(aiohttp.ClientError):
            while True:
                async with http.get(f"{server.url}/admin/login/") as reply:
                    statuses[reply.status] += 1

    async with aiohttp.ClientSession() as http:
        visitors = [asyncio.create_task(log_in_again_and_again(http)) for _ in range(20)]
        await eventually(lambda: statuses[200] > 20)
        server.signal(signal.SIGTERM)
        await asyncio.wait(visitors, timeout=20)
        assert await asyncio.to_thread(server.wait) == 0
    assert not statuses.keys() - {200, 503}
    assert "Traceback" not in server.logged()


# Start


async def test_the_first_scope_of_a_process_may_be_a_device(
    own_server: OwnServer, sandbox: SandboxProcess, alice: Member
) -> None:
    """daphne has no lifespan event. The first speech of a fresh process meets the usual limit."""
    server = await asyncio.to_thread(own_server, untouched=True)
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        spoken = await device.speak(TEXT)
    assert spoken.terminal["type"] == "speech.finished"
    assert spoken.terminal["source"] == "live"
    assert spoken.terminal["first_chunk_ms"] < 1000


async def test_two_devices_may_connect_first_at_the_same_time(
    own_server: OwnServer, sandbox: SandboxProcess, alice: Member, bob: Member
) -> None:
    server = await asyncio.to_thread(own_server, untouched=True)

    async def speak(member: Member) -> str:
        async with Device(server.ws, member.token) as device:
            await device.start(greeting=False)
            terminal: str = (await device.speak(TEXT)).terminal["type"]
            return terminal

    assert await asyncio.gather(speak(alice), speak(bob)) == ["speech.finished"] * 2
    assert server.logged().count("Traceback") == 0


async def test_speech_works_without_a_reachable_redis(
    own_server: OwnServer, sandbox: SandboxProcess, alice: Member
) -> None:
    server = await asyncio.to_thread(own_server, REDIS_URL=f"redis://127.0.0.1:{free_port()}/0")
    async with Device(server.ws, alice.token) as device:
        started = await device.start(greeting=False)
        spoken = await device.speak(TEXT)
        await asyncio.sleep(1.2)  # at least one sweep later
        following = await device.speak(TEXT)
        await device.end()
    assert [spoken.terminal["source"], following.terminal["source"]] == ["live", "live"]
    assert spoken.terminal["first_chunk_ms"] < 1000
    status, ready = server.get("/readyz")
    assert (status, "broker" in json.loads(ready)["degraded"]) == (200, True)
    accounts = await accounts_of(started["conversation"])
    assert accounts.counter == accounts.ledger == 2 * len(TEXT)


# Lost connections


async def test_a_dropped_connection_ends_its_speech(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    sandbox.fault(**{**SLOW, "bytes_per_s": 8_000})
    async with Device(server.ws, alice.token) as device:
        started = await device.start(greeting=False)
        await device.start_speech("playing", LONG)
        await device.send({"type": "speak", "id": "waiting", "text": TEXT})
        await device.assert_nothing_pending()
        device.drop_connection()
        await eventually(lambda: outcome_of(sandbox, 0, "cancelled"), 3)
    assert sandbox.account()["in_flight"] == {"standard": 0, "turbo": 0}
    for id in ("playing", "waiting"):
        await wait_for_state(started["conversation"], id, "interrupted")
    accounts = await accounts_of(started["conversation"])
    assert accounts.conversation.ended_at is None
    assert accounts.counter == accounts.ledger == len(LONG)
    async with Device(server.ws, alice.token) as device:
        resumed = await device.start(resume=started["conversation"])
        assert resumed["conversation"] == started["conversation"]
        assert (await device.speak(TEXT, id="after")).terminal["type"] == "speech.finished"
        assert (await device.end())["characters"] == len(LONG) + len(TEXT)


async def test_a_connection_dropped_before_the_first_byte_ends_its_request(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    sandbox.fault(kind="stall_first")
    async with Device(server.ws, alice.token) as device:
        started = await device.start(greeting=False)
        await device.send({"type": "speak", "id": "stalled", "text": TEXT})
        await eventually(sandbox.requests)
        device.drop_connection()
        await eventually(lambda: outcome_of(sandbox, 0, "cancelled"), 1)
    await wait_for_state(started["conversation"], "stalled", "interrupted")
    assert len(sandbox.requests()) == 1  # no retry for a disconnected device
    assert (await accounts_of(started["conversation"])).outcomes("stalled") == [("live", "unknown")]


# Exceptions


async def test_an_exception_in_a_handler_ends_speech_and_request(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member, bob: Member
) -> None:
    sandbox.fault(**SLOW)
    async with Device(server.ws, alice.token) as device, Device(server.ws, bob.token) as other:
        await other.start(greeting=False)
        started = await device.start(greeting=False)
        await device.start_speech("playing", LONG)
        await other.start_speech("undisturbed", LONG)
        async with missing_table("conversations"):
            await device.send({"type": "conversation.end"})
            await device.send({"type": "conversation.start"})
            assert await device.wait_closed() == 1011
            assert device.speeches["playing"].terminal["type"] == "speech.interrupted"
            await eventually(lambda: outcome_of(sandbox, 0, "cancelled"), 2)
            assert (await other.wait_for("undisturbed")).terminal["type"] == "speech.finished"
        assert sandbox.account()["in_flight"] == {"standard": 0, "turbo": 0}
        await other.end()
    assert await readiness(server) == 200
    async with Device(server.ws, alice.token) as device:
        await device.start(resume=started["conversation"])  # the end of the conversation could not be written
        assert (await device.speak(TEXT, id="after")).terminal["type"] == "speech.finished"
        ended = await device.end()
    accounts = await accounts_of(started["conversation"])
    assert ended["characters"] == accounts.counter == accounts.ledger == len(LONG) + len(TEXT)


async def test_an_exception_in_the_handshake_refuses_the_connection(server: ServerProcess, alice: Member) -> None:
    async with missing_table("patients_device"):
        with pytest.raises(HandshakeRefused):
            async with Device(server.ws, alice.token):
                pass
    async with Device(server.ws, alice.token) as device:
        await device.assert_nothing_pending()


# Killed processes


async def test_speech_of_a_killed_server_is_in_the_accounts(
    own_server: OwnServer, server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    doomed = await asyncio.to_thread(own_server)
    sandbox.fault(**{**SLOW, "bytes_per_s": 8_000})
    async with Device(doomed.ws, alice.token) as device:
        started = await device.start(greeting=False)
        await device.speak(TEXT, id="before")
        await device.start_speech("killed", LONG)

        async def written() -> bool:
            return (await accounts_of(started["conversation"])).counter == len(TEXT) + len(LONG)

        await eventually(written, 2)
        doomed.process.kill()
        await device.wait_closed()
    await asyncio.to_thread(doomed.wait)
    await eventually(lambda: outcome_of(sandbox, 1, "cancelled"), 3)

    async with Device(server.ws, alice.token) as device:
        resumed = await device.start(resume=started["conversation"])
        assert resumed == started
        refused = await device.request(type="speak", id="killed", text=TEXT)
        assert refused["code"] == "duplicate_id"
        spoken = await device.speak(TEXT, id="after")
        assert spoken.terminal["type"] == "speech.finished"
        ended = await device.end()
    accounts = await accounts_of(started["conversation"])
    total = 2 * len(TEXT) + len(LONG)
    assert ended["characters"] == accounts.counter == accounts.ledger == sandbox.account()["characters"] == total
    assert [kind for kind, _ in accounts.outcomes("killed")] == ["live"]


async def test_a_row_is_in_state_speaking_during_playback(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    sandbox.fault(**SLOW)
    async with Device(server.ws, alice.token) as device:
        started = await device.start(greeting=False)
        await device.start_speech("playing", LONG)
        await wait_for_state(started["conversation"], "playing", "speaking", 1.5)
        await device.wait_for("playing")
    await wait_for_state(started["conversation"], "playing", "spoken")


async def test_the_speech_of_a_killed_server_ends_as_interrupted(
    own_server: OwnServer, server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    """No row stays in the state speaking after its conversation was resumed or has ended."""
    doomed = await asyncio.to_thread(own_server)
    sandbox.fault(**{**SLOW, "bytes_per_s": 8_000})
    async with Device(doomed.ws, alice.token) as device:
        started = await device.start(greeting=False)
        await device.start_speech("killed", LONG)
        await device.send({"type": "speak", "id": "waiting", "text": TEXT})

        async def row_exists() -> bool:
            return await state_of(started["conversation"], "killed") is not None

        await eventually(row_exists)
        doomed.process.kill()
    async with Device(server.ws, alice.token) as device:
        await device.start(resume=started["conversation"])
        await device.end()
    accounts = await accounts_of(started["conversation"])
    assert {utterance.state for utterance in accounts.utterances} == {"interrupted"}


async def test_a_journal_is_recovered_when_the_database_is_back(own_server: OwnServer, alice: Member) -> None:
    """The journal of a process that died without a database, and that no start of a process finds."""
    server = await asyncio.to_thread(own_server)
    attempt = Attempt(uuid.uuid4(), 0, 1, "live", 60)
    async with missing_table(UsageEvent._meta.db_table):
        await asyncio.to_thread(leave_journal, server.data_dir / journal.FOLDER, attempt)
        await eventually(lambda: "runtime.journal_recovery_failed" in server.logged(), 40)
    events = UsageEvent.objects.filter(source=attempt.source_id).values_list("outcome", flat=True)
    await eventually(lambda: in_database(list, events.all()), 40, wanted=lambda found: found == ["unknown"])


def leave_journal(folder: Path, attempt: Attempt) -> None:
    """Leave the journal of a process that has ended."""
    left = Journal(folder)
    left.append(attempt)
    left.close()
