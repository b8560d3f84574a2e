"""Celery tasks of the webhooks. `voicecare.infrastructure.schedule` runs them periodically."""

from celery import shared_task

from usage.alerts.periodic_tasks import PeriodicTask
from voicecare.webhooks import delivery, events


@shared_task(name="webhooks.deliver", base=PeriodicTask)
def deliver() -> None:
    """Send what is due. Also enqueued when an event was written."""
    delivery.deliver()


@shared_task(name="webhooks.prune", base=PeriodicTask)
def prune() -> None:
    events.prune()
