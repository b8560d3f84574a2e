"""Heartbeats: a missing process is reported once, and not while it may still be starting."""

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import Settings

from tests.usage.alerts.postbox import Webhook
from tests.usage.provider_state.test_circuit import run_concurrently
from tests.waiting import until
from usage.alerts import heartbeats
from usage.alerts.heartbeats import GRACE_S, INTERVAL_S, NEVER_SEEN_AFTER_S, SECOND_AFTER_S, HeartbeatMonitor
from usage.models import Heartbeat, Incident

CHECK_INTERVAL_S = 5.0
ALIVE = {"beat": 5.0, "worker": 10.0}


def evaluate_repeatedly(
    ages: dict[str, float | None], for_s: float, monitor: HeartbeatMonitor | None = None
) -> dict[str, bool]:
    """Evaluate constant heartbeat ages for `for_s` seconds and return the last result."""
    monitor = monitor or HeartbeatMonitor(0)
    known_ages = {name: age for name, age in ages.items() if age is not None}
    for second in range(0, int(for_s) + 1, int(CHECK_INTERVAL_S)):
        result = monitor.evaluate(known_ages, second)
    return result


@pytest.mark.parametrize(
    ("ages", "for_s", "expected"),
    [
        (ALIVE, 0, {"beat": True, "worker": True}),
        ({"beat": 60, "worker": 60}, 0, {"beat": True, "worker": True}),
        ({"beat": 61, "worker": 61}, GRACE_S - 5, {}),
        ({"beat": 61, "worker": 61}, GRACE_S, {"beat": False}),
        ({"beat": 61, "worker": 61}, 3600, {"beat": False}),
        ({"beat": 61, "worker": 10}, GRACE_S, {"beat": False, "worker": True}),
        ({"beat": 5, "worker": 61}, GRACE_S - 5, {"beat": True}),
        ({"beat": 5, "worker": 61}, GRACE_S, {"beat": True, "worker": False}),
        ({"beat": 40, "worker": 61}, 3600, {"beat": True}),
        ({"beat": None, "worker": None}, 3600, {}),
        ({"beat": 5, "worker": None}, 3600, {"beat": True}),
        ({"beat": None, "worker": 61}, 3600, {}),
    ],
)
def test_missing_processes_follow_from_heartbeat_ages(settings: Settings, ages: dict, for_s: float, expected: dict):
    settings.DEBUG = True
    assert evaluate_repeatedly(ages, for_s) == expected


@pytest.mark.parametrize(
    ("ages", "for_s", "expected"),
    [
        ({"beat": None, "worker": None}, NEVER_SEEN_AFTER_S - 5, {}),
        ({"beat": None, "worker": None}, NEVER_SEEN_AFTER_S, {"beat": False}),
        ({"beat": 5, "worker": None}, NEVER_SEEN_AFTER_S, {"beat": True, "worker": False}),
    ],
)
def test_in_production_a_process_that_never_started_is_missing_after_a_while(
    settings: Settings, ages: dict, for_s: float, expected: dict
):
    settings.DEBUG = False
    assert evaluate_repeatedly(ages, for_s) == expected


def test_the_worker_is_not_missing_because_beat_was_missing():
    monitor = HeartbeatMonitor(0)
    assert evaluate_repeatedly({"beat": 300, "worker": 300}, 600, monitor) == {"beat": False}
    assert monitor.evaluate({"beat": 1, "worker": 300}, 605) == {"beat": True}
    assert monitor.evaluate({"beat": 1, "worker": 300}, 605 + INTERVAL_S) == {"beat": True}


@pytest.mark.parametrize("gap", [300, -300], ids=["database unavailable or machine asleep", "clock set back"])
def test_after_a_gap_the_grace_period_starts_again(gap: float):
    monitor = HeartbeatMonitor(0)
    evaluate_repeatedly(ALIVE, 600, monitor)
    stale = {"beat": 300.0, "worker": 300.0}
    assert monitor.evaluate(stale, 600 + gap) == {}
    assert monitor.evaluate(stale, 600 + gap + GRACE_S / 2) == {}
    assert monitor.evaluate(stale, 600 + gap + GRACE_S) == {"beat": False}


# In the database


def missing_incidents() -> list[tuple[str, bool]]:
    rows = Incident.objects.filter(kind="silent").order_by("opened_at")
    return [(row.key, row.resolved_at is None) for row in rows]


def set_heartbeat_ages(**seconds: float) -> None:
    for name, age in seconds.items():
        heartbeats.beat(name)
        Heartbeat.objects.filter(name=name).update(at=timezone.now() - timedelta(seconds=age))


@pytest.mark.django_db
def test_a_heartbeat_is_one_row_with_the_databases_time():
    for _ in range(2):
        heartbeats.beat("beat")
    assert Heartbeat.objects.count() == 1
    assert 0 <= heartbeats.read_heartbeats()["beat"].age_s < 30


@pytest.mark.django_db
def test_a_process_without_a_heartbeat_is_listed_as_missing_immediately():
    assert heartbeats.missing_processes() == ["worker", "beat"]
    set_heartbeat_ages(worker=5, beat=61)
    assert heartbeats.missing_processes() == ["beat"]
    set_heartbeat_ages(beat=5)
    assert heartbeats.missing_processes() == []


@pytest.mark.django_db
def test_a_missing_worker_is_an_incident_until_its_next_heartbeat():
    monitor = HeartbeatMonitor(0)
    set_heartbeat_ages(beat=1, worker=90)
    for second in (0, GRACE_S / 2, GRACE_S, GRACE_S + 5):
        monitor.check(second)
    assert missing_incidents() == [("worker", True)]
    incident = Incident.objects.get()
    assert 80 < (timezone.now() - incident.opened_at).total_seconds() < 120  # since its last heartbeat
    assert "worker" in incident.detail
    set_heartbeat_ages(worker=1)
    monitor.check(GRACE_S + 10)
    assert missing_incidents() == [("worker", False)]


@pytest.mark.django_db
def test_a_missing_beat_does_not_change_the_workers_incident():
    monitor = HeartbeatMonitor(0)
    set_heartbeat_ages(beat=1, worker=90)
    for second in (0, GRACE_S / 2, GRACE_S):
        monitor.check(second)
    set_heartbeat_ages(beat=61)
    monitor.check(GRACE_S + 5)
    assert sorted(missing_incidents()) == [("beat", True), ("worker", True)]
    assert "The state of the worker is unknown." in Incident.objects.get(key="beat").detail


@pytest.mark.django_db
def test_a_check_without_changes_takes_two_queries():
    monitor = HeartbeatMonitor(0)
    set_heartbeat_ages(beat=1, worker=1)
    with CaptureQueriesContext(connection) as captured:
        monitor.check(5)
    assert len(captured) == 2


@pytest.mark.django_db(transaction=True)
def test_while_beat_is_missing_the_monitor_retries_alerts(webhook: Webhook):
    webhook.status = 500
    monitor = HeartbeatMonitor(0)
    set_heartbeat_ages(beat=90)
    for second in (0, GRACE_S / 2, GRACE_S):
        monitor.check(second)
    until(lambda: Incident.objects.filter(sending_failures=1).exists())
    webhook.status = 204
    Incident.objects.update(sending_until=None, retry_at=None)
    monitor.check(GRACE_S + 5)
    until(lambda: Incident.objects.exclude(opening_sent_at=None).exists())
    assert [body["kind"] for body in webhook.received] == ["silent"]


@pytest.mark.django_db(transaction=True)
def test_a_process_that_was_missing_for_days_is_reported_and_resolved(webhook: Webhook):
    """The server was off over the weekend, and beat was not started with it."""
    monitor = HeartbeatMonitor(0)
    set_heartbeat_ages(beat=3 * 86_400)
    for second in (0, GRACE_S / 2, GRACE_S):
        monitor.check(second)
    until(lambda: Incident.objects.exclude(opening_sent_at=None).exists())
    set_heartbeat_ages(beat=1)
    monitor.check(GRACE_S + 5)
    until(lambda: Incident.objects.exclude(resolution_sent_at=None).exists())
    assert [body["state"] for body in webhook.received] == ["opened", "resolved"]
    days_ago = timezone.now() - timedelta(days=3)
    assert f"Last heartbeat: {days_ago:%Y-%m-%d}" in webhook.received[0]["text"]


@pytest.mark.django_db(transaction=True)
def test_several_monitors_open_one_incident():
    set_heartbeat_ages(beat=90, worker=90)

    def one() -> None:
        monitor = HeartbeatMonitor(0)
        for second in (0, GRACE_S / 2, GRACE_S):
            monitor.check(second)

    run_concurrently(one)
    assert missing_incidents() == [("beat", True)]


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("written_by", "runs_twice"),
    [
        (["one"], False),
        (["one", "one", "one"], False),
        (["one", "two"], False),  # restarted
        (["one", "two", "two", "three"], False),  # restarted twice
        (["one", "two", "one"], True),
        (["one", "one", "two", "two", "one", "one"], True),
        (["", "", ""], False),  # several workers may run
        (["", "one", "two"], False),  # after an upgrade
    ],
)
def test_two_processes_that_take_turns_are_noticed(written_by: list[str], runs_twice: bool):
    for instance in written_by:
        heartbeats.beat("beat", instance)
    assert heartbeats.read_heartbeats()["beat"].runs_twice == runs_twice


@pytest.mark.django_db
def test_a_second_process_is_forgotten_a_minute_after_it_was_stopped():
    for instance in ("one", "two", "one"):
        heartbeats.beat("beat", instance)
    Heartbeat.objects.update(overlapped_at=timezone.now() - timedelta(seconds=61))
    heartbeats.beat("beat", "one")
    assert not heartbeats.read_heartbeats()["beat"].runs_twice


def watch(monitor: HeartbeatMonitor, first_s: float, last_s: float, *instances: str) -> list[tuple[str, bool]]:
    """Let the instances write heartbeats in turn while the monitor checks. Return the incidents about a second beat."""
    second = first_s
    while second <= last_s:
        heartbeats.beat("beat", instances[int(second / CHECK_INTERVAL_S) % len(instances)])
        heartbeats.beat("worker")
        monitor.check(second)
        second += CHECK_INTERVAL_S
    rows = Incident.objects.filter(kind="second_beat").order_by("opened_at")
    return [(row.detail[:16], row.resolved_at is None) for row in rows]


@pytest.mark.django_db
def test_a_second_beat_is_an_incident_until_one_is_stopped():
    monitor = HeartbeatMonitor(0)
    assert watch(monitor, 0, SECOND_AFTER_S, "one", "two") == []
    expected = [("Last heartbeat: ", True)]
    assert watch(monitor, SECOND_AFTER_S, SECOND_AFTER_S + 60, "one", "two") == expected
    Heartbeat.objects.update(overlapped_at=timezone.now() - timedelta(seconds=61))
    assert watch(monitor, SECOND_AFTER_S + 65, SECOND_AFTER_S + 65, "one") == [("Last heartbeat: ", False)]


@pytest.mark.django_db
def test_an_old_beat_that_ends_slowly_is_no_incident():
    monitor = HeartbeatMonitor(0)
    assert watch(monitor, 0, 105, "old", "new") == []
    Heartbeat.objects.update(overlapped_at=timezone.now() - timedelta(seconds=61))
    assert watch(monitor, 110, SECOND_AFTER_S + 60, "new") == []
    assert watch(monitor, SECOND_AFTER_S + 65, SECOND_AFTER_S + 165, "new", "newest") == []  # the next restart


@pytest.mark.django_db
def test_a_clock_that_jumps_opens_no_incident_about_a_second_beat():
    monitor = HeartbeatMonitor(0)
    watch(monitor, 0, 30, "old", "new")
    assert watch(monitor, SECOND_AFTER_S + 100, SECOND_AFTER_S + 110, "old", "new") == []
