"""Monthly budgets: however many ask at once, no more is reserved than there is room for; what is wrong is mended."""

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
from usage.ledger import events
from usage.ledger.events import Attempt
from usage.models import BudgetMonth, Incident
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


def spoke(patient: Patient, characters: int, at: datetime | None = None, kind: str = "live") -> None:
    attempt = Attempt(uuid.uuid4(), 0, 1, kind, characters, patient_id=patient.pk, started_at=at or timezone.now())
    attempt.mark_answered("request", None)
    events.record_attempts([attempt])


def row(patient: Patient, month: date = MARCH) -> tuple[int, int]:
    found = BudgetMonth.objects.get(patient=patient.pk, month=month)
    return found.used, found.reserved


def left_alone(minutes: float = 16) -> None:
    BudgetMonth.objects.update(updated_at=timezone.now() - timedelta(minutes=minutes))


def test_as_much_is_reserved_as_there_is_room_for(patient: Patient):
    taken = [budgets.reserve(patient.pk, MARCH, size) for size in (60, 41, 40, 1)]
    assert taken == [True, False, True, False]
    assert row(patient) == (0, 100)


def test_what_a_speech_has_counted_is_used_and_the_rest_of_it_free_again(patient: Patient):
    budgets.reserve(patient.pk, MARCH, 60)
    budgets.settle(patient.pk, MARCH, reserved=60, used=25)
    assert row(patient) == (25, 0)
    assert budgets.reserve(patient.pk, MARCH, 75)
    assert not budgets.reserve(patient.pk, MARCH, 1)


def test_more_is_never_given_back_than_is_reserved(patient: Patient):
    budgets.reserve(patient.pk, MARCH, 10)
    budgets.settle(patient.pk, MARCH, reserved=60, used=0)
    assert row(patient) == (0, 0)


def test_a_budget_counts_as_it_is_now(patient: Patient):
    assert budgets.reserve(patient.pk, MARCH, 100)
    with_budget(patient, 150)
    assert budgets.reserve(patient.pk, MARCH, 50)
    with_budget(patient, 10)
    assert not budgets.reserve(patient.pk, MARCH, 1)
    with_budget(patient, None)
    assert budgets.reserve(patient.pk, MARCH, 100_000)


def test_a_budget_of_nothing_has_room_for_nothing(patient: Patient):
    with_budget(patient, 0)
    assert not budgets.reserve(patient.pk, MARCH, 1)


def test_months_and_patients_are_apart(patient: Patient, bob: Member):
    with_budget(bob.patient, 100)
    assert budgets.reserve(patient.pk, MARCH, 100)
    assert budgets.reserve(patient.pk, date(2026, 4, 1), 100)
    assert budgets.reserve(bob.patient.pk, MARCH, 100)


def test_a_month_begins_with_what_was_spoken_in_it_without_a_budget(patient: Patient):
    at = datetime(2026, 3, 31, 23, 59, tzinfo=UTC)
    for kind in ("live", "retry", "backup", "warm", "preview", "probe"):
        spoke(patient, 20, at, kind)
    spoke(patient, 20, at + timedelta(minutes=1))
    assert not budgets.reserve(patient.pk, MARCH, 41)
    assert budgets.reserve(patient.pk, MARCH, 40)
    assert row(patient) == (60, 40)


@pytest.mark.parametrize(
    ("zone", "month"), [("UTC", date(2026, 2, 1)), ("Europe/Berlin", MARCH), ("America/New_York", date(2026, 2, 1))]
)
def test_a_month_is_the_clinics(settings: Settings, patient: Patient, zone: str, month: date):
    settings.USAGE_TIME_ZONE = zone
    spoke(patient, 7, datetime(2026, 2, 28, 23, 30, tzinfo=UTC))
    assert budgets.used_characters(patient.pk, month) == 7
    assert budgets.current_month() == timezone.now().astimezone(budgets.rollup.time_zone()).date().replace(day=1)


@pytest.mark.django_db(transaction=True)
def test_of_fifty_at_once_ten_are_served(patient: Patient):
    """The row does not exist yet: all of them find that out together."""

    def take(number: int) -> bool:
        try:
            return budgets.reserve(patient.pk, MARCH, 10)
        finally:
            connection.close()

    with ThreadPoolExecutor(10) as threads:
        assert sum(threads.map(take, range(50))) == 10
    assert row(patient) == (0, 100)


# Mending


def test_what_a_killed_process_had_reserved_is_given_up_and_what_it_had_counted_is_used(patient: Patient):
    month = budgets.current_month()
    budgets.reserve(patient.pk, month, 100)
    spoke(patient, 30)
    left_alone()
    assert budgets.repair() == 1
    assert row(patient, month) == (30, 0)
    assert budgets.repair() == 0


def test_what_was_found_later_is_used(patient: Patient):
    month = budgets.current_month()
    budgets.reserve(patient.pk, month, 10)
    budgets.settle(patient.pk, month, reserved=10, used=10)
    spoke(patient, 10)
    spoke(patient, 5)  # by reconciliation
    left_alone()
    tasks.repair_budgets()
    assert row(patient, month) == (15, 0)


def test_a_row_in_use_is_left_alone(patient: Patient):
    month = budgets.current_month()
    budgets.reserve(patient.pk, month, 60)
    left_alone(14)
    assert budgets.repair() == 0
    left_alone()
    budgets.reserve(patient.pk, month, 1)
    assert budgets.repair() == 0
    assert row(patient, month) == (0, 61)


def test_last_month_is_mended_too(patient: Patient):
    last = (budgets.current_month() - timedelta(days=1)).replace(day=1)
    budgets.reserve(patient.pk, last, 60)
    left_alone()
    assert budgets.repair() == 1
    assert row(patient, last) == (0, 0)


def test_a_reservation_is_made_anew_before_it_could_be_given_up():
    assert timedelta(minutes=1) < budgets.STALE_AFTER - budgets.RESERVATION_TTL


# Its incident


def refused(patient: Patient, characters: int = 101) -> None:
    """So many did not fit into this month's budget, and administrators were told."""
    assert not budgets.reserve(patient.pk, budgets.current_month(), characters)
    incidents.open_incident(incidents.Kind.BUDGET, str(patient.pk))


def open_for(patient: Patient) -> bool:
    tasks.repair_budgets()
    return Incident.objects.filter(kind="budget", key=str(patient.pk), resolved_at=None).exists()


def test_the_incident_of_a_budget_stays_open_while_the_month_and_the_budget_do(patient: Patient, bob: Member):
    refused(patient)
    refused(with_budget(bob.patient, 50))
    with_budget(bob.patient, 51)
    assert open_for(patient)
    assert not open_for(bob.patient)


@pytest.mark.parametrize("budget", [101, 5000, None])
def test_it_is_over_when_the_budget_is_raised_or_removed(patient: Patient, budget: int | None):
    refused(patient)
    with_budget(patient, budget)
    assert not open_for(patient)


def test_it_is_not_over_when_the_budget_is_lowered(patient: Patient):
    refused(patient)
    with_budget(patient, 60)
    assert open_for(patient)


def test_it_is_over_with_the_month(patient: Patient):
    refused(patient)
    BudgetMonth.objects.update(month=MARCH)
    assert not open_for(patient)


def test_what_does_not_fit_into_the_raised_budget_either_is_an_incident_again(patient: Patient):
    refused(patient)
    with_budget(patient, 150)
    assert not open_for(patient)
    refused(patient, 151)
    assert open_for(patient)


def test_it_is_over_when_the_patient_is_gone(patient: Patient):
    refused(patient)
    Incident.objects.update(key=str(uuid.uuid4()))
    tasks.repair_budgets()
    assert not Incident.objects.filter(resolved_at=None).exists()
