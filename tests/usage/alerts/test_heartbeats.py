"""Signs of life, and who is missed: once, however many processes look, and nobody who may only have been starting."""

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import Settings

from tests.usage.alerts.postbox import Webhook
from tests.usage.provider_state.test_circuit import at_once
from tests.waiting import until
from usage.alerts import heartbeats
from usage.alerts.heartbeats import GRACE_S, INTERVAL_S, NEVER_SEEN_AFTER_S, HeartbeatMonitor
from usage.models import Heartbeat, Incident

LOOK_EVERY_S = 5.0
ALIVE = {"beat": 5.0, "worker": 10.0}


def watched(ages: dict[str, float | None], for_s: float, lookout: HeartbeatMonitor | None = None) -> dict[str, bool]:
    """The last verdict of one who saw these ages all the time."""
    lookout = lookout or HeartbeatMonitor(0)
    given = {name: age for name, age in ages.items() if age is not None}
    for second in range(0, int(for_s) + 1, int(LOOK_EVERY_S)):
        verdict = lookout.evaluate(given, second)
    return verdict


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
def test_who_is_missed_follows_from_the_signs(settings: Settings, ages: dict, for_s: float, expected: dict):
    settings.DEBUG = True
    assert watched(ages, for_s) == expected


@pytest.mark.parametrize(
    ("ages", "for_s", "expected"),
    [
        ({"beat": None, "worker": None}, NEVER_SEEN_AFTER_S - 5, {}),
        ({"beat": None, "worker": None}, NEVER_SEEN_AFTER_S, {"beat": False}),
        ({"beat": 5, "worker": None}, NEVER_SEEN_AFTER_S, {"beat": True, "worker": False}),
    ],
)
def test_in_production_who_was_never_seen_is_missed_in_the_end(
    settings: Settings, ages: dict, for_s: float, expected: dict
):
    settings.DEBUG = False
    assert watched(ages, for_s) == expected


def test_the_worker_is_not_blamed_for_a_beat_that_was_away():
    lookout = HeartbeatMonitor(0)
    assert watched({"beat": 300, "worker": 300}, 600, lookout) == {"beat": False}
    assert lookout.evaluate({"beat": 1, "worker": 300}, 605) == {"beat": True}
    assert lookout.evaluate({"beat": 1, "worker": 300}, 605 + INTERVAL_S) == {"beat": True}


@pytest.mark.parametrize("gap", [300, -300], ids=["a database that was away, or sleep", "a clock set back"])
def test_after_a_gap_the_grace_begins_anew(gap: float):
    lookout = HeartbeatMonitor(0)
    watched(ALIVE, 600, lookout)
    stale = {"beat": 300.0, "worker": 300.0}
    assert lookout.evaluate(stale, 600 + gap) == {}
    assert lookout.evaluate(stale, 600 + gap + GRACE_S / 2) == {}
    assert lookout.evaluate(stale, 600 + gap + GRACE_S) == {"beat": False}


# In the database


def silent() -> list[tuple[str, bool]]:
    rows = Incident.objects.filter(kind="silent").order_by("opened_at")
    return [(row.key, row.resolved_at is None) for row in rows]


def aged(**seconds: float) -> None:
    for name, age in seconds.items():
        heartbeats.beat(name)
        Heartbeat.objects.filter(name=name).update(at=timezone.now() - timedelta(seconds=age))


@pytest.mark.django_db
def test_a_sign_is_one_row_with_the_databases_time():
    for _ in range(2):
        heartbeats.beat("beat")
    assert Heartbeat.objects.count() == 1
    assert 0 <= heartbeats.read_heartbeats()["beat"].age_s < 30


@pytest.mark.django_db
def test_who_gives_no_sign_is_missed_at_once_where_nobody_is_woken():
    assert heartbeats.missing_processes() == ["worker", "beat"]
    aged(worker=5, beat=61)
    assert heartbeats.missing_processes() == ["beat"]
    aged(beat=5)
    assert heartbeats.missing_processes() == []


@pytest.mark.django_db
def test_a_silent_worker_is_an_incident_until_it_gives_a_sign():
    lookout = HeartbeatMonitor(0)
    aged(beat=1, worker=90)
    for second in (0, GRACE_S / 2, GRACE_S, GRACE_S + 5):
        lookout.check(second)
    assert silent() == [("worker", True)]
    incident = Incident.objects.get()
    assert 80 < (timezone.now() - incident.opened_at).total_seconds() < 120  # since its last sign
    assert "worker" in incident.detail
    aged(worker=1)
    lookout.check(GRACE_S + 10)
    assert silent() == [("worker", False)]


@pytest.mark.django_db
def test_a_silent_beat_leaves_the_worker_as_it_was():
    lookout = HeartbeatMonitor(0)
    aged(beat=1, worker=90)
    for second in (0, GRACE_S / 2, GRACE_S):
        lookout.check(second)
    aged(beat=61)
    lookout.check(GRACE_S + 5)
    assert sorted(silent()) == [("beat", True), ("worker", True)]
    assert "The state of the worker is unknown." in Incident.objects.get(key="beat").detail


@pytest.mark.django_db
def test_a_look_is_two_queries_while_nothing_changes():
    lookout = HeartbeatMonitor(0)
    aged(beat=1, worker=1)
    with CaptureQueriesContext(connection) as captured:
        lookout.check(5)
    assert len(captured) == 2


@pytest.mark.django_db(transaction=True)
def test_while_beat_is_silent_who_misses_it_repeats_the_alerts(webhook: Webhook):
    webhook.status = 500
    lookout = HeartbeatMonitor(0)
    aged(beat=90)
    for second in (0, GRACE_S / 2, GRACE_S):
        lookout.check(second)
    until(lambda: Incident.objects.filter(sending_failures=1).exists())
    webhook.status = 204
    Incident.objects.update(sending_until=None)
    lookout.check(GRACE_S + 5)
    until(lambda: Incident.objects.exclude(opening_sent_at=None).exists())
    assert [body["kind"] for body in webhook.received] == ["silent"]


@pytest.mark.django_db(transaction=True)
def test_who_has_been_silent_for_days_is_told_of_and_so_is_the_end(webhook: Webhook):
    """The whole server was off over the weekend, and beat did not start again with it."""
    lookout = HeartbeatMonitor(0)
    aged(beat=3 * 86_400)
    for second in (0, GRACE_S / 2, GRACE_S):
        lookout.check(second)
    until(lambda: Incident.objects.exclude(opening_sent_at=None).exists())
    aged(beat=1)
    lookout.check(GRACE_S + 5)
    until(lambda: Incident.objects.exclude(resolution_sent_at=None).exists())
    assert [body["state"] for body in webhook.received] == ["opened", "resolved"]
    days_ago = timezone.now() - timedelta(days=3)
    assert f"Last heartbeat: {days_ago:%Y-%m-%d}" in webhook.received[0]["text"]


@pytest.mark.django_db(transaction=True)
def test_of_many_processes_that_see_it_one_tells():
    aged(beat=90, worker=90)

    def one() -> None:
        lookout = HeartbeatMonitor(0)
        for second in (0, GRACE_S / 2, GRACE_S):
            lookout.check(second)

    at_once(one)
    assert silent() == [("beat", True)]
