"""The forecast of credits."""

from datetime import UTC, date, datetime, timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings

from usage.models import DailyUsage, ProviderState
from usage.reports import forecast
from usage.reports.forecast import Forecast, RecentUsage

NOW = datetime(2026, 11, 18, 12, tzinfo=UTC)
RESET = NOW + timedelta(days=10)
WEEK = RecentUsage(date(2026, 11, 11), 7500)  # seven and a half days: 1,000 a day


def state(**columns: object) -> ProviderState:
    return ProviderState(**{"quota_limit": 100_000, "quota_used": 50_000, "quota_resets_at": RESET, **columns})


@pytest.mark.parametrize(
    ("columns", "history", "expected"),
    [
        ({}, WEEK, Forecast(1000, 60_000, None)),
        ({"quota_limit": 60_001}, WEEK, Forecast(1000, 60_000, None)),
        ({"quota_limit": 60_000}, WEEK, Forecast(1000, 60_000, date(2026, 11, 28))),
        ({"quota_limit": 51_400}, WEEK, Forecast(1000, 60_000, date(2026, 11, 19))),
        ({"quota_limit": 50_000}, WEEK, Forecast(1000, 60_000, date(2026, 11, 18))),
        ({"quota_limit": 40_000}, WEEK, Forecast(1000, 60_000, date(2026, 11, 18))),
        ({}, RecentUsage(date(2026, 11, 11), 0), Forecast(0, 50_000, None)),
        ({"quota_limit": 0, "quota_used": 0}, RecentUsage(date(2026, 11, 11), 0), Forecast(0, 0, date(2026, 11, 18))),
        ({}, RecentUsage(date(2026, 11, 17), 1500), Forecast(1000, 60_000, None)),
    ],
)
def test_the_rate_is_projected_to_the_reset(columns: dict, history: RecentUsage, expected: Forecast):
    assert forecast.project(state(**columns), history, NOW) == expected


@pytest.mark.parametrize(
    ("columns", "history"),
    [
        ({"quota_limit": None}, WEEK),
        ({"quota_used": None}, WEEK),
        ({"quota_resets_at": None}, WEEK),
        ({"quota_resets_at": NOW}, WEEK),
        ({"quota_resets_at": NOW - timedelta(days=1)}, WEEK),
        ({}, RecentUsage(date(2026, 11, 18), 500)),
    ],
    ids=["no limit", "never read", "no reset", "reset now", "reset past", "half a day"],
)
def test_without_the_needed_figures_there_is_no_forecast(columns: dict, history: RecentUsage):
    assert forecast.project(state(**columns), history, NOW) is None


@pytest.mark.django_db
def test_the_rate_is_that_of_the_last_seven_days(settings: Settings):
    settings.USAGE_TIME_ZONE = "UTC"
    for days, kind in [(0, "live"), (1, "live"), (1, "warm"), (7, "preview"), (8, "live"), (400, "live")]:
        DailyUsage.objects.create(day=NOW.date() - timedelta(days=days), kind=kind, credits=1875)
    with CaptureQueriesContext(connection) as captured:
        assert forecast.current_forecast(state(), NOW) == Forecast(1000, 60_000, None)
    assert len(captured) == 2


@pytest.mark.django_db
def test_an_idle_week_is_a_rate_of_zero():
    DailyUsage.objects.create(day=NOW.date() - timedelta(days=30), kind="live", credits=1000)
    assert forecast.current_forecast(state(), NOW) == Forecast(0, 50_000, None)


@pytest.mark.django_db
def test_days_are_in_the_usage_time_zone(settings: Settings):
    settings.USAGE_TIME_ZONE = "Pacific/Auckland"  # 13 hours ahead, one hour after midnight
    DailyUsage.objects.create(day=date(2026, 11, 18), kind="live", credits=2500)
    assert forecast.current_forecast(state(quota_limit=52_350), NOW) == Forecast(2400, 74_000, date(2026, 11, 20))


@pytest.mark.django_db
def test_without_history_there_is_no_forecast():
    assert forecast.current_forecast(state(), NOW) is None
