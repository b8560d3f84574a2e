"""Sends a mail about a period once, although many processes try.

A row for each period is the lock: the process that holds its lease sends the mail, and a mail that failed is due again
when the lease has expired. The mail is sent twice only if a process dies after sending it and before recording it.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import date, timedelta

import structlog
from django.core.mail import send_mail
from django.db.models import Q
from django.db.models.functions import Now

from usage.models import DigestMail, StatementMail

LEASE = timedelta(minutes=5)  # a mail takes several responses of the mail server, of up to EMAIL_TIMEOUT each

log = structlog.get_logger(__name__)


def send(
    model: type[DigestMail] | type[StatementMail],
    period: Mapping[str, date],
    recipients: Sequence[str],
    message: Callable[[], tuple[str, str]],
) -> bool:
    """Send the mail about the period, unless it was sent or another process is sending it. Returns whether it was sent.

    `period` has the primary key of `model`. `message` returns the subject and the body. Raises an exception if the mail
    cannot be sent.
    """
    model.objects.bulk_create([model(**period)], ignore_conflicts=True)  # type: ignore[list-item]
    row = model.objects.filter(**period, sent_at=None)
    free = row.filter(Q(sending_until=None) | Q(sending_until__lt=Now()))
    if not free.update(sending_until=Now() + LEASE):
        return False
    subject, body = message()
    send_mail(subject, body, None, recipients)
    row.update(sent_at=Now())
    log.info("period.mailed", mail=model.__name__, recipients=len(recipients))
    return True
