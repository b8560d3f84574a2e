"""The shared state of the provider's quota: transitions of the quota columns of the one `ProviderState` row.

    mark_exhausted            a request exceeded the quota                         available -> exhausted, incident
    apply_subscription        the subscription shows no remaining credits          available -> exhausted, incident
                              it shows enough credits for the refused request      exhausted -> available
    subscription_unavailable  it could not be read, so only the time decides       exhausted -> available, or nothing

The API key may have its own quota that the subscription does not show, and the subscription may lag. Then it shows
enough credits, but the next request is refused again. `quota_refusals` counts consecutive refusals of this kind. Each
one doubles the delay before the quota is tried again. After the first one, the incident stays open until the quota has
been available for `STABLE_AFTER`, or until the subscription shows more credits than before. So administrators are not
alerted about each attempt.

Each transition is one conditional UPDATE. Times are the database's.
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
STABLE_AFTER = timedelta(minutes=15)  # a quota that has been available for this long has recovered
POLL_LEASE = timedelta(seconds=15)  # after this time another process may poll
AVAILABLE_POLL_INTERVAL = timedelta(seconds=50)  # less than beat's one-minute schedule, so that every run polls
POLL_TIMEOUT_S = (2.0, 3.0)  # connect, read
MAX_CREDITS = 10**12  # a higher number is not plausible
MAX_PERIOD = timedelta(days=400)

State = ProviderState.Quota

log = structlog.get_logger(__name__)


def mark_exhausted(needed: int, detail: str) -> None:
    """Record that a request of `needed` characters exceeded the quota.

    `detail` is sent to administrators, so it must not contain a text or a name.
    """
    row, now = _read_row()
    back_at = row.quota_changed_at
    is_repeated = False
    if back_at is not None and back_at > now - STABLE_AFTER:
        # The quota only appeared to be available, unless a later reading shows that its credits have been used since.
        read_since = row.polled_at is not None and row.polled_at > back_at
        is_repeated = not read_since or _covers(row.quota_remaining, needed)
    refusals = row.quota_refusals + 1 if is_repeated else 0
    _set_exhausted(row, now, needed=needed, refusals=refusals, detail=detail)


def poll() -> None:
    """Read the subscription if it is due and no other process reads it. Logs errors and does not raise them."""
    try:
        resolve_stable_incident()
        if claim_poll():
            _read_subscription()
    except Exception as error:  # speech must not fail because of it, and the next poll may succeed
        log.warning("quota.poll_failed", error=type(error).__name__)


def poll_now() -> None:
    """Read the subscription before it is due, unless it was read just now."""
    stale = Q(polled_at=None) | Q(polled_at__lte=Now() - _poll_interval())
    ProviderState.objects.filter(stale, pk=1, quota=State.AVAILABLE).update(next_poll_at=Now())
    poll()


def claim_poll() -> bool:
    """Claim the due poll for this process. Another process may poll when the lease has expired."""
    ProviderState.objects.get_or_create(pk=1)
    due = ProviderState.objects.filter(Q(next_poll_at=None) | Q(next_poll_at__lte=Now()), pk=1)
    return bool(due.update(next_poll_at=Now() + POLL_LEASE))


def apply_subscription(subscription: Subscription) -> None:
    """Update the state from the subscription. An implausible subscription is treated as unavailable."""
    row, now = _read_row()
    if not is_plausible(subscription, now):
        log.warning("quota.subscription_rejected")
        subscription_unavailable()
        return
    unlimited = subscription.extension is None
    resets_at = reset_time(subscription)
    with transaction.atomic():  # each crossed threshold shows once, in the difference of two readings
        ProviderState.objects.filter(pk=1).update(
            quota_limit=None if unlimited else subscription.limit + (subscription.extension or 0),
            quota_used=subscription.used,
            quota_resets_at=resets_at,
            polled_at=now,
            next_poll_at=_next_poll(row, now, resets_at),
        )
        thresholds.check_thresholds(row, subscription)
    before, remaining = row.quota_remaining, subscription.remaining
    # Credits were bought or a new period has started since the last reading.
    increased = before is not None and (remaining is None or remaining > before)
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
    """Update the state without a subscription. `refused` means that the API key may not read it."""
    row, now = _read_row()
    if row.quota_resets_at is not None and row.quota_resets_at > (row.quota_changed_at or now):
        reset_time_passed = row.quota_resets_at <= now
    else:
        reset_time_passed = _backoff_passed(row, now) if refused else _waited(row, now, MAX_BACKOFF)
    if row.quota == State.EXHAUSTED and reset_time_passed:
        _set_available(row, now)
    else:
        ProviderState.objects.filter(pk=1).update(next_poll_at=_next_poll(row, now, row.quota_resets_at))


def resolve_stable_incident() -> None:
    """Resolve the incident after repeated refusals, when the quota has been available for STABLE_AFTER."""
    stable = ProviderState.objects.filter(
        pk=1, quota=State.AVAILABLE, quota_refusals__gt=0, quota_changed_at__lte=Now() - STABLE_AFTER
    )
    with transaction.atomic():
        if stable.update(quota_refusals=0):
            incidents.resolve_incident(incidents.Kind.QUOTA)


def backoff(refusals: int) -> timedelta:
    """Return the delay after a refusal. The quota is not tried earlier, even if the subscription shows credits."""
    doubled: timedelta = _poll_interval() * 2 ** min(refusals, 20)
    return min(doubled, MAX_BACKOFF)


def is_plausible(subscription: Subscription, now: datetime) -> bool:
    """Return whether the numbers can be credits and the reset is in the future.

    A reset in the past or in milliseconds indicates figures of another period or another unit.
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
    """Return the row and the database's current time."""
    ProviderState.objects.get_or_create(pk=1)
    row = ProviderState.objects.annotate(now=Now()).get(pk=1)
    return row, row.now


def _set_exhausted(row: ProviderState, now: datetime, *, needed: int, refusals: int, detail: str) -> None:
    with transaction.atomic():  # both or neither, if the process dies
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
    """Make the quota available, unless it was exhausted again after the row was read.

    After repeated refusals, the incident is only resolved here if more credits are `proven`.
    """
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


def _next_poll(row: ProviderState, now: datetime, resets_at: datetime | None) -> datetime:
    if row.quota == State.AVAILABLE:
        return now + AVAILABLE_POLL_INTERVAL
    return _poll_time(now + _poll_interval(), resets_at, now)


def _poll_time(at: datetime, resets_at: datetime | None, now: datetime) -> datetime:
    """Return the time of the next poll: the reset, if it comes before `at`."""
    return at if resets_at is None or resets_at <= now else min(at, resets_at)


def _backoff_passed(row: ProviderState, now: datetime) -> bool:
    return _waited(row, now, backoff(row.quota_refusals))


def _waited(row: ProviderState, now: datetime, wait: timedelta) -> bool:
    return row.quota_changed_at is None or row.quota_changed_at + wait <= now


def _covers(remaining: int | None, needed: int) -> bool:
    return remaining is None or remaining >= max(needed, 1)


def reset_time(subscription: Subscription) -> datetime | None:
    try:
        unix = subscription.resets_at_unix
        return None if unix is None else datetime.fromtimestamp(unix, UTC)
    except (ValueError, OverflowError, OSError):  # out of range
        return None


def _poll_interval() -> timedelta:
    return timedelta(seconds=settings.QUOTA_POLL_S)
