"""Celery tasks that use several apps."""

from functools import partial

from celery import shared_task
from django.conf import settings
from django.contrib.sessions.models import Session
from django.db.models.functions import Now
from django.utils import timezone

from tts.conversations import lifecycle
from tts.outbox import store
from usage.alerts.periodic_tasks import PeriodicTask
from usage.ledger import events, journal
from usage.reconciliation import reconciler
from voicecare.accounts import password_reset, throttling, tokens
from voicecare.api import idempotency
from voicecare.audit import retention
from voicecare.console import devices as console_devices
from voicecare.core.batches import run_steps
from voicecare.health import zero_retention


@shared_task(name="voicecare.reconcile", base=PeriodicTask)
def reconcile() -> None:
    """Compares the ledger with the provider's figures.

    Before, adds usage to the ledger that is only in the journal of this machine, because its process was interrupted.
    """
    run_steps(
        partial(journal.recover, settings.DATA_DIR / journal.FOLDER, events.record_attempts),
        partial(reconciler.reconcile, timezone.now(), lifecycle.add_reconciled_characters),
    )


@shared_task(name="voicecare.check_zero_retention", base=PeriodicTask)
def check_zero_retention() -> None:
    """Makes the next step of the nightly check that the provider keeps nothing."""
    zero_retention.check(timezone.now())


@shared_task(name="voicecare.prune_logins", base=PeriodicTask)
def prune_logins() -> None:
    """Deletes expired REST tokens, sessions and consoles, and old login attempts. No other code does this."""
    run_steps(
        tokens.delete_expired,
        Session.objects.filter(expire_date__lt=Now()).delete,
        throttling.delete_old_attempts,
        console_devices.delete_old,
    )


@shared_task(name="voicecare.prune_idempotency_keys", base=PeriodicTask)
def prune_idempotency_keys() -> None:
    """Deletes old idempotency keys of the REST API."""
    run_steps(idempotency.delete_expired, partial(store.forget_keys, timezone.now() - idempotency.LIFETIME))


@shared_task(name="voicecare.prune_audit", base=PeriodicTask)
def prune_audit() -> None:
    """Deletes entries of the audit trail after AUDIT_RETENTION_DAYS."""
    retention.prune_audit()


@shared_task(name="voicecare.send_reset_links")
def send_reset_links(*user_ids: str) -> None:
    """Mails each user a link with which they set a new password."""
    run_steps(*(partial(password_reset.send_link, int(user_id)) for user_id in user_ids))
