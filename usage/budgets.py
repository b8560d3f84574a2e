"""Monthly budgets of the patients who have one, in characters: reserved before speech is asked for, settled after it.

`BudgetMonth` is the gate. What is used of a month and what speeches under way have reserved is never more than the
budget, however many ask at once, in however many processes:

    reserve    used + reserved + characters <= budget    reserved + characters; one conditional UPDATE
    settle     the speech has ended, however             reserved - what it held, used + what it counted
    mend       nobody has touched the row for a while    nothing reserved, used as the days say

What a speech has counted stays reserved until it is used: it never stands in both, so nobody is refused for it. `used`
is what the ledger's days hold of the patient's own speech; a process that was killed, or an attempt that reconciliation
has found, make it differ until it is mended.
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
RESERVATION_TTL = timedelta(minutes=10)  # a reservation; who needs it for longer settles and makes another
STALE_AFTER = timedelta(minutes=15)  # untouched for so long, nobody has anything reserved


@dataclass(frozen=True, slots=True)
class BudgetStatus:
    """How a patient stands in this month. `budget` None: without limit."""

    month: date
    budget: int | None
    used: int

    @property
    def remaining(self) -> int | None:
        return None if self.budget is None else max(self.budget - self.used, 0)


def current_month() -> date:
    """Its first day, in USAGE_TIME_ZONE."""
    return rollup.day_of(timezone.now()).replace(day=1)


def reserve(patient_id: uuid.UUID, month: date, characters: int) -> bool:
    """Whether they fit into the patient's budget as it is now, and then they are reserved. A budget that has been
    removed has room for everything.
    """
    budget = Subquery(Patient.objects.filter(pk=patient_id).values("monthly_character_budget"))
    row = BudgetMonth.objects.filter(patient=patient_id, month=month)
    fitting = row.annotate(budget=budget).filter(Q(budget=None) | Q(budget__gte=F("used") + F("reserved") + characters))
    reservation = {"reserved": F("reserved") + characters, "updated_at": Now()}
    if fitting.update(**reservation):
        return True
    if not row.exists():  # what was used so far was used without a budget
        new = BudgetMonth(patient=patient_id, month=month, used=used_characters(patient_id, month))
        BudgetMonth.objects.bulk_create([new], ignore_conflicts=True)
    if fitting.update(**reservation):
        return True
    row.update(budget_when_refused=budget)
    return False


def settle(patient_id: uuid.UUID, month: date, *, reserved: int, used: int) -> None:
    """A speech that had `held` reserved has ended, and has counted so many. Once for each: it is not idempotent, and
    what could not be settled is mended.
    """
    BudgetMonth.objects.filter(patient=patient_id, month=month).update(
        reserved=Greatest(F("reserved") - reserved, 0), used=F("used") + used, updated_at=Now()
    )


def repair() -> int:
    """Gives up what killed processes had reserved, and sums up `used` anew; returns how many rows were wrong."""
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
    """The incidents of budgets that have been raised or removed since something did not fit, or whose month is over."""
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
    """What was spoken to the patient in that month, in characters, as the ledger's days have it."""
    return _budgeted_usage(month).filter(patient=patient_id).aggregate(total=Sum("characters"))["total"] or 0


def budget_status(patient: Patient) -> BudgetStatus:
    month = current_month()
    return BudgetStatus(month, patient.monthly_character_budget, used_characters(patient.pk, month))


def _budgeted_usage(month: date) -> QuerySet[DailyUsage]:
    return DailyUsage.objects.filter(day__gte=month, day__lt=rollup.month_after(month), kind__in=BUDGETED_KINDS)
