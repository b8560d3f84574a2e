"""The base class of all periodic tasks. It reports a task that keeps failing.

The failures of a task since its last success are counted in the database, because any worker may run it. After
FAILURES_BEFORE_INCIDENT of them an incident opens. The next success resolves it.
"""

from typing import Any

import structlog
from celery import Task
from celery.exceptions import TimeLimitExceeded, WorkerLostError
from celery.worker.request import Request
from django.db import connection, transaction
from django.db.models import F
from django.db.models.functions import Now

from usage.alerts import incidents
from usage.models import TaskFailure

FAILURES_BEFORE_INCIDENT = 3

log = structlog.get_logger(__name__)


class _PeriodicRequest(Request):
    """The request of a periodic task in Celery's worker. It reports a task whose worker process was killed.

    Celery calls `Task.on_failure` in all other cases.
    """

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:  # noqa: ANN401
        """Called by Celery. `return_ok` is true if the worker process has reported the failure itself."""
        result = super().on_failure(exc_info, send_failed_event, return_ok)
        cause = getattr(exc_info.exception, "exc", exc_info.exception)  # billiard wraps it
        if not return_ok and not isinstance(cause, TimeLimitExceeded):
            self.task.on_failure(WorkerLostError(), self.id, self.args, self.kwargs, exc_info)
        return result


class PeriodicTask(Task):
    """A task of the schedule: `@shared_task(base=PeriodicTask, ...)`.

    Celery calls `on_failure` in the worker's main process if a task reaches its hard time limit. So `on_failure` closes
    the database connection afterwards: worker processes that are started later must not inherit it.
    """

    Request = _PeriodicRequest

    def on_success(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - Celery's signature
        try:
            record_success(self.name)
        except Exception as error:  # the work itself has succeeded
            log.warning("task.record_failed", task=self.name, error=type(error).__name__)

    def on_failure(self, exc: BaseException, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - Celery's signature
        try:
            record_failure(self.name, exc)
        except Exception as error:  # without a database nothing can be reported; the log has both errors
            log.warning("task.record_failed", task=self.name, error=type(error).__name__)
        finally:
            if not connection.in_atomic_block:
                connection.close()


def record_failure(name: str, cause: BaseException) -> None:
    """Count a failed run of this task. Opens the incident after FAILURES_BEFORE_INCIDENT consecutive failures."""
    error = type(cause).__name__
    with transaction.atomic():
        TaskFailure.objects.bulk_create([TaskFailure(name=name)], ignore_conflicts=True)
        row = TaskFailure.objects.filter(name=name)
        row.update(failures=F("failures") + 1, failed_at=Now())
        failures = row.values_list("failures", flat=True).get()
        log.error("task.failed", task=name, failures=failures, error=error)
        if failures >= FAILURES_BEFORE_INCIDENT:
            detail = f"{name}: {failures} consecutive failures, the last one {error}."
            incidents.open_incident(incidents.Kind.TASK, name, detail)


def record_success(name: str) -> None:
    """Delete the task's count of failures, and resolve its incident. One statement if the run before succeeded, too."""
    with transaction.atomic():
        if TaskFailure.objects.filter(name=name).delete()[0]:
            incidents.resolve_incident(incidents.Kind.TASK, name)
