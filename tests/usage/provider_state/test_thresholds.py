"""Early warnings: each threshold is reported once, when it is crossed, and the forecast does not flap."""

from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone

from tests.usage.provider_state.test_circuit import row, seconds_ago
from tests.usage.provider_state.test_quota import MONTH_S, figures
from usage.alerts.responses import mark_resolved
from usage.models import DailyUsage, Incident
from usage.provider_state import quota, thresholds
from usage.reports.forecast import Forecast


@pytest.mark.parametrize(
    ("before", "after", "crossed"),
    [
        (None, 10, None),
        (None, 75, 75),
        (None, 95, 90),
        (10, 74.99, None),
        (10, 75, 75),
        (10, 89.99, 75),
        (10, 90, 90),
        (75, 80, None),
        (80, 90, 90),
        (90, 99, None),
        (95, 80, None),
        (95, 10, None),
        (80, 100, None),
        (10, 120, None),
        (100, 95, None),
        (10, None, None),
        (None, None, None),
    ],
)
def test_the_highest_crossed_threshold_is_returned(before: float | None, after: float | None, crossed: int | None):
    assert thresholds.highest_crossed(before, after) == crossed


@pytest.mark.parametrize(("after", "left"), [(10, [75, 90]), (75, [90]), (90, []), (120, []), (None, [75, 90])])
def test_thresholds_that_are_not_reached(after: float | None, left: list[int]):
    assert list(thresholds.not_reached(after)) == left


@pytest.mark.parametrize(
    ("limit", "at_reset", "lasts"),
    [
        (None, None, True),
        (1000, None, None),
        (1000, 949, True),
        (1000, 950, None),
        (1000, 1000, None),
        (1000, 1001, False),
        (0, 0, None),
        (0, 1, False),
    ],
)
def test_a_forecast_near_the_limit_changes_nothing(limit: int | None, at_reset: int | None, lasts: bool | None):
    expected = None if at_reset is None else Forecast(1, at_reset, None)
    assert thresholds.will_last(limit, expected) is lasts


# In the database


def incident_states(kind: str = "quota_low") -> list[tuple[str, bool]]:
    rows = Incident.objects.filter(kind=kind).order_by("opened_at")
    return [(row.key, row.resolved_at is None) for row in rows]


def reset_unix() -> int:
    return int(timezone.now().timestamp()) + MONTH_S // 2


def read_subscription(*used: int, **fields: object) -> None:
    for one in used:
        quota.apply_subscription(figures(one, **fields))


@pytest.mark.django_db
def test_each_threshold_is_reported_once_and_resolved_by_the_next_period():
    read_subscription(100, 760, 770, 800)
    assert incident_states() == [("75", True)]
    read_subscription(910, 950)
    assert incident_states() == [("75", True), ("90", True)]
    read_subscription(0)
    assert incident_states() == [("75", False), ("90", False)]
    read_subscription(760)
    assert incident_states() == [("75", False), ("90", False), ("75", True)]


@pytest.mark.django_db
def test_bought_credits_resolve_thresholds():
    read_subscription(760, 920)
    read_subscription(920, limit=1200)
    assert incident_states() == [("75", True), ("90", False)]


@pytest.mark.django_db
def test_nobody_can_resolve_the_incident_while_the_credits_are_low():
    read_subscription(760)
    assert not mark_resolved(Incident.objects.get().pk, "ann")
    read_subscription(770, 780)
    assert incident_states() == [("75", True)]


@pytest.mark.django_db
def test_a_quota_exhausted_in_one_step_is_one_incident():
    read_subscription(100, 1000)
    assert list(Incident.objects.values_list("kind", flat=True)) == ["quota"]


@pytest.mark.django_db
def test_an_exhausted_quota_opens_no_threshold_incident():
    quota.mark_exhausted(40, "")
    read_subscription(999)
    assert list(Incident.objects.values_list("kind", flat=True)) == ["quota"]


@pytest.mark.django_db
def test_an_implausible_subscription_crosses_no_threshold():
    read_subscription(760, 10**15)
    assert incident_states() == [("75", True)]


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "765 of 1,000 credits are used (76 %)."),
        (
            {"limit": 800, "max_credit_limit_extension": 200},
            "765 of 1,000 credits are used (76 %). 200 of them exceed the plan and would be billed as overage.",
        ),
        (
            {"limit": 600, "max_credit_limit_extension": 400},
            "765 of 1,000 credits are used (76 %). 165 of them exceed the plan's 600 and are billed as overage.",
        ),
        (
            {"next_character_count_reset_unix": int(datetime(2099, 1, 1, tzinfo=UTC).timestamp())},
            "765 of 1,000 credits are used (76 %). Credits reset on 2099-01-01 00:00 UTC.",
        ),
    ],
)
def test_the_alert_shows_credits_and_overage(fields: dict, words: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(quota, "MAX_PERIOD", timedelta(days=36_500))
    read_subscription(765, **fields)
    assert Incident.objects.get().detail == words


@pytest.mark.django_db
def test_without_a_limit_no_threshold_is_reported():
    read_subscription(10_000, max_credit_limit_extension="unlimited")
    assert not Incident.objects.exists()


def set_daily_usage(credits: int) -> None:
    today = timezone.now().date()
    DailyUsage.objects.all().delete()
    for days in range(1, 8):
        DailyUsage.objects.create(day=today - timedelta(days=days), kind="live", credits=credits)


@pytest.mark.django_db
def test_the_forecast_is_reported_before_credits_run_out():
    set_daily_usage(100)
    read_subscription(100, next_character_count_reset_unix=reset_unix())
    incident = Incident.objects.get(kind="forecast")
    assert "credits a day, the 1,000 credits of this period run out on 20" in incident.detail
    assert "Credits reset on 20" in incident.detail
    read_subscription(110, next_character_count_reset_unix=reset_unix())
    assert incident_states("forecast") == [("", True)]
    set_daily_usage(1)
    read_subscription(110, next_character_count_reset_unix=reset_unix())
    assert incident_states("forecast") == [("", False)]


@pytest.mark.django_db
def test_the_forecast_is_not_reported_again_within_a_day():
    set_daily_usage(100)
    read_subscription(100, next_character_count_reset_unix=reset_unix())
    Incident.objects.update(resolved_at=timezone.now())
    read_subscription(100, next_character_count_reset_unix=reset_unix())
    assert incident_states("forecast") == [("", False)]
    Incident.objects.update(resolved_at=seconds_ago(25 * 3600))
    read_subscription(100, next_character_count_reset_unix=reset_unix())
    assert incident_states("forecast") == [("", False), ("", True)]


@pytest.mark.django_db
def test_a_quota_without_a_limit_always_lasts():
    set_daily_usage(100)
    read_subscription(100, next_character_count_reset_unix=reset_unix())
    read_subscription(100, next_character_count_reset_unix=reset_unix(), max_credit_limit_extension="unlimited")
    assert incident_states("forecast") == [("", False)]
    assert row().quota_limit is None
