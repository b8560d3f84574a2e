"""The mail about the last week, to ADMIN_EMAILS: incidents, characters, and what was wrong with voices.

It has no names and no ids. It is sent once for all processes, like the mail about a month's statement.
"""

from collections import Counter
from collections.abc import Iterable
from datetime import date, timedelta

from django.conf import settings
from django.urls import reverse

from usage import mail_once
from usage.ledger.rollup import start_of_day
from usage.models import DigestMail, Incident
from usage.reports import queries

DUE_DAYS = 3  # a mail server may be down for some days, and a new server does not send old weeks
WEEK = timedelta(days=7)

Kind = Incident.Kind
VOICE_KINDS = (Kind.VOICE, Kind.DEFAULT_VOICE, Kind.NO_USABLE_VOICE, Kind.VOICE_ENDING, Kind.NO_VOICE)


def send_due(today: date) -> bool:
    """Send the mail about the week before the one of `today` if it is due. Weeks begin on Monday.

    Returns whether it was sent now. Raises an exception if it cannot be sent. It is due again when the lease has
    expired.
    """
    if not settings.ADMIN_EMAILS or today.weekday() >= DUE_DAYS:
        return False
    monday = today - timedelta(days=today.weekday()) - WEEK
    return mail_once.send(DigestMail, {"week": monday}, settings.ADMIN_EMAILS, lambda: _message(monday))


def _message(monday: date) -> tuple[str, str]:
    sunday = monday + WEEK - timedelta(days=1)
    title = f"Week from {monday} to {sunday}"
    total = queries.range_stats(monday, sunday).total
    opened, resolved = _kinds("opened_at", monday), _kinds("resolved_at", monday)
    opened += _kinds("reopened_at", monday)
    lines = [
        title,
        "",
        f"Incidents: {opened.total()} opened, {resolved.total()} resolved, {_open_incidents()} open now",
        *_by_kind(opened, resolved, Kind),
        "",
        f"Characters: {total.characters:,} billed, {total.saved:,} saved",
        f"Requests: {total.requests:,}, {total.failed:,} of them failed",
        "",
        f"Incidents about voices: {sum(opened[kind] for kind in VOICE_KINDS)} opened",
        *_by_kind(opened, resolved, VOICE_KINDS),
        f"Requests in a backup voice: {total.backups:,}",
        f"Segments in the offline voice: {total.offline:,}",
        "",
        "Incidents: " + settings.PUBLIC_URL.rstrip("/") + reverse("admin:usage_incident_changelist"),
        "",
    ]
    return f"voicecare: {title}", "\n".join(lines)


def _kinds(column: str, monday: date) -> Counter[str]:
    """Returns how many incidents of each kind have this time in the week."""
    week = {f"{column}__gte": start_of_day(monday), f"{column}__lt": start_of_day(monday + WEEK)}
    return Counter(Incident.objects.filter(**week).values_list("kind", flat=True))


def _open_incidents() -> int:
    return Incident.objects.filter(resolved_at=None).count()


def _by_kind(opened: Counter[str], resolved: Counter[str], kinds: Iterable[Incident.Kind]) -> list[str]:
    return [
        f"- {kind.label}: {opened[kind]} opened, {resolved[kind]} resolved"
        for kind in kinds
        if opened[kind] or resolved[kind]
    ]
