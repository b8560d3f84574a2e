"""Whether the provider accepts our API key and lets it speak, in the one `ProviderState` row, with its incident.

    report_refused     a call was refused                        granted -> key or permission, incident
    key_accepted       a call that needs no permission worked    key -> granted
    speech_accepted    speech was requested and accepted         key or permission -> granted

The provider refuses some calls for a missing permission or plan although the key is valid. So a call that only shows
that the key is valid does not resolve such a refusal. Each transition locks the row first, because the incident must
agree with it.
"""

from datetime import UTC, datetime, timedelta

import structlog
from django.db import transaction
from django.db.models.functions import Now

from usage.alerts import incidents
from usage.models import Incident, ProviderState
from voicecare.providers.elevenlabs import credentials
from voicecare.providers.errors import Cause, ProviderError

CHANGE_IS_RECENT = timedelta(minutes=15)
STABLE_AFTER = timedelta(minutes=5)  # after repeated refusals, the end is reported when it has lasted this long

Access = ProviderState.Access

log = structlog.get_logger(__name__)


def report_refused(error: ProviderError) -> None:
    """Record that the provider refuses our key, plan or permissions, and open the incident."""
    refused = Access.KEY if error.cause is Cause.KEY else Access.PERMISSION
    with transaction.atomic():
        state = _locked_state()
        # A key that is refused after its permissions is the worse problem. It is not the other way round.
        if state.access == Access.GRANTED or (state.access == Access.PERMISSION and refused == Access.KEY):
            ProviderState.objects.filter(pk=1).update(access=refused, access_changed_at=Now(), next_poll_at=Now())
            log.warning("access.refused", code=error.code, status=error.status)
        detail, changed_at = f"{error.support_details}.", credentials.key_changed_at()
        if changed_at is not None and datetime.now(UTC) - changed_at <= CHANGE_IS_RECENT:
            detail += f" The key in ELEVENLABS_API_KEY_FILE was changed at {changed_at:%Y-%m-%d %H:%M:%S} UTC."
        incidents.open_incident(incidents.Kind.ACCESS, detail=detail)


def key_accepted() -> None:
    """Record that the provider accepted the key. Resolves the incident if the key was the problem."""
    _grant(Access.KEY)


def speech_accepted() -> None:
    """Record that the provider accepted a speech request. Resolves the incident."""
    _grant(Access.KEY, Access.PERMISSION)


def resolve_stable_incident() -> None:
    """Resolve the incident that repeated refusals left open, when all calls were accepted for STABLE_AFTER."""
    with transaction.atomic():
        stable = ProviderState.objects.filter(access_changed_at__lte=Now() - STABLE_AFTER)
        if stable.filter(pk=1, access=Access.GRANTED).select_for_update().exists():
            incidents.resolve_incident(incidents.Kind.ACCESS)


def _grant(*problems: Access) -> None:
    """End these problems.

    If an incident was resolved recently, the present one stays open until `resolve_stable_incident` resolves it. So
    administrators are not alerted again and again if one of several processes has another key.
    """
    if not ProviderState.objects.filter(pk=1, access__in=problems).exists():
        return  # the usual case takes no lock
    with transaction.atomic():
        if _locked_state().access not in problems:
            return
        ProviderState.objects.filter(pk=1).update(access=Access.GRANTED, access_changed_at=Now())
        log.info("access.granted")
        recent = Incident.objects.filter(kind=incidents.Kind.ACCESS, key="", resolved_at__gt=Now() - STABLE_AFTER)
        if not recent.exists():
            incidents.resolve_incident(incidents.Kind.ACCESS)


def _locked_state() -> ProviderState:
    ProviderState.objects.get_or_create(pk=1)
    return ProviderState.objects.select_for_update().get(pk=1)
