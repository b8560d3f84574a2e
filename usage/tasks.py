"""Celery tasks for the quota, the budgets, the alerts and the worker's heartbeat. The settings schedule them."""

from celery import shared_task

from usage import budgets
from usage.alerts import dispatcher, heartbeats, latency
from usage.provider_state import circuit, quota


@shared_task(name="usage.poll_quota")
def poll_quota() -> None:
    circuit.resolve_stable_incident()
    quota.poll()


@shared_task(name="usage.deliver_alerts")
def deliver_alerts() -> None:
    dispatcher.retry_pending()


@shared_task(name="usage.heartbeat")
def heartbeat() -> None:
    heartbeats.beat(heartbeats.WORKER)


@shared_task(name="usage.mend_budgets")
def repair_budgets() -> None:
    budgets.repair()
    budgets.resolve_outdated_incidents()


@shared_task(name="usage.look_for_lateness")
def check_latency() -> None:
    latency.check()
