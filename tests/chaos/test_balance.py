"""A web process and a worker are killed while fifty devices speak: after reconciliation all accounts agree."""

import asyncio
import signal
import time

import pytest

from tests.chaos.cluster import Cluster
from tests.chaos.test_outages import (
    ADD_PHRASE,
    assert_accounts_agree,
    assert_nothing_lost,
    is_generating_a_phrase,
    sent_around,
    talking_ward,
    wait_until_all_acknowledged,
)
from tests.waiting import eventually

pytestmark = [pytest.mark.services, pytest.mark.timeout(180)]

BUDGET = 1_000_000
IN_HALF_AN_HOUR = """
from datetime import timedelta
from django.conf import settings
from django.utils import timezone
from tts.conversations import lifecycle
from usage import budgets
from usage.ledger import events, journal, rollup
from usage.models import BudgetMonth
from usage.reconciliation import reconciler
now = timezone.now()
journal.recover(settings.DATA_DIR / journal.FOLDER, events.record_attempts)
for day in {rollup.day_of(now - timedelta(minutes=5)), rollup.day_of(now)}:
    assert reconciler.reconcile_day(day, now + timedelta(minutes=30), lifecycle.add_reconciled_characters, force=True)
BudgetMonth.objects.update(updated_at=now - timedelta(minutes=30))
budgets.repair()
"""
EVENTS = "SELECT coalesce(sum(characters), 0) FROM usage_usageevent"
DAYS = "SELECT coalesce(sum(characters), 0) FROM usage_dailyusage"
UNKNOWN = "SELECT count(*) FROM usage_usageevent WHERE outcome = 'unknown'"
PATIENT_EVENTS = EVENTS + " WHERE kind IN ('live', 'retry', 'backup')"
BUDGETS = "SELECT coalesce(sum(used), 0), coalesce(sum(reserved), 0) FROM usage_budgetmonth"


async def test_all_accounts_agree_after_a_web_process_and_a_worker_were_killed(cluster: Cluster) -> None:
    """The journal of a killed process has the requests that it did not write to the database."""
    cluster.sandbox.fault(kind="slow", bytes_per_s=8_000, match={"text": "^This phrase"}, first=1)
    async with talking_ward(cluster, BUDGET) as ward:
        await asyncio.to_thread(cluster.execute, ADD_PHRASE, "This phrase is being made when its maker is killed.")
        await asyncio.to_thread(cluster.start_worker)
        await asyncio.to_thread(cluster.enqueue_task, "tts.warm_due")
        await eventually(lambda: asyncio.to_thread(is_generating_a_phrase, cluster))
        await asyncio.to_thread(cluster.kill_worker)
        ward.servers[0].signal(signal.SIGKILL)
        killed_at = time.monotonic()
        await ward.wait_for_sentences(3)
    assert_nothing_lost(ward)
    await wait_until_all_acknowledged(ward)
    excused = sent_around(killed_at)
    await assert_accounts_agree(ward, lambda record: record["fault"] == "slow" or excused(record))
    await asyncio.to_thread(cluster.run_code, IN_HALF_AN_HOUR)
    await asyncio.to_thread(assert_all_accounts_agree, cluster)


def assert_all_accounts_agree(cluster: Cluster) -> None:
    def number(statement: str) -> int:
        return int(cluster.query(statement)[0][0])

    assert number(UNKNOWN) == 0
    assert number(EVENTS) == number(DAYS) == cluster.sandbox.account()["characters"]
    assert cluster.query(BUDGETS) == [(number(PATIENT_EVENTS), 0)]
    assert cluster.conversation_characters() == cluster.conversation_ledger_characters() - late_characters(cluster)


def late_characters(cluster: Cluster) -> int:
    """Return the characters that reconciliation found after the conversation had ended. No conversation counts them."""
    found = "SELECT coalesce(sum(characters), 0) FROM usage_usageevent WHERE code = 'billed' AND conversation IN "
    return int(cluster.query(f"{found} (SELECT id FROM conversations WHERE ended_at IS NOT NULL)")[0][0])
