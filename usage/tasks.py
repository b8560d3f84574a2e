"""Celery tasks for the quota, the budgets, the mails about a month and a week, the alerts and the worker's heartbeat.

`voicecare/infrastructure/schedule.py` schedules them.
"""

from celery import shared_task

from usage import budgets, clinic_budgets, statement_mail, weekly_digest
from usage.alerts import dispatcher, heartbeats, latency, lost_voices, region
from usage.alerts.notifications import dispatch as notifications
from usage.alerts.periodic_tasks import PeriodicTask
from usage.alerts.voices import default_voice, ending
from usage.provider_history import deletion
from usage.provider_state import access, circuit, quota
from usage.reports import queries
from voicecare.core.batches import run_steps


@shared_task(name="usage.poll_quota", base=PeriodicTask)
def poll_quota() -> None:
    run_steps(circuit.resolve_stable_incident, access.resolve_stable_incident, quota.poll)


@shared_task(name="usage.deliver_alerts", base=PeriodicTask)
def deliver_alerts() -> None:
    dispatcher.retry_pending()


@shared_task(name="usage.notify_channels", base=PeriodicTask)
def notify_channels() -> None:
    notifications.deliver()


@shared_task(name="usage.heartbeat", base=PeriodicTask)
def heartbeat() -> None:
    heartbeats.beat(heartbeats.WORKER)


@shared_task(name="usage.mend_budgets", base=PeriodicTask)
def repair_budgets() -> None:
    run_steps(budgets.repair, clinic_budgets.compare_all, clinic_budgets.resolve_outdated_incidents)


@shared_task(name="usage.check_voices", base=PeriodicTask)
def check_voices() -> None:
    run_steps(default_voice.check, ending.check, lost_voices.resolve_settled)


@shared_task(name="usage.mail_statement", base=PeriodicTask)
def mail_statement() -> None:
    statement_mail.send_due(queries.today())


@shared_task(name="usage.mail_digest", base=PeriodicTask)
def mail_digest() -> None:
    weekly_digest.send_due(queries.today())


@shared_task(name="usage.look_for_lateness", base=PeriodicTask)
def check_latency() -> None:
    latency.check()


@shared_task(name="usage.check_region", base=PeriodicTask)
def check_region() -> None:
    region.check()


@shared_task(name="usage.delete_history", base=PeriodicTask)
def delete_history() -> None:
    deletion.sweep()
