"""Monthly and daily budgets of clinics, in characters, together with the budgets of their patients.

A row of `ClinicBudget` belongs to one clinic and month, or one clinic and day. A speech reserves from the patient's row
(`usage/budgets.py`), the clinic's month and the clinic's day in one transaction, and always in this order, so that two
transactions cannot deadlock. If one of them has no room, nothing is reserved. Each reservation is one conditional
UPDATE, so a budget is never exceeded, even if many processes reserve at the same time:

    reserve    used + reserved + characters <= budget,      reserved += characters
               or there is no budget
    refuse     used + reserved + characters > budget        budget_when_refused = budget
    settle     the speech has ended                         reserved -= its reservation, used += what was billed
    compare    every COMPARE_EVERY, and at the beginning    reserved, used = the sums of the clinic's patients

The patients' rows are the truth, because they are repaired after a crash. Everybody who changes them for a patient of a
clinic with a budget waits for the clinic's rows, so `compare` reads no change that is only half done.
"""

import uuid
from collections.abc import Collection
from datetime import date, timedelta
from enum import Enum
from typing import Any

from django.db import transaction
from django.db.models import F, Q, QuerySet, Subquery, Sum
from django.db.models.functions import Greatest, Now

from usage import budgets
from usage.alerts import incidents
from usage.models import BudgetMonth, ClinicBudget, Incident
from voicecare.core.batches import process_each
from voicecare.patients.models import Clinic, Patient

COMPARE_EVERY = timedelta(minutes=10)

Period = ClinicBudget.Period
BUDGET_FIELDS = {Period.MONTH: "monthly_character_budget", Period.DAY: "daily_character_budget"}  # in locking order


class Refusal(Enum):
    """The budget that had no room."""

    PATIENT = "patient"
    CLINIC_MONTH = Period.MONTH.value
    CLINIC_DAY = Period.DAY.value


class _NoRoom(Exception):
    def __init__(self, period: Period) -> None:
        super().__init__(period)
        self.period = period


def reserve(patient_id: uuid.UUID, clinic_id: uuid.UUID | None, day: date, characters: int) -> Refusal | None:
    """Reserve characters if they fit into all budgets of this patient and clinic. Returns the budget without room.

    `clinic_id` is None for a patient without a clinic, or whose clinic has no budget. `day` is in USAGE_TIME_ZONE.
    """
    month = day.replace(day=1)
    if clinic_id is None:
        return None if budgets.reserve(patient_id, month, characters) else Refusal.PATIENT
    for is_last in (False, True):
        try:
            with transaction.atomic():
                if not budgets.reserve(patient_id, month, characters):
                    return Refusal.PATIENT
                _reserve_from_clinic(clinic_id, day, characters)
        except _NoRoom as refused:
            if is_last:
                budget = _budget(clinic_id, refused.period)
                _row(clinic_id, refused.period, day).update(budget_when_refused=budget)
                return Refusal(refused.period.value)
            if _rows(clinic_id, day).count() < len(Period):  # else another process may have just created them
                _begin(clinic_id, day)
        else:
            return None
    raise AssertionError("the second attempt returns")


def settle(patient_id: uuid.UUID, clinic_id: uuid.UUID | None, day: date, *, reserved: int, used: int) -> None:
    """Release the `reserved` characters of a speech that has ended, and count its `used` characters.

    Not idempotent: call it once for each reservation, with the same clinic and day. If the call fails, `budgets.repair`
    and then `compare_all` correct the rows.
    """
    month = day.replace(day=1)
    if clinic_id is None:
        budgets.settle(patient_id, month, reserved=reserved, used=used)
        return
    with transaction.atomic():
        budgets.settle(patient_id, month, reserved=reserved, used=used)
        for period in BUDGET_FIELDS:
            _row(clinic_id, period, day).update(reserved=Greatest(F("reserved") - reserved, 0), used=F("used") + used)


def compare_all() -> int:
    """Compare the rows of all clinics with a budget with those of their patients, if that is due. Returns how many.

    Also patients who have moved to another clinic are counted there then. Raises RowsFailed or DatabaseError.
    """
    day, with_budget = (
        budgets.today(),
        Clinic.objects.exclude(monthly_character_budget=None, daily_character_budget=None),
    )
    due = [
        clinic_id
        for clinic_id in with_budget.values_list("pk", flat=True)
        if _rows(clinic_id, day).filter(compared_at__gt=Now() - COMPARE_EVERY).count() < len(Period)
    ]
    return process_each("budgets.compare", due, lambda clinic_id: _begin(clinic_id, day))


def resolve_outdated_incidents() -> None:
    """Resolve budget incidents that no longer apply.

    Either the budget was raised or removed after the refusal, or its month or day has ended.
    """
    open_incidents = Incident.objects.filter(kind=incidents.Kind.BUDGET, resolved_at=None)
    keys = list(open_incidents.values_list("key", flat=True))
    if keys:
        exceeded = [*budgets.exceeded_patients(keys), *_exceeded_clinics(keys)]
        incidents.resolve(open_incidents.exclude(key__in=exceeded))


def report_exceeded(clinic_id: uuid.UUID, refusal: Refusal) -> None:
    """Open the incident about a budget of the clinic, unless it is open."""
    clinic = Clinic.objects.filter(pk=clinic_id).first()
    if clinic is None:
        return
    period = Period(refusal.value)
    budget = getattr(clinic, BUDGET_FIELDS[period])
    detail = f"Clinic {clinic}: the {period.label} budget of {budget:,} characters." if budget is not None else ""
    incidents.open_incident(incidents.Kind.BUDGET, str(clinic_id), detail or f"Clinic {clinic}.")


def _reserve_from_clinic(clinic_id: uuid.UUID, day: date, characters: int) -> None:
    for period in BUDGET_FIELDS:
        row = _row(clinic_id, period, day).annotate(budget=_budget(clinic_id, period))
        fitting = row.filter(Q(budget=None) | Q(budget__gte=F("used") + F("reserved") + characters))
        if not fitting.update(reserved=F("reserved") + characters):
            raise _NoRoom(period)


def _begin(clinic_id: uuid.UUID, day: date) -> bool:
    """Create the clinic's rows of this day and its month where they are missing, and compare both. Idempotent."""
    month = day.replace(day=1)
    starts = {Period.MONTH: month, Period.DAY: day}
    new = [ClinicBudget(clinic_id=clinic_id, period=period, start=start) for period, start in starts.items()]
    ClinicBudget.objects.bulk_create(new, ignore_conflicts=True)
    with transaction.atomic():
        for period in BUDGET_FIELDS:  # waits for the transactions that reserve and settle, and holds the others up
            list(_row(clinic_id, period, day).select_for_update().values_list("pk"))
        patients = Patient.objects.filter(clinic=clinic_id).order_by().values("pk")
        months = BudgetMonth.objects.filter(month=month, patient__in=patients).order_by()
        with_row = list(months.values_list("patient", flat=True))
        sums = months.filter(patient__in=with_row).aggregate(
            reserved=Sum("reserved", default=0), used=Sum("used", default=0)
        )
        ledger = budgets.budgeted_usage(month).filter(patient__in=patients).order_by()
        used = sums["used"] + _characters(ledger.exclude(patient__in=with_row))
        used_today = max(used - _characters(ledger.filter(day__lt=day)), 0)
        for period, characters in ((Period.MONTH, used), (Period.DAY, used_today)):
            _row(clinic_id, period, day).update(used=characters, reserved=sums["reserved"], compared_at=Now())
    return True


def _characters(usage: QuerySet[Any]) -> int:
    total: int = usage.aggregate(total=Sum("characters", default=0))["total"]
    return total


def _exceeded_clinics(keys: Collection[str]) -> list[str]:
    """Return those of the ids that are clinics whose budget of this month or day still has no room."""
    day = budgets.today()
    exceeded = []
    for clinic in Clinic.objects.filter(pk__in=keys):
        for period, refused in _rows(clinic.pk, day).values_list("period", "budget_when_refused"):
            budget = getattr(clinic, BUDGET_FIELDS[Period(period)])
            if budget is not None and refused is not None and budget <= refused:
                exceeded.append(str(clinic.pk))
    return exceeded


def _rows(clinic_id: uuid.UUID, day: date) -> QuerySet[ClinicBudget]:
    """Return the rows of this day and its month."""
    of_month = Q(period=Period.MONTH, start=day.replace(day=1))
    return ClinicBudget.objects.filter(of_month | Q(period=Period.DAY, start=day), clinic=clinic_id).order_by()


def _row(clinic_id: uuid.UUID, period: Period, day: date) -> QuerySet[ClinicBudget]:
    start = day.replace(day=1) if period == Period.MONTH else day
    return ClinicBudget.objects.filter(clinic=clinic_id, period=period, start=start).order_by()


def _budget(clinic_id: uuid.UUID, period: Period) -> Subquery:
    return Subquery(Clinic.objects.filter(pk=clinic_id).values(BUDGET_FIELDS[period]))
