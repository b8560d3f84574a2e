"""Sends the deliveries that are due, at least once each.

One worker at a time sends to an endpoint, so that an endpoint that hangs keeps one worker busy at most. Each claim of a
delivery is one conditional UPDATE, so of several workers one makes the attempt. A message is sent twice only if a
worker dies after sending it and before recording it, or if the receiver takes it but answers too late. Deliveries about
the same object go to an endpoint in order: the next one waits until the one before has ended.
"""

import asyncio
import json
import random
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import aiohttp
import structlog
from django.conf import settings
from django.core.serializers.json import DjangoJSONEncoder
from django.db import connection, transaction
from django.db.models import Exists, F, OuterRef, Q, QuerySet
from django.db.models.functions import Coalesce, Now
from standardwebhooks import Webhook

from usage.alerts import incidents
from usage.models import Incident
from voicecare.core import http_post, task_names, task_queue
from voicecare.core.batches import run_steps
from voicecare.core.http_post import PrivateAddress
from voicecare.webhooks.models import MAX_ATTEMPTS, WebhookAttempt, WebhookDelivery, WebhookEndpoint, WebhookEvent

FIRST_DELAY_S, DELAY_FACTOR, MAX_DELAY_S = 5.0, 3.0, 4 * 3600.0
JITTER = 0.2
LEASE = timedelta(seconds=60)  # a run takes RUN_S and http_post.TIMEOUT_S at most
PAUSE = timedelta(minutes=1)  # of an endpoint that has answered none of the attempts at the same time
RUN_S = 10.0  # no attempt starts later; the next run continues
BATCH_SIZE = 10  # attempts for one endpoint at the same time
MAX_ENDPOINTS = 8  # at the same time
FAILURES_BEFORE_DISABLING, FAILING_BEFORE_DISABLING = 20, timedelta(days=1)  # consecutive, and without any success

Problem, Status = WebhookAttempt.Problem, WebhookDelivery.Status

_IS_FREE = Q(sending_until=None) | Q(sending_until__lte=Now())

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Outcome:
    duration_ms: int
    status_code: int | None = None
    problem: str = ""
    excerpt: str = ""


def deliver() -> None:
    """Send what is due, for about RUN_S. Idempotent. Several processes may call this in parallel."""
    run_steps(_resolve_incidents, _send_due)


def send_again(delivery: WebhookDelivery) -> None:
    """Send this event once more, now, with all attempts. The receiver knows it by its id."""
    WebhookDelivery.objects.filter(pk=delivery.pk).update(
        status=Status.PENDING,
        last_attempt=F("attempts") + MAX_ATTEMPTS,
        next_attempt_at=Now(),
        lease_until=None,
        ended_at=None,
    )
    task_queue.enqueue_on_commit(task_names.DELIVER_WEBHOOKS)


def retry_delay(failures: int) -> timedelta:
    """How long a delivery waits after this number of failures, from 1. About a day for MAX_ATTEMPTS together."""
    delay_s = min(FIRST_DELAY_S * DELAY_FACTOR ** (failures - 1), MAX_DELAY_S)
    return timedelta(seconds=delay_s * random.uniform(1 - JITTER, 1 + JITTER))  # noqa: S311 - no secret


def _due() -> QuerySet[WebhookDelivery]:
    """The deliveries that may be sent now. Those about a patient who is to be erased wait for the end of that."""
    earlier = WebhookDelivery.objects.filter(
        status=Status.PENDING, endpoint=OuterRef("endpoint"), object_id=OuterRef("object_id"), pk__lt=OuterRef("pk")
    )
    is_leaving = Q(patient__erases_at__isnull=False) | Q(patient__erased_at__isnull=False)
    # No joins: with a join PostgreSQL does not check again a row that another worker has just claimed.
    return WebhookDelivery.objects.filter(
        Q(lease_until=None) | Q(lease_until__lte=Now()),
        Exists(WebhookEndpoint.objects.filter(pk=OuterRef("endpoint"), enabled=True)),
        ~Exists(earlier),
        ~Exists(WebhookEvent.objects.filter(is_leaving, pk=OuterRef("event"))),
        status=Status.PENDING,
        next_attempt_at__lte=Now(),
    )


def _send_due() -> None:
    deadline = time.monotonic() + RUN_S
    is_free = Exists(WebhookEndpoint.objects.filter(_IS_FREE, pk=OuterRef("endpoint")))
    endpoints = list(_due().filter(is_free).order_by().values_list("endpoint", flat=True).distinct())
    random.shuffle(endpoints)  # if many hang, each has its turn in one of the next runs
    if endpoints:
        with ThreadPoolExecutor(min(len(endpoints), MAX_ENDPOINTS), "webhooks") as pool:
            list(pool.map(lambda endpoint: _send_in_thread(endpoint, deadline), endpoints))


def _send_in_thread(endpoint_id: uuid.UUID, deadline: float) -> None:
    row = WebhookEndpoint.objects.filter(pk=endpoint_id)
    try:
        if not row.filter(_IS_FREE).update(sending_until=Now() + LEASE):
            return
        answers = True
        while answers and time.monotonic() < deadline and (claimed := _claim(endpoint_id)):
            outcomes = asyncio.run(_send_all(claimed))
            for delivery, outcome in zip(claimed, outcomes, strict=True):
                _record(delivery, outcome)
            answers = any(outcome.status_code is not None for outcome in outcomes)
        row.update(sending_until=None if answers else Now() + PAUSE)
    except Exception as error:  # the others go on, and beat tries again
        log.error("webhooks.thread_failed", endpoint=str(endpoint_id), error=type(error).__name__)
    finally:
        connection.close()


def _claim(endpoint_id: uuid.UUID) -> list[WebhookDelivery]:
    """Claim the next deliveries for this endpoint, and write a line of the log for each attempt."""
    due = _due().filter(endpoint=endpoint_id)
    keys = sorted(due.order_by("next_attempt_at", "pk").values_list("pk", flat=True)[:BATCH_SIZE])
    claim = {"lease_until": Now() + LEASE, "attempts": F("attempts") + 1}
    with transaction.atomic():
        won = [key for key in keys if due.filter(pk=key).update(**claim)]
        rows = WebhookDelivery.objects.select_related("endpoint", "event__patient").filter(pk__in=won).order_by("pk")
        claimed = [row for row in rows if _is_of_endpoint(row)]
        others = set(won) - {row.pk for row in claimed}
        if others:
            WebhookDelivery.objects.filter(pk__in=others).update(
                status=Status.CANCELLED, ended_at=Now(), lease_until=None
            )
        WebhookAttempt.objects.bulk_create([WebhookAttempt(delivery=row, number=row.attempts) for row in claimed])
    return claimed


def _is_of_endpoint(delivery: WebhookDelivery) -> bool:
    """Whether the endpoint may still have the event: the patient or the endpoint may have changed the clinic."""
    clinic, patient = delivery.endpoint.clinic_id, delivery.event.patient
    return clinic is None or patient is None or patient.clinic_id == clinic


def _owned(delivery: WebhookDelivery) -> QuerySet[WebhookDelivery]:
    """The row of the delivery, unless a later attempt has started."""
    return WebhookDelivery.objects.filter(pk=delivery.pk, status=Status.PENDING, attempts=delivery.attempts)


async def _send_all(deliveries: Sequence[WebhookDelivery]) -> list[_Outcome]:
    async with http_post.session(public_only=not settings.WEBHOOK_ALLOW_PRIVATE) as client:
        return await asyncio.gather(*(_send(client, delivery) for delivery in deliveries))


async def _send(client: aiohttp.ClientSession, delivery: WebhookDelivery) -> _Outcome:
    began = time.monotonic()

    def outcome(problem: str, status_code: int | None = None, excerpt: str = "") -> _Outcome:
        return _Outcome(round((time.monotonic() - began) * 1000), status_code, problem, excerpt)

    body = json.dumps(delivery.event.payload, cls=DjangoJSONEncoder)
    headers = signed_headers(delivery.endpoint, str(delivery.event_id), body, datetime.now(UTC))
    public_only = not settings.WEBHOOK_ALLOW_PRIVATE
    try:
        reply = await http_post.post(client, delivery.endpoint.url, body.encode(), headers, public_only=public_only)
    except PrivateAddress:
        return outcome(Problem.PRIVATE_ADDRESS)
    except TimeoutError:
        return outcome(Problem.TIMEOUT)
    except aiohttp.ClientConnectorCertificateError:
        return outcome(Problem.CERTIFICATE)
    except (OSError, aiohttp.ClientError, ValueError) as error:
        is_private = isinstance(getattr(error, "os_error", None), PrivateAddress)
        return outcome(Problem.PRIVATE_ADDRESS if is_private else Problem.UNREACHABLE)
    if reply.is_success:
        return outcome("", reply.status)
    problem = Problem.REDIRECT if 300 <= reply.status < 400 else Problem.REFUSED
    excerpt = "".join(c if c.isprintable() else " " for c in reply.excerpt)
    return outcome(problem, reply.status, " ".join(excerpt.split())[:200])


def signed_headers(endpoint: WebhookEndpoint, event_id: str, body: str, now: datetime) -> dict[str, str]:
    """Return the headers of a message, signed as Standard Webhooks says. Each attempt has its own time."""
    signatures = [Webhook(secret).sign(event_id, now, body) for secret in endpoint.valid_secrets]
    return {
        "Content-Type": "application/json",
        "webhook-id": event_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(signatures),
    }


@transaction.atomic
def _record(delivery: WebhookDelivery, outcome: _Outcome) -> None:
    """Write the outcome of an attempt. If a later attempt has started, only the log gets it."""
    WebhookAttempt.objects.filter(delivery=delivery, number=delivery.attempts).update(
        duration_ms=outcome.duration_ms,
        status_code=outcome.status_code,
        problem=outcome.problem,
        excerpt=outcome.excerpt,
    )
    facts = {"endpoint": str(delivery.endpoint_id), "event_id": str(delivery.event_id), "attempt": delivery.attempts}
    if not outcome.problem:
        log.info("webhook.delivered", **facts, ms=outcome.duration_ms)
        _owned(delivery).update(status=Status.DELIVERED, ended_at=Now(), lease_until=None)
        failing = WebhookEndpoint.objects.filter(pk=delivery.endpoint_id, failures__gt=0)
        failing.update(failures=0, failing_since=None)
        return
    log.warning("webhook.failed", **facts, problem=outcome.problem, status=outcome.status_code)
    if delivery.attempts >= delivery.last_attempt:
        _owned(delivery).update(status=Status.FAILED, ended_at=Now(), lease_until=None)
    else:
        failures = delivery.attempts - delivery.last_attempt + MAX_ATTEMPTS
        _owned(delivery).update(lease_until=None, next_attempt_at=Now() + retry_delay(failures))
    _count_failure(delivery.endpoint_id)


def _count_failure(endpoint_id: uuid.UUID) -> None:
    """Count a failed attempt of an endpoint. Disable the endpoint if it has failed often and for long."""
    row = WebhookEndpoint.objects.filter(pk=endpoint_id)
    row.update(failures=F("failures") + 1, failing_since=Coalesce("failing_since", Now()))
    failed = row.filter(
        enabled=True,
        failures__gte=FAILURES_BEFORE_DISABLING,
        failing_since__lte=Now() - FAILING_BEFORE_DISABLING,
    )
    if failed.update(enabled=False, disabled_at=Now(), failures=0, failing_since=None):
        log.error("webhook.disabled", endpoint=str(endpoint_id))
        detail = f"Endpoint {endpoint_id}: no message was delivered for a day. The endpoint is disabled."
        incidents.open_incident(incidents.Kind.WEBHOOK, str(endpoint_id), detail)


def _resolve_incidents() -> None:
    """Resolve the incidents about endpoints that are enabled again, or that do not exist any longer."""
    WebhookEndpoint.objects.filter(enabled=True, disabled_at__isnull=False).update(disabled_at=None)
    disabled = WebhookEndpoint.objects.filter(disabled_at__isnull=False).values_list("pk", flat=True)
    ended = Incident.objects.filter(kind=Incident.Kind.WEBHOOK, resolved_at=None)
    incidents.resolve(ended.exclude(key__in=[str(pk) for pk in disabled]))
