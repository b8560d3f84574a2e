"""Celery tasks for voice clones. The schedule starts the periodic ones.

`voicecare.core.task_queue` starts the others.
"""

import uuid
from functools import partial

from celery import shared_task

from cloning.consent import erasure, retention, withdrawal
from cloning.jobs import attempts, runner
from cloning.voices import audit, sync
from usage.alerts.periodic_tasks import PeriodicTask
from voicecare.core.batches import run_steps


@shared_task(name="cloning.run")
def run(job_id: str) -> None:
    attempts.start(uuid.UUID(job_id))


@shared_task(name="cloning.withdraw")
def withdraw(job_id: str) -> None:
    withdrawal.run(uuid.UUID(job_id))


@shared_task(name="cloning.sweep", base=PeriodicTask)
def sweep() -> None:
    """Continues the erasures, the withdrawals and the clone jobs that are due, in this order.

    Withdrawals run before new clones, because they are more urgent and take only seconds.
    """
    run_steps(erasure.sweep, withdrawal.sweep, partial(runner.sweep, attempts.start))


@shared_task(name="cloning.check_voices", base=PeriodicTask)
def check_voices() -> None:
    run_steps(erasure.remove_external_voices, audit.audit_voices)


@shared_task(name="cloning.read_first_voices", base=PeriodicTask)
def read_first_voices() -> None:
    sync.read_first_voices()


@shared_task(name="cloning.prune_samples", base=PeriodicTask)
def prune_samples() -> None:
    run_steps(retention.prune, retention.prune_orphans)
