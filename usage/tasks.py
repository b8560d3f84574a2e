"""What Celery does for the quota and the alerts, from the schedule in the settings."""

from celery import shared_task

from usage import delivery, quota


@shared_task(name="usage.poll_quota")
def poll_quota() -> None:
    quota.poll()


@shared_task(name="usage.deliver_alerts")
def deliver_alerts() -> None:
    delivery.deliver_due()
