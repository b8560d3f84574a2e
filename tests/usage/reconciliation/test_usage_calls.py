"""Which call has the provider's sums is found out by trying. A bad answer gives a reason and changes nothing."""

from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pytest
from pytest_django import Settings

from tests.sandbox import SandboxProcess
from usage.models import Price, Reconciliation
from usage.reconciliation import reconciler, usage_calls
from usage.reconciliation.usage_calls import last_call
from voicecare.patients.models import Voice

from tests.usage.reconciliation.test_reconciler import (  # isort: skip
    DAY,
    MIDNIGHT,
    NOON,
    OVER,
    VOICE,
    add_nothing,
    bill,
    bill_and_record,
    drift_incidents,
    outcome,
    record_unanswered,
)

pytestmark = pytest.mark.django_db

CREDITS, COST = "usage-by-product", "analytics/usage$"
ANY_CALL = "workspace/analytics|character-stats"


@pytest.fixture(autouse=True)
def provider(sandbox: SandboxProcess, settings: Settings) -> SandboxProcess:
    settings.ELEVENLABS_BASE_URL = sandbox.url
    Voice.objects.get_or_create(provider_id=VOICE, defaults={"name": "Rachel"})
    return sandbox


def reconcile(now: datetime = OVER) -> Reconciliation:
    assert reconciler.reconcile_day(DAY, now, add_nothing, force=True)
    return Reconciliation.objects.get(day=DAY)


def price() -> None:
    Price.objects.create(per_1000_credits=Decimal("0.3"), valid_from=DAY - timedelta(days=1))


def table(*rows: list[Any], name: str = "total_usage", unit: str = "credits") -> dict[str, Any]:
    return {
        "columns": ["timestamp", name],
        "column_types": ["DateTime", "Float"],
        "column_units": [None, unit],
        "rows": list(rows),
    }


def hours(number: int = 24, first: datetime = MIDNIGHT) -> list[list[Any]]:
    return [[(first + timedelta(hours=hour)).isoformat(), 1] for hour in range(number)]


# Each form


@pytest.mark.parametrize("call", ["credits", "deprecated"])
def test_credits_agree_to_the_unit(provider: SandboxProcess, call: str):
    provider.settings(usage_call=call)
    bill_and_record(provider, asked=1234)
    bill_and_record(provider, MIDNIGHT + timedelta(hours=23, minutes=59), asked=66)
    row = reconcile()
    assert (row.credits, row.provider_credits, row.unexplained_credits) == (650, 650, 0)
    assert (row.characters, row.provider_characters) == (1300, 1300)
    assert (row.usage_call, row.request_call, row.provider_cost) == (call, "history", None)
    assert row.compared_at == OVER


def test_money_is_compared_with_the_cost_of_the_ledger(provider: SandboxProcess):
    provider.settings(usage_call="cost")
    price()
    bill_and_record(provider, asked=40_000)
    row = reconcile()
    assert (row.usage_call, row.currency) == ("cost", "USD")
    assert row.cost == row.provider_cost == Decimal("6.00")
    assert "Cost: 6.00 USD in the ledger and at the provider." in row.explanation
    assert (row.characters, row.provider_characters, row.provider_credits) == (40_000, 40_000, 20_000)


def test_unexplained_money_is_a_drift_and_usage_by_others_explains_it(provider: SandboxProcess):
    provider.settings(usage_call="cost")
    price()
    bill_and_record(provider, asked=40_000)
    provider.add_external_usage("x" * 10_000, unix=NOON.timestamp())
    row = reconcile()
    assert "Cost: 6.00 USD in the ledger, 9.00 USD at the provider (+3.00 USD)." in row.explanation
    assert "Other users of the account: 3.00 USD" in row.explanation
    assert drift_incidents() == []
    provider.add_external_usage("x" * 10_000, unix=NOON.timestamp(), kept=False)
    assert "Unexplained: +3.00 USD." in reconcile().explanation
    assert drift_incidents() == [(str(DAY), True)]


def test_money_without_a_price_or_in_another_currency_is_not_compared(provider: SandboxProcess):
    provider.settings(usage_call="cost")
    bill_and_record(provider, asked=40_000)
    row = reconcile()
    assert (row.cost, row.provider_cost) == (None, Decimal("6.00"))
    assert "The provider charged 6.00 USD for the day in UTC. It is not compared" in row.explanation
    price()
    provider.settings(currency="eur")
    row = reconcile()
    assert (row.cost, row.currency) == (None, "EUR")
    assert "because our prices are in USD" in row.explanation


def test_a_day_of_money_waits_for_the_end_of_the_day_in_utc(provider: SandboxProcess, settings: Settings):
    settings.USAGE_TIME_ZONE = "Pacific/Auckland"  # its day ends half a day before that of UTC
    provider.settings(usage_call="cost")
    bill_and_record(provider, MIDNIGHT + timedelta(hours=1))
    row = reconcile(MIDNIGHT + timedelta(hours=14))
    assert (row.compared_at, row.usage_call) == (None, "")
    assert "The provider counts days in UTC, and this one is not over." in row.explanation
    assert reconcile().compared_at == OVER


@pytest.mark.parametrize("zone", ["Asia/Kolkata", "America/New_York", "Europe/Berlin", "Australia/Lord_Howe"])
def test_hours_are_those_of_the_time_zone(provider: SandboxProcess, settings: Settings, zone: str):
    settings.USAGE_TIME_ZONE = zone
    span = reconciler.DayRange(DAY)
    for at in (span.start, span.end - timedelta(seconds=2)):
        bill_and_record(provider, at, asked=100)
    for at in (span.start - timedelta(seconds=2), span.end):  # other days
        bill_and_record(provider, at, asked=1000)
    row = reconcile(span.end + timedelta(hours=2))
    assert (row.credits, row.provider_credits, row.usage_call) == (100, 100, "credits")


# Finding out which call the account has


def test_the_call_is_remembered_and_found_out_anew_when_it_is_refused(provider: SandboxProcess):
    for call in ("deprecated", "cost", "credits"):
        provider.settings(usage_call=call)
        bill_and_record(provider)
        assert reconcile().usage_call == last_call() == call
    provider.fault(kind="error", preset="internal_error", match={"path": "character-stats|" + COST})  # are not asked
    assert reconcile().usage_call == "credits"
    assert [fault["seen"] for fault in provider.faults()] == [0]


@pytest.mark.parametrize("preset", ["missing_permissions", "insufficient_permissions", "not_found"])
def test_a_refused_call_leads_to_the_next(provider: SandboxProcess, preset: str):
    provider.fault(kind="error", preset=preset, match={"path": CREDITS})
    bill_and_record(provider)
    assert reconcile().usage_call == "deprecated"


def test_missing_hours_lead_to_the_next_call(provider: SandboxProcess):
    bill_and_record(provider, asked=1000)
    provider.fault(kind="json", body=table(*hours()[:7], *hours()[9:]), match={"path": CREDITS})
    row = reconcile()
    assert (row.usage_call, row.provider_credits, row.unexplained_credits) == ("deprecated", 500, 0)
    provider.fault(kind="error", preset="not_found", match={"path": "character-stats"})
    row = reconcile()
    assert "2 of 24 hours are missing" in row.explanation
    assert (row.usage_call, row.provider_credits, row.unexplained_credits) == ("deprecated", 500, 0)


def test_an_error_does_not_lead_to_another_call(provider: SandboxProcess):
    provider.fault(kind="error", preset="internal_error", match={"path": CREDITS})
    bill_and_record(provider)
    row = reconcile()
    assert (row.usage_call, last_call()) == ("", "")
    assert "did not answer as expected (internal_error)" in row.explanation


@pytest.mark.parametrize("preset", ["missing_permissions", "insufficient_permissions", "not_found"])
def test_without_any_call_the_reasons_are_named(provider: SandboxProcess, preset: str):
    bill_and_record(provider, asked=1000)
    before = reconcile()
    provider.fault(kind="error", preset=preset, match={"path": ANY_CALL})
    row = reconcile()
    for words in ("usage in credits", "cost in money", "older statistics"):
        assert words in row.explanation
    assert "may not read it" in row.explanation
    assert (row.provider_credits, row.usage_call) == (before.provider_credits, before.usage_call) == (500, "credits")
    assert drift_incidents() == []


# Bad answers


def two_columns() -> dict[str, Any]:
    reply = table(*([at, 1, 1] for at, _ in hours()))
    return {
        **reply,
        "columns": ["timestamp", "a", "b"],
        "column_types": ["DateTime", "Float", "Float"],
        "column_units": [None, "credits", "credits"],
    }


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (table(*hours(first=MIDNIGHT - timedelta(hours=2))), "another day or another time zone"),
        (table(*hours(first=MIDNIGHT + timedelta(minutes=30))), "another day or another time zone"),
        (table(), "it is empty"),
        (table(*hours(), name="total_cost", unit="usd"), "it is in money, although credits were requested"),
        (two_columns(), "2 columns of credits instead of one"),
        (table(*hours(), unit="min"), "0 columns of credits instead of one"),
        (table(*[[at, 10**12] for at, _ in hours()]), "implausibly high"),
        (table(*[[at, "many"] for at, _ in hours()]), "bad_reply"),
        (table(*[[at, -1] for at, _ in hours()]), "bad_reply"),
        (table(["yesterday", 1]), "bad_reply"),
        (table([MIDNIGHT.isoformat()]), "bad_reply"),
        ({**table(*hours()), "column_types": ["String", "Float"]}, "bad_reply"),
        ({**table(*hours()), "column_units": []}, "bad_reply"),
        ({"columns": "timestamp"}, "bad_reply"),
        ([], "bad_reply"),
    ],
)
def test_a_bad_answer_changes_nothing(provider: SandboxProcess, reply: Any, reason: str):
    bill_and_record(provider, asked=1000)
    before = reconcile()
    assert (before.provider_credits, before.usage_call) == (500, "credits")
    provider.fault(kind="json", body=reply, match={"path": CREDITS})
    row = reconcile()
    assert "The provider's usage could not be read" in row.explanation
    assert reason in row.explanation
    assert (row.provider_credits, row.usage_call, row.unexplained_credits) == (500, "credits", 0)
    assert drift_incidents() == []


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (table([MIDNIGHT.isoformat(), 5], unit="credits"), "both money and credits"),
        (table([(MIDNIGHT - timedelta(hours=2)).isoformat(), 5], unit="usd"), "another time or another time zone"),
        (table([MIDNIGHT.isoformat(), 5], [OVER.isoformat(), 5], unit="usd"), "another time or another time zone"),
        (table([MIDNIGHT.isoformat(), 5], unit="min"), "0 columns of money instead of one"),
        (table(unit="usd"), "it is empty"),
    ],
)
def test_a_bad_answer_about_money_changes_nothing(provider: SandboxProcess, reply: Any, reason: str):
    provider.settings(usage_call="cost")
    price()
    bill_and_record(provider, asked=40_000)
    reconcile()
    provider.fault(kind="json", body=reply, match={"path": COST})
    row = reconcile()
    assert reason in row.explanation
    assert (row.provider_cost, row.cost, row.usage_call) == (Decimal("6.00"), Decimal("6.00"), "cost")
    assert drift_incidents() == []


# The list of requests


@pytest.mark.parametrize("zero_retention", [False, True])
def test_without_a_history_the_list_of_requests_settles_attempts(
    provider: SandboxProcess, settings: Settings, zero_retention: bool
):
    settings.ELEVENLABS_ZERO_RETENTION = zero_retention
    provider.settings(history=False)
    billed, lost = record_unanswered(), record_unanswered(NOON + timedelta(hours=1))
    sale = provider.add_external_usage(
        "x" * 40, unix=NOON.timestamp() + 1, voice_id=VOICE, model_id="eleven_flash_v2_5"
    )
    bill_and_record(provider, NOON + timedelta(hours=2))
    row = reconcile()
    assert outcome(billed) == ("cancelled", "billed", 40, 20, sale["request_id"])
    assert outcome(lost)[1] == "not_billed"
    assert (row.request_call, row.unknown_attempts, row.unexplained_credits) == ("requests", 0, 0)
    assert row.credits == row.provider_credits == provider.account()["credits"] == 40


def test_a_list_with_only_the_documented_columns_proves_only_absence(provider: SandboxProcess):
    provider.settings(history=False, request_list="documented")
    billed, lost = record_unanswered(), record_unanswered(NOON + timedelta(hours=1))
    bill(provider)
    bill_and_record(provider, NOON + timedelta(hours=2))
    row = reconcile()
    assert (outcome(billed)[0], outcome(lost)[1], row.request_call) == ("unknown", "not_billed", "requests")
    assert row.provider_characters is None


def test_a_list_without_our_requests_settles_nothing(provider: SandboxProcess):
    provider.settings(history=False)
    lost = record_unanswered()
    bill_and_record(provider, NOON + timedelta(hours=2))
    provider.fault(kind="json", body=table(), match={"path": "analytics/requests"})
    row = reconcile()
    assert (outcome(lost)[0], row.request_call) == ("unknown", "")
    assert "The provider's list of requests could not be read: it lacks 1 of 1 requests" in row.explanation


def test_a_long_list_is_read_page_by_page(provider: SandboxProcess, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("usage.reconciliation.provider_usage.PAGE_SIZE", 3)
    provider.settings(history=False)
    for minute in range(8):
        bill_and_record(provider, NOON + timedelta(minutes=minute))
    row = reconcile()
    assert (row.request_call, row.external_characters, row.provider_characters) == ("requests", 0, 320)


def test_the_midnight_of_a_day_in_utc_has_its_date():
    midnight = reconciler.DayRange(DAY).start
    assert usage_calls.utc_day(midnight) == datetime.combine(DAY, time(), UTC)
