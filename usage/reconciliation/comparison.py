"""Compares one day of the ledger with the provider's figures, saves the result and reports a difference."""

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import partial
from typing import NamedTuple, Self, TypeVar

import structlog
from django.db import transaction
from django.db.models import Count, Q, QuerySet, Sum

from usage.alerts import incidents
from usage.ledger import events as ledger
from usage.ledger import rollup
from usage.models import DailyUsage, HistoryDeletion, Reconciliation, UsageEvent
from usage.provider_state import quota
from usage.reconciliation import provider_usage
from usage.reconciliation.explanation import Discrepancy, explain
from usage.reconciliation.matching import match_key
from usage.reconciliation.provider_usage import ProviderDataUnavailable
from voicecare.providers.elevenlabs.account import AccountClient
from voicecare.providers.elevenlabs.responses import HistoryItem

MIN_HISTORY_COVERAGE = 0.99  # part of our answered requests that a trustworthy history must contain
MIDNIGHT_MARGIN = timedelta(seconds=60)  # the provider may count such a request for the adjacent day
DELETION_OVERLAP = timedelta(hours=2)  # the last requests come after the deletion was requested
DAY_OVERLAP = timedelta(minutes=10)  # a day's history has items of requests that started just outside it

SAME_PERIOD_TOLERANCE = timedelta(days=1)  # two reset times this close belong to one billing period

T = TypeVar("T")
History = Sequence[HistoryItem]

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class DayRange:
    """A day in USAGE_TIME_ZONE, from `start` (inclusive) to `end` (exclusive)."""

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
    """A request in the ledger that the provider has answered."""

    request_id: str
    characters: int
    credits: int
    outcome: str
    started_at: datetime
    patient: uuid.UUID | None = None
    voice: uuid.UUID | None = None


def answered_requests(day_range: DayRange) -> list[AnsweredRequest]:
    """Return the answered requests of the day from the ledger, and those of DAY_OVERLAP before and after it.

    The provider's history may have these neighbouring requests on this side of midnight.
    """
    start, end = day_range.start - DAY_OVERLAP, day_range.end + DAY_OVERLAP
    near = UsageEvent.objects.filter(started_at__gte=start, started_at__lt=end)
    rows = near.exclude(request_id="").order_by().values_list(*AnsweredRequest._fields)
    return [AnsweredRequest(*row) for row in rows]


@dataclass(frozen=True, slots=True)
class Removed:
    """The patients and the voices whose requests this server deletes from the provider's history."""

    patients: frozenset[uuid.UUID]
    voices: frozenset[uuid.UUID]

    @classmethod
    def since(cls, day_range: DayRange) -> Self:
        """A patient whose deletion was requested before the day has no requests of the day."""
        rows = HistoryDeletion.objects.filter(created_at__gte=day_range.start - DELETION_OVERLAP)
        pairs = list(rows.values_list("patient", "voice"))
        return cls(
            frozenset(patient for patient, voice in pairs if patient is not None and voice is None),
            frozenset(voice for _, voice in pairs if voice is not None),
        )

    def has(self, request: AnsweredRequest) -> bool:
        return request.patient in self.patients or request.voice in self.voices


def verified_history(client: AccountClient, day_range: DayRange, until: datetime, answered_by: datetime) -> History:
    """Return the provider's history from the start of the day to `until`, if it contains our own requests.

    Raises ProviderDataUnavailable if the history cannot be read, or if it lacks too many completed requests that
    started before `answered_by` (MIN_HISTORY_COVERAGE). Such a history was deleted, belongs to another workspace, or
    identifies requests in another way. It must not prove that an unknown attempt was not billed. Requests that this
    server deletes from the history are not expected there.
    """
    removed = Removed.since(day_range)
    history = provider_usage.history(client, day_range.start, until)
    history_ids = {match_key(item) for item in history}
    start, end = day_range.start, min(until, answered_by)
    our_ids = [
        request.request_id
        for request in answered_requests(day_range)
        if request.outcome == ledger.Outcome.COMPLETED
        and start <= request.started_at < end
        and not removed.has(request)
    ]
    missing = sum(request_id not in history_ids for request_id in our_ids)
    if missing > (1 - MIN_HISTORY_COVERAGE) * len(our_ids):
        raise ProviderDataUnavailable(f"it lacks {missing:,} of {len(our_ids):,} requests that the provider answered")
    return history


@dataclass(slots=True)
class DayReconciliation:
    """One reconciliation of one day. `history` is the provider's history, or None if it could not be read.

    `errors` has a sentence for each figure of the provider that could not be read.
    """

    client: AccountClient
    day_range: DayRange
    now: datetime
    history: History | None = None
    errors: list[str] = field(default_factory=list)

    def read(self, what: str, read: Callable[[], T]) -> T | None:
        try:
            return read()
        except ProviderDataUnavailable as error:
            log.warning("reconciliation.read_failed", day=str(self.day_range.day), what=what, reason=str(error))
            self.errors.append(f"{what} could not be read: {error}.")
            return None


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
    near_midnight = Q()
    for midnight in (look.day_range.start, look.day_range.end):
        near_midnight |= Q(started_at__gte=midnight - MIDNIGHT_MARGIN, started_at__lt=midnight + MIDNIGHT_MARGIN)
    events = UsageEvent.objects.filter(near_midnight).order_by()
    margins = events.aggregate(**{unit: Sum(unit, default=0) for unit in provider_usage.METRICS})
    # A history from which this server has deleted requests has no sum of the day.
    has_deleted = any(map(Removed.since(look.day_range).has, answered_requests(look.day_range)))
    discrepancies = []
    for unit in provider_usage.METRICS:
        # The figure of the statistics, otherwise the sum of the history, otherwise the figure saved before.
        read = partial(provider_usage.usage_total, look.client, unit, look.day_range.start, look.day_range.end)
        provider = look.read(f"The provider's {unit}", read)
        if provider is None and look.history is not None and not has_deleted:
            provider = _sum(_items_of_day(look.day_range, look.history), unit)
        elif provider is None:
            provider = getattr(row, f"provider_{unit}")
        setattr(row, f"provider_{unit}", provider)
        if provider is not None:
            discrepancies.append(
                Discrepancy(
                    unit,
                    getattr(row, unit),
                    provider,
                    external=_sum(unmatched.external, unit),
                    unbilled=_sum(unmatched.unbilled, unit),
                    unknown=row.unknown_characters,
                    midnight_margin=margins[unit],
                )
            )
    row.unexplained_characters = discrepancies[0].unexplained if row.provider_characters is not None else None
    growth = _counter_growth(look, row)
    if growth is None:
        return discrepancies, []
    if not discrepancies:
        return [growth], ["These figures are the growth of the subscription's counter since the previous reading."]
    note = f"The subscription's counter grew by {growth.provider:,} credits. The ledger has {growth.ledger:,}."
    return discrepancies, [note]


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
