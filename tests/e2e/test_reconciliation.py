"""Billed requests without a response are unknown at first, and are in all accounts after reconciliation."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import pytest
from django.db.models import Sum
from pytest_django import Settings

from tests.conftest import DEFAULT_VOICE, OTHER_VOICE, Member
from tests.e2e.device import Device
from tests.e2e.rows import accounts_of, in_database
from tests.sandbox import SandboxProcess
from tests.server import ServerProcess
from tts.conversations import lifecycle
from tts.models import Conversation
from usage.ledger import events as ledger
from usage.ledger import journal, rollup
from usage.models import DailyUsage, Incident, Price, Reconciliation, UsageEvent
from usage.reconciliation import reconciler
from usage.reconciliation.day import DayRange
from usage.reports import queries
from voicecare_client import DeviceError

LOST = "Lost on its way back, this one is billed all the same."
GONE = "Gone before it was heard, this one is not billed."
HEARD = "And this one is simply heard."


@pytest.fixture(autouse=True)
def provider(settings: Settings, sandbox: SandboxProcess) -> Iterator[None]:
    settings.ELEVENLABS_BASE_URL = sandbox.url
    yield
    sandbox.clear_faults()


def daily_characters() -> int:
    return DailyUsage.objects.aggregate(sum=Sum("characters", default=0))["sum"]


def reconcile(day_is_over: bool) -> Reconciliation:
    """Reconcile the day of the speech, as in half an hour or after its end. Twice, because beat may ask twice."""
    began = UsageEvent.objects.order_by("started_at").values_list("started_at", flat=True)[0]
    day = rollup.day_of(began)
    now = DayRange(day).end + timedelta(hours=2) if day_is_over else datetime.now(UTC) + timedelta(minutes=30)
    for _ in range(2):
        assert reconciler.reconcile_day(day, now, lifecycle.add_reconciled_characters, force=True)
    return Reconciliation.objects.get(day=day)


async def test_unknown_requests_are_added_to_all_accounts_except_ended_conversations(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member, bob: Member
) -> None:
    for voice in (OTHER_VOICE, DEFAULT_VOICE):  # one fault in each voice: the retries succeed
        sandbox.fault(kind="unanswered", match={"text": "^Lost", "voice_id": voice}, first=1)
    sandbox.fault(kind="stall_first", match={"text": "^Gone"}, first=1)
    async with Device(server.ws, alice.token) as open_device, Device(server.ws, bob.token) as device:
        opened = await open_device.start(greeting=False)
        for text in (LOST, GONE, HEARD):
            assert (await open_device.speak(text)).terminal["type"] == "speech.finished"
        ended = await device.start(greeting=False)
        assert (await device.speak(LOST)).terminal["type"] == "speech.finished"
        assert (await device.end())["characters"] == len(LOST)

        before = await accounts_of(opened["conversation"])
        assert before.counter == before.ledger == len(LOST) + len(GONE) + len(HEARD)
        assert await in_database(queries.unconfirmed_requests) == queries.UnconfirmedRequests(
            3, 2 * len(LOST) + len(GONE)
        )

        row = await in_database(reconcile, False)
        assert (row.billed_attempts, row.unbilled_attempts, row.unknown_attempts) == (2, 1, 0)
        open_accounts, ended_accounts = (
            await accounts_of(opened["conversation"]),
            await accounts_of(ended["conversation"]),
        )
        assert open_accounts.counter == open_accounts.ledger == before.counter + len(LOST)
        assert (ended_accounts.counter, ended_accounts.ledger) == (len(LOST), 2 * len(LOST))
        total = sandbox.account()["characters"]
        assert open_accounts.ledger + ended_accounts.ledger == await in_database(daily_characters) == total
        settled = [event for event in open_accounts.events if event.code == "billed"]
        billed = {request["request_id"]: request for request in sandbox.requests() if request["billed"]}
        assert [(event.outcome, event.credits) for event in settled] == [
            ("failed", billed[event.request_id]["credits"]) for event in settled
        ]
        assert len(settled) == 1
        assert (await open_device.end())["characters"] >= before.counter


async def test_a_day_agrees_with_the_provider_although_others_use_the_account(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    sandbox.fault(kind="unanswered", match={"text": "^Lost"}, first=1)
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        for text in (LOST, HEARD):
            await device.speak(text)
        await device.end()
    sandbox.add_external_usage("x" * 3000)
    row = await in_database(reconcile, True)
    account = sandbox.account()
    assert row.characters == row.provider_characters - 3000 == account["characters"] - 3000
    assert row.provider_credits == account["credits"]
    assert (row.external_characters, row.billed_attempts, row.unexplained_characters) == (3000, 1, 0)
    assert "Other users of the account: 3,000 from requests that this server did not make." in row.explanation

    sandbox.add_external_usage("x" * 500, kept=False)
    for _ in range(2):
        row = await in_database(reconcile, True)
    assert row.unexplained_credits == sandbox.account()["credits"] - account["credits"] == 500
    drift = await in_database(list, Incident.objects.filter(kind="drift").values_list("key", "resolved_at"))
    assert drift == [(str(row.day), None)]


TALK = "Sentence number {0} of this talk is spoken until the server dies. It has a second sentence, and then another!"


def balances() -> tuple[dict[UUID, int], dict[UUID, int]]:
    """Return for each conversation its own counter, and the sum of its events."""
    events = UsageEvent.objects.exclude(conversation=None).order_by().values_list("conversation")
    own = Conversation.objects.values_list("pk", "tts_characters_used")
    return dict(own), dict(events.annotate(sum=Sum("characters")))


@pytest.mark.parametrize(
    ("usage_call", "has_history"), [("credits", True), ("cost", True), ("deprecated", True), ("credits", False)]
)
async def test_after_killed_servers_all_accounts_agree_exactly(
    own_server: Callable[..., ServerProcess],
    sandbox: SandboxProcess,
    member: Callable[..., Member],
    usage_call: str,
    has_history: bool,
) -> None:
    """The servers are killed at different moments of a request: sent, billed, answered, recorded. The journals have the
    attempts that were not written yet.
    """
    sandbox.settings(concurrency=30, usage_call=usage_call, history=has_history)
    await in_database(Price.objects.create, per_1000_credits=Decimal("0.3"), valid_from=date(2026, 1, 1))
    sandbox.fault(kind="unanswered", seconds=0.3, every=5)
    cast = await in_database(lambda: [member(f"Patient {number}") for number in range(8)])

    async def talk(url: str, token: str) -> None:
        with suppress(OSError, DeviceError, TimeoutError):
            async with Device(url, token) as device:
                await device.start(greeting=False)
                for number in range(100):
                    await device.speak(TALK.format(number))

    for pause_s in (1.5, 2.1):
        doomed = await asyncio.to_thread(own_server)
        talks = [asyncio.create_task(talk(doomed.ws, one.token)) for one in cast]
        await asyncio.sleep(pause_s)
        doomed.process.kill()
        await asyncio.gather(*talks)
        await in_database(journal.recover, doomed.data_dir / journal.FOLDER, ledger.record_attempts)
    await asyncio.to_thread(sandbox.wait_until_idle)

    left = await in_database(queries.unconfirmed_requests)
    row = await in_database(reconcile, False)
    assert (row.unknown_attempts, row.billed_attempts + row.unbilled_attempts) == (0, left.attempts)
    counters, sums = await in_database(balances)
    assert counters == {key: sums.get(key, 0) for key in counters}
    assert sum(sums.values()) == await in_database(daily_characters) == sandbox.account()["characters"] > 0
    assert row.external_characters == 0

    row = await in_database(reconcile, True)
    assert (row.usage_call, row.request_call) == (usage_call, "history" if has_history else "requests")
    assert row.provider_characters == row.characters == sandbox.account()["characters"]
    assert row.provider_credits == row.credits == sandbox.account()["credits"]
    assert (row.unexplained_characters, row.unexplained_credits, row.provider_cost) == (0, 0, row.cost)
    assert (row.cost is not None) == (usage_call == "cost")
    assert not await in_database(Incident.objects.filter(kind="drift").exists)
