"""A periodic task that fails three times in a row opens an incident, and its next success resolves it."""

import pytest
from celery import shared_task
from celery.exceptions import TimeLimitExceeded
from django.db import IntegrityError
from structlog.testing import capture_logs

from usage.alerts import messages, periodic_tasks
from usage.alerts.incidents import Kind
from usage.alerts.periodic_tasks import FAILURES_BEFORE_INCIDENT, PeriodicTask
from usage.models import Incident, TaskFailure
from voicecare.celery import app
from voicecare.infrastructure.schedule import SCHEDULE

pytestmark = pytest.mark.django_db


@shared_task(name="tests.periodic", base=PeriodicTask)
def periodic(fails: bool) -> None:
    if fails:
        raise IntegrityError("a row of Anna Archer")


def run(*, fails: bool) -> None:
    """Run the task as a worker does, without a broker."""
    periodic.apply([fails])


def open_incidents() -> list[tuple[str, str]]:
    return list(Incident.objects.filter(resolved_at=None).values_list("kind", "key"))


def test_three_failures_in_a_row_open_one_incident_and_a_success_resolves_it():
    for _ in range(FAILURES_BEFORE_INCIDENT - 1):
        run(fails=True)
    assert open_incidents() == []
    for _ in range(3):
        run(fails=True)
        assert open_incidents() == [("task", "tests.periodic")]
    assert Incident.objects.get().detail == "tests.periodic: 3 consecutive failures, the last one IntegrityError."
    run(fails=False)
    assert open_incidents() == []
    assert not TaskFailure.objects.exists()
    assert Incident.objects.count() == 1


def test_failures_between_successes_are_not_in_a_row():
    for _ in range(FAILURES_BEFORE_INCIDENT):
        run(fails=True)
        run(fails=False)
    assert open_incidents() == []


def test_each_task_has_its_own_count():
    for number in range(FAILURES_BEFORE_INCIDENT):
        periodic_tasks.record_failure(f"task {number}", ValueError())
    assert open_incidents() == []


def test_the_failure_is_logged_without_the_message_of_the_error():
    with capture_logs() as logs:
        run(fails=True)
    assert logs == [
        {
            "event": "task.failed",
            "log_level": "error",
            "task": "tests.periodic",
            "failures": 1,
            "error": "IntegrityError",
        }
    ]


def test_a_task_that_was_killed_at_its_time_limit_counts():
    for _ in range(FAILURES_BEFORE_INCIDENT):  # as the main process of a worker does
        periodic.on_failure(TimeLimitExceeded(600), "id", (), {}, None)
    assert open_incidents() == [("task", "tests.periodic")]


def test_a_success_takes_one_statement(django_assert_num_queries):
    with django_assert_num_queries(3):  # with the two statements of the transaction
        run(fails=False)


def test_the_alert_has_its_four_parts():
    message = messages.message_for(Incident(kind=Kind.TASK))
    assert all(message)


def test_every_task_of_the_schedule_is_watched():
    app.loader.import_default_modules()
    unwatched = {entry["task"] for entry in SCHEDULE.values() if not isinstance(app.tasks[entry["task"]], PeriodicTask)}
    assert unwatched == set()
