"""One day of the ledger beside the provider's figures of it, written down and, where they drift apart, told."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import partial
from typing import NamedTuple, TypeVar

import structlog
from django.db import transaction
from django.db.models import Count, Q, QuerySet, Sum

from usage.alerts import incidents
from usage.ledger import events as ledger
from usage.ledger import rollup
from usage.models import DailyUsage, Reconciliation, UsageEvent
from usage.provider_state import quota
from usage.reconciliation import provider_usage
from usage.reconciliation.explanation import Discrepancy, explain
from usage.reconciliation.matching import match_key
from usage.reconciliation.provider_usage import ProviderDataUnavailable
from voicecare.providers.elevenlabs.account import AccountClient
from voicecare.providers.elevenlabs.responses import HistoryItem

MIN_HISTORY_COVERAGE = 0.99  # of our own requests must be in the history before what is not in it counts as not billed
MIDNIGHT_MARGIN = timedelta(seconds=60)  # so near to it the provider may count a request to the neighbouring day
DAY_OVERLAP = timedelta(minutes=10)  # a day's history holds items of requests that began so much earlier or later

SAME_PERIOD_TOLERANCE = timedelta(days=1)  # two reset times so near to each other are of one period

T = TypeVar("T")
History = Sequence[HistoryItem]

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class DayRange:
    """A day in USAGE_TIME_ZONE, from `begins` up to `ends`."""

    day: date

    @property
    def start(self) -> datetime:
        return rollup.start_of_day(self.day)

    @property
    def end(self) -> datetime:
        return rollup.start_of_day(self.day + timedelta(days=1))

    def events(self) -> QuerySet[UsageEvent]:
        return UsageEvent.objects.filter(started_at__gte=self.start, started_at__lt=self.end).order_by()

    def contains(self, unix: int | None) -> bool:
        return unix is not None and self.start.timestamp() <= unix < self.end.timestamp()


class AnsweredRequest(NamedTuple):
    """A request that the provider has answered, as the ledger has it."""

    request_id: str
    characters: int
    credits: int
    outcome: str
    started_at: datetime


def answered_requests(span: DayRange) -> list[AnsweredRequest]:
    """Those of the day and, because an item may lie on the other side of midnight, a little beyond."""
    near = UsageEvent.objects.filter(started_at__gte=span.start - DAY_OVERLAP, started_at__lt=span.end + DAY_OVERLAP)
    rows = near.exclude(request_id="").order_by().values_list(*AnsweredRequest._fields)
    return [AnsweredRequest(*row) for row in rows]


def verified_history(client: AccountClient, span: DayRange, until: datetime, settled_by: datetime) -> History:
    """The provider's history of the day. Raises Unreadable also for one that lacks what we know to have been billed by
    `settled_by`: one that was deleted, or is another workspace's, or names requests in another way."""
    history = provider_usage.history(client, span.start, until)
    shown = {match_key(item) for item in history}
    ours = [
        request.request_id
        for request in answered_requests(span)
        if request.outcome == ledger.Outcome.COMPLETED and span.start <= request.started_at < min(until, settled_by)
    ]
    lacking = sum(request_id not in shown for request_id in ours)
    if lacking > (1 - MIN_HISTORY_COVERAGE) * len(ours):
        raise ProviderDataUnavailable(f"it lacks {lacking:,} of {len(ours):,} requests that the provider answered")
    return history


@dataclass(slots=True)
class DayReconciliation:
    """One look at a day. `history` is None where it could not be read; what could not is noted in `amiss`, in words."""

    client: AccountClient
    day_range: DayRange
    now: datetime
    history: History | None = None
    errors: list[str] = field(default_factory=list)

    def read(self, what: str, ask: Callable[[], T]) -> T | None:
        try:
            return ask()
        except ProviderDataUnavailable as error:
            log.warning("reconciliation.unreadable", day=str(self.day_range.day), what=what, reason=str(error))
            self.errors.append(f"{what} could not be read: {error}.")
            return None


@dataclass(frozen=True, slots=True)
class UnmatchedUsage:
    """What the history of a day has and the ledger has not, and the other way round."""

    external: History = ()
    unbilled: Sequence[AnsweredRequest] = ()


def find_unmatched(span: DayRange, history: History | None) -> UnmatchedUsage:
    if history is None:
        return UnmatchedUsage()
    own, shown = answered_requests(span), {match_key(item) for item in history}
    known = {request.request_id for request in own}
    cut_off = [
        request
        for request in own
        if request.outcome != ledger.Outcome.COMPLETED
        and span.start <= request.started_at < span.end
        and request.request_id not in shown
    ]
    return UnmatchedUsage([item for item in _items_of_day(span, history) if match_key(item) not in known], cut_off)


def _items_of_day(span: DayRange, history: History) -> list[HistoryItem]:
    return [item for item in history if span.contains(item.created_at_unix)]


def _sum(found: Sequence[HistoryItem | AnsweredRequest], unit: str) -> int:
    return sum(getattr(one, unit) or 0 for one in found)


def save_result(look: DayReconciliation, *, is_over: bool) -> None:
    """Writes the day's row anew and, of a day that is over, tells whether it drifts."""
    day = look.day_range.day
    row = Reconciliation.objects.get(day=day)
    strange = find_unmatched(look.day_range, look.history)
    for name, value in _ledger_figures(look.day_range).items():
        setattr(row, name, value)
    row.external_characters, row.checked_at = _sum(strange.external, "characters"), look.now
    counts, told = _compare(look, row, strange) if is_over else ([], ["The day is not over."])
    row.compared_at = look.now if counts else row.compared_at
    row.explanation = " ".join([*map(explain, counts), *told, *_explain_unknown(row), *look.errors])
    with transaction.atomic():  # who dies in between has done neither
        row.save(update_fields=_WRITTEN)
        _update_incident(day, counts)


_WRITTEN = [
    "checked_at",
    "compared_at",
    "characters",
    "credits",
    "provider_characters",
    "provider_credits",
    "unexplained_characters",
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


def _update_incident(day: date, counts: Sequence[Discrepancy]) -> None:
    drifting = [explain(one) for one in counts if one.drifts]
    if drifting:
        log.warning("reconciliation.drift", day=str(day))
        incidents.open_incident(incidents.Kind.DRIFT, key=str(day), detail=f"{day}. {' '.join(drifting)}")
    elif counts:
        incidents.resolve_incident(incidents.Kind.DRIFT, key=str(day))


def _ledger_figures(span: DayRange) -> dict[str, int]:
    sums = DailyUsage.objects.filter(day=span.day).aggregate(
        characters=Sum("characters", default=0), credits=Sum("credits", default=0)
    )
    unknown = Q(outcome=ledger.Outcome.UNKNOWN)
    found = span.events().aggregate(
        billed_attempts=Count("id", filter=Q(code=ledger.BILLED)),
        unbilled_attempts=Count("id", filter=Q(code=ledger.NOT_BILLED)),
        unknown_attempts=Count("id", filter=unknown),
        unknown_characters=Sum("requested_characters", filter=unknown, default=0),
    )
    return {**sums, **found}


def _explain_unknown(row: Reconciliation) -> Iterator[str]:
    if row.billed_attempts:
        yield f"Unknown attempts that the provider had billed: {row.billed_attempts:,}; they are in the ledger now."
    if row.unknown_attempts:
        yield f"Attempts still unknown: {row.unknown_attempts:,}, with {row.unknown_characters:,} characters."


def _compare(
    look: DayReconciliation, row: Reconciliation, strange: UnmatchedUsage
) -> tuple[list[Discrepancy], list[str]]:
    counts = []
    for unit in provider_usage.METRICS:
        provider = _provider_figure(look, row, unit)
        setattr(row, f"provider_{unit}", provider)
        if provider is not None:
            counts.append(_discrepancy(look.day_range, row, strange, unit, provider))
    row.unexplained_characters = counts[0].unexplained if row.provider_characters is not None else None
    growth = _counter_growth(look, row)
    if growth is None:
        return counts, []
    if not counts:
        return [growth], ["These are the growth of the subscription's counter since it was last read."]
    return counts, [f"The subscription's counter grew by {growth.provider:,} where the ledger has {growth.ledger:,}."]


def _provider_figure(look: DayReconciliation, row: Reconciliation, unit: str) -> int | None:
    """By the statistics, else the sum of the history, else as it was read at an earlier look."""
    span = look.day_range
    used = look.read(
        f"The provider's {unit}", partial(provider_usage.usage_total, look.client, unit, span.start, span.end)
    )
    if used is None and look.history is not None:
        return _sum(_items_of_day(span, look.history), unit)
    return getattr(row, f"provider_{unit}") if used is None else used


def _discrepancy(span: DayRange, row: Reconciliation, strange: UnmatchedUsage, unit: str, provider: int) -> Discrepancy:
    return Discrepancy(
        unit,
        getattr(row, unit),
        provider,
        external=_sum(strange.external, unit),
        unbilled=_sum(strange.unbilled, unit),
        unknown=row.unknown_characters,
        midnight_margin=_around_midnight(span, unit),
    )


def _around_midnight(span: DayRange, unit: str) -> int:
    near = Q()
    for midnight in (span.start, span.end):
        near |= Q(started_at__gte=midnight - MIDNIGHT_MARGIN, started_at__lt=midnight + MIDNIGHT_MARGIN)
    return int(UsageEvent.objects.filter(near).order_by().aggregate(sum=Sum(unit, default=0))["sum"])


def _counter_growth(look: DayReconciliation, row: Reconciliation) -> Discrepancy | None:
    """By how many credits the counter grew between two looks, beside the ledger's of exactly that time. A new period
    between them begins at nothing, so that there is no telling."""
    if row.counter is None and not _read_counter(look, row):
        return None
    earlier = Reconciliation.objects.filter(day__lt=row.day).exclude(counter=None).first()
    if earlier is None or not _same_period(earlier, row):
        return None
    booked = UsageEvent.objects.filter(started_at__gte=earlier.counter_at, started_at__lt=row.counter_at).order_by()
    found = booked.aggregate(
        credits=Sum("credits", default=0),
        unknown=Sum("requested_characters", filter=Q(outcome=ledger.Outcome.UNKNOWN), default=0),
    )
    grown = (row.counter or 0) - (earlier.counter or 0)
    return Discrepancy("credits", found["credits"], grown, unknown=found["unknown"])


def _read_counter(look: DayReconciliation, row: Reconciliation) -> bool:
    found = look.read("The subscription", partial(provider_usage.subscription, look.client, look.now))
    if found is not None:
        row.counter, row.counter_at = found.used, look.now
        row.counter_resets_at = quota.reset_time(found)
    return found is not None


def _same_period(earlier: Reconciliation, later: Reconciliation) -> bool:
    one, other = earlier.counter_resets_at, later.counter_resets_at
    apart = abs(one - other) if one and other else timedelta(0)
    return apart < SAME_PERIOD_TOLERANCE and (earlier.counter or 0) <= (later.counter or 0)
