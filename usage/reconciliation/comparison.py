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
from usage.reconciliation.explanation import Counts, explain
from usage.reconciliation.matching import reference
from usage.reconciliation.provider_usage import Unreadable
from voicecare.providers.elevenlabs.account import AccountClient
from voicecare.providers.elevenlabs.responses import HistoryItem

SHOWN = 0.99  # of our own requests must be in the history before what is not in it counts as not billed
MIDNIGHT = timedelta(seconds=60)  # so near to it the provider may count a request to the neighbouring day
BEYOND = timedelta(minutes=10)  # a day's history holds items of requests that began so much earlier or later

SAME_PERIOD = timedelta(days=1)  # two reset times so near to each other are of one period

T = TypeVar("T")
History = Sequence[HistoryItem]

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Span:
    """A day in USAGE_TIME_ZONE, from `begins` up to `ends`."""

    day: date

    @property
    def begins(self) -> datetime:
        return rollup.start_of_day(self.day)

    @property
    def ends(self) -> datetime:
        return rollup.start_of_day(self.day + timedelta(days=1))

    def events(self) -> QuerySet[UsageEvent]:
        return UsageEvent.objects.filter(started_at__gte=self.begins, started_at__lt=self.ends).order_by()

    def holds(self, unix: int | None) -> bool:
        return unix is not None and self.begins.timestamp() <= unix < self.ends.timestamp()


class Request(NamedTuple):
    """A request that the provider has answered, as the ledger has it."""

    request_id: str
    characters: int
    credits: int
    outcome: str
    started_at: datetime


def answered(span: Span) -> list[Request]:
    """Those of the day and, because an item may lie on the other side of midnight, a little beyond."""
    near = UsageEvent.objects.filter(started_at__gte=span.begins - BEYOND, started_at__lt=span.ends + BEYOND)
    rows = near.exclude(request_id="").order_by().values_list(*Request._fields)
    return [Request(*row) for row in rows]


def proven_history(client: AccountClient, span: Span, until: datetime, settled_by: datetime) -> History:
    """The provider's history of the day. Raises Unreadable also for one that lacks what we know to have been billed by
    `settled_by`: one that was deleted, or is another workspace's, or names requests in another way."""
    history = provider_usage.history(client, span.begins, until)
    shown = {reference(item) for item in history}
    ours = [
        request.request_id
        for request in answered(span)
        if request.outcome == ledger.Outcome.COMPLETED and span.begins <= request.started_at < min(until, settled_by)
    ]
    lacking = sum(request_id not in shown for request_id in ours)
    if lacking > (1 - SHOWN) * len(ours):
        raise Unreadable(f"it lacks {lacking:,} of {len(ours):,} requests that the provider answered")
    return history


@dataclass(slots=True)
class Look:
    """One look at a day. `history` is None where it could not be read; what could not is noted in `amiss`, in words."""

    client: AccountClient
    span: Span
    now: datetime
    history: History | None = None
    amiss: list[str] = field(default_factory=list)

    def read(self, what: str, ask: Callable[[], T]) -> T | None:
        try:
            return ask()
        except Unreadable as error:
            log.warning("reconciliation.unreadable", day=str(self.span.day), what=what, reason=str(error))
            self.amiss.append(f"{what} could not be read: {error}.")
            return None


@dataclass(frozen=True, slots=True)
class Foreign:
    """What the history of a day has and the ledger has not, and the other way round."""

    others: History = ()
    unbilled: Sequence[Request] = ()


def foreign(span: Span, history: History | None) -> Foreign:
    if history is None:
        return Foreign()
    own, shown = answered(span), {reference(item) for item in history}
    known = {request.request_id for request in own}
    cut_off = [
        request
        for request in own
        if request.outcome != ledger.Outcome.COMPLETED
        and span.begins <= request.started_at < span.ends
        and request.request_id not in shown
    ]
    return Foreign([item for item in _of_the_day(span, history) if reference(item) not in known], cut_off)


def _of_the_day(span: Span, history: History) -> list[HistoryItem]:
    return [item for item in history if span.holds(item.created_at_unix)]


def _sum(found: Sequence[HistoryItem | Request], unit: str) -> int:
    return sum(getattr(one, unit) or 0 for one in found)


def conclude(look: Look, *, is_over: bool) -> None:
    """Writes the day's row anew and, of a day that is over, tells whether it drifts."""
    day = look.span.day
    row = Reconciliation.objects.get(day=day)
    strange = foreign(look.span, look.history)
    for name, value in _ledger_side(look.span).items():
        setattr(row, name, value)
    row.external_characters, row.checked_at = _sum(strange.others, "characters"), look.now
    counts, told = _compared(look, row, strange) if is_over else ([], ["The day is not over."])
    row.compared_at = look.now if counts else row.compared_at
    row.explanation = " ".join([*map(explain, counts), *told, *_of_the_unknown(row), *look.amiss])
    with transaction.atomic():  # who dies in between has done neither
        row.save(update_fields=_WRITTEN)
        _tell(day, counts)


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


def _tell(day: date, counts: Sequence[Counts]) -> None:
    drifting = [explain(one) for one in counts if one.drifts]
    if drifting:
        log.warning("reconciliation.drift", day=str(day))
        incidents.open_incident(incidents.Kind.DRIFT, key=str(day), detail=f"{day}. {' '.join(drifting)}")
    elif counts:
        incidents.resolve_incident(incidents.Kind.DRIFT, key=str(day))


def _ledger_side(span: Span) -> dict[str, int]:
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


def _of_the_unknown(row: Reconciliation) -> Iterator[str]:
    if row.billed_attempts:
        yield f"Unknown attempts that the provider had billed: {row.billed_attempts:,}; they are in the ledger now."
    if row.unknown_attempts:
        yield f"Attempts still unknown: {row.unknown_attempts:,}, with {row.unknown_characters:,} characters."


def _compared(look: Look, row: Reconciliation, strange: Foreign) -> tuple[list[Counts], list[str]]:
    counts = []
    for unit in provider_usage.METRICS:
        provider = _at_the_provider(look, row, unit)
        setattr(row, f"provider_{unit}", provider)
        if provider is not None:
            counts.append(_counts(look.span, row, strange, unit, provider))
    row.unexplained_characters = counts[0].unexplained if row.provider_characters is not None else None
    growth = _growth(look, row)
    if growth is None:
        return counts, []
    if not counts:
        return [growth], ["These are the growth of the subscription's counter since it was last read."]
    return counts, [f"The subscription's counter grew by {growth.provider:,} where the ledger has {growth.ledger:,}."]


def _at_the_provider(look: Look, row: Reconciliation, unit: str) -> int | None:
    """By the statistics, else the sum of the history, else as it was read at an earlier look."""
    span = look.span
    used = look.read(f"The provider's {unit}", partial(provider_usage.used, look.client, unit, span.begins, span.ends))
    if used is None and look.history is not None:
        return _sum(_of_the_day(span, look.history), unit)
    return getattr(row, f"provider_{unit}") if used is None else used


def _counts(span: Span, row: Reconciliation, strange: Foreign, unit: str, provider: int) -> Counts:
    return Counts(
        unit,
        getattr(row, unit),
        provider,
        others=_sum(strange.others, unit),
        unbilled=_sum(strange.unbilled, unit),
        unknown=row.unknown_characters,
        edge=_around_midnight(span, unit),
    )


def _around_midnight(span: Span, unit: str) -> int:
    near = Q()
    for midnight in (span.begins, span.ends):
        near |= Q(started_at__gte=midnight - MIDNIGHT, started_at__lt=midnight + MIDNIGHT)
    return int(UsageEvent.objects.filter(near).order_by().aggregate(sum=Sum(unit, default=0))["sum"])


def _growth(look: Look, row: Reconciliation) -> Counts | None:
    """By how many credits the counter grew between two looks, beside the ledger's of exactly that time. A new period
    between them begins at nothing, so that there is no telling."""
    if row.counter is None and not _note_counter(look, row):
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
    return Counts("credits", found["credits"], grown, unknown=found["unknown"])


def _note_counter(look: Look, row: Reconciliation) -> bool:
    found = look.read("The subscription", partial(provider_usage.subscription, look.client, look.now))
    if found is not None:
        row.counter, row.counter_at = found.used, look.now
        row.counter_resets_at = quota.reset_time(found)
    return found is not None


def _same_period(earlier: Reconciliation, later: Reconciliation) -> bool:
    one, other = earlier.counter_resets_at, later.counter_resets_at
    apart = abs(one - other) if one and other else timedelta(0)
    return apart < SAME_PERIOD and (earlier.counter or 0) <= (later.counter or 0)
