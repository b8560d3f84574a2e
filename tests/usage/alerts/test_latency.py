"""The latency incident: it opens once, stays open while latency is high, and is resolved automatically."""

from datetime import timedelta

import pytest
from django.utils import timezone

from tests.usage.test_models import create_event
from usage.alerts import latency
from usage.alerts.latency import LatencyWindow
from usage.models import Incident, UsageEvent


@pytest.mark.parametrize(
    ("window", "is_slow", "is_recovered"),
    [
        (LatencyWindow(0, 0, 0), False, False),
        (LatencyWindow(19, 19, 19), False, False),
        (LatencyWindow(19, 0, 0), False, True),
        (LatencyWindow(20, 1, 1), False, True),
        (LatencyWindow(20, 2, 2), True, False),
        (LatencyWindow(20, 1, 2), False, False),
        (LatencyWindow(100, 5, 5), False, True),
        (LatencyWindow(100, 6, 6), True, False),
        (LatencyWindow(100, 5, 6), False, False),
    ],
)
def test_more_than_one_in_twenty_slow_speeches_is_high_latency(
    window: LatencyWindow, is_slow: bool, is_recovered: bool
):
    assert (window.is_slow, window.is_recovered) == (is_slow, is_recovered)


def create_speeches(times: int, first_chunk_ms: float | None, minutes_ago: float = 1, kind: str = "live") -> None:
    at = timezone.now() - timedelta(minutes=minutes_ago)
    for _ in range(times):
        create_event(first_chunk_ms=first_chunk_ms, started_at=at, kind=kind)


def let_minutes_pass(minutes: float) -> None:
    for row in UsageEvent.objects.all():
        UsageEvent.objects.filter(pk=row.pk).update(started_at=row.started_at - timedelta(minutes=minutes))


def open_states() -> list[bool]:
    """Return for each latency incident whether it is open."""
    return [row.resolved_at is None for row in Incident.objects.filter(kind="slow").order_by("opened_at")]


@pytest.mark.django_db
def test_the_incident_opens_once_and_is_resolved_automatically():
    create_speeches(30, 120)
    latency.check()
    assert open_states() == []
    create_speeches(3, 900)
    for _ in range(2):
        latency.check()
    assert open_states() == [True]
    assert Incident.objects.get().detail == "In 10 minutes, 3 of 33 speeches took over 500 ms to first audio."
    let_minutes_pass(10)
    create_speeches(30, 450)
    latency.check()
    assert open_states() == [True]
    let_minutes_pass(10)
    create_speeches(30, 399)
    latency.check()
    assert open_states() == [False]


@pytest.mark.django_db
def test_speeches_before_the_window_do_not_count():
    create_speeches(30, 900, minutes_ago=11)
    create_speeches(30, 100)
    latency.check()
    assert open_states() == []


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("kind", "counts"),
    [
        ("live", True),
        ("retry", True),
        ("backup", True),
        ("cache", True),
        ("offline", True),
        ("preview", False),
        ("probe", False),
        ("warm", False),
    ],
)
def test_only_speeches_to_patients_count(kind: str, counts: bool):
    create_speeches(20, 900, kind=kind)
    latency.check()
    assert open_states() == ([True] if counts else [])


@pytest.mark.django_db
def test_events_that_began_no_speech_do_not_count():
    create_speeches(20, None)
    create_speeches(19, 900)
    latency.check()
    assert open_states() == []


@pytest.mark.django_db
def test_with_few_speeches_the_last_hour_resolves_the_incident():
    create_speeches(20, 900)
    latency.check()
    let_minutes_pass(30)
    create_speeches(5, 100)
    latency.check()
    assert open_states() == [True]
    let_minutes_pass(35)
    latency.check()
    assert open_states() == [False]


@pytest.mark.django_db
def test_without_speeches_the_incident_stays_open():
    create_speeches(20, 900)
    latency.check()
    let_minutes_pass(120)
    latency.check()
    assert open_states() == [True]
