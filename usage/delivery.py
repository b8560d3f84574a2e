"""Telling administrators of an incident: by mail and by webhook, once for each of its states, in order.

The process that opens or resolves it tells at once, in a thread of its own, so neither a worker nor a broker is
needed; what failed, beat repeats. One process sends at a time: it holds the lease `sending_until`, which after a
failure is also the time before which nobody tries again. A process that dies between sending and writing it down
lets the message go out twice; nothing else does.
"""

import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from threading import Thread

import requests
import structlog
from django.conf import settings
from django.core.mail import send_mail
from django.db import connection, transaction
from django.db.models import F, Q
from django.db.models.functions import Now
from django.urls import reverse

from usage import alert_texts
from usage.models import Incident
from voicecare import metrics

CONNECT_S, READ_S = 3.0, 5.0
LEASE = timedelta(seconds=60)  # a mail takes several answers of at most READ_S each
PAUSES_S = (10, 20, 40, 80, 160, 300)  # after a failure; the last one repeats
NEWS_FOR = timedelta(days=1)  # later it is no news: also for who sets up a first webhook after months

Way = Callable[[Incident, str], None]

log = structlog.get_logger(__name__)


def soon(incident: uuid.UUID) -> None:
    """Has it told once the transaction is committed; returns at once. Of nothing new, nothing is told."""
    if _ways():
        thread = Thread(target=_in_thread, args=[incident], daemon=True)
        transaction.on_commit(thread.start, robust=True)


def deliver_due() -> None:
    """Tells whatever is still to be told and may be tried now."""
    due = Incident.objects.filter(_untold(), _free()).order_by("opened_at")
    for incident in due.values_list("pk", flat=True):
        deliver(incident)


def deliver(incident: uuid.UUID) -> None:
    """Tells its states that are untold, one after the other, as far as that succeeds; idempotent.

    With no way set up it stays untold.
    """
    while _ways() and (claimed := _claim(incident)) is not None and _tell(claimed):
        pass


def _in_thread(incident: uuid.UUID) -> None:
    try:
        deliver(incident)
    except Exception as error:  # beat tries again
        log.warning("alert.failed", incident=str(incident), error=type(error).__name__)
    finally:
        connection.close()


def _untold() -> Q:
    opening = Q(opening_sent_at=None, opened_at__gt=Now() - NEWS_FOR)
    return opening | Q(resolution_sent_at=None, resolved_at__gt=Now() - NEWS_FOR)


def _free() -> Q:
    return Q(sending_until=None) | Q(sending_until__lte=Now())


def _claim(pk: uuid.UUID) -> Incident | None:
    if Incident.objects.filter(_untold(), _free(), pk=pk).update(sending_until=Now() + LEASE):
        return Incident.objects.get(pk=pk)
    return None


def _tell(incident: Incident) -> bool:
    """Tells the first state that is untold, by those ways that have not told it yet; true if all have now."""
    opening = Incident.objects.filter(_untold(), pk=incident.pk, opening_sent_at=None, opened_at__gt=Now() - NEWS_FOR)
    state = "opened" if opening.exists() else "resolved"
    told = set(incident.sending_told.split())
    ways = {name: way for name, way in _ways().items() if name not in told}
    with ThreadPoolExecutor(max(len(ways), 1)) as pool:  # one that hangs does not hold up the other
        outcomes = pool.map(lambda name: _went(name, ways[name], incident, state), ways)
        told |= {name for name, went in zip(ways, outcomes, strict=True) if went}
    all_told = told.issuperset(_ways())
    _write_down(incident, state, told, all_told=all_told)
    return all_told


def _went(name: str, way: Way, incident: Incident, state: str) -> bool:
    try:
        way(incident, state)
    except Exception as error:  # a mail server's or a webhook's fault, whatever it is, must not end the others
        metrics.ALERTS_FAILED.labels(name).inc()
        log.warning("alert.not_sent", way=name, incident=str(incident.pk), state=state, error=type(error).__name__)
        return False
    log.info("alert.sent", way=name, incident=str(incident.pk), state=state)
    return True


def _write_down(incident: Incident, state: str, told: set[str], *, all_told: bool) -> None:
    mine = Incident.objects.filter(pk=incident.pk, sending_until=incident.sending_until)
    if not all_told:
        pause = PAUSES_S[min(incident.sending_failures, len(PAUSES_S) - 1)]
        mine.update(
            sending_told=" ".join(sorted(told)),
            sending_failures=F("sending_failures") + 1,
            sending_until=Now() + timedelta(seconds=pause),
        )
        return
    sent_at = "opening_sent_at" if state == "opened" else "resolution_sent_at"
    mine.update(**{sent_at: Now()}, sending_told="", sending_failures=0, sending_until=None)


def _ways() -> dict[str, Way]:
    """Those that are set up, by the names under which `sending_told` keeps them."""
    ways: dict[str, Way] = {}
    if settings.ADMIN_EMAILS:
        ways["mail"] = _mail
    if settings.ALERT_WEBHOOK_URL:
        ways["webhook"] = _webhook
    return ways


def _mail(incident: Incident, state: str) -> None:
    body = f"{alert_texts.text(incident, state)}\n\n{_url(incident)}\n"
    send_mail(alert_texts.subject(incident, state), body, None, settings.ADMIN_EMAILS)


def _webhook(incident: Incident, state: str) -> None:
    """Without redirects or the environment's proxies: the message goes where the administrators said, or nowhere."""
    said = {"kind": incident.kind, "state": state, "text": alert_texts.text(incident, state), "url": _url(incident)}
    with requests.Session() as session:
        session.trust_env = False
        post = partial(session.post, json=said, timeout=(CONNECT_S, READ_S), allow_redirects=False, stream=True)
        with post(settings.ALERT_WEBHOOK_URL) as reply:
            if not 200 <= reply.status_code < 300:
                raise requests.HTTPError(f"HTTP {reply.status_code}")


def _url(incident: Incident) -> str:
    return settings.PUBLIC_URL.rstrip("/") + reverse("admin:usage_incident_change", args=[incident.pk])
