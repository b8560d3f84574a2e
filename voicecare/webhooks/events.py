"""Writes events for integrators, in the transaction of the change that they are about.

An event gets a delivery for each endpoint that wants it, so nothing is written while nobody wants it, and nothing is
lost while the broker or the worker is down.
"""

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import structlog
from django.conf import settings
from django.db import transaction
from django.db.models.functions import Now

from voicecare.core import task_names, task_queue
from voicecare.patients.models import Patient
from voicecare.webhooks.models import EventType, WebhookDelivery, WebhookEndpoint, WebhookEvent

_BATCH_SIZE = 1000  # rows per statement

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Subject:
    """What an event is about. `data` is sent, with `patient` and `external_id` added if there is a patient."""

    object_id: uuid.UUID
    patient_id: uuid.UUID | None
    data: dict[str, Any]


def emit(event_type: EventType, subjects: Iterable[Subject], *, once: bool = False) -> None:
    """Write an event for each of the subjects, and its deliveries. Call it in the transaction of the change.

    One query if no endpoint wants events of this type; then `subjects` is not iterated. With `once`, an object has one
    event of this type, however often this is called. There are no events about patients who are to be erased. `data`
    must not contain a name or a text.
    """
    endpoints = [row for row in WebhookEndpoint.objects.filter(enabled=True) if row.wants(event_type)]
    found = list(subjects) if endpoints else []
    if not found:
        return
    patients = Patient.objects.remaining().in_bulk({subject.patient_id for subject in found} - {None})
    events, deliveries = [], []
    for subject in found:
        patient = patients.get(subject.patient_id) if subject.patient_id else None
        if subject.patient_id is not None and patient is None:
            continue
        wanted = [row for row in endpoints if patient is None or row.clinic_id in (None, patient.clinic_id)]
        if not wanted:
            continue
        about = {"patient": patient and patient.pk, "external_id": patient and patient.external_id}
        event = WebhookEvent(
            type=event_type, object_id=subject.object_id, patient=patient, data={**subject.data, **about}
        )
        if once:
            event.pk = uuid.uuid5(subject.object_id, event_type)
        events.append(event)
        deliveries += [WebhookDelivery(endpoint=row, event=event, object_id=subject.object_id) for row in wanted]
    with transaction.atomic():
        WebhookEvent.objects.bulk_create(events, _BATCH_SIZE, ignore_conflicts=once)
        WebhookDelivery.objects.bulk_create(deliveries, _BATCH_SIZE, ignore_conflicts=once)
    task_queue.enqueue_on_commit(task_names.DELIVER_WEBHOOKS)


@transaction.atomic
def emit_test(endpoint: WebhookEndpoint) -> WebhookDelivery:
    """Write a test event for this endpoint. It is sent once and not repeated."""
    event = WebhookEvent.objects.create(type=EventType.TEST, object_id=endpoint.pk)
    delivery = WebhookDelivery.objects.create(endpoint=endpoint, event=event, object_id=event.pk, last_attempt=1)
    task_queue.enqueue_on_commit(task_names.DELIVER_WEBHOOKS)
    return delivery


def forget_patient(patient_id: uuid.UUID) -> None:
    """Delete the events about a patient, and their deliveries. They have the patient's external id."""
    WebhookEvent.objects.filter(patient=patient_id).delete()


def prune() -> int:
    """Delete the events that are older than WEBHOOK_RETENTION_DAYS, and their deliveries. Return how many."""
    old = WebhookEvent.objects.filter(occurred_at__lte=Now() - timedelta(days=settings.WEBHOOK_RETENTION_DAYS))
    deleted = 0
    while keys := list(old.order_by("occurred_at").values_list("pk", flat=True)[:_BATCH_SIZE]):
        WebhookEvent.objects.filter(pk__in=keys).delete()
        deleted += len(keys)
    if deleted:
        log.info("webhooks.pruned", count=deleted)
    return deleted
