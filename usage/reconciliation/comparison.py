"""Compares one day of the ledger with the provider's figures, saves the result and reports a difference."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial

import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import Count, Q, Sum

from usage.alerts import incidents
from usage.ledger import events as ledger
from usage.models import DailyUsage, Reconciliation, UsageEvent
from usage.prices import PriceList
from usage.provider_state import quota
from usage.reconciliation import provider_usage, usage_calls
from usage.reconciliation.day import AnsweredRequest, DayRange, DayReconciliation, History, Removed, answered_requests
from usage.reconciliation.explanation import Discrepancy, explain
from usage.reconciliation.matching import match_key
from usage.reconciliation.usage_calls import UTC_DAY, ProviderFigures
from voicecare.providers.elevenlabs.responses import HistoryItem

MIDNIGHT_MARGIN = timedelta(seconds=60)  # the provider may count such a request for the adjacent day

SAME_PERIOD_TOLERANCE = timedelta(days=1)  # two reset times this close belong to one billing period

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class UnmatchedUsage:
    """Usage of a day that only the provider's history has (`external`) or only the ledger has (`unbilled`)."""

    external: History = ()
    unbilled: Sequence[AnsweredRequest] = ()


def find_unmatched(day_range: DayRange, history: History | None) -> UnmatchedUsage:
    if history is None:
        return UnmatchedUsage()
    requests, removed = answered_requests(day_range), Removed.since(day_range)
    our_ids = {request.request_id for request in requests}
    history_ids = {match_key(item) for item in history}
    external = [item for item in _items_of_day(day_range, history) if match_key(item) not in our_ids]
    unbilled = [
        request
        for request in requests
        if request.outcome != ledger.Outcome.COMPLETED
        and day_range.start <= request.started_at < day_range.end
        and request.request_id not in history_ids
        and not removed.has(request)
    ]
    return UnmatchedUsage(external, unbilled)


def _items_of_day(day_range: DayRange, history: History) -> list[HistoryItem]:
    return [item for item in history if day_range.contains(item.created_at_unix)]


def _sum(items: Sequence[HistoryItem | AnsweredRequest], unit: str) -> int:
    return sum(getattr(item, unit) or 0 for item in items)


def save_result(look: DayReconciliation, *, is_over: bool) -> None:
    """Save the day's row. If the day is over, compare the figures and open or resolve the drift incident.

    The drift incident reports a difference between the ledger and the provider's figures that has no explanation.
    """
    day = look.day_range.day
    row = Reconciliation.objects.get(day=day)
    unmatched = find_unmatched(look.day_range, look.history)
    for name, value in _ledger_figures(look.day_range).items():
        setattr(row, name, value)
    row.external_characters, row.checked_at = _sum(unmatched.external, "characters"), look.now
    row.request_call = look.request_call or row.request_call
    discrepancies, notes = _compare(look, row, unmatched) if is_over else ([], ["The day is not over."])
    if discrepancies:
        row.compared_at = look.now
    if row.billed_attempts:
        notes.append(
            f"Unknown attempts that the provider had billed: {row.billed_attempts:,}. The ledger now includes them."
        )
    if row.unknown_attempts:
        notes.append(f"Attempts still unknown: {row.unknown_attempts:,}, with {row.unknown_characters:,} characters.")
    row.explanation = " ".join([*map(explain, discrepancies), *notes, *look.errors])
    with transaction.atomic():  # both or neither, if the process dies
        row.save(update_fields=_RESULT_FIELDS)
        drifting = [explain(discrepancy) for discrepancy in discrepancies if discrepancy.drifts]
        if drifting:
            log.warning("reconciliation.drift_found", day=str(day))
            incidents.open_incident(incidents.Kind.DRIFT, key=str(day), detail=f"{day}. {' '.join(drifting)}")
        elif discrepancies:
            incidents.resolve_incident(incidents.Kind.DRIFT, key=str(day))


_RESULT_FIELDS = [
    "checked_at",
    "compared_at",
    "characters",
    "credits",
    "provider_characters",
    "provider_credits",
    "unexplained_characters",
    "unexplained_credits",
    "provider_cost",
    "cost",
    "currency",
    "usage_call",
    "request_call",
    "external_characters",
    "billed_attempts",
    "unbilled_attempts",
    "unknown_attempts",
    "unknown_characters",
    "counter",
    "counter_at",
    "counter_resets_at",
    "explanation",
]


def _ledger_figures(day_range: DayRange) -> dict[str, int]:
    sums = DailyUsage.objects.filter(day=day_range.day).aggregate(
        characters=Sum("characters", default=0), credits=Sum("credits", default=0)
    )
    unknown = Q(outcome=ledger.Outcome.UNKNOWN)
    found = day_range.events().aggregate(
        billed_attempts=Count("id", filter=Q(code=ledger.BILLED)),
        unbilled_attempts=Count("id", filter=Q(code=ledger.NOT_BILLED)),
        unknown_attempts=Count("id", filter=unknown),
        unknown_characters=Sum("requested_characters", filter=unknown, default=0),
    )
    return {**sums, **found}


def _compare(
    look: DayReconciliation, row: Reconciliation, unmatched: UnmatchedUsage
) -> tuple[list[Discrepancy], list[str]]:
    near_midnight = _near(look.day_range.start) | _near(look.day_range.end)
    events = UsageEvent.objects.filter(near_midnight).order_by()
    margins = events.aggregate(**{unit: Sum(unit, default=0) for unit in provider_usage.METRICS})
    try:
        read = partial(usage_calls.read_figures, look.client, look.day_range.start, look.day_range.end, look.now)
        figures = look.read("The provider's usage", read)
    except usage_calls.DayNotOver:
        return [], ["The provider counts days in UTC, and this one is not over."]
    row.usage_call = row.usage_call if figures is None else figures.call
    # A history from which this server has deleted requests has no sum of the day.
    has_deleted = any(map(Removed.since(look.day_range).has, answered_requests(look.day_range)))
    items = None if look.history is None or has_deleted else _items_of_day(look.day_range, look.history)
    discrepancies = []
    for unit in provider_usage.METRICS:
        # The figure of the usage call, otherwise the sum of the requests, otherwise the figure saved before.
        provider = None if figures is None else getattr(figures, unit)
        if provider is None and items is not None and all(getattr(item, unit) for item in items):
            provider = _sum(items, unit)
        elif provider is None:
            provider = getattr(row, f"provider_{unit}")
        setattr(row, f"provider_{unit}", provider)
        setattr(row, f"unexplained_{unit}", None)
        if provider is not None:
            discrepancy = Discrepancy(
                unit,
                getattr(row, unit),
                provider,
                external=_sum(unmatched.external, unit),
                unbilled=_sum(unmatched.unbilled, unit),
                unknown=row.unknown_characters,
                midnight_margin=margins[unit],
            )
            setattr(row, f"unexplained_{unit}", discrepancy.unexplained)
            discrepancies.append(discrepancy)
    cost, notes = _compare_cost(look, row, figures, unmatched)
    discrepancies += cost
    growth = _counter_growth(look, row)
    if growth is None:
        return discrepancies, notes
    if not discrepancies:
        return [growth], [
            *notes,
            "These figures are the growth of the subscription's counter since the previous reading.",
        ]
    note = f"The subscription's counter grew by {growth.provider:,} credits. The ledger has {growth.ledger:,}."
    return discrepancies, [*notes, note]


def _compare_cost(
    look: DayReconciliation, row: Reconciliation, figures: ProviderFigures | None, unmatched: UnmatchedUsage
) -> tuple[list[Discrepancy], list[str]]:
    """Compare the provider's cost of the UTC day with the ledger's, which is credits times our prices."""
    if figures is None or figures.cost is None:
        return [], []
    row.provider_cost, row.currency = Decimal(figures.cost).scaleb(-2), figures.currency
    row.cost = None
    charged = f"The provider charged {row.provider_cost:,.2f} {figures.currency} for the day in UTC."
    if figures.currency != settings.PRICE_CURRENCY:
        return [], [f"{charged} It is not compared, because our prices are in {settings.PRICE_CURRENCY}."]
    day, prices = row.day, PriceList.read()
    midnight = usage_calls.utc_day(look.day_range.start)
    events = UsageEvent.objects.filter(started_at__gte=midnight, started_at__lt=midnight + UTC_DAY).order_by()
    sums = events.values("model").annotate(
        used=Sum("credits", default=0),
        unknown=Sum("requested_characters", filter=Q(outcome=ledger.Outcome.UNKNOWN), default=0),
    )
    rows = list(sums.values_list("model", "used", "unknown"))

    def hundredths(credits: Iterable[tuple[str, int | None]]) -> int | None:
        cost = prices.cost_on(day, ((model, number or 0) for model, number in credits))
        return None if cost.amount is None or cost.unpriced_credits else round(cost.amount * 100)

    used = hundredths((model, number) for model, number, _ in rows)
    if used is None:
        return [], [f"{charged} It is not compared, because the credits of the day have no price."]
    row.cost = Decimal(used).scaleb(-2)
    margins = [
        (event.model, event.credits)
        for event in UsageEvent.objects.filter(_near(midnight) | _near(midnight + UTC_DAY)).only("model", "credits")
    ]
    discrepancy = Discrepancy(
        "cost",
        used,
        figures.cost,
        external=hundredths((item.model_id, item.credits) for item in unmatched.external) or 0,
        unbilled=hundredths((request.model, request.credits) for request in unmatched.unbilled) or 0,
        unknown=hundredths((model, unknown) for model, _, unknown in rows) or 0,
        midnight_margin=hundredths(margins) or 0,
        currency=figures.currency,
    )
    return [discrepancy], []


def _near(midnight: datetime) -> Q:
    return Q(started_at__gte=midnight - MIDNIGHT_MARGIN, started_at__lt=midnight + MIDNIGHT_MARGIN)


def _counter_growth(look: DayReconciliation, row: Reconciliation) -> Discrepancy | None:
    """Compare the growth of the subscription's credit counter with the credits in the ledger, between two readings.

    Returns None if a reading is missing, or if a new billing period started in between, because the counter then
    started again at zero.
    """
    if row.counter is None:
        subscription = look.read("The subscription", partial(provider_usage.subscription, look.client, look.now))
        if subscription is None:
            return None
        row.counter, row.counter_at = subscription.used, look.now
        row.counter_resets_at = quota.reset_time(subscription)
    earlier = Reconciliation.objects.filter(day__lt=row.day).exclude(counter=None).first()
    if earlier is None:
        return None
    resets = earlier.counter_resets_at, row.counter_resets_at
    apart = abs(resets[0] - resets[1]) if resets[0] and resets[1] else timedelta(0)
    growth = (row.counter or 0) - (earlier.counter or 0)
    if apart >= SAME_PERIOD_TOLERANCE or growth < 0:
        return None
    between = UsageEvent.objects.filter(started_at__gte=earlier.counter_at, started_at__lt=row.counter_at).order_by()
    sums = between.aggregate(
        credits=Sum("credits", default=0),
        unknown=Sum("requested_characters", filter=Q(outcome=ledger.Outcome.UNKNOWN), default=0),
    )
    return Discrepancy("credits", sums["credits"], growth, unknown=sums["unknown"])
