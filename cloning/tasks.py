"""What Celery does for copied voices: from the schedule in the settings, and told by hints."""

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
    """A withdrawal first: it takes seconds, and nothing is more overdue."""
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
