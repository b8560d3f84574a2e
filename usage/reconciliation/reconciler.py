"""Reconciliation: what became of the unknown attempts, and whether ledger and provider agree about a day.

A day with something left to find out is looked at by one process at a time, which holds the lease `lease_until` of the
day's row. The lease only spares work: a process that is killed, or two at once, double nothing. An attempt is settled
in one transaction, by whoever is first (`ledger.settle`), and the figures of a row are derived anew from the ledger
whenever its day is looked at. Times are passed in as `now`; leases are on the database's clock.
"""

import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from functools import partial

import structlog
from django.db import DatabaseError, transaction
from django.db.models import Min, Q
from django.db.models.functions import Now

from usage.alerts import incidents
from usage.ledger import events, rollup
from usage.models import NO_ID, Incident, Reconciliation, UsageEvent
from usage.reconciliation import matching, provider_usage
from usage.reconciliation.comparison import (
    DayRange,
    DayReconciliation,
    History,
    answered_requests,
    save_result,
    verified_history,
)
from usage.reconciliation.matching import UnknownAttempt, match_key
from voicecare.patients.models import Voice

MIN_UNKNOWN_AGE = timedelta(minutes=10)  # younger ones may still be answered, and the history lags
COMPARE_AFTER = timedelta(hours=1)  # so long after its end a day is compared: the statistics lag, too
MAX_LOOKBACK = timedelta(days=31)
RETRY_SOON, RETRY_LATER = timedelta(minutes=50), timedelta(hours=20)  # between two looks at an unfinished day
RETRY_SOON_FOR = timedelta(days=1)  # for so long after its end a day is looked at again soon
LEASE = timedelta(minutes=11)  # longer than the time limit of a task
TIME_BUDGET_S = 120.0  # no further day is begun after it; the next beat goes on

AddCharacters = Callable[[Mapping[uuid.UUID, int]], None]
"""Adds characters to conversations, of which this app knows nothing, in the transaction that books them."""

log = structlog.get_logger(__name__)


def latest_comparison() -> Reconciliation | None:
    """Of the last day that was compared with the provider's figures."""
    return Reconciliation.objects.exclude(compared_at=None).first()


def reconcile(now: datetime, count: AddCharacters) -> None:
    """Looks at every day that is due: today, whose conversations may still be open, then the oldest first.

    May be called as often as one likes.
    """
    until, today = time.monotonic() + TIME_BUDGET_S, rollup.day_of(now)
    for day in sorted(_due_days(now), key=lambda day: (day != today, day)):
        if time.monotonic() < until:
            reconcile_day(day, now, count)


def reconcile_day(day: date, now: datetime, count: AddCharacters, *, anyway: bool = False) -> bool:
    """Looks at it if it is due, or `anyway`; false where it is not, or another process is at it."""
    with _day_lease(day) as mine:
        if not mine or not (anyway or day in _due_days(now)):
            return False
        _reconcile_range(DayRange(day), now, count)
        return True


@contextmanager
def _day_lease(day: date) -> Iterator[bool]:
    Reconciliation.objects.bulk_create([Reconciliation(day=day)], ignore_conflicts=True)
    row = Reconciliation.objects.filter(day=day)
    free = Q(lease_until=None) | Q(lease_until__lte=Now())
    if not row.filter(free).update(lease_until=Now() + LEASE):
        yield False
        return
    mine = row.filter(lease_until=row.get().lease_until)  # another's, once the lease is over
    try:
        yield True
    finally:
        mine.update(lease_until=None)


def _due_days(now: datetime) -> list[date]:
    oldest = UsageEvent.objects.aggregate(started_at=Min("started_at"))["started_at"]
    if oldest is None:
        return []
    first, last = rollup.day_of(max(oldest, now - MAX_LOOKBACK)), rollup.day_of(now)
    rows = {row.day: row for row in Reconciliation.objects.filter(day__gte=first)}
    unknown = UsageEvent.objects.filter(_is_unknown(now), started_at__gte=rollup.start_of_day(first)).order_by()
    days_of_unknown = set(map(rollup.day_of, unknown.values_list("started_at", flat=True)))
    drifting = set(Incident.objects.filter(kind=incidents.Kind.DRIFT, resolved_at=None).values_list("key", flat=True))
    unsettled = {*days_of_unknown, *(row.day for row in rows.values() if str(row.day) in drifting)}
    days = (first + timedelta(days=offset) for offset in range((last - first).days + 1))
    return [day for day in days if is_due(day, rows.get(day), now, is_unsettled=day in unsettled)]


def is_due(day: date, row: Reconciliation | None, now: datetime, *, is_unsettled: bool) -> bool:
    """Once when it is over, and again after a pause while something is left: unknown attempts, an incident of a
    difference (their statistics may lag), figures not readable."""
    over_at = DayRange(day).end + COMPARE_AFTER
    if row is None or row.checked_at is None:
        return is_unsettled or now >= over_at
    if row.checked_at < over_at <= now:
        return True
    is_left = is_unsettled or (now >= over_at and row.compared_at is None)
    return is_left and row.checked_at <= now - (RETRY_SOON if now < over_at + RETRY_SOON_FOR else RETRY_LATER)


def _is_unknown(now: datetime) -> Q:
    return Q(outcome=events.Outcome.UNKNOWN, started_at__lte=now - MIN_UNKNOWN_AGE)


def _reconcile_range(span: DayRange, now: datetime, count: AddCharacters) -> None:
    with provider_usage.account_client() as client:
        look = DayReconciliation(client, span, now)
        until, settled_by = min(span.end, now), now - MIN_UNKNOWN_AGE
        look.history = look.read("The provider's history", partial(verified_history, client, span, until, settled_by))
        if look.history is not None:
            resolve_unknown_attempts(span, look.history, now, count)
        save_result(look, is_over=now >= span.end + COMPARE_AFTER)


def resolve_unknown_attempts(span: DayRange, history: History, now: datetime, count: AddCharacters) -> None:
    known = {request.request_id for request in answered_requests(span)}
    found = matching.match(_unknown_attempts(span, now), [item for item in history if match_key(item) not in known])
    for attempt, item in found.billed:
        credits = events.billed_credits(attempt.requested_characters, item.credits)
        _resolve_one(
            partial(events.resolve_unknown, attempt.event_id, request_id=match_key(item), credits=credits), count
        )
    for attempt in found.not_billed:
        _resolve_one(partial(events.resolve_unknown, attempt.event_id), count)


def _unknown_attempts(span: DayRange, now: datetime) -> list[UnknownAttempt]:
    rows = list(
        span.events().filter(_is_unknown(now)).values_list("id", "started_at", "voice", "model", "requested_characters")
    )
    voices = {voice.pk: voice.provider_id for voice in Voice.objects.filter(pk__in={row[2] for row in rows})}
    return [
        UnknownAttempt(event, at.timestamp(), voices.get(voice or NO_ID, ""), model, asked)
        for event, at, voice, model, asked in rows
    ]


def _resolve_one(settle_one: Callable[[], Mapping[uuid.UUID, int]], count: AddCharacters) -> None:
    """A transaction of its own: an attempt that the database refuses does not hold up the others."""
    try:
        with transaction.atomic():
            count(settle_one())
    except DatabaseError as error:
        log.error("reconciliation.not_settled", error=type(error).__name__)
