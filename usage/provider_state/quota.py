"""The provider's quota, as all processes know it: transitions of the quota columns of the one `ProviderState` row.

    spent(needed)     a request was refused for want of credits           available -> spent, incident opened
    polled(figures)   the subscription was read: nothing is left          available -> spent, incident opened
                      it shows enough for the request that was refused    spent -> available
    unread()          it could not be read: the clock decides             spent -> available, or nothing

A key may have a quota of its own that the subscription does not show, and their count may lag: then enough is shown
and the next request is refused all the same. `quota_refusals` counts those in a row. Each doubles the pause before
the quota is believed to be back, and from the first one on the incident stays open until the quota has lasted
`STEADY` or the subscription shows more than before: administrators are not told of every try.

Each transition is one conditional UPDATE; times are the database's.
"""

from datetime import UTC, datetime, timedelta

import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Now

from usage.alerts import incidents
from usage.models import ProviderState
from usage.provider_state import circuit, thresholds
from voicecare.providers.elevenlabs import plans
from voicecare.providers.elevenlabs.account import AccountClient
from voicecare.providers.elevenlabs.responses import Subscription
from voicecare.providers.errors import AuthorizationError, BadRequest, ProviderError

MAX_BACKOFF = timedelta(minutes=15)
STABLE_AFTER = timedelta(minutes=15)  # so long after it came back the quota is believed to be really back
POLL_LEASE = timedelta(seconds=15)  # the longest that a poll may take before another process may poll
AVAILABLE_POLL_INTERVAL = timedelta(seconds=50)  # under the minute of beat's schedule, so that no beat comes too early
POLL_TIMEOUT_S = (2.0, 3.0)  # connect, read
MAX_CREDITS = 10**12  # a number beyond this is none of credits
MAX_PERIOD = timedelta(days=400)

State = ProviderState.Quota

log = structlog.get_logger(__name__)


def mark_exhausted(needed: int, detail: str) -> None:
    """A speech request of that many characters was refused. `detail` goes to administrators: no text, no name."""
    row, now = _read_row()
    refusals = row.quota_refusals + 1 if _refused_again(row, now, needed) else 0
    _set_exhausted(row, now, needed=needed, refusals=refusals, detail=detail)


def poll() -> None:
    """Reads the subscription, if it is due and no other process does. Whatever happens is logged and not raised."""
    try:
        resolve_stable_incident()
        if claim_poll():
            _read_subscription()
    except Exception as error:  # it runs beside the speech, and the next one may do better
        log.warning("quota.poll_failed", error=type(error).__name__)


def poll_now() -> None:
    """The same before its time, where an answer hints at it: unless it was read just now."""
    stale = Q(polled_at=None) | Q(polled_at__lte=Now() - _poll_interval())
    ProviderState.objects.filter(stale, pk=1, quota=State.AVAILABLE).update(next_poll_at=Now())
    poll()


def claim_poll() -> bool:
    """The due poll is this process's; another may poll when the lease is over."""
    ProviderState.objects.get_or_create(pk=1)
    due = ProviderState.objects.filter(Q(next_poll_at=None) | Q(next_poll_at__lte=Now()), pk=1)
    return bool(due.update(next_poll_at=Now() + POLL_LEASE))


def apply_subscription(subscription: Subscription) -> None:
    """The subscription was read. A reply that cannot be true changes nothing, as if there had been none."""
    row, now = _read_row()
    if not is_plausible(subscription, now):
        log.warning("quota.subscription_rejected")
        subscription_unavailable()
        return
    with transaction.atomic():  # what was crossed shows in the difference of two readings, once
        _save_subscription(subscription, row, now)
        thresholds.check_thresholds(row, subscription)
    remaining = subscription.remaining
    increased = _credits_increased(row, remaining)
    if row.quota == State.AVAILABLE and remaining == 0:
        _set_exhausted(row, now, needed=0, refusals=0, detail="The subscription shows no remaining credits.")
    elif (
        row.quota == State.EXHAUSTED
        and _covers(remaining, row.quota_needed)
        and (increased or _backoff_passed(row, now))
    ):
        _set_available(row, now, proven=increased)
    thresholds.check_forecast(now)


def subscription_unavailable(*, refused: bool = False) -> None:
    """The subscription could not be read; `refused`: the key may not read it, so that waiting for it is in vain."""
    row, now = _read_row()
    if row.quota == State.EXHAUSTED and _reset_time_passed(row, now, refused):
        _set_available(row, now)
    else:
        ProviderState.objects.filter(pk=1).update(next_poll_at=_next_poll(row, now, row.quota_resets_at))


def resolve_stable_incident() -> None:
    """What was refused again and again has now lasted: the incident is over."""
    stable = ProviderState.objects.filter(
        pk=1, quota=State.AVAILABLE, quota_refusals__gt=0, quota_changed_at__lte=Now() - STABLE_AFTER
    )
    with transaction.atomic():
        if stable.update(quota_refusals=0):
            incidents.resolve_incident(incidents.Kind.QUOTA)


def backoff(refusals: int) -> timedelta:
    """How long after a refusal the quota is not believed to be back, whatever the subscription shows."""
    doubled: timedelta = _poll_interval() * 2 ** min(refusals, 20)
    return min(doubled, MAX_BACKOFF)


def is_plausible(subscription: Subscription, now: datetime) -> bool:
    """Whether its numbers can be credits and its reset lies ahead.

    A reset in the past, or in milliseconds, is the mark of figures that are of another period or another unit.
    """
    numbers = (subscription.used, subscription.limit, subscription.extension or 0)
    resets_at = reset_time(subscription)
    in_period = subscription.resets_at_unix is None or (resets_at is not None and now < resets_at < now + MAX_PERIOD)
    return in_period and all(0 <= number <= MAX_CREDITS for number in numbers)


def _read_subscription() -> None:
    client = AccountClient(
        settings.ELEVENLABS_BASE_URL, settings.ELEVENLABS_API_KEY or "sandbox", timeout=POLL_TIMEOUT_S
    )
    try:
        subscription = client.subscription()
    except ProviderError as error:
        log.warning("quota.read_failed", error=type(error).__name__, code=error.code, status=error.status)
        subscription_unavailable(refused=isinstance(error, AuthorizationError | BadRequest))
    else:
        apply_subscription(subscription)
        concurrency = plans.concurrency_limit(subscription.tier, settings.ELEVENLABS_MODEL_ID)
        if concurrency is not None:
            circuit.set_plan_limit(concurrency)
    finally:
        client.close()


def _read_row() -> tuple[ProviderState, datetime]:
    """The row, and the time on the database's clock."""
    ProviderState.objects.get_or_create(pk=1)
    row = ProviderState.objects.annotate(now=Now()).get(pk=1)
    return row, row.now


def _set_exhausted(row: ProviderState, now: datetime, *, needed: int, refusals: int, detail: str) -> None:
    with transaction.atomic():  # who dies in between has done neither
        first = ProviderState.objects.filter(pk=1, quota=State.AVAILABLE).update(
            quota=State.EXHAUSTED,
            quota_changed_at=now,
            quota_needed=needed,
            quota_refusals=refusals,
            next_poll_at=_poll_time(now + _poll_interval(), row.quota_resets_at, now),
        )
        if first:
            log.warning("quota.exhausted", needed=needed, refusals=refusals)
            incidents.open_incident(incidents.Kind.QUOTA, detail=detail)


def _set_available(row: ProviderState, now: datetime, *, proven: bool = False) -> None:
    """Back, unless it was spent anew since the row was read. What is not proven must last before it is told."""
    resolved = proven or row.quota_refusals == 0
    still_exhausted = ProviderState.objects.filter(pk=1, quota=State.EXHAUSTED, quota_changed_at=row.quota_changed_at)
    with transaction.atomic():
        first = still_exhausted.update(
            quota=State.AVAILABLE,
            quota_changed_at=now,
            quota_refusals=0 if resolved else row.quota_refusals,
            next_poll_at=now + AVAILABLE_POLL_INTERVAL,
        )
        if first:
            log.info("quota.restored", refusals=row.quota_refusals)
        if first and resolved:
            incidents.resolve_incident(incidents.Kind.QUOTA)


def _save_subscription(subscription: Subscription, row: ProviderState, now: datetime) -> None:
    unlimited = subscription.extension is None
    resets_at = reset_time(subscription)
    ProviderState.objects.filter(pk=1).update(
        quota_limit=None if unlimited else subscription.limit + (subscription.extension or 0),
        quota_used=subscription.used,
        quota_resets_at=resets_at,
        polled_at=now,
        next_poll_at=_next_poll(row, now, resets_at),
    )


def _next_poll(row: ProviderState, now: datetime, resets_at: datetime | None) -> datetime:
    if row.quota == State.AVAILABLE:
        return now + AVAILABLE_POLL_INTERVAL
    return _poll_time(now + _poll_interval(), resets_at, now)


def _poll_time(at: datetime, resets_at: datetime | None, now: datetime) -> datetime:
    """The reset is looked at when it comes, not when the next poll would be."""
    return at if resets_at is None or resets_at <= now else min(at, resets_at)


def _refused_again(row: ProviderState, now: datetime, needed: int) -> bool:
    """Whether the quota had just seemed to be back. It was back where what was read since shows that it is used up."""
    back_at = row.quota_changed_at
    if back_at is None or back_at <= now - STABLE_AFTER:
        return False
    read_since = row.polled_at is not None and row.polled_at > back_at
    return not read_since or _covers(row.quota_remaining, needed)


def _reset_time_passed(row: ProviderState, now: datetime, refused: bool) -> bool:
    if row.quota_resets_at is not None and row.quota_resets_at > (row.quota_changed_at or now):
        return row.quota_resets_at <= now
    return _backoff_passed(row, now) if refused else _waited(row, now, MAX_BACKOFF)


def _backoff_passed(row: ProviderState, now: datetime) -> bool:
    return _waited(row, now, backoff(row.quota_refusals))


def _waited(row: ProviderState, now: datetime, wait: timedelta) -> bool:
    return row.quota_changed_at is None or row.quota_changed_at + wait <= now


def _credits_increased(row: ProviderState, remaining: int | None) -> bool:
    """More is left than when the subscription was last read: credits were bought, or a new period has begun."""
    before = row.quota_remaining
    return before is not None and (remaining is None or remaining > before)


def _covers(remaining: int | None, needed: int) -> bool:
    return remaining is None or remaining >= max(needed, 1)


def reset_time(subscription: Subscription) -> datetime | None:
    try:
        unix = subscription.resets_at_unix
        return None if unix is None else datetime.fromtimestamp(unix, UTC)
    except (ValueError, OverflowError, OSError):  # what the calendar does not have
        return None


def _poll_interval() -> timedelta:
    return timedelta(seconds=settings.QUOTA_POLL_S)
