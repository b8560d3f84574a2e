"""Telling administrators of an incident: by mail and by webhook, once for each of its states, in order.

The process that opens or resolves it tells at once, in a thread of its own, so neither a worker nor a broker is
needed; what failed, beat repeats, or a web process while beat is missing. One process sends at a time: it holds the
lease `sending_until`, which after a failure is also the time before which nobody tries again. A process that dies
between sending and writing it down lets the message go out twice; nothing else does.
"""

import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Thread

import structlog
from django.db import connection, transaction
from django.db.models import F, Q, QuerySet
from django.db.models.functions import Now

from usage.alerts import channels
from usage.models import Incident
from voicecare.core import metrics

LEASE = timedelta(seconds=60)  # a mail takes several answers of at most EMAIL_TIMEOUT each
RETRY_DELAYS_S = (10, 20, 40, 80, 160, 300)  # after a failure; the last one repeats
ALERT_MAX_AGE = timedelta(days=1)  # later it is no news: also for who sets up a first webhook after months
FAILURES_BEFORE_INCIDENT = 3  # failures of one way in a row, with one message: about half a minute

log = structlog.get_logger(__name__)


def notify_async(*incident_ids: uuid.UUID) -> None:
    """Has them told once the transaction is committed; returns at once. Of nothing new, nothing is told.

    One after the other, in one thread: at the turn of a month the budgets of a hundred patients are over at once, and
    as many connections to the database would be none for those who speak.
    """
    if incident_ids and channels.configured_channels():
        thread = Thread(target=_in_thread, args=[deliver, *incident_ids], name="alerts", daemon=True)
        transaction.on_commit(thread.start, robust=True)


def retry_in_thread() -> None:
    """For where beat or the worker, who repeat what failed, are missing: does so in a thread; returns at once."""
    if _pending().exists():
        Thread(target=_in_thread, args=[retry_pending], daemon=True).start()


def retry_pending() -> None:
    """Tells whatever is still to be told and may be tried now."""
    deliver(*_pending().values_list("pk", flat=True))
    # A channel that was removed from the settings no longer fails.
    _channel_incidents().exclude(key__in=list(channels.configured_channels())).update(resolved_at=Now())


def deliver(*incident_ids: uuid.UUID) -> None:
    """Tells its states that are untold, one after the other, as far as that succeeds; idempotent.

    With no way to tell it, it stays untold.
    """
    for incident_id in incident_ids:
        while (claimed := _claim(incident_id)) is not None and _send(claimed):
            pass


def _in_thread(work: Callable[..., None], *arguments: uuid.UUID) -> None:
    try:
        work(*arguments)
    except Exception as error:  # beat tries again
        log.warning("alert.failed", error=type(error).__name__)
    finally:
        connection.close()


def _pending() -> QuerySet[Incident]:
    return Incident.objects.filter(_unsent(), _unleased()).order_by("opened_at")


def _unsent() -> Q:
    opening = Q(opening_sent_at=None, opened_at__gt=Now() - ALERT_MAX_AGE)
    return opening | Q(resolution_sent_at=None, resolved_at__gt=Now() - ALERT_MAX_AGE)


def _unleased() -> Q:
    return Q(sending_until=None) | Q(sending_until__lte=Now())


def _claim(incident_id: uuid.UUID) -> Incident | None:
    incident = Incident.objects.filter(pk=incident_id).first()
    if incident is None or not channels.channels_for(incident):
        return None
    if Incident.objects.filter(_unsent(), _unleased(), pk=incident_id).update(sending_until=Now() + LEASE):
        return Incident.objects.get(pk=incident_id)
    return None


def _send(incident: Incident) -> bool:
    """Tells the first state that is untold, by those ways that have not told it yet; true if all have now."""
    opening = Incident.objects.filter(
        _unsent(), pk=incident.pk, opening_sent_at=None, opened_at__gt=Now() - ALERT_MAX_AGE
    )
    state = "opened" if opening.exists() else "resolved"
    notified = set(incident.notified_channels.split())
    wanted = channels.channels_for(incident)
    remaining = {name: channel for name, channel in wanted.items() if name not in notified}
    with ThreadPoolExecutor(max(len(remaining), 1)) as pool:  # one that hangs does not hold up the other
        outcomes = pool.map(lambda name: _try_channel(name, remaining[name], incident, state), remaining)
        errors = dict(zip(remaining, outcomes, strict=True))
    notified |= {name for name, error in errors.items() if error is None}
    complete = notified.issuperset(wanted)
    _save_outcome(incident, state, notified, complete=complete)
    _update_channel_health(errors, incident.sending_failures + 1)
    return complete


def _try_channel(name: str, channel: channels.Channel, incident: Incident, state: str) -> str | None:
    """What went wrong, in one word; None: it went."""
    try:
        channel(incident, state)
    except Exception as error:  # a mail server's or a webhook's fault, whatever it is, must not end the others
        metrics.ALERTS_FAILED.labels(name).inc()
        log.warning("alert.not_sent", channel=name, incident=str(incident.pk), state=state, error=type(error).__name__)
        return type(error).__name__
    log.info("alert.sent", channel=name, incident=str(incident.pk), state=state)
    return None


def _save_outcome(incident: Incident, state: str, notified: set[str], *, complete: bool) -> None:
    leased = Incident.objects.filter(pk=incident.pk, sending_until=incident.sending_until)
    if not complete:
        delay_s = RETRY_DELAYS_S[min(incident.sending_failures, len(RETRY_DELAYS_S) - 1)]
        leased.update(
            notified_channels=" ".join(sorted(notified)),
            sending_failures=F("sending_failures") + 1,
            sending_until=Now() + timedelta(seconds=delay_s),
        )
        return
    sent_at = "opening_sent_at" if state == "opened" else "resolution_sent_at"
    leased.update(**{sent_at: Now()}, notified_channels="", sending_failures=0, sending_until=None)


# Of the ways themselves. What is opened or resolved here beat tells: it is beat's repeats that get as far as this.


def _update_channel_health(errors: Mapping[str, str | None], failures: int) -> None:
    """A way that failed so often in a row with one message is an incident, until a message goes through."""
    for name, error in errors.items():
        if error is None:
            _channel_incidents().filter(key=name).update(resolved_at=Now())
        elif failures >= FAILURES_BEFORE_INCIDENT:
            detail = f"{name}: {failures} failures in a row, the last one {error}."
            incident = Incident(kind=Incident.Kind.ALERTS, key=name, detail=detail)
            Incident.objects.bulk_create([incident], ignore_conflicts=True)


def _channel_incidents() -> QuerySet[Incident]:
    return Incident.objects.filter(kind=Incident.Kind.ALERTS, resolved_at=None)
