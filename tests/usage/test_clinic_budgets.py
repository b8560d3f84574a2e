"""Budgets of clinics: simultaneous reservations of many patients never exceed them, and wrong rows are corrected."""

import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, time, timedelta

import pytest
from django.db import connection, transaction
from django.utils import timezone
from pytest_django import Settings

from tests.conftest import Member
from usage import budgets, clinic_budgets, tasks
from usage.clinic_budgets import Refusal
from usage.ledger import events, rollup
from usage.ledger.events import Attempt
from usage.models import BudgetMonth, ClinicBudget, Incident
from voicecare.patients.models import Clinic, Patient

pytestmark = pytest.mark.django_db

TODAY = date(2026, 3, 16)
PATIENTS, SPEECHES, SIZE = 40, 200, 10


@pytest.fixture
def ward(alice: Member, bob: Member) -> Clinic:
    """A clinic with Alice and Bob and a budget of 100 characters a month."""
    ward = Clinic.objects.create(name="Ward 3", monthly_character_budget=100)
    Patient.objects.update(clinic=ward)
    return ward


def change(ward: Clinic, month: int | None, day: int | None = None) -> None:
    Clinic.objects.filter(pk=ward.pk).update(monthly_character_budget=month, daily_character_budget=day)


def reserve(ward: Clinic, member: Member, characters: int, day: date = TODAY) -> Refusal | None:
    return clinic_budgets.reserve(member.patient.pk, ward.pk, day, characters)


def settle(ward: Clinic, member: Member, reserved: int, used: int, day: date = TODAY) -> None:
    clinic_budgets.settle(member.patient.pk, ward.pk, day, reserved=reserved, used=used)


def rows(ward: Clinic, day: date = TODAY) -> dict[str, tuple[int, int]]:
    """The used and the reserved characters of the month and of the day."""
    starts = {"month": day.replace(day=1), "day": day}
    found = ClinicBudget.objects.filter(clinic=ward)
    return {period: found.values_list("used", "reserved").get(period=period, start=starts[period]) for period in starts}


def record_speech(member: Member, characters: int, day: date | None = None, kind: str = "live") -> None:
    at = datetime.combine(day, time(12), rollup.time_zone()) if day else timezone.now()
    attempt = Attempt(uuid.uuid4(), 0, 1, kind, characters, patient_id=member.patient.pk, started_at=at)
    attempt.mark_answered("request", None)
    events.record_attempts([attempt])


def make_due() -> None:
    ClinicBudget.objects.update(compared_at=timezone.now() - timedelta(minutes=11))


def test_patients_share_the_budget_of_their_clinic(ward: Clinic, alice: Member, bob: Member):
    answers = [reserve(ward, *ask) for ask in ((alice, 60), (bob, 41), (bob, 40), (alice, 1))]
    assert answers == [None, Refusal.CLINIC_MONTH, None, Refusal.CLINIC_MONTH]
    assert rows(ward) == {"month": (0, 100), "day": (0, 100)}


def test_the_budget_of_a_day_begins_again_the_next_day(ward: Clinic, alice: Member):
    change(ward, 100, 40)
    assert reserve(ward, alice, 41) is Refusal.CLINIC_DAY
    assert reserve(ward, alice, 40) is None
    settle(ward, alice, reserved=40, used=40)
    assert reserve(ward, alice, 1) is Refusal.CLINIC_DAY
    tomorrow = TODAY + timedelta(days=1)
    record_speech(alice, 40, TODAY)
    assert reserve(ward, alice, 40, tomorrow) is None
    assert rows(ward, tomorrow) == {"month": (40, 40), "day": (0, 40)}
    settle(ward, alice, reserved=40, used=40, day=tomorrow)
    assert reserve(ward, alice, 21, tomorrow + timedelta(days=1)) is Refusal.CLINIC_MONTH


def test_what_does_not_fit_reserves_nothing_anywhere(ward: Clinic, alice: Member):
    change(ward, 100, 40)
    assert reserve(ward, alice, 10) is None
    assert reserve(ward, alice, 50) is Refusal.CLINIC_DAY
    assert BudgetMonth.objects.values_list("reserved", flat=True).get() == 10
    Patient.objects.update(monthly_character_budget=30)
    assert reserve(ward, alice, 25) is Refusal.PATIENT
    assert rows(ward) == {"month": (0, 10), "day": (0, 10)}


def test_settling_releases_the_rest_in_all_rows(ward: Clinic, alice: Member):
    reserve(ward, alice, 60)
    settle(ward, alice, reserved=60, used=25)
    assert rows(ward) == {"month": (25, 0), "day": (25, 0)}
    assert BudgetMonth.objects.values_list("used", "reserved").get() == (25, 0)


def test_a_changed_budget_applies_immediately(ward: Clinic, alice: Member):
    reserve(ward, alice, 100)
    change(ward, 150)
    assert reserve(ward, alice, 50) is None
    change(ward, 10)
    assert reserve(ward, alice, 1) is Refusal.CLINIC_MONTH
    change(ward, None)
    assert reserve(ward, alice, 100_000) is None


def test_without_a_clinic_only_the_budget_of_the_patient_counts(alice: Member):
    Patient.objects.update(monthly_character_budget=30)
    assert clinic_budgets.reserve(alice.patient.pk, None, TODAY, 31) is Refusal.PATIENT
    assert clinic_budgets.reserve(alice.patient.pk, None, TODAY, 30) is None
    clinic_budgets.settle(alice.patient.pk, None, TODAY, reserved=30, used=3)
    assert BudgetMonth.objects.values_list("used", "reserved").get() == (3, 0)
    assert not ClinicBudget.objects.exists()


def test_usage_before_the_budget_was_set_counts(ward: Clinic, alice: Member, bob: Member):
    for kind in ("live", "retry", "backup", "warm", "preview", "probe"):
        record_speech(alice, 10, TODAY, kind)
    record_speech(bob, 20, TODAY - timedelta(days=1))
    change(ward, 100, 40)
    assert reserve(ward, bob, 11) is Refusal.CLINIC_DAY
    assert reserve(ward, bob, 10) is None
    assert rows(ward) == {"month": (50, 10), "day": (30, 10)}


def test_other_clinics_are_independent(ward: Clinic, alice: Member, member: object):
    other = Clinic.objects.create(name="Ward 4", monthly_character_budget=100)
    assert reserve(ward, alice, 100) is None
    assert clinic_budgets.reserve(uuid.uuid4(), other.pk, TODAY, 100) is None


# Concurrency


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("month", "day"), [(700, None), (None, 700), (900, 700), (700, 900)])
def test_two_hundred_speeches_at_once_never_pass_the_cap(month: int | None, day: int | None):
    """The rows do not exist yet, and all threads find that out at the same time."""
    ward = Clinic.objects.create(name="Ward 3", monthly_character_budget=month, daily_character_budget=day)
    patients = [Patient.objects.create(name="P", companion_name="C", clinic=ward).pk for _ in range(PATIENTS)]

    def speak(number: int) -> bool:
        try:
            patient = patients[number % PATIENTS]
            is_refused = clinic_budgets.reserve(patient, ward.pk, TODAY, SIZE)
            if number % 10 == 0:  # while others reserve
                with transaction.atomic():
                    clinic_budgets._begin(ward.pk, TODAY)
            if not is_refused and number % 3 == 0:
                clinic_budgets.settle(patient, ward.pk, TODAY, reserved=SIZE, used=SIZE)
            return not is_refused
        finally:
            connection.close()

    # SQLite has one writer at a time, and many that wait would reach its time limit.
    with ThreadPoolExecutor(10 if connection.vendor == "sqlite" else 60) as threads:
        assert sum(threads.map(speak, range(SPEECHES))) == 70
    for used, reserved in rows(ward).values():
        assert used + reserved == 700


# Comparison with the rows of the patients


def test_the_reservation_of_a_killed_process_is_released_although_the_clinic_speaks(
    ward: Clinic, alice: Member, bob: Member
):
    today = budgets.today()
    reserve(ward, alice, 60, today)  # the process is killed after it was billed 20
    record_speech(alice, 20)
    reserve(ward, bob, 30, today)
    BudgetMonth.objects.filter(patient=alice.patient.pk).update(updated_at=timezone.now() - timedelta(minutes=16))
    make_due()
    tasks.repair_budgets()
    assert rows(ward, today) == {"month": (20, 30), "day": (20, 30)}


def test_rows_are_not_compared_again_before_they_are_due(ward: Clinic, alice: Member):
    today = budgets.today()
    assert [clinic_budgets.compare_all(), clinic_budgets.compare_all()] == [1, 0]
    ClinicBudget.objects.update(used=5000)
    reserve(ward, alice, 1, today)
    clinic_budgets.compare_all()
    assert rows(ward, today)["month"] == (5000, 0)
    make_due()
    assert clinic_budgets.compare_all() == 1
    assert rows(ward, today) == {"month": (0, 0), "day": (0, 0)}
    change(ward, None)
    make_due()
    assert clinic_budgets.compare_all() == 0


def test_a_patient_who_moves_takes_the_usage_of_the_month_along(ward: Clinic, alice: Member, bob: Member):
    today = budgets.today()
    other = Clinic.objects.create(name="Ward 4", monthly_character_budget=100)
    for member, characters in ((alice, 60), (bob, 10)):
        reserve(ward, member, characters, today)
        settle(ward, member, characters, characters, today)
    Patient.objects.filter(pk=alice.patient.pk).update(clinic=other)
    make_due()
    clinic_budgets.compare_all()
    assert (rows(ward, today)["month"], rows(other, today)["month"]) == ((10, 0), (60, 0))


@pytest.mark.parametrize(("zone", "day"), [("UTC", 28), ("Europe/Berlin", 1)])
def test_days_are_in_the_usage_time_zone(settings: Settings, ward: Clinic, alice: Member, zone: str, day: int):
    settings.USAGE_TIME_ZONE = zone
    at = datetime(2026, 2, 28, 23, 30, tzinfo=UTC)
    attempt = Attempt(uuid.uuid4(), 0, 1, "live", 7, patient_id=alice.patient.pk, started_at=at)
    attempt.mark_answered("request", None)
    events.record_attempts([attempt])
    wanted = date(2026, 2 if day == 28 else 3, day)
    reserve(ward, alice, 0, wanted)
    assert rows(ward, wanted)["day"] == (7, 0)


# The incident


def exceed(ward: Clinic, member: Member) -> None:
    refusal = reserve(ward, member, 101, budgets.today())
    assert refusal is not None
    clinic_budgets.report_exceeded(ward.pk, refusal)


def is_open_for(ward: Clinic) -> bool:
    tasks.repair_budgets()
    return Incident.objects.filter(kind="budget", key=str(ward.pk), resolved_at=None).exists()


def test_the_incident_names_the_clinic_and_the_budget(ward: Clinic, alice: Member, bob: Member):
    exceed(ward, alice)
    exceed(ward, bob)
    assert Incident.objects.get().detail == "Clinic Ward 3: the monthly budget of 100 characters."
    Incident.objects.all().delete()
    change(ward, None, 50)
    exceed(ward, alice)
    assert Incident.objects.get().detail == "Clinic Ward 3: the daily budget of 50 characters."


@pytest.mark.parametrize(("month", "is_open"), [(100, True), (60, True), (101, False), (None, False)])
def test_raising_or_removing_the_budget_resolves_the_incident(
    ward: Clinic, alice: Member, month: int | None, is_open: bool
):
    exceed(ward, alice)
    change(ward, month)
    assert is_open_for(ward) is is_open


def test_the_end_of_the_day_resolves_the_incident(ward: Clinic, alice: Member):
    change(ward, None, 50)
    exceed(ward, alice)
    assert is_open_for(ward)
    ClinicBudget.objects.filter(period="day").update(start=budgets.today() - timedelta(days=1))
    assert not is_open_for(ward)


def test_the_incidents_of_a_patient_and_a_clinic_end_independently(ward: Clinic, alice: Member):
    exceed(ward, alice)
    Patient.objects.update(monthly_character_budget=5)
    assert reserve(ward, alice, 6, budgets.today()) is Refusal.PATIENT
    Incident.objects.create(kind="budget", key=str(alice.patient.pk))
    assert is_open_for(ward)
    assert Incident.objects.filter(resolved_at=None).count() == 2
    Patient.objects.update(monthly_character_budget=6)
    assert is_open_for(ward)
    assert Incident.objects.get(resolved_at=None).key == str(ward.pk)


def test_deleting_the_clinic_resolves_the_incident(ward: Clinic, alice: Member):
    exceed(ward, alice)
    Patient.objects.update(clinic=None)
    ward.delete()
    tasks.repair_budgets()
    assert not Incident.objects.filter(resolved_at=None).exists()
