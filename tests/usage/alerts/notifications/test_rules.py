"""Which message a channel must send next."""

from datetime import UTC, datetime, time, timedelta
from typing import Any

import pytest
from pytest_django import Settings

from usage.alerts.notifications.rules import next_message, record_sent, wants
from usage.models import ChannelAlert, Incident, NotificationChannel

NOON = datetime(2026, 5, 5, 12, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


def channel(**columns: Any) -> NotificationChannel:
    return NotificationChannel(**{"pk": 7, "name": "On call", **columns})


def incident(kind: str = "quota", opened_at: datetime = NOON, **columns: Any) -> Incident:
    return Incident(kind=kind, opened_at=opened_at, **columns)


def messages(to: NotificationChannel, about: Incident, now: datetime, sent: ChannelAlert | None = None) -> list[str]:
    """All messages that are due, one after the other."""
    found: list[str] = []
    sent = sent or ChannelAlert()
    while state := next_message(to, about, sent, now):
        found.append(state)
        record_sent(sent, state, about, now)
    return found


def told(about: Incident, now: datetime = NOON) -> ChannelAlert:
    """The row of a channel that has sent everything until now."""
    sent = ChannelAlert()
    assert messages(channel(), about, now, sent)
    return sent


# Opened, resolved, reminder, regression


def test_an_incident_is_reported_when_it_opens_and_when_it_ends():
    assert messages(channel(), incident(), NOON + MINUTE) == ["opened"]
    assert messages(channel(), incident(resolved_at=NOON + MINUTE), NOON + 2 * MINUTE) == ["opened", "resolved"]


def test_each_message_is_due_once():
    quota = incident()
    sent = told(quota)
    assert messages(channel(), quota, NOON + HOUR, sent) == []
    quota.resolved_at = NOON + HOUR
    assert messages(channel(), quota, NOON + HOUR, sent) == ["resolved"]
    assert messages(channel(), quota, NOON + 2 * HOUR, sent) == []


def test_a_regression_is_reported_as_opened_and_its_end_too():
    quota = incident(kind="request", resolved_at=NOON)
    sent = told(quota)
    quota.resolved_at, quota.reopened_at = None, NOON + HOUR
    assert messages(channel(), quota, NOON + HOUR, sent) == ["opened"]
    quota.resolved_at = NOON + 2 * HOUR
    assert messages(channel(), quota, NOON + 2 * HOUR, sent) == ["resolved"]


def test_a_mute_holds_everything_but_the_end_and_ends_with_one_reminder():
    quota = incident()
    sent = told(quota)
    quota.muted_until = NOON + 2 * HOUR
    assert messages(channel(), quota, NOON + HOUR, sent) == []
    assert messages(channel(), quota, NOON + 3 * HOUR, sent) == ["reminder"]
    assert messages(channel(), quota, NOON + 4 * HOUR, sent) == []
    quota.muted_until, quota.mute_ended_at = None, NOON + 2 * HOUR  # mail has sent its reminder
    assert messages(channel(), quota, NOON + 4 * HOUR, sent) == []
    quota.muted_until = NOON + 9 * HOUR
    quota.resolved_at = NOON + 5 * HOUR
    assert messages(channel(), quota, NOON + 5 * HOUR, sent) == ["resolved"]


def test_a_reminder_is_due_after_mail_has_sent_its_own():
    quota = incident()
    sent = told(quota)
    quota.mute_ended_at = NOON + HOUR
    assert messages(channel(), quota, NOON + HOUR, sent) == ["reminder"]


def test_a_muted_incident_that_was_not_reported_is_reported_after_the_mute_as_opened_only():
    quota = incident(muted_until=NOON + HOUR)
    assert messages(channel(), quota, NOON + MINUTE) == []
    assert messages(channel(), quota, NOON + 2 * HOUR) == ["opened"]


def test_an_ended_mute_is_not_a_matter_of_a_later_occurrence():
    quota = incident(mute_ended_at=NOON + HOUR, reopened_at=NOON + 2 * HOUR)
    assert messages(channel(), quota, NOON + 3 * HOUR) == ["opened"]


def test_a_new_channel_hears_of_open_incidents_and_of_no_history():
    assert messages(channel(), incident(opened_at=NOON - DAY), NOON) == ["opened"]
    assert messages(channel(), incident(opened_at=NOON - 3 * DAY), NOON) == []
    assert messages(channel(), incident(opened_at=NOON - DAY, resolved_at=NOON - HOUR), NOON) == []


def test_what_has_failed_is_repeated_also_after_the_end():
    ended = incident(opened_at=NOON - 3 * HOUR, resolved_at=NOON - HOUR)
    assert messages(channel(), ended, NOON, ChannelAlert(failures=2)) == ["opened", "resolved"]


def test_an_acknowledged_incident_is_not_repeated_after_a_failure():
    seen = incident(acknowledged_at=NOON)
    assert messages(channel(), seen, NOON) == ["opened"]
    assert messages(channel(), seen, NOON, ChannelAlert(failures=1)) == []


# Kinds and severities


@pytest.mark.parametrize(
    ("columns", "kind", "wanted"),
    [
        ({}, "drift", True),
        ({"kinds": ["quota", "slow"]}, "slow", True),
        ({"kinds": ["quota", "slow"]}, "drift", False),
        ({"severities": ["critical"]}, "no_voice", True),
        ({"severities": ["critical"]}, "slow", False),
        ({"severities": ["critical", "notice"]}, "drift", True),
        ({"kinds": ["slow"], "severities": ["critical"]}, "slow", False),
    ],
)
def test_a_channel_gets_the_kinds_and_severities_that_it_wants(columns: dict, kind: str, wanted: bool):
    assert wants(channel(**columns), incident(kind)) is wanted
    assert messages(channel(**columns), incident(kind), NOON) == (["opened"] if wanted else [])


def test_the_end_of_a_reported_incident_is_reported_although_the_rules_have_changed():
    slow = incident("slow")
    sent = told(slow)
    slow.resolved_at = NOON + HOUR
    assert messages(channel(kinds=["quota"]), slow, NOON + HOUR, sent) == ["resolved"]


def test_a_channel_does_not_report_its_own_failure():
    assert messages(channel(), incident("channel", key="7"), NOON) == []
    assert messages(channel(), incident("channel", key="8"), NOON) == ["opened"]


# Escalation


def test_an_escalation_waits_for_its_time():
    second = channel(escalate_after_minutes=15)
    assert messages(second, incident(), NOON + 14 * MINUTE) == []
    assert messages(second, incident(), NOON + 15 * MINUTE) == ["opened"]


def test_an_acknowledged_or_ended_incident_is_not_escalated():
    second = channel(escalate_after_minutes=15)
    assert messages(second, incident(acknowledged_at=NOON), NOON + HOUR) == []
    assert messages(second, incident(resolved_at=NOON + 59 * MINUTE), NOON + HOUR) == []


def test_the_time_of_an_escalation_begins_again_with_a_regression():
    second = channel(escalate_after_minutes=15)
    again = incident(opened_at=NOON - HOUR, reopened_at=NOON)
    assert messages(second, again, NOON + 14 * MINUTE) == []
    assert messages(second, again, NOON + 15 * MINUTE) == ["opened"]


def test_a_muted_incident_is_not_escalated():
    assert messages(channel(escalate_after_minutes=5), incident(muted_until=NOON + 2 * HOUR), NOON + HOUR) == []


def test_the_end_of_an_escalated_incident_is_reported_although_it_was_acknowledged():
    second, quota = channel(escalate_after_minutes=5), incident()
    sent = ChannelAlert()
    assert messages(second, quota, NOON + HOUR, sent) == ["opened"]
    quota.acknowledged_at = quota.resolved_at = NOON + 2 * HOUR
    assert messages(second, quota, NOON + 2 * HOUR, sent) == ["resolved"]


# Quiet hours


def quiet(begin: int, end: int) -> NotificationChannel:
    return channel(quiet_from=time(begin), quiet_to=time(end))


@pytest.mark.parametrize("kind", ["budget", "forecast", "quota_low", "drift"])
def test_quiet_hours_hold_what_is_about_money_until_they_end(kind: str):
    at_night = incident(kind, opened_at=NOON + 11 * HOUR)
    night = quiet(22, 7)
    assert messages(night, at_night, NOON + 11 * HOUR) == []
    assert messages(night, at_night, NOON + 18 * HOUR + 59 * MINUTE) == []
    assert messages(night, at_night, NOON + 19 * HOUR) == ["opened"]


@pytest.mark.parametrize("kind", ["quota", "no_voice", "provider_down", "task"])
def test_quiet_hours_hold_nothing_else(kind: str):
    assert messages(quiet(22, 7), incident(kind, opened_at=NOON + 11 * HOUR), NOON + 11 * HOUR) == ["opened"]


def test_what_has_ended_in_the_quiet_hours_is_not_reported():
    ended = incident("budget", opened_at=NOON + 11 * HOUR, resolved_at=NOON + 18 * HOUR + 58 * MINUTE)
    assert messages(quiet(22, 7), ended, NOON + 19 * HOUR) == []


def test_the_end_of_what_was_reported_before_the_quiet_hours_waits():
    budget = incident("budget")
    sent = told(budget)
    budget.resolved_at = NOON + 11 * HOUR
    assert messages(quiet(22, 7), budget, NOON + 11 * HOUR, sent) == []
    assert messages(quiet(22, 7), budget, NOON + 20 * HOUR, sent) == ["resolved"]


def test_quiet_hours_are_in_the_configured_zone(settings: Settings):
    settings.USAGE_TIME_ZONE = "America/New_York"  # 8 o'clock
    assert messages(quiet(8, 9), incident("budget"), NOON) == []
    assert messages(quiet(12, 13), incident("budget"), NOON) == ["opened"]
