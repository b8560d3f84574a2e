"""Speech that begins late is an incident that opens once, holds while it is so, and ends by itself."""

from datetime import timedelta

import pytest
from django.utils import timezone

from tests.usage.test_models import event
from usage.alerts import latency
from usage.alerts.latency import LatencyWindow
from usage.models import Incident, UsageEvent


@pytest.mark.parametrize(
    ("seen", "late", "in_time"),
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
def test_one_in_twenty_decides(seen: LatencyWindow, late: bool, in_time: bool):
    assert (seen.is_slow, seen.is_recovered) == (late, in_time)


def spoken(times: int, first_chunk_ms: float | None, minutes_ago: float = 1, kind: str = "live") -> None:
    at = timezone.now() - timedelta(minutes=minutes_ago)
    for _ in range(times):
        event(first_chunk_ms=first_chunk_ms, started_at=at, kind=kind)


def time_passes(minutes: float) -> None:
    for row in UsageEvent.objects.all():
        UsageEvent.objects.filter(pk=row.pk).update(started_at=row.started_at - timedelta(minutes=minutes))


def incidents() -> list[bool]:
    """Of each, whether it is open."""
    return [row.resolved_at is None for row in Incident.objects.filter(kind="slow").order_by("opened_at")]


@pytest.mark.django_db
def test_it_opens_once_holds_and_ends_by_itself():
    spoken(30, 120)
    latency.check()
    assert incidents() == []
    spoken(3, 900)
    for _ in range(2):
        latency.check()
    assert incidents() == [True]
    assert Incident.objects.get().detail == "In 10 minutes, 3 of 33 speeches took over 500 ms to first audio."
    time_passes(10)
    spoken(30, 450)
    latency.check()
    assert incidents() == [True]
    time_passes(10)
    spoken(30, 399)
    latency.check()
    assert incidents() == [False]


@pytest.mark.django_db
def test_what_was_before_the_ten_minutes_does_not_count():
    spoken(30, 900, minutes_ago=11)
    spoken(30, 100)
    latency.check()
    assert incidents() == []


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
def test_what_patients_hear_counts(kind: str, counts: bool):
    spoken(20, 900, kind=kind)
    latency.check()
    assert incidents() == ([True] if counts else [])


@pytest.mark.django_db
def test_what_began_no_speech_does_not_count():
    spoken(20, None)
    spoken(19, 900)
    latency.check()
    assert incidents() == []


@pytest.mark.django_db
def test_where_hardly_anybody_speaks_the_last_hour_ends_it():
    spoken(20, 900)
    latency.check()
    time_passes(30)
    spoken(5, 100)
    latency.check()
    assert incidents() == [True]
    time_passes(35)
    latency.check()
    assert incidents() == [False]


@pytest.mark.django_db
def test_where_nobody_speaks_nothing_is_known():
    spoken(20, 900)
    latency.check()
    time_passes(120)
    latency.check()
    assert incidents() == [True]
