"""What Celery does for the quota, the alerts and its own sign of life, from the schedule in the settings."""

from celery import shared_task

from usage import delivery, heartbeats, quota


@shared_task(name="usage.poll_quota")
def poll_quota() -> None:
    quota.poll()


@shared_task(name="usage.deliver_alerts")
def deliver_alerts() -> None:
    delivery.deliver_due()


@shared_task(name="usage.heartbeat")
def heartbeat() -> None:
    heartbeats.give(heartbeats.WORKER)
