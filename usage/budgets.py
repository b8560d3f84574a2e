"""Monthly budgets of patients, in characters. A speech reserves characters before it requests audio.

`BudgetMonth` is the gate. Used and reserved characters together never exceed the budget, even if many processes reserve
at the same time:

    reserve    if used + reserved + characters <= budget    reserved += characters, in one conditional UPDATE
    settle     the speech has ended                         reserved -= its reservation, used += what it counted
    repair     the row was not updated for a while          reserved = 0, used = the sum of the ledger's days

Characters stay in `reserved` until `settle()` moves them to `used`. They are never counted twice, so no request is
refused because of double counting. `used` mirrors the ledger's daily rows. It can drift after a crash or a late
reconciliation until `repair()` corrects it.
"""

import uuid
from dataclasses import dataclass
from datetime import date, timedelta

from django.db.models import F, OuterRef, Q, QuerySet, Subquery, Sum
from django.db.models.functions import Coalesce, Greatest, Now
from django.utils import timezone

from usage.alerts import incidents
from usage.ledger import rollup
from usage.models import BudgetMonth, DailyUsage, Incident, UsageEvent
from voicecare.patients.models import Patient

BUDGETED_KINDS = (UsageEvent.Kind.LIVE, UsageEvent.Kind.RETRY, UsageEvent.Kind.BACKUP)
RESERVATION_TTL = timedelta(minutes=10)  # a longer speech settles its reservation and makes a new one
STALE_AFTER = timedelta(minutes=15)  # a row without updates for this time has no valid reservation


@dataclass(frozen=True, slots=True)
class BudgetStatus:
    """The budget and usage of a patient in one month, in characters. `budget` is None if there is no limit."""

    month: date
    budget: int | None
    used: int

    @property
    def remaining(self) -> int | None:
        return None if self.budget is None else max(self.budget - self.used, 0)


def current_month() -> date:
    """Return the first day of the current month in USAGE_TIME_ZONE."""
    return rollup.day_of(timezone.now()).replace(day=1)


def reserve(patient_id: uuid.UUID, month: date, characters: int) -> bool:
    """Reserve characters if they fit into the patient's current budget. Returns whether they fit.

    Everything fits if the budget was removed.
    """
    budget = Subquery(Patient.objects.filter(pk=patient_id).values("monthly_character_budget"))
    row = BudgetMonth.objects.filter(patient=patient_id, month=month)
    fitting = row.annotate(budget=budget).filter(Q(budget=None) | Q(budget__gte=F("used") + F("reserved") + characters))
    reservation = {"reserved": F("reserved") + characters, "updated_at": Now()}
    if fitting.update(**reservation):
        return True
    if not row.exists():  # the month started without a budget
        new = BudgetMonth(patient=patient_id, month=month, used=used_characters(patient_id, month))
        BudgetMonth.objects.bulk_create([new], ignore_conflicts=True)
    if fitting.update(**reservation):
        return True
    row.update(budget_when_refused=budget)
    return False


def settle(patient_id: uuid.UUID, month: date, *, reserved: int, used: int) -> None:
    """Release `reserved` characters of an ended speech and add the `used` ones that it counted.

    Not idempotent: call it once for each reservation. `repair` corrects the row if the call fails.
    """
    BudgetMonth.objects.filter(patient=patient_id, month=month).update(
        reserved=Greatest(F("reserved") - reserved, 0), used=F("used") + used, updated_at=Now()
    )


def repair() -> int:
    """Release the reservations of killed processes and recalculate `used`. Returns the number of corrected rows."""
    this_month = current_month()
    last_month = (this_month - timedelta(days=1)).replace(day=1)
    repaired = 0
    for month in (last_month, this_month):
        of_patient = _budgeted_usage(month).filter(patient=OuterRef("patient")).order_by().values("patient")
        total = Coalesce(Subquery(of_patient.annotate(total=Sum("characters")).values("total")), 0)
        stale = BudgetMonth.objects.filter(month=month, updated_at__lt=Now() - STALE_AFTER)
        repaired += stale.filter(~Q(used=total) | Q(reserved__gt=0)).update(used=total, reserved=0)
    return repaired


def resolve_outdated_incidents() -> None:
    """Resolve incidents whose budget was raised or removed after the refusal, or whose month has ended."""
    open_incidents = Incident.objects.filter(kind=incidents.Kind.BUDGET, resolved_at=None)
    patient_ids = list(open_incidents.values_list("key", flat=True))
    if not patient_ids:
        return
    budgets = Patient.objects.filter(pk__in=patient_ids).values_list("pk", "monthly_character_budget")
    months = BudgetMonth.objects.filter(patient__in=patient_ids, month=current_month())
    refused = {row.patient: row.budget_when_refused for row in months if row.budget_when_refused is not None}
    unchanged = [str(key) for key, budget in budgets if budget is not None and budget <= refused.get(key, -1)]
    incidents.resolve(open_incidents.exclude(key__in=unchanged))


def used_characters(patient_id: uuid.UUID, month: date) -> int:
    """Return the characters of the patient's speech in that month, from the ledger's daily rows."""
    return _budgeted_usage(month).filter(patient=patient_id).aggregate(total=Sum("characters"))["total"] or 0


def budget_status(patient: Patient) -> BudgetStatus:
    month = current_month()
    return BudgetStatus(month, patient.monthly_character_budget, used_characters(patient.pk, month))


def _budgeted_usage(month: date) -> QuerySet[DailyUsage]:
    return DailyUsage.objects.filter(day__gte=month, day__lt=rollup.month_after(month), kind__in=BUDGETED_KINDS)
