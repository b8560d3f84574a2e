"""What Celery does for copied voices: from the schedule in the settings, and told by hints."""

import uuid

from celery import shared_task

from cloning import custody, erasure, jobs, retention, withdrawal


@shared_task(name="cloning.run")
def run(job_id: str) -> None:
    jobs.run(uuid.UUID(job_id))


@shared_task(name="cloning.withdraw")
def withdraw(job_id: str) -> None:
    withdrawal.carry_out(uuid.UUID(job_id))


@shared_task(name="cloning.sweep")
def sweep() -> None:
    """A withdrawal first: it takes seconds, and nothing is more overdue."""
    erasure.sweep()
    withdrawal.sweep()
    jobs.sweep()


@shared_task(name="cloning.check_voices")
def check_voices() -> None:
    erasure.remove_given_voices()
    custody.check()


@shared_task(name="cloning.prune_samples")
def prune_samples() -> None:
    retention.prune()
    retention.prune_orphans()
