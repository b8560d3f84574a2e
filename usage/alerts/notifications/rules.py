"""Which message about an incident a channel must send next. Without I/O.

The order is the same as for mail and webhook: opened, reminder, resolved. A channel reports the end of an incident only
if it has reported its opening.
"""

import uuid
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from django.conf import settings

from usage.alerts.messages import AlertState
from usage.alerts.severity import MONEY_KINDS, severity_of
from usage.models import ChannelAlert, Incident, NotificationChannel

MAX_AGE = timedelta(days=2)
"""Older events are not reported. Quiet hours and an escalation may each take a day."""

NEWS_FOR = timedelta(minutes=10)
"""An incident that ended longer ago and was never tried is not reported, for example by a new channel."""

Kind = Incident.Kind


def next_message(
    channel: NotificationChannel,
    incident: Incident,
    sent: ChannelAlert,
    now: datetime,
    clinic_id: uuid.UUID | None = None,
) -> AlertState | None:
    """Returns what the channel must report about this incident now, or None. `sent` has what it has reported.

    `clinic_id` is the clinic that the incident is about, if it is about one.
    """
    if _is_held(channel, incident, now):
        return None
    if sent.opening_of != began_at(incident):
        is_due = wants(channel, incident, clinic_id) and _is_opening_due(channel, incident, sent, now)
        return "opened" if is_due else None
    if incident.resolved_at is not None:
        is_due = sent.resolution_of != incident.resolved_at and incident.resolved_at > now - MAX_AGE
        return "resolved" if is_due else None
    ended_mute = ended_mute_of(incident, now)
    is_due = ended_mute is not None and ended_mute != sent.reminder_of and ended_mute > now - MAX_AGE
    return "reminder" if is_due else None


def record_sent(sent: ChannelAlert, state: AlertState, incident: Incident, now: datetime) -> None:
    """Notes in `sent` that the message was sent. `incident` and `now` are those that `next_message` got."""
    if state == "resolved":
        sent.resolution_of = incident.resolved_at
    else:
        sent.opening_of = began_at(incident)
        sent.reminder_of = ended_mute_of(incident, now)


def began_at(incident: Incident) -> datetime:
    return incident.reopened_at or incident.opened_at


def ended_mute_of(incident: Incident, now: datetime) -> datetime | None:
    """Returns when the last mute of this occurrence ended, or None if there was none or it goes on."""
    ended_at = incident.muted_until or incident.mute_ended_at
    return ended_at if ended_at is not None and began_at(incident) <= ended_at <= now else None


def wants(channel: NotificationChannel, incident: Incident, clinic_id: uuid.UUID | None = None) -> bool:
    """Returns whether the channel reports incidents like this one, but never its own failure."""
    if incident.kind == Kind.CHANNEL and incident.key == str(channel.pk):
        return False
    if channel.clinic_id not in (None, clinic_id):
        return False
    wants_kind = not channel.kinds or incident.kind in channel.kinds
    return wants_kind and (not channel.severities or severity_of(incident) in channel.severities)


def _is_opening_due(channel: NotificationChannel, incident: Incident, sent: ChannelAlert, now: datetime) -> bool:
    began, minutes = began_at(incident), channel.escalate_after_minutes
    if began <= now - MAX_AGE:
        return False
    if incident.resolved_at is not None:
        was_held = incident.kind in MONEY_KINDS and _is_quiet(channel, began)
        is_news = incident.resolved_at > now - NEWS_FOR or sent.failures > 0
        return minutes is None and not was_held and is_news
    if incident.muted_until is not None and incident.muted_until > now:
        return False
    if minutes is None:  # after a failure, somebody who takes care of the incident was told by another channel
        return incident.acknowledged_at is None or not sent.failures
    return incident.acknowledged_at is None and began + timedelta(minutes=minutes) <= now


def _is_held(channel: NotificationChannel, incident: Incident, now: datetime) -> bool:
    return incident.kind in MONEY_KINDS and _is_quiet(channel, now)


def _is_quiet(channel: NotificationChannel, moment: datetime) -> bool:
    """Returns whether this is in the quiet hours, in USAGE_TIME_ZONE. They may begin before midnight."""
    begin, end = channel.quiet_from, channel.quiet_to
    if begin is None or end is None:
        return False
    time = moment.astimezone(ZoneInfo(settings.USAGE_TIME_ZONE)).time()
    return begin <= time < end if begin <= end else time >= begin or time < end
