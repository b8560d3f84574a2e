"""The statement of a month: usage and cost by patient and by voice, the prices, and the state of reconciliation.

The figures are read from the daily totals without a cache, so they are those of the ledger. Months are in
USAGE_TIME_ZONE. Ids are not replaced by names here.
"""

import uuid
from dataclasses import dataclass
from datetime import date, timedelta

from django.db.models import Count, Q, Sum

from usage.ledger.rollup import month_after
from usage.models import Price, Reconciliation
from usage.prices import PriceList
from usage.reports import queries
from usage.reports.queries import PeriodStats, UsageShare


@dataclass(frozen=True, slots=True)
class ReconciliationState:
    """How far the days of a month were compared with the provider's figures. Characters may be unexplained."""

    days: int
    compared_days: int
    unexplained_characters: int
    unknown_attempts: int


@dataclass(frozen=True, slots=True)
class Statement:
    """The statement of the month that begins on `month`. `is_closed` is false until the month is over.

    `prices` are those that were valid in the month, by model and day. The sums of `patients` and of `voices` are
    `total`. The reconciliation is always that of all patients.
    """

    month: date
    is_closed: bool
    total: PeriodStats
    patients: list[UsageShare]
    voices: list[UsageShare]
    prices: list[Price]
    reconciliation: ReconciliationState


def read_statement(month: date, clinic_id: uuid.UUID | None = None) -> Statement:
    """Read the statement of the month that begins on `month`, of all patients or of those of a clinic. Five queries."""
    prices, last = PriceList.read(), month_after(month) - timedelta(days=1)
    return Statement(
        month,
        last < queries.today(),
        queries.uncached_month(month, prices, clinic_id),
        queries.all_shares("patient", month, last, prices, clinic_id),
        queries.all_shares("voice", month, last, prices, clinic_id),
        _valid_prices(prices, month, last),
        _reconciliation(month, last),
    )


def _valid_prices(prices: PriceList, first: date, last: date) -> list[Price]:
    valid: list[Price] = []
    models_before = set()
    for price in prices.prices:  # of one model the latest first
        if price.valid_from <= last and price.model not in models_before:
            valid.append(price)
            if price.valid_from <= first:
                models_before.add(price.model)
    return sorted(valid, key=lambda price: (price.model, price.valid_from))


def _reconciliation(first: date, last: date) -> ReconciliationState:
    found = Reconciliation.objects.filter(day__range=(first, last)).aggregate(
        compared=Count("pk", filter=Q(compared_at__isnull=False)),
        unexplained=Sum("unexplained_characters", default=0),
        unknown=Sum("unknown_attempts", default=0),
    )
    return ReconciliationState((last - first).days + 1, found["compared"], found["unexplained"], found["unknown"])
