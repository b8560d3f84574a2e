"""The shared state of the provider's quota: transitions of the quota columns of the one `ProviderState` row.

    mark_exhausted            a request exceeded the quota                            available -> exhausted, incident
    apply_subscription        the subscription shows no remaining credits             available -> exhausted, incident
                              the subscription has enough for the refused request     exhausted -> available
    subscription_unavailable  the subscription could not be read, and the delay or    exhausted -> available
                              the time of the reset has passed

The API key may have its own quota that the subscription does not show, and the subscription may lag. In both cases the
subscription shows enough credits, but the next request is refused again. `quota_refusals` counts consecutive refusals
of this kind. Each one doubles the delay before the quota is tried again. If there was such a refusal, the incident
stays open until the quota has been available for `STABLE_AFTER`, or until the subscription shows more credits than
before. So administrators are not alerted about each attempt.

Each transition is one conditional UPDATE. Times are those of the database's clock.
"""

from contextlib import closing
from datetime import UTC, datetime, timedelta

import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Now

from usage.alerts import incidents
from usage.models import ProviderState
from usage.provider_state import access, circuit, thresholds
from voicecare.providers.elevenlabs import credentials, plans
from voicecare.providers.elevenlabs.account import AccountClient
from voicecare.providers.elevenlabs.models import CATALOGUE
from voicecare.providers.elevenlabs.responses import Subscription
from voicecare.providers.errors import AuthorizationError, BadRequest, Cause, ProviderError

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
    """Record that the provider refused a request of `needed` characters because the quota is exhausted.

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
    """Read the subscription if this is due and no other process is doing it. Logs errors and does not raise them."""
    try:
        resolve_stable_incident()
        if claim_poll():
            _read_subscription()
    except Exception as error:  # speech must not fail because of it, and the next poll may succeed
        log.warning("quota.poll_failed", error=type(error).__name__)


def poll_now() -> None:
    """Read the subscription before it is due, unless it was read less than QUOTA_POLL_S seconds ago."""
    stale = Q(polled_at=None) | Q(polled_at__lte=Now() - _poll_interval())
    ProviderState.objects.filter(stale, pk=1, quota=State.AVAILABLE).update(next_poll_at=Now())
    poll()


def claim_poll() -> bool:
    """Claim the reading of the subscription for this process if it is due. Returns whether this process reads it.

    After POLL_LEASE another process may claim it.
    """
    ProviderState.objects.get_or_create(pk=1)
    due = ProviderState.objects.filter(Q(next_poll_at=None) | Q(next_poll_at__lte=Now()), pk=1)
    return bool(due.update(next_poll_at=Now() + POLL_LEASE))


def apply_subscription(subscription: Subscription) -> None:
    """Update the state of the quota from the subscription. An implausible subscription is treated as unavailable."""
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
        and (increased or _waited(row, now, backoff(row.quota_refusals)))
    ):
        _set_available(row, now, proven=increased)
    thresholds.check_forecast(now)


def subscription_unavailable(*, refused: bool = False) -> None:
    """Update the state of the quota when the subscription could not be read.

    `refused` means that the API key may not read the subscription. The quota is then tried again sooner.
    """
    row, now = _read_row()
    if row.quota_resets_at is not None and row.quota_resets_at > (row.quota_changed_at or now):
        reset_time_passed = row.quota_resets_at <= now
    else:
        reset_time_passed = _waited(row, now, backoff(row.quota_refusals) if refused else MAX_BACKOFF)
    if row.quota == State.EXHAUSTED and reset_time_passed:
        _set_available(row, now)
    else:
        ProviderState.objects.filter(pk=1).update(next_poll_at=_next_poll(row, now, row.quota_resets_at))


def resolve_stable_incident() -> None:
    """Resolve the incident that repeated refusals kept open, when the quota has been available for STABLE_AFTER."""
    stable = ProviderState.objects.filter(
        pk=1, quota=State.AVAILABLE, quota_refusals__gt=0, quota_changed_at__lte=Now() - STABLE_AFTER
    )
    with transaction.atomic():
        if stable.update(quota_refusals=0):
            incidents.resolve_incident(incidents.Kind.QUOTA)


def backoff(refusals: int) -> timedelta:
    """Return the delay after this number of consecutive refusals.

    The quota is not tried earlier, even if the subscription shows credits.
    """
    doubled: timedelta = _poll_interval() * 2 ** min(refusals, 20)
    return min(doubled, MAX_BACKOFF)


def is_plausible(subscription: Subscription, now: datetime) -> bool:
    """Return whether the subscription's numbers can be credits and its reset is in the future.

    A reset in the past or in milliseconds indicates figures of another period or another unit.
    """
    numbers = (subscription.used, subscription.limit, subscription.extension or 0)
    resets_at = reset_time(subscription)
    in_period = subscription.resets_at_unix is None or (resets_at is not None and now < resets_at < now + MAX_PERIOD)
    return in_period and all(0 <= number <= MAX_CREDITS for number in numbers)


def _read_subscription() -> None:
    try:
        base_url, api_key = settings.ELEVENLABS_BASE_URL, credentials.api_key()
        with closing(AccountClient(base_url, api_key, timeout=POLL_TIMEOUT_S)) as client:
            subscription = client.subscription()
    except ProviderError as error:
        log.warning("quota.read_failed", error=type(error).__name__, code=error.code, status=error.status)
        if error.cause is Cause.KEY:
            access.report_refused(error)
        elif isinstance(error, AuthorizationError):  # the key is valid, but may not read the subscription
            access.key_accepted()
        subscription_unavailable(refused=isinstance(error, AuthorizationError | BadRequest))
    else:
        access.key_accepted()
        apply_subscription(subscription)
        group = CATALOGUE.get(settings.ELEVENLABS_MODEL_ID).concurrency_group
        concurrency = plans.concurrency_limit(subscription.tier, group)
        if concurrency is not None:
            circuit.set_plan_limit(concurrency)


def _read_row() -> tuple[ProviderState, datetime]:
    """Return the row of the provider's state and the database's current time. Creates a missing row."""
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

    `proven` means that the subscription shows more credits than before. After repeated refusals, the incident is
    resolved here only if that is the case.
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
    if row.quota == State.AVAILABLE and row.access == ProviderState.Access.GRANTED:
        return now + AVAILABLE_POLL_INTERVAL
    return _poll_time(now + _poll_interval(), resets_at, now)


def _poll_time(at: datetime, resets_at: datetime | None, now: datetime) -> datetime:
    """Return the time of the next poll: `at`, or the reset of the quota if it comes earlier."""
    return at if resets_at is None or resets_at <= now else min(at, resets_at)


def _waited(row: ProviderState, now: datetime, wait: timedelta) -> bool:
    return row.quota_changed_at is None or row.quota_changed_at + wait <= now


def _covers(remaining: int | None, needed: int) -> bool:
    return remaining is None or remaining >= max(needed, 1)


def reset_time(subscription: Subscription) -> datetime | None:
    """Return the time at which the credits are renewed, in UTC. None if the subscription has no valid time."""
    try:
        unix = subscription.resets_at_unix
        return None if unix is None else datetime.fromtimestamp(unix, UTC)
    except (ValueError, OverflowError, OSError):  # out of range
        return None


def _poll_interval() -> timedelta:
    return timedelta(seconds=settings.QUOTA_POLL_S)
