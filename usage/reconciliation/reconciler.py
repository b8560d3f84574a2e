"""Reconciliation: resolves unknown attempts and compares the ledger with the provider's figures, day by day.

One process at a time reconciles a day. It holds the lease `lease_until` of the day's row. The lease only saves work.
Nothing is counted twice if a process is killed, or if two processes reconcile the same day: an attempt is resolved in
one transaction, and the first transaction wins (`resolve_unknown` in the ledger). The figures of a day are recalculated
from the ledger each time. Times are passed in as `now`. Leases use the database's clock.
"""

import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from functools import partial
from itertools import takewhile

import structlog
from django.db import DatabaseError, transaction
from django.db.models import Min, Q
from django.db.models.functions import Now

from usage.alerts import endings, incidents
from usage.ledger import events, rollup
from usage.models import NO_ID, Incident, Reconciliation, UsageEvent
from usage.reconciliation import provider_usage
from usage.reconciliation.comparison import save_result
from usage.reconciliation.day import DayRange, DayReconciliation, History, Removed, answered_requests
from usage.reconciliation.matching import UnknownAttempt, match, match_key
from usage.reconciliation.request_records import read_requests
from voicecare.core.batches import process_each
from voicecare.patients.models import Voice

MIN_UNKNOWN_AGE = timedelta(minutes=10)  # a younger attempt may still get its response, and the history lags
COMPARE_AFTER = timedelta(hours=1)  # delay after the end of a day, because the statistics lag
MAX_LOOKBACK = endings.COMPARED_FOR
RETRY_SOON, RETRY_LATER = timedelta(minutes=50), timedelta(hours=20)  # delays between two checks of an unfinished day
RETRY_SOON_FOR = timedelta(days=1)  # after COMPARE_AFTER; then RETRY_LATER applies
LEASE = timedelta(minutes=11)  # longer than the time limit of a task
TIME_BUDGET_S = 120.0  # after this time no further day is started; the next run continues

AddCharacters = Callable[[Mapping[uuid.UUID, int]], None]
"""Adds characters to conversations, in the transaction that records them. This app does not know conversations."""

log = structlog.get_logger(__name__)


def reconcile(now: datetime, add_characters: AddCharacters) -> None:
    """Reconcile every day that is due. Today comes first, because its conversations may be open, then the oldest day.

    `add_characters` gets the characters that are newly counted. Safe to call at any time, also in several processes.
    """
    deadline, today = time.monotonic() + TIME_BUDGET_S, rollup.day_of(now)
    days = sorted(_due_days(now), key=lambda day: (day != today, day))
    process_each(
        "usage.reconcile",
        takewhile(lambda _: time.monotonic() < deadline, days),
        lambda day: reconcile_day(day, now, add_characters),
    )


def reconcile_day(day: date, now: datetime, add_characters: AddCharacters, *, force: bool = False) -> bool:
    """Reconcile the day if it is due, or always with `force`. Returns whether it was reconciled.

    It is not reconciled while another process has its lease.
    """
    with _day_lease(day) as is_leased:
        if not is_leased or not (force or day in _due_days(now)):
            return False
        day_range = DayRange(day)
        with provider_usage.account_client() as client:
            look = DayReconciliation(client, day_range, now)
            read_requests(look, min(day_range.end, now), now - MIN_UNKNOWN_AGE)
            if look.history is not None:
                resolve_unknown_attempts(day_range, look.history, now, add_characters)
            save_result(look, is_over=now >= day_range.end + COMPARE_AFTER)
        return True


@contextmanager
def _day_lease(day: date) -> Iterator[bool]:
    Reconciliation.objects.bulk_create([Reconciliation(day=day)], ignore_conflicts=True)
    row = Reconciliation.objects.filter(day=day)
    free = Q(lease_until=None) | Q(lease_until__lte=Now())
    if not row.filter(free).update(lease_until=Now() + LEASE):
        yield False
        return
    leased = row.filter(lease_until=row.get().lease_until)  # another process may own it after the lease has expired
    try:
        yield True
    finally:
        leased.update(lease_until=None)


def _due_days(now: datetime) -> list[date]:
    oldest = UsageEvent.objects.aggregate(started_at=Min("started_at"))["started_at"]
    if oldest is None:
        return []
    first, last = rollup.day_of(max(oldest, now - MAX_LOOKBACK)), rollup.day_of(now)
    rows = {row.day: row for row in Reconciliation.objects.filter(day__gte=first)}
    unknown = UsageEvent.objects.filter(_is_unknown(now), started_at__gte=rollup.start_of_day(first)).order_by()
    days_of_unknown = set(map(rollup.day_of, unknown.values_list("started_at", flat=True)))
    drifting = set(Incident.objects.filter(kind=incidents.Kind.DRIFT, resolved_at=None).values_list("key", flat=True))
    unfinished = {*days_of_unknown, *(row.day for row in rows.values() if str(row.day) in drifting)}
    days = (first + timedelta(days=offset) for offset in range((last - first).days + 1))
    return [day for day in days if is_due(day, rows.get(day), now, is_unfinished=day in unfinished)]


def is_due(day: date, row: Reconciliation | None, now: datetime, *, is_unfinished: bool) -> bool:
    """Return whether a day is due for reconciliation. `row` is its saved result, if there is one.

    A day is due once after its end, and again after a delay while it is unfinished: it has unknown attempts or an open
    incident about a difference (the provider's statistics may lag), or its figures could not be read.
    """
    over_at = DayRange(day).end + COMPARE_AFTER
    if row is None or row.checked_at is None:
        return is_unfinished or now >= over_at
    if row.checked_at < over_at <= now:
        return True
    if is_unfinished or (now >= over_at and row.compared_at is None):
        return row.checked_at <= now - (RETRY_SOON if now < over_at + RETRY_SOON_FOR else RETRY_LATER)
    return False


def _is_unknown(now: datetime) -> Q:
    return Q(outcome=events.Outcome.UNKNOWN, started_at__lte=now - MIN_UNKNOWN_AGE)


def resolve_unknown_attempts(
    day_range: DayRange, history: History, now: datetime, add_characters: AddCharacters
) -> None:
    known_ids = {request.request_id for request in answered_requests(day_range)}
    candidates = [item for item in history if match_key(item) not in known_ids]
    # What was deleted from the history cannot show whether an attempt in this voice was billed.
    unknown = list(day_range.events().filter(_is_unknown(now)).exclude(voice__in=Removed.since(day_range).voices))
    voices = {voice.pk: voice.provider_id for voice in Voice.objects.filter(pk__in={event.voice for event in unknown})}
    attempts = (
        UnknownAttempt(
            event_id=event.pk,
            at_unix=event.started_at.timestamp(),
            provider_voice_id=voices.get(event.voice or NO_ID, ""),
            model=event.model,
            requested_characters=event.requested_characters,
        )
        for event in unknown
    )
    matching = match(attempts, candidates)
    for attempt, item in matching.billed:
        credits = events.billed_credits(attempt.requested_characters, item.credits)
        resolve = partial(events.resolve_unknown, attempt.event_id, request_id=match_key(item), credits=credits)
        _resolve_one(resolve, add_characters)
    for attempt in matching.not_billed:
        _resolve_one(partial(events.resolve_unknown, attempt.event_id), add_characters)


def _resolve_one(resolve: Callable[[], Mapping[uuid.UUID, int]], add_characters: AddCharacters) -> None:
    """Write the outcome of one attempt whose response was lost. An attempt that the database refuses is left out.

    `resolve` writes the outcome and returns the newly billed characters by conversation. `add_characters` adds them to
    these conversations in the same transaction.
    """
    try:
        with transaction.atomic():
            add_characters(resolve())
    except DatabaseError as error:
        log.error("reconciliation.resolve_failed", error=type(error).__name__)
