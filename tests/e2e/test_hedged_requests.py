"""A second request for speech whose first one brings no audio in the usual time (docs/protocol.md, rule 4)."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from tests.conftest import Member
from tests.e2e.device import Device
from tests.e2e.rows import Accounts, accounts_of
from tests.sandbox import SandboxProcess
from tests.server import ServerProcess
from tests.waiting import eventually
from tts.synthesis.hedging import MIN_ANSWERS

TEXT = "The provider answers this one far too late."
LATE = {"match": {"text": "far too late"}}

OwnServer = Callable[..., ServerProcess]


@asynccontextmanager
async def experienced_device(own_server: OwnServer, member: Member) -> AsyncIterator[tuple[Device, str]]:
    """A device with an open conversation, on a server that knows how soon the provider usually answers."""
    server = await asyncio.to_thread(own_server, HEDGE_SHARE=1, FIRST_CHUNK_TIMEOUT_S=4)
    async with Device(server.ws, member.token) as device:
        started = await device.start(greeting=False)
        for number in range(MIN_ANSWERS):
            await device.speak(f"Number {number}.")
        yield device, started["conversation"]


async def wait_for_attempts(conversation: str, *wanted: tuple[str, str]) -> Accounts:
    """Wait until the ledger has exactly these attempts at the text `late`, and the conversation has counted them."""

    async def read() -> Accounts:
        return await accounts_of(conversation)

    def is_written(accounts: Accounts) -> bool:
        return accounts.counter == accounts.ledger and sorted(accounts.outcomes("late")) == sorted(wanted)

    return await eventually(read, wanted=is_written)


async def test_the_patient_hears_the_second_request_when_the_first_one_is_late(
    own_server: OwnServer, sandbox: SandboxProcess, alice: Member
) -> None:
    sandbox.fault(kind="stall_first", first=1, **LATE)
    async with experienced_device(own_server, alice) as (device, conversation):
        speech = await device.speak(TEXT, id="late")
    assert speech.terminal["type"] == "speech.finished"
    assert speech.terminal["source"] == "live"
    assert speech.terminal["first_chunk_ms"] < 4000  # sooner than a retry could be
    assert "notice" not in device.types()
    accounts = await wait_for_attempts(conversation, ("live", "unknown"), ("hedge", "completed"))
    assert accounts.ledger == sandbox.account()["characters"]
    assert speech.terminal["characters"] == len(TEXT)
    # The dashboard counts the second requests that came first by this time.
    assert [event.first_chunk_ms is None for event in accounts.events if event.kind == "hedge"] == [False]


async def test_both_requests_count_if_the_provider_bills_both(
    own_server: OwnServer, sandbox: SandboxProcess, alice: Member
) -> None:
    sandbox.fault(kind="stall_headers", first=1, **LATE)  # the headers come, the audio does not
    async with experienced_device(own_server, alice) as (device, conversation):
        speech = await device.speak(TEXT, id="late")
    accounts = await wait_for_attempts(conversation, ("live", "cancelled"), ("hedge", "completed"))
    assert speech.terminal["characters"] == 2 * len(TEXT)
    assert accounts.ledger == sandbox.account()["characters"]


async def test_a_second_request_that_fails_changes_nothing(
    own_server: OwnServer, sandbox: SandboxProcess, alice: Member
) -> None:
    sandbox.fault(kind="stall_first", first=1, **LATE)
    sandbox.fault(kind="error", status=500, first=1, **LATE)
    async with experienced_device(own_server, alice) as (device, conversation):
        speech = await device.speak(TEXT, id="late")
    assert speech.terminal["source"] == "live"
    assert "notice" not in device.types()
    await wait_for_attempts(conversation, ("live", "unknown"), ("hedge", "failed"), ("retry", "completed"))


async def test_a_first_request_that_is_still_sooner_is_heard(
    own_server: OwnServer, sandbox: SandboxProcess, alice: Member
) -> None:
    sandbox.fault(kind="slow_headers", seconds=0.8, first=1, **LATE)
    sandbox.fault(kind="stall_first", first=1, **LATE)
    async with experienced_device(own_server, alice) as (device, conversation):
        speech = await device.speak(TEXT, id="late")
    accounts = await wait_for_attempts(conversation, ("live", "completed"), ("hedge", "unknown"))
    assert speech.terminal["characters"] == len(TEXT)
    assert [event.first_chunk_ms is None for event in accounts.events if event.kind == "hedge"] == [True]


async def test_an_interruption_ends_both_requests(
    own_server: OwnServer, sandbox: SandboxProcess, alice: Member
) -> None:
    sandbox.fault(kind="stall_first", **LATE)
    async with experienced_device(own_server, alice) as (device, conversation):
        asked = len(sandbox.requests())
        await device.send({"type": "speak", "id": "late", "text": TEXT})
        await eventually(lambda: len(sandbox.requests()) == asked + 2)
        await device.interrupt()
        speech = await device.wait_for("late")
        assert speech.terminal["type"] == "speech.interrupted"
        await wait_for_attempts(conversation, ("live", "unknown"), ("hedge", "unknown"))
        await eventually(lambda: not any(sandbox.account()["in_flight"].values()))


async def test_an_account_with_one_stream_gets_no_second_request(
    own_server: OwnServer, sandbox: SandboxProcess, alice: Member
) -> None:
    sandbox.settings(concurrency=1)
    sandbox.fault(kind="stall_first", first=1, **LATE)
    async with experienced_device(own_server, alice) as (device, conversation):
        await device.speak(TEXT, id="late")
    await wait_for_attempts(conversation, ("live", "unknown"), ("retry", "completed"))
