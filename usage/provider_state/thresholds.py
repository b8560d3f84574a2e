"""Early warnings about credits: incidents when 75 and 90 per cent are used, or when the forecast says they run out.

A threshold is reported when it is crossed. Each reading of the subscription is compared with the one before, so the
next reading does not reopen an incident that was resolved by hand. If several thresholds are crossed at the same time,
the highest one is reported. If the quota is exhausted, none is reported, because that is a separate incident
(`quota.py`).
"""

from collections.abc import Iterator
from datetime import datetime, timedelta

from django.db.models import Q

from usage.alerts import incidents
from usage.models import Incident, ProviderState
from usage.reports import forecast
from usage.reports.forecast import Forecast
from voicecare.providers.elevenlabs.responses import Subscription

THRESHOLDS_PERCENT = (75, 90)
FORECAST_CLEAR_RATIO = 0.95  # the incident is resolved below this part of the limit
COOLDOWN = timedelta(days=1)  # after its resolution, the forecast incident is not opened again for this long


def highest_crossed(before: float | None, after: float | None) -> int | None:
    """Return the highest threshold that was crossed between two readings, in per cent, or None. Pure.

    `before` and `after` are the used per cent. They are None if the subscription was never read or has no limit.
    """
    reached = [percent for percent in THRESHOLDS_PERCENT if after is not None and percent <= after < 100]
    return reached[-1] if reached and (before is None or before < reached[-1]) else None


def not_reached(after: float | None) -> Iterator[int]:
    """Yield the thresholds that the used per cent `after` does not reach. Pure."""
    return (percent for percent in THRESHOLDS_PERCENT if after is None or after < percent)


def percent_used(state: ProviderState) -> float | None:
    if state.quota_limit is None or state.quota_used is None:
        return None
    return 100 * state.quota_used / state.quota_limit if state.quota_limit else 100.0


def will_last(limit: int | None, expected: Forecast | None) -> bool | None:
    """Return whether the credits last until their reset. True without a limit. Pure.

    None means that the forecast is unknown, or that the expected usage is just below `limit`.
    """
    if limit is None:
        return True
    if expected is None or FORECAST_CLEAR_RATIO * limit <= expected.used_at_reset <= limit:
        return None
    return expected.used_at_reset < limit


def check_thresholds(before: ProviderState, subscription: Subscription) -> None:
    """Open and resolve the threshold incidents. `before` is the provider's state before `subscription` was saved."""
    state = ProviderState.objects.get(pk=1)
    percent = percent_used(state)
    for threshold in not_reached(percent):
        incidents.resolve_incident(incidents.Kind.QUOTA_LOW, str(threshold))
    crossed = highest_crossed(percent_used(before), percent)
    if crossed is not None and state.quota == ProviderState.Quota.AVAILABLE:
        used, limit, plan = subscription.used, state.quota_limit or 0, subscription.limit
        detail = f"{used:,} of {limit:,} credits are used ({100 * used // max(limit, 1)} %)."
        if used > plan:
            detail += f" {used - plan:,} of them exceed the plan's {plan:,} and are billed as overage."
        elif limit > plan:
            detail += f" {limit - plan:,} of them exceed the plan and would be billed as overage."
        detail = f"{detail} {_describe_reset(state)}".rstrip()
        incidents.open_incident(incidents.Kind.QUOTA_LOW, str(crossed), detail)


def check_forecast(now: datetime) -> None:
    """Open or resolve the incident about the forecast of credits.

    After its resolution, the incident is not opened again for COOLDOWN.
    """
    state = ProviderState.objects.get(pk=1)
    current = forecast.current_forecast(state, now)
    lasts = will_last(state.quota_limit, current)
    if lasts:
        incidents.resolve_incident(incidents.Kind.FORECAST)
    elif lasts is False and current and state.quota == ProviderState.Quota.AVAILABLE:
        reported = Incident.objects.filter(kind=incidents.Kind.FORECAST)
        recent = reported.filter(Q(resolved_at=None) | Q(resolved_at__gt=now - COOLDOWN))
        if not recent.exists():
            rate = f"At {current.credits_a_day:,.0f} credits a day, the {state.quota_limit:,} credits of this period"
            detail = f"{rate} run out on {current.runs_out_on}. {_describe_reset(state)}"
            incidents.open_incident(incidents.Kind.FORECAST, detail=detail)


def _describe_reset(state: ProviderState) -> str:
    return f"Credits reset on {state.quota_resets_at:%Y-%m-%d %H:%M} UTC." if state.quota_resets_at else ""
