"""Sends alerts about incidents by mail and webhook: when an incident opens, and when it is resolved, in this order.

Mail and webhook are those of the settings. `notifications.dispatch` sends alerts through the notification channels.

While an incident is muted, only its resolution is sent. If it is still open when the mute ends, a reminder is sent.

The process that opens or resolves an incident sends the alert immediately in a thread, so neither a worker nor a broker
is needed. beat retries failed alerts. While beat is missing, the web processes retry them. One process at a time sends
the alerts of an incident: it holds the lease `Incident.sending_until`. After a failure, `retry_at` is the time of the
next attempt. A message is sent twice only if a process dies after sending it and before recording it.

A channel does not wait for the other one: the resolution follows on the channel that has reported the opening, although
the other one still cannot.
"""

import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from threading import Thread

import structlog
from django.db import connection, transaction
from django.db.models import Case, F, Q, QuerySet, When
from django.db.models.functions import Now

from usage.alerts import channels
from usage.alerts.messages import AlertState
from usage.alerts.notifications import dispatch as notifications
from usage.models import Incident, IncidentEvent
from voicecare.core import metrics
from voicecare.core.batches import process_each, run_steps

LEASE = timedelta(seconds=60)  # sending a mail takes several server responses of up to EMAIL_TIMEOUT each
RETRY_DELAYS_S = (10, 20, 40, 80, 160, 300)  # the last delay repeats
ALERT_MAX_AGE = timedelta(days=1)  # older incidents are not sent, for example to a channel that is new
DONE = "+"  # after the name of a channel in `Incident.notified_channels`: the channel has sent the resolution, too
FAILURES_BEFORE_INCIDENT = 3  # consecutive failures of one channel with one message; about half a minute

log = structlog.get_logger(__name__)


def notify_async(*incident_ids: uuid.UUID) -> None:
    """Send the pending alerts of these incidents after the commit, in background threads. Returns immediately.

    At month end hundreds of budget incidents are resolved together. A thread for each would exhaust the database
    connections that live speech needs.
    """
    if incident_ids:
        transaction.on_commit(partial(_start_threads, *incident_ids), robust=True)


def _start_threads(*incident_ids: uuid.UUID) -> None:
    """Start a thread for mail and webhook, and another one for the notification channels, if there are any."""
    if channels.configured_channels():
        Thread(target=_in_thread, args=[deliver, *incident_ids], name="alerts", daemon=True).start()
    if notifications.is_configured():
        Thread(target=_in_thread, args=[notifications.deliver], name="notifications", daemon=True).start()


def retry_in_thread() -> None:
    """Retry all pending alerts in a background thread. Returns immediately.

    Web processes call it while beat or the worker is missing.
    """
    if _pending().exists():
        Thread(target=_in_thread, args=[retry_pending], daemon=True).start()
    if notifications.is_configured():
        Thread(target=_in_thread, args=[notifications.deliver], daemon=True).start()


def retry_pending() -> None:
    """Send all alerts that are pending and whose next attempt is due. Raises RowsFailed or DatabaseError."""
    run_steps(_deliver_pending, _resolve_incidents_of_removed_channels)


def _deliver_pending() -> None:
    process_each("alerts.deliver", _pending().values_list("pk", flat=True), deliver)


def _resolve_incidents_of_removed_channels() -> None:
    """Resolve the incidents of failing channels that are no longer in the settings."""
    _channel_incidents().exclude(key__in=list(channels.configured_channels())).update(resolved_at=Now())


def deliver(*incident_ids: uuid.UUID) -> None:
    """For each incident, send its pending alerts in order, until one fails. Idempotent.

    Without a configured channel, the alerts stay pending.
    """
    for incident_id in incident_ids:
        while (claimed := _claim(incident_id)) is not None and _send(claimed):
            pass


def _in_thread(work: Callable[..., None], *arguments: uuid.UUID) -> None:
    try:
        work(*arguments)
    except Exception as error:  # beat will retry
        log.warning("alert.thread_failed", error=type(error).__name__)
    finally:
        connection.close()


def _pending() -> QuerySet[Incident]:
    return Incident.objects.filter(_unsent(), _free()).order_by("opened_at")


def _unsent() -> Q:
    return _opening_due() | _reminder_due() | _resolution_due()


def _opening_due() -> Q:
    """An incident that opened, or opened again. A muted one is reported if it has ended meanwhile, before its end."""
    is_recent = Q(opened_at__gt=Now() - ALERT_MAX_AGE) | Q(reopened_at__gt=Now() - ALERT_MAX_AGE)
    is_quiet = Q(resolved_at=None, muted_until__gt=Now())
    return Q(opening_sent_at=None) & is_recent & ~is_quiet


def _reminder_due() -> Q:
    return Q(resolved_at=None, muted_until__lte=Now(), muted_until__gt=Now() - ALERT_MAX_AGE)


def _resolution_due() -> Q:
    return Q(resolution_sent_at=None, resolved_at__gt=Now() - ALERT_MAX_AGE)


def _free() -> Q:
    """No process is sending an alert now, and none waits for the next attempt."""
    is_unleased = Q(sending_until=None) | Q(sending_until__lte=Now())
    return is_unleased & (Q(retry_at=None) | Q(retry_at__lte=Now()) | _early_resolution_due())


def _early_resolution_due() -> Q:
    """One channel has reported the opening and can report the resolution, although the other channel has failed.

    There are only two channels, so one with a plus sign has done everything, and the other one nothing.
    """
    has_reported = Q(notified_state="opened") & ~Q(notified_channels="") & ~Q(notified_channels__contains=DONE)
    return has_reported & _resolution_due()


def _claim(incident_id: uuid.UUID) -> Incident | None:
    incident = Incident.objects.filter(pk=incident_id).first()
    if incident is None or not channels.channels_for(incident):
        return None
    if Incident.objects.filter(_unsent(), _free(), pk=incident_id).update(sending_until=Now() + LEASE):
        return Incident.objects.get(pk=incident_id)
    return None


def _send(incident: Incident) -> bool:
    """Send the first pending alert of this incident through the channels that have not sent it yet.

    Returns True if every channel has sent it now. A channel that has sent the opening does not wait for the other one
    with the resolution. If somebody takes care of the incident already, a channel that could not report its opening
    does not try again.
    """
    state = _state_to_send(incident)
    if state is None:  # muted in the meantime
        _leased(incident).update(sending_until=None)
        return False
    is_repeated = incident.notified_state == state
    tokens = incident.notified_channels.split() if is_repeated else []
    notified = {token.removesuffix(DONE) for token in tokens}
    done = {token.removesuffix(DONE) for token in tokens if token.endswith(DONE)}
    is_paused = Incident.objects.filter(pk=incident.pk, retry_at__gt=Now()).exists()
    failures = incident.sending_failures if is_repeated else 0
    wanted = channels.channels_for(incident)
    remaining = {name: channel for name, channel in wanted.items() if name not in notified}
    if state == "opened" and notified and incident.acknowledged_at is not None:
        remaining, is_paused = {}, False
    errors = {} if is_paused else _try_channels(remaining, incident, state)
    sent = {name for name, error in errors.items() if error is None}
    notified |= sent
    complete = not is_paused and len(sent) == len(remaining)
    early: dict[str, str | None] = {}
    if not complete and Incident.objects.filter(_resolution_due(), pk=incident.pk, opening_sent_at=None).exists():
        finishing = {name: channel for name, channel in wanted.items() if name in notified - done}
        early = _try_channels(finishing, incident, "resolved")
    sent_early = {name for name, error in early.items() if error is None}
    done |= sent_early
    alerts = [*((name, state) for name in sent), *((name, "resolved") for name in sent_early)]
    with transaction.atomic():  # the timeline has what the columns have
        IncidentEvent.objects.bulk_create(
            IncidentEvent(incident=incident, kind=IncidentEvent.Kind.ALERT, channel=name, text=text)
            for name, text in alerts
        )
        if complete:
            _save_success(incident, state, done)
        else:
            _save_failure(incident, state, notified, done, None if is_paused else failures)
    _update_channel_health(errors, failures + 1)
    _update_channel_health(early, failures=1)
    return complete


def _state_to_send(incident: Incident) -> AlertState | None:
    row = Incident.objects.filter(pk=incident.pk)
    if row.filter(_opening_due()).exists():
        return "opened"
    if row.filter(_reminder_due()).exists():
        return "reminder"
    return "resolved" if row.filter(_resolution_due()).exists() else None


def _try_channels(
    wanted: Mapping[str, channels.Channel], incident: Incident, state: AlertState
) -> dict[str, str | None]:
    """Send one alert through these channels at the same time. Returns the result of `_try_channel` for each."""
    with ThreadPoolExecutor(max(len(wanted), 1)) as pool:  # a slow channel does not delay the other
        outcomes = pool.map(lambda name: _try_channel(name, wanted[name], incident, state), wanted)
        return dict(zip(wanted, outcomes, strict=True))


def _try_channel(name: str, channel: channels.Channel, incident: Incident, state: AlertState) -> str | None:
    """Send one alert through one channel. Returns None if it was sent, or the name of the exception's class. Never
    raises.
    """
    try:
        channel(incident, state)
    except Exception as error:  # an error of one channel must not stop the others
        metrics.ALERTS_FAILED.labels(name).inc()
        log.warning(
            "alert.send_failed", channel=name, incident=str(incident.pk), state=state, error=type(error).__name__
        )
        return type(error).__name__
    log.info("alert.sent", channel=name, incident=str(incident.pk), state=state)
    return None


def _leased(incident: Incident) -> QuerySet[Incident]:
    return Incident.objects.filter(pk=incident.pk, sending_until=incident.sending_until)


def _save_failure(
    incident: Incident, state: AlertState, notified: set[str], done: set[str], failures: int | None
) -> None:
    """Record which channels have sent the alert. `failures` is None if those that have failed did not try again."""
    tokens = " ".join(name + DONE if name in done else name for name in sorted(notified))
    columns: dict[str, object] = {"notified_channels": tokens, "notified_state": state, "sending_until": None}
    if failures is not None:
        delay_s = RETRY_DELAYS_S[min(failures, len(RETRY_DELAYS_S) - 1)]
        columns |= {"sending_failures": failures + 1, "retry_at": Now() + timedelta(seconds=delay_s)}
    _leased(incident).update(**columns)


def _save_success(incident: Incident, state: AlertState, done: set[str]) -> None:
    """Record that all channels have sent the alert. `done` are those that have also sent the resolution."""
    sent_at = {"opened": {"opening_sent_at": Now()}, "resolved": {"resolution_sent_at": Now()}}.get(state, {})
    ended_mute = Case(
        When(muted_until__lte=Now(), then=None), default=F("muted_until")
    )  # no reminder is due any longer
    _leased(incident).update(
        **sent_at,
        muted_until=ended_mute,
        mute_ended_at=Case(When(muted_until__lte=Now(), then=F("muted_until")), default=F("mute_ended_at")),
        notified_channels=" ".join(sorted(done)),
        notified_state="resolved" if done else "",
        sending_failures=0,
        sending_until=None,
        retry_at=None,
    )


# Channel health. These incidents are opened and resolved here directly. Celery beat sends them on its next retry.


def _update_channel_health(errors: Mapping[str, str | None], failures: int) -> None:
    """Open an incident for each channel that keeps failing, and resolve it when the channel sends a message again.

    `errors` has the result of `_try_channel` for each channel. `failures` is the number of consecutive failed attempts.
    """
    for name, error in errors.items():
        if error is None:
            _channel_incidents().filter(key=name).update(resolved_at=Now())
        elif failures >= FAILURES_BEFORE_INCIDENT:
            detail = f"{name}: {failures} consecutive failures, the last one {error}."
            incident = Incident(kind=Incident.Kind.ALERTS, key=name, detail=detail)
            Incident.objects.bulk_create([incident], ignore_conflicts=True)


def _channel_incidents() -> QuerySet[Incident]:
    return Incident.objects.filter(kind=Incident.Kind.ALERTS, resolved_at=None)
