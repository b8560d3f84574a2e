"""The mail about the statement of the last month, to STATEMENT_EMAILS.

It has totals and a link. Patients and voices are only on the page behind the login, because the permissions of a mail
address are not known.
"""

from datetime import date, timedelta

from django.conf import settings
from django.urls import reverse
from django.utils.formats import date_format

from usage import mail_once
from usage.models import StatementMail
from usage.prices import plain
from usage.reports.statement import Statement, read_statement

DUE_DAYS = 7  # a new server does not send old statements, and a mail server may be down for some days


def send_due(today: date) -> bool:
    """Send the mail about the month before `today` if it is due. Returns whether it was sent now.

    Raises an exception if it cannot be sent. It is due again when the lease has expired.
    """
    if not settings.STATEMENT_EMAILS or today.day > DUE_DAYS:
        return False
    month = (today.replace(day=1) - timedelta(days=1)).replace(day=1)
    recipients = settings.STATEMENT_EMAILS
    return mail_once.send(StatementMail, {"month": month}, recipients, lambda: _message(read_statement(month)))


def _message(statement: Statement) -> tuple[str, str]:
    """Return the subject and the body, without any name."""
    total, state = statement.total, statement.reconciliation
    lines = [
        f"Characters: {total.characters:,} billed, {total.saved:,} saved",
        f"Credits: {total.credits:,}",
        f"Requests: {total.requests:,}",
    ]
    if total.cost is not None:
        lines.append(f"Cost: {total.cost:,.2f} {settings.PRICE_CURRENCY} (exactly {plain(total.cost)})")
    if statement.prices and total.unpriced_credits:
        lines.append(f"Credits without a price, which are not part of the cost: {total.unpriced_credits:,}")
    lines.append(
        f"Reconciliation: {state.compared_days} of {state.days} days compared with the provider, "
        f"{state.unexplained_characters:,} characters unexplained, {state.unknown_attempts:,} requests unconfirmed"
    )
    title = f"Statement of {date_format(statement.month, 'F Y')}"
    return f"voicecare: {title}", "\n".join(
        [title, "", *lines, "", "By patient and by voice:", _url(statement.month), ""]
    )


def _url(month: date) -> str:
    return settings.PUBLIC_URL.rstrip("/") + reverse("admin:statement", args=[month.year, f"{month:%m}"])
