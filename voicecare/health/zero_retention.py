"""The nightly check that zero retention is effective.

The provider can accept `enable_logging=false` and ignore it. So every night a short text is spoken with zero retention,
and half an hour later the provider's history must not have the request. One process does each step: the row of the
night (`RetentionCheck`) is claimed before it.
"""

import asyncio
from datetime import datetime, timedelta

import structlog
from django.conf import settings
from django.db.models import F, Q, QuerySet
from django.db.models.functions import Now
from django.utils import timezone

from usage.alerts import incidents
from usage.models import RetentionCheck
from usage.reconciliation import provider_usage
from usage.reconciliation.matching import match_key
from usage.reconciliation.provider_usage import ProviderDataUnavailable
from voicecare.health import provider
from voicecare.health.parts import TIME_FORMAT
from voicecare.patients.models import Voice
from voicecare.providers.errors import ProviderError

BEGINS_AT = timedelta(hours=2)  # after midnight in TIME_ZONE
HISTORY_DELAY = timedelta(minutes=30)  # an item can appear late
STEP_LEASE = timedelta(minutes=10)  # longer than a step can take; after a failure the delays grow
RETRY_MAX = timedelta(hours=2)

log = structlog.get_logger(__name__)


def check(now: datetime) -> None:
    """Make the next step of this night's check, if it is due. Without zero retention, the incident is resolved."""
    if not settings.ELEVENLABS_ZERO_RETENTION:
        incidents.resolve_incident(incidents.Kind.RETENTION)
        return
    if not settings.ZERO_RETENTION_CHECK:
        return
    night = timezone.localdate(now - BEGINS_AT)
    RetentionCheck.objects.bulk_create([RetentionCheck(night=night)], ignore_conflicts=True)
    row = RetentionCheck.objects.filter(night=night)
    due = row.filter(Q(next_step_at=None) | Q(next_step_at__lte=Now()), checked_at=None)
    if not due.update(next_step_at=Now() + STEP_LEASE, attempts=F("attempts") + 1):
        return
    tonight = row.get()
    try:
        if tonight.request_id:
            _look(row, tonight)
        else:
            _speak(row)
    except (ProviderError, ProviderDataUnavailable, TimeoutError) as error:
        reason = f"{error} ({error.code})" if isinstance(error, ProviderError) else str(error) or "no end of the speech"
        log.warning("zero_retention.check_delayed", reason=reason)
        delay = min(STEP_LEASE * tonight.attempts, RETRY_MAX)
        row.update(error=reason[:200], next_step_at=Now() + delay)


def _speak(row: QuerySet[RetentionCheck]) -> None:
    """Have a word spoken with zero retention. Raises ProviderError or TimeoutError."""
    voice = Voice.objects.default(provider.LANGUAGE)
    if voice is None:
        raise ProviderDataUnavailable("there is no default voice")
    attempt = asyncio.run(provider.speak(voice)).attempt
    if not attempt.request_id:
        raise ProviderDataUnavailable("the response had no request id")
    row.update(request_id=attempt.request_id, sent_at=Now(), next_step_at=Now() + HISTORY_DELAY, error="")


def _look(row: QuerySet[RetentionCheck], tonight: RetentionCheck) -> None:
    """Look for the request in the history. Raises ProviderError or ProviderDataUnavailable."""
    sent_at = tonight.sent_at or timezone.now()
    with provider_usage.account_client() as client:
        items = provider_usage.items_between(client, sent_at, timezone.now())
        is_found = any(match_key(item) == tonight.request_id for item in items)
    row.update(checked_at=Now(), is_found=is_found, error="")
    log.info("zero_retention.checked", is_found=is_found)
    if is_found:
        detail = f"The request {tonight.request_id} of {sent_at:{TIME_FORMAT}} is in the history."
        incidents.open_incident(incidents.Kind.RETENTION, detail=detail)
    else:
        incidents.resolve_incident(incidents.Kind.RETENTION)
