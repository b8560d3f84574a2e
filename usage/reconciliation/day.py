"""A day of the ledger: its requests that were answered, and what is read about them from the provider."""

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import NamedTuple, Self, TypeVar

import structlog
from django.db.models import QuerySet

from usage.ledger import rollup
from usage.models import HistoryDeletion, Reconciliation, UsageEvent
from usage.reconciliation.provider_usage import ProviderDataUnavailable
from voicecare.providers.elevenlabs.account import AccountClient
from voicecare.providers.elevenlabs.responses import HistoryItem

DELETION_OVERLAP = timedelta(hours=2)  # the last requests come after the deletion was requested
DAY_OVERLAP = timedelta(minutes=10)  # a day's history has items of requests that started just outside it

T = TypeVar("T")
History = Sequence[HistoryItem]
RequestCall = Reconciliation.RequestCall

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
    model: str = ""
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


@dataclass(slots=True)
class DayReconciliation:
    """One reconciliation of one day. `history` has the provider's requests, or is None if they could not be read.

    `request_call` is the call that they were read with. `errors` has a sentence for each figure of the provider that
    could not be read.
    """

    client: AccountClient
    day_range: DayRange
    now: datetime
    history: History | None = None
    request_call: RequestCall | None = None
    errors: list[str] = field(default_factory=list)

    def read(self, what: str, read: Callable[[], T]) -> T | None:
        try:
            return read()
        except ProviderDataUnavailable as error:
            log.warning("reconciliation.read_failed", day=str(self.day_range.day), what=what, reason=str(error))
            self.errors.append(f"{what} could not be read: {error}.")
            return None
