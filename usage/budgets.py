"""Monthly budgets of patients, in characters. A speech reserves characters before it requests audio.

A row of `BudgetMonth` belongs to one patient and month. Its used and reserved characters together never exceed the
budget, even if many processes reserve at the same time:

    reserve    used + reserved + characters <= budget,      reserved += characters, checked = false,
               or there is no budget                        in one conditional UPDATE
    refuse     used + reserved + characters > budget        budget_when_refused = budget, checked = false
    settle     the speech has ended                         reserved -= its reservation, used += what was billed,
                                                            checked = false
    record     the ledger has written usage of the patient  checked = false
               in this month
    rebuild    the ledger's days were rebuilt               checked = false
    repair     the row was not updated for a while          reserved = 0, used = the sum of the ledger's days,
               and is not checked                           checked = true

Characters stay in `reserved` until `settle()` moves them to `used`. They are never counted twice, so no request is
refused because of double counting. `used` mirrors the ledger's daily rows. It can drift after a crash or a late
reconciliation until `repair()` corrects it. A row that has not changed since its last repair, and that has refused
nothing since, is not repaired again.

`usage/clinic_budgets.py` has the budgets of clinics. Speech to a patient of a clinic with a budget reserves in both.
"""

import uuid
from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, timedelta

from django.db.models import F, OuterRef, Q, QuerySet, Subquery, Sum
from django.db.models.functions import Coalesce, Greatest, Now
from django.utils import timezone

from usage.ledger import rollup
from usage.models import BudgetMonth, DailyUsage, UsageEvent
from usage.prices import Cost, PriceList
from voicecare.patients.models import Patient

BUDGETED_KINDS = (UsageEvent.Kind.LIVE, UsageEvent.Kind.RETRY, UsageEvent.Kind.BACKUP)
RESERVATION_TTL = timedelta(minutes=10)  # a longer speech settles its reservation and makes a new one
STALE_AFTER = timedelta(minutes=15)  # a row without updates for this time has no valid reservation


@dataclass(frozen=True, slots=True)
class BudgetStatus:
    """The budget and usage of a patient in one month, in characters.

    `month` is the first day of the month. `budget` is None if there is no limit. `cost` is that of the used characters.
    """

    month: date
    budget: int | None
    used: int
    cost: Cost

    @property
    def remaining(self) -> int | None:
        return None if self.budget is None else max(self.budget - self.used, 0)


def today() -> date:
    """Return the current day in USAGE_TIME_ZONE."""
    return rollup.day_of(timezone.now())


def current_month() -> date:
    """Return the first day of the current month in USAGE_TIME_ZONE."""
    return today().replace(day=1)


def reserve(patient_id: uuid.UUID, month: date, characters: int) -> bool:
    """Reserve characters if they fit into the patient's current budget. Returns whether they fit.

    Any number fits if the patient has no budget. `month` is the first day of the month.
    """
    budget = Subquery(Patient.objects.filter(pk=patient_id).values("monthly_character_budget"))
    row = BudgetMonth.objects.filter(patient=patient_id, month=month)
    fitting = row.annotate(budget=budget).filter(Q(budget=None) | Q(budget__gte=F("used") + F("reserved") + characters))
    reservation = {"reserved": F("reserved") + characters, "updated_at": Now(), "checked": False}
    if fitting.update(**reservation):
        return True
    if not row.exists():  # the month started without a budget
        new = BudgetMonth(patient=patient_id, month=month, used=used_characters(patient_id, month))
        BudgetMonth.objects.bulk_create([new], ignore_conflicts=True)
    if fitting.update(**reservation):
        return True
    row.update(budget_when_refused=budget, checked=False)  # `used` may be wrong, so it is compared before the next one
    return False


def settle(patient_id: uuid.UUID, month: date, *, reserved: int, used: int) -> None:
    """Release the `reserved` characters of a speech that has ended, and count its `used` characters.

    Not idempotent: call it once for each reservation. `repair` corrects the row if the call fails.
    """
    BudgetMonth.objects.filter(patient=patient_id, month=month).update(
        reserved=Greatest(F("reserved") - reserved, 0), used=F("used") + used, updated_at=Now(), checked=False
    )


def repair() -> int:
    """Release the reservations of killed processes, and recalculate `used` from the ledger.

    Covers this month and the last one. Returns the number of recalculated rows.
    """
    this_month = current_month()
    last_month = (this_month - timedelta(days=1)).replace(day=1)
    repaired = 0
    for month in (last_month, this_month):
        of_patient = budgeted_usage(month).filter(patient=OuterRef("patient")).order_by().values("patient")
        total = Coalesce(Subquery(of_patient.annotate(total=Sum("characters")).values("total")), 0)
        stale = BudgetMonth.objects.filter(month=month, checked=False, updated_at__lt=Now() - STALE_AFTER)
        repaired += stale.update(used=total, reserved=0, checked=True)
    return repaired


def exceeded_patients(keys: Collection[str]) -> list[str]:
    """Return those of the ids that are patients whose budget of this month still has no room.

    The others are no patients, their budget was raised or removed after the refusal, or its month has ended.
    """
    budgets = Patient.objects.filter(pk__in=keys).values_list("pk", "monthly_character_budget")
    months = BudgetMonth.objects.filter(patient__in=keys, month=current_month())
    refused = {row.patient: row.budget_when_refused for row in months if row.budget_when_refused is not None}
    return [str(key) for key, budget in budgets if budget is not None and budget <= refused.get(key, -1)]


def used_characters(patient_id: uuid.UUID, month: date) -> int:
    """Return the billed characters of speech for this patient in that month, from the ledger's daily rows."""
    return budgeted_usage(month).filter(patient=patient_id).aggregate(total=Sum("characters"))["total"] or 0


def budget_status(patient: Patient) -> BudgetStatus:
    month, prices = current_month(), PriceList.read()
    usage = budgeted_usage(month).filter(patient=patient.pk).order_by().annotate(price=prices.index())
    # Without prices the rows are not grouped, and one row of zeros is returned if there was no usage.
    sums = {"used": Sum("characters", default=0), "billed": Sum("credits", default=0)}
    by_price = usage.values("price").annotate(**sums)
    rows = list(by_price.values_list("price", "used", "billed"))
    cost = prices.cost((price, billed) for price, _, billed in rows)
    return BudgetStatus(month, patient.monthly_character_budget, sum(used for _, used, _ in rows), cost)


def budgeted_usage(month: date) -> QuerySet[DailyUsage]:
    """Return the ledger's days of that month with the characters that count towards budgets."""
    return DailyUsage.objects.filter(day__gte=month, day__lt=rollup.month_after(month), kind__in=BUDGETED_KINDS)
