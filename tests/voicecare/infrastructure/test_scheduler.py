"""Celery beat writes a heartbeat when it ticks. An error in the heartbeat never delays a tick."""

import time
from collections.abc import Iterator

import pytest
from celery import Celery
from django.db import connection

from tests.waiting import until
from usage.alerts.heartbeats import INTERVAL_S
from usage.models import Heartbeat
from voicecare.infrastructure.scheduler import Scheduler

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def scheduler(tmp_path: object) -> Iterator[Scheduler]:
    """A scheduler with an empty schedule."""
    app = Celery(set_as_current=False)
    app.conf.beat_schedule_filename = f"{tmp_path}/schedule"
    app.conf.beat_schedule = {}
    scheduler = Scheduler(app, schedule_filename=app.conf.beat_schedule_filename)
    yield scheduler
    scheduler.close()


def test_the_first_tick_writes_a_heartbeat(scheduler: Scheduler):
    assert scheduler.tick() <= INTERVAL_S
    until(lambda: Heartbeat.objects.filter(name="beat").exists())


def test_ticks_in_quick_succession_write_one_heartbeat(scheduler: Scheduler):
    scheduler.tick()
    first = until(lambda: Heartbeat.objects.filter(name="beat").first())
    scheduler.tick()
    time.sleep(0.3)
    assert Heartbeat.objects.get() == first
    assert Heartbeat.objects.get().at == first.at


def test_a_database_error_does_not_delay_the_tick(scheduler: Scheduler, caplog: pytest.LogCaptureFixture):
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE usage_heartbeat RENAME TO elsewhere")
    try:
        assert scheduler.tick() <= INTERVAL_S
        until(lambda: "beat.heartbeat_failed" in caplog.text)
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE elsewhere RENAME TO usage_heartbeat")
