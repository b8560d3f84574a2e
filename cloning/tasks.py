"""Celery tasks for voice clones. They are started by the schedule and by `task_queue`."""

import uuid

from celery import shared_task

from cloning.consent import erasure, retention, withdrawal
from cloning.jobs import runner
from cloning.voices import audit


@shared_task(name="cloning.run")
def run(job_id: str) -> None:
    runner.run(uuid.UUID(job_id))


@shared_task(name="cloning.withdraw")
def withdraw(job_id: str) -> None:
    withdrawal.run(uuid.UUID(job_id))


@shared_task(name="cloning.sweep")
def sweep() -> None:
    """Withdrawals run before new clones. They are more urgent and take only seconds."""
    erasure.sweep()
    withdrawal.sweep()
    runner.sweep()


@shared_task(name="cloning.check_voices")
def check_voices() -> None:
    erasure.remove_external_voices()
    audit.audit_voices()


@shared_task(name="cloning.prune_samples")
def prune_samples() -> None:
    retention.prune()
    retention.prune_orphans()
