"""Monthly budgets: simultaneous reservations never exceed the budget, and wrong rows are repaired."""

import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta

import pytest
from django.db import connection
from django.utils import timezone
from pytest_django import Settings

from tests.conftest import Member
from usage import budgets, tasks
from usage.alerts import incidents
from usage.ledger import events, rollup
from usage.ledger.events import Attempt
from usage.models import BudgetMonth, DailyUsage, Incident
from voicecare.patients.models import Patient

pytestmark = pytest.mark.django_db

MARCH = date(2026, 3, 1)


@pytest.fixture
def patient(alice: Member) -> Patient:
    return with_budget(alice.patient, 100)


def with_budget(patient: Patient, characters: int | None) -> Patient:
    patient.monthly_character_budget = characters
    patient.save()
    return patient


def record_speech(patient: Patient, characters: int, at: datetime | None = None, kind: str = "live") -> None:
    attempt = Attempt(uuid.uuid4(), 0, 1, kind, characters, patient_id=patient.pk, started_at=at or timezone.now())
    attempt.mark_answered("request", None)
    events.record_attempts([attempt])


def row(patient: Patient, month: date = MARCH) -> tuple[int, int]:
    found = BudgetMonth.objects.get(patient=patient.pk, month=month)
    return found.used, found.reserved


def make_stale(minutes: float = 16) -> None:
    BudgetMonth.objects.update(updated_at=timezone.now() - timedelta(minutes=minutes))


def test_reservations_never_exceed_the_budget(patient: Patient):
    taken = [budgets.reserve(patient.pk, MARCH, size) for size in (60, 41, 40, 1)]
    assert taken == [True, False, True, False]
    assert row(patient) == (0, 100)


def test_settling_uses_what_was_counted_and_releases_the_rest(patient: Patient):
    budgets.reserve(patient.pk, MARCH, 60)
    budgets.settle(patient.pk, MARCH, reserved=60, used=25)
    assert row(patient) == (25, 0)
    assert budgets.reserve(patient.pk, MARCH, 75)
    assert not budgets.reserve(patient.pk, MARCH, 1)


def test_settling_never_releases_more_than_is_reserved(patient: Patient):
    budgets.reserve(patient.pk, MARCH, 10)
    budgets.settle(patient.pk, MARCH, reserved=60, used=0)
    assert row(patient) == (0, 0)


def test_a_changed_budget_applies_immediately(patient: Patient):
    assert budgets.reserve(patient.pk, MARCH, 100)
    with_budget(patient, 150)
    assert budgets.reserve(patient.pk, MARCH, 50)
    with_budget(patient, 10)
    assert not budgets.reserve(patient.pk, MARCH, 1)
    with_budget(patient, None)
    assert budgets.reserve(patient.pk, MARCH, 100_000)


def test_nothing_fits_into_a_budget_of_zero(patient: Patient):
    with_budget(patient, 0)
    assert not budgets.reserve(patient.pk, MARCH, 1)


def test_months_and_patients_are_independent(patient: Patient, bob: Member):
    with_budget(bob.patient, 100)
    assert budgets.reserve(patient.pk, MARCH, 100)
    assert budgets.reserve(patient.pk, date(2026, 4, 1), 100)
    assert budgets.reserve(bob.patient.pk, MARCH, 100)


def test_usage_before_the_budget_was_set_counts(patient: Patient):
    at = datetime(2026, 3, 31, 23, 59, tzinfo=UTC)
    for kind in ("live", "retry", "backup", "warm", "preview", "probe"):
        record_speech(patient, 20, at, kind)
    record_speech(patient, 20, at + timedelta(minutes=1))
    assert not budgets.reserve(patient.pk, MARCH, 41)
    assert budgets.reserve(patient.pk, MARCH, 40)
    assert row(patient) == (60, 40)


@pytest.mark.parametrize(
    ("zone", "month"), [("UTC", date(2026, 2, 1)), ("Europe/Berlin", MARCH), ("America/New_York", date(2026, 2, 1))]
)
def test_months_are_in_the_usage_time_zone(settings: Settings, patient: Patient, zone: str, month: date):
    settings.USAGE_TIME_ZONE = zone
    record_speech(patient, 7, datetime(2026, 2, 28, 23, 30, tzinfo=UTC))
    assert budgets.used_characters(patient.pk, month) == 7
    assert budgets.current_month() == timezone.now().astimezone(budgets.rollup.time_zone()).date().replace(day=1)


@pytest.mark.django_db(transaction=True)
def test_ten_of_fifty_simultaneous_reservations_fit(patient: Patient):
    """The row does not exist yet, and all threads find that out at the same time."""

    def take(number: int) -> bool:
        try:
            return budgets.reserve(patient.pk, MARCH, 10)
        finally:
            connection.close()

    with ThreadPoolExecutor(10) as threads:
        assert sum(threads.map(take, range(50))) == 10
    assert row(patient) == (0, 100)


# Repair


def test_repair_releases_the_reservation_of_a_killed_process_and_uses_what_it_counted(patient: Patient):
    month = budgets.current_month()
    budgets.reserve(patient.pk, month, 100)
    record_speech(patient, 30)
    make_stale()
    assert budgets.repair() == 1
    assert row(patient, month) == (30, 0)
    assert budgets.repair() == 0


def test_repair_uses_what_reconciliation_found(patient: Patient):
    month = budgets.current_month()
    budgets.reserve(patient.pk, month, 10)
    budgets.settle(patient.pk, month, reserved=10, used=10)
    record_speech(patient, 10)
    record_speech(patient, 5)  # by reconciliation
    make_stale()
    tasks.repair_budgets()
    assert row(patient, month) == (15, 0)


def test_repair_reads_a_row_once_until_it_changes(patient: Patient):
    month = budgets.current_month()
    for change in (
        lambda: budgets.reserve(patient.pk, month, 10),
        lambda: budgets.settle(patient.pk, month, reserved=10, used=10),
        lambda: record_speech(patient, 10),
    ):
        change()
        make_stale()
        assert [budgets.repair(), budgets.repair()] == [1, 0]
    assert row(patient, month) == (10, 0)


def test_repair_uses_what_was_recorded_without_a_reservation(patient: Patient):
    """The budget was removed and is set again. Meanwhile the patient has spoken."""
    month = budgets.current_month()
    budgets.reserve(patient.pk, month, 0)
    make_stale()
    budgets.repair()
    record_speech(patient, 70)
    make_stale()
    budgets.repair()
    assert row(patient, month) == (70, 0)


def test_a_refusal_lets_repair_compare_the_row_again(patient: Patient):
    month = budgets.current_month()
    BudgetMonth.objects.create(patient=patient.pk, month=month, used=100, checked=True)  # more than the ledger has
    make_stale()
    assert budgets.repair() == 0
    assert not budgets.reserve(patient.pk, month, 10)
    assert budgets.repair() == 1
    assert budgets.reserve(patient.pk, month, 10)


def test_usage_unchecks_only_the_budget_of_its_month(patient: Patient):
    month = budgets.current_month()
    last = (month - timedelta(days=1)).replace(day=1)
    for first in (month, last):
        budgets.reserve(patient.pk, first, 10)
    make_stale()
    assert budgets.repair() == 2
    record_speech(patient, 10, at=datetime(last.year, last.month, 15, tzinfo=UTC))
    assert {row.month: row.checked for row in BudgetMonth.objects.all()} == {month: True, last: False}


def test_repair_compares_all_rows_after_the_days_were_rebuilt(patient: Patient):
    month = budgets.current_month()
    budgets.reserve(patient.pk, month, 0)
    record_speech(patient, 70)
    DailyUsage.objects.all().delete()
    make_stale()
    budgets.repair()
    rollup.rebuild()
    assert budgets.repair() == 1
    assert row(patient, month) == (70, 0)


def test_repair_leaves_a_recently_updated_row_alone(patient: Patient):
    month = budgets.current_month()
    budgets.reserve(patient.pk, month, 60)
    make_stale(14)
    assert budgets.repair() == 0
    make_stale()
    budgets.reserve(patient.pk, month, 1)
    assert budgets.repair() == 0
    assert row(patient, month) == (0, 61)


def test_repair_includes_last_month(patient: Patient):
    last = (budgets.current_month() - timedelta(days=1)).replace(day=1)
    budgets.reserve(patient.pk, last, 60)
    make_stale()
    assert budgets.repair() == 1
    assert row(patient, last) == (0, 0)


def test_a_reservation_is_renewed_before_it_is_stale():
    assert timedelta(minutes=1) < budgets.STALE_AFTER - budgets.RESERVATION_TTL


# The incident


def exceed_budget(patient: Patient, characters: int = 101) -> None:
    """Request more characters than fit into this month's budget, and open the incident."""
    assert not budgets.reserve(patient.pk, budgets.current_month(), characters)
    incidents.open_incident(incidents.Kind.BUDGET, str(patient.pk))


def is_open_for(patient: Patient) -> bool:
    tasks.repair_budgets()
    return Incident.objects.filter(kind="budget", key=str(patient.pk), resolved_at=None).exists()


def test_the_incident_stays_open_until_the_budget_or_the_month_changes(patient: Patient, bob: Member):
    exceed_budget(patient)
    exceed_budget(with_budget(bob.patient, 50))
    with_budget(bob.patient, 51)
    assert is_open_for(patient)
    assert not is_open_for(bob.patient)


@pytest.mark.parametrize("budget", [101, 5000, None])
def test_raising_or_removing_the_budget_resolves_the_incident(patient: Patient, budget: int | None):
    exceed_budget(patient)
    with_budget(patient, budget)
    assert not is_open_for(patient)


def test_lowering_the_budget_does_not_resolve_the_incident(patient: Patient):
    exceed_budget(patient)
    with_budget(patient, 60)
    assert is_open_for(patient)


def test_the_end_of_the_month_resolves_the_incident(patient: Patient):
    exceed_budget(patient)
    BudgetMonth.objects.update(month=MARCH)
    assert not is_open_for(patient)


def test_exceeding_the_raised_budget_is_a_new_incident(patient: Patient):
    exceed_budget(patient)
    with_budget(patient, 150)
    assert not is_open_for(patient)
    exceed_budget(patient, 151)
    assert is_open_for(patient)


def test_deleting_the_patient_resolves_the_incident(patient: Patient):
    exceed_budget(patient)
    Incident.objects.update(key=str(uuid.uuid4()))
    tasks.repair_budgets()
    assert not Incident.objects.filter(resolved_at=None).exists()
