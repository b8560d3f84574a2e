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


def reserve(patient: uuid.UUID, month: date, characters: int) -> bool:
    """Whether they fit into the patient's budget as it is now, and then they are reserved. A budget that has been
    removed has room for everything.
    """
    if _reserve(patient, month, characters):
        return True
    _begin(patient, month)
    if _reserve(patient, month, characters):
        return True
    BudgetMonth.objects.filter(patient=patient, month=month).update(budget_when_refused=_budget(patient))
    return False


def _budget(patient: uuid.UUID) -> Subquery:
    return Subquery(Patient.objects.filter(pk=patient).values("monthly_character_budget"))


def _reserve(patient: uuid.UUID, month: date, characters: int) -> bool:
    row = BudgetMonth.objects.filter(patient=patient, month=month).annotate(budget=_budget(patient))
    room = row.filter(Q(budget=None) | Q(budget__gte=F("used") + F("reserved") + characters))
    return bool(room.update(reserved=F("reserved") + characters, updated_at=Now()))


def _begin(patient: uuid.UUID, month: date) -> None:
    """Makes the row where there is none: what was used so far was used without a budget."""
    rows = BudgetMonth.objects.filter(patient=patient, month=month)
    if not rows.exists():
        row = BudgetMonth(patient=patient, month=month, used=used_characters(patient, month))
        BudgetMonth.objects.bulk_create([row], ignore_conflicts=True)


def settle(patient: uuid.UUID, month: date, *, held: int, counted: int) -> None:
    """A speech that had `held` reserved has ended, and has counted so many. Once for each: it is not idempotent, and
    what could not be settled is mended.
    """
    BudgetMonth.objects.filter(patient=patient, month=month).update(
        reserved=Greatest(F("reserved") - held, 0), used=F("used") + counted, updated_at=Now()
    )


def repair() -> int:
    """Gives up what killed processes had reserved, and sums up `used` anew; returns how many rows were wrong."""
    this = current_month()
    return sum(map(_mend, (_month_before(this), this)))


def _mend(month: date) -> int:
    summed = _speech(month).filter(patient=OuterRef("patient")).order_by().values("patient")
    total = Coalesce(Subquery(summed.annotate(total=Sum("characters")).values("total")), 0)
    quiet = BudgetMonth.objects.filter(month=month, updated_at__lt=Now() - STALE_AFTER)
    return quiet.filter(~Q(used=total) | Q(reserved__gt=0)).update(used=total, reserved=0)


def resolve_raised() -> None:
    """The incidents of budgets that have been raised or removed since something did not fit, or whose month is over."""
    open_ones = Incident.objects.filter(kind=incidents.Kind.BUDGET, resolved_at=None)
    patients = list(open_ones.values_list("key", flat=True))
    if not patients:
        return
    budgets = Patient.objects.filter(pk__in=patients).values_list("pk", "monthly_character_budget")
    months = BudgetMonth.objects.filter(patient__in=patients, month=current_month())
    under = {row.patient: row.budget_when_refused for row in months if row.budget_when_refused is not None}
    still = [str(key) for key, budget in budgets if budget is not None and budget <= under.get(key, -1)]
    incidents.resolve(open_ones.exclude(key__in=still))


def used_characters(patient: uuid.UUID, month: date) -> int:
    """What was spoken to the patient in that month, in characters, as the ledger's days have it."""
    return _speech(month).filter(patient=patient).aggregate(total=Sum("characters"))["total"] or 0


def budget_status(patient: Patient) -> BudgetStatus:
    month = current_month()
    return BudgetStatus(month, patient.monthly_character_budget, used_characters(patient.pk, month))


def _speech(month: date) -> QuerySet[DailyUsage]:
    return DailyUsage.objects.filter(day__gte=month, day__lt=_month_after(month), kind__in=BUDGETED_KINDS)


def _month_after(month: date) -> date:
    return (month + timedelta(days=31)).replace(day=1)


def _month_before(month: date) -> date:
    return (month - timedelta(days=1)).replace(day=1)
