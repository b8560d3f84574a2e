"""Sends alerts through the notification channels. One process at a time sends the messages of a channel.

It holds the lease `NotificationChannel.sending_until` and sends everything that is due, in one thread for each channel,
so a service that hangs delays no other one. After a failure, `sending_until` is the time of the next attempt. What a
channel has sent is in its `ChannelAlert` rows. A message is sent twice only if a process dies after sending it and
before recording it, or if the service takes it but answers too late.

The process that opens or resolves an incident sends immediately. beat repeats what failed and sends what becomes due by
time: escalations, and what quiet hours have held.
"""

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import structlog
from django.db import connection, transaction
from django.db.models import F, Q, QuerySet
from django.db.models.functions import Now

from usage.alerts import messages
from usage.alerts.channels import url_of
from usage.alerts.messages import AlertState
from usage.alerts.notifications import rules
from usage.alerts.notifications.sender import ChannelFailed, MessageType, Sender
from usage.alerts.recipients import clinic_ids_of
from usage.alerts.severity import Severity, severity_of
from usage.models import ChannelAlert, Incident, IncidentEvent, NotificationChannel
from voicecare.core import metrics

LEASE = timedelta(seconds=60)  # renewed for each message, which takes 30 s at most with the start of the sender
RETRY_DELAYS_S = (10, 20, 40, 80, 160, 300)  # the last delay repeats
FAILURES_BEFORE_INCIDENT = 3  # consecutive failures of one channel; about half a minute

log = structlog.get_logger(__name__)


def is_configured() -> bool:
    return _enabled().exists()


def deliver() -> None:
    """Send all messages that are due. Blocks until they are sent or have failed. Idempotent."""
    _resolve_incidents_of_removed_channels()
    channels = list(_enabled().filter(_is_free()))
    due = _due_messages(channels, _recent_incidents()) if channels else {}
    if due:
        with ThreadPoolExecutor(len(due)) as pool:
            list(pool.map(_in_thread, due))


def _enabled() -> QuerySet[NotificationChannel]:
    return NotificationChannel.objects.filter(enabled=True)


def _is_free() -> Q:
    return Q(sending_until=None) | Q(sending_until__lte=Now())


def _recent_incidents() -> list[Incident]:
    since = Now() - rules.MAX_AGE
    recent = Q(opened_at__gt=since) | Q(reopened_at__gt=since) | Q(resolved_at__gt=since)
    recent |= Q(muted_until__gt=since) | Q(mute_ended_at__gt=since)
    return list(Incident.objects.filter(recent).annotate(now=Now()).order_by("opened_at"))


_Due = tuple[Incident, ChannelAlert, AlertState]


def _due_messages(channels: Iterable[NotificationChannel], incidents: list[Incident]) -> Mapping[int, list[_Due]]:
    """Returns the messages that are due, by the channel's id, without channels that have none.

    First come those that have not failed, so that a message that a service never takes does not hold up the others.
    """
    found = ChannelAlert.objects.filter(channel__in=channels, incident__in=incidents)
    rows = {(row.channel_id, row.incident_id): row for row in found}
    clinics = clinic_ids_of(incidents) if any(channel.clinic_id for channel in channels) else {}
    due: dict[int, list[_Due]] = {}
    for channel in channels:
        for incident in incidents:
            new = ChannelAlert(channel=channel, incident=incident)
            sent, now = rows.get((channel.pk, incident.pk), new), _now_of(incident)
            is_paused = sent.retry_at is not None and sent.retry_at > now
            if not is_paused and (state := rules.next_message(channel, incident, sent, now, clinics.get(incident.pk))):
                due.setdefault(channel.pk, []).append((incident, sent, state))
        due.get(channel.pk, []).sort(key=lambda message: message[1].failures)
    return due


def _now_of(incident: Incident) -> datetime:
    """Returns the time of the database when the incident was read."""
    return incident.now  # type: ignore[attr-defined, no-any-return]


def _in_thread(channel_id: int) -> None:
    try:
        _deliver_through(channel_id)
    except Exception as error:  # beat will retry
        log.warning("notification.thread_failed", channel=channel_id, error=type(error).__name__)
    finally:
        connection.close()


def _deliver_through(channel_id: int) -> None:
    """Send everything that is due through one channel, until one message fails or another process has the lease."""
    while (channel := _claim(channel_id)) is not None:
        with Sender(channel.url) as sender:
            while message := _first_due(channel):
                if not _send(sender, channel, *message):
                    return
        # Messages that became due since the last look find the lease taken. So look again after it has ended.
        _leased(channel).update(sending_until=None)


def _claim(channel_id: int) -> NotificationChannel | None:
    free = _enabled().filter(_is_free(), pk=channel_id)
    channel = free.first()
    if channel is None or _first_due(channel) is None or not free.update(sending_until=Now() + LEASE):
        return None
    return NotificationChannel.objects.get(pk=channel_id)


def _first_due(channel: NotificationChannel) -> _Due | None:
    return next(iter(_due_messages([channel], _recent_incidents()).get(channel.pk, [])), None)


def _leased(channel: NotificationChannel) -> QuerySet[NotificationChannel]:
    return NotificationChannel.objects.filter(pk=channel.pk, sending_until=channel.sending_until)


def _send(
    sender: Sender, channel: NotificationChannel, incident: Incident, sent: ChannelAlert, state: AlertState
) -> bool:
    """Send one message and record it. Returns whether to go on: it was sent, and the lease is still this process's."""
    if not _leased(channel).update(sending_until=Now() + LEASE):
        return False
    channel.refresh_from_db(fields=["sending_until"])
    body = f"{messages.body(incident, state)}\n\n{url_of(incident)}"
    facts = {"channel": channel.pk, "incident": str(incident.pk), "state": state}
    try:
        sender.send(messages.subject(incident, state), body, _type_of(incident, state))
    except ChannelFailed as failure:
        metrics.ALERTS_FAILED.labels("notification").inc()
        log.warning("notification.failed", **facts)
        _record_failure(channel, sent, str(failure))
        return False
    log.info("notification.sent", **facts)
    return _record_success(channel, incident, sent, state)


def _type_of(incident: Incident, state: AlertState) -> MessageType:
    if state == "resolved":
        return "success"
    return "failure" if severity_of(incident) == Severity.CRITICAL else "warning"


def _record_success(channel: NotificationChannel, incident: Incident, sent: ChannelAlert, state: AlertState) -> bool:
    rules.record_sent(sent, state, incident, _now_of(incident))
    sent.failures, sent.retry_at, channel.failures = 0, None, 0
    with transaction.atomic():
        is_leased = _leased(channel).update(failures=0, last_sent_at=Now(), last_error="")
        sent.save()
        IncidentEvent.objects.create(incident=incident, kind=IncidentEvent.Kind.ALERT, channel=channel.name, text=state)
    resolve_incident_of(channel.pk)
    return bool(is_leased)


def _record_failure(channel: NotificationChannel, sent: ChannelAlert, reason: str) -> None:
    failures = channel.failures + 1
    sent.failures, sent.retry_at = sent.failures + 1, Now() + _delay(sent.failures)
    with transaction.atomic():
        sent.save()
        _leased(channel).update(
            failures=F("failures") + 1,
            last_failed_at=Now(),
            last_error=reason,
            sending_until=Now() + _delay(channel.failures),
        )
    if failures >= FAILURES_BEFORE_INCIDENT:
        detail = f"{channel.name}: {failures} consecutive failures. {reason}"
        incident = Incident(kind=Incident.Kind.CHANNEL, key=str(channel.pk), detail=detail)
        Incident.objects.bulk_create([incident], ignore_conflicts=True)


def _delay(failures: int) -> timedelta:
    return timedelta(seconds=RETRY_DELAYS_S[min(failures, len(RETRY_DELAYS_S) - 1)])


# The incidents of failing channels are opened and resolved directly. beat sends them through the others.


def resolve_incident_of(channel_id: int) -> None:
    """Resolve the incident of a channel that has sent a message, or that is not used any longer."""
    _channel_incidents().filter(key=str(channel_id)).update(resolved_at=Now())


def _resolve_incidents_of_removed_channels() -> None:
    keys = [str(pk) for pk in _enabled().values_list("pk", flat=True)]
    _channel_incidents().exclude(key__in=keys).update(resolved_at=Now())


def _channel_incidents() -> QuerySet[Incident]:
    return Incident.objects.filter(kind=Incident.Kind.CHANNEL, resolved_at=None)
