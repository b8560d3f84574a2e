"""Endpoints of integrators, the events for them, and the log of their deliveries.

No row has a patient's name or a text. An event has ids, the external id of the patient, states and times.
"""

import base64
import secrets
import uuid
from datetime import timedelta
from typing import Any

from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import AnonymousUser
from django.core.serializers.json import DjangoJSONEncoder
from django.db import models
from django.db.models import Q
from django.utils import timezone

from voicecare.patients import care_teams
from voicecare.patients.models import Clinic, Patient
from voicecare.patients.models.patient import sees_all_patients
from voicecare.webhooks.addresses import validate_url

MAX_ATTEMPTS = 13  # over about a day (`delivery.retry_delay`)
SECRET_OVERLAP = timedelta(days=1)  # after a renewal, messages are signed with the previous secret, too


class EventType(models.TextChoices):
    UTTERANCE_HEARD = "utterance.heard", "Utterance heard"
    UTTERANCE_EXPIRED = "utterance.expired", "Utterance expired"
    UTTERANCE_FAILED = "utterance.failed", "Utterance failed"
    CLONE_READY = "clone.ready", "Clone ready"
    CLONE_FAILED = "clone.failed", "Clone failed"
    VOICE_GONE = "voice.gone", "Voice gone"
    DEVICE_OFFLINE = "device.offline", "Device offline"
    TEST = "webhook.test", "Test"


SUBSCRIBABLE = tuple(kind for kind in EventType if kind != EventType.TEST)


class EndpointQuerySet(models.QuerySet["WebhookEndpoint"]):
    def visible_to(self, user: AbstractBaseUser | AnonymousUser) -> "EndpointQuerySet":
        """All endpoints for a user who sees all patients, else those of the clinics that the user is a member of."""
        if sees_all_patients(user):
            return self
        return self.filter(clinic__in=care_teams.visible_clinics(user))


class WebhookEndpoint(models.Model):
    """An address of an integrator that gets events.

    With a clinic, it gets the events about the patients of this clinic, otherwise those about all patients. `secret`
    and `previous_secret` sign the messages, so they are kept as they are. No page shows them again.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    url = models.CharField("URL", max_length=500, validators=[validate_url])
    description = models.CharField(max_length=100, blank=True, help_text="For example the system that gets the events.")
    events = models.JSONField(default=list, blank=True, help_text="Types of events. None chosen: all types.")
    clinic = models.ForeignKey(
        Clinic,
        null=True,
        blank=True,
        on_delete=models.CASCADE,
        related_name="+",
        help_text="Only events about the patients of this clinic. Empty: about all patients.",
    )
    enabled = models.BooleanField(default=True, help_text="A disabled endpoint gets no new events.")
    secret = models.CharField(max_length=80, editable=False)
    previous_secret = models.CharField(max_length=80, blank=True, editable=False)
    previous_secret_until = models.DateTimeField(
        null=True, editable=False, help_text="Until then, messages are signed with the previous secret, too."
    )
    failures = models.PositiveIntegerField(default=0, editable=False, help_text="Consecutive failed attempts.")
    failing_since = models.DateTimeField(null=True, editable=False)
    sending_until = models.DateTimeField(
        null=True, editable=False, help_text="A worker sends to it until then, or nobody, because it did not answer."
    )
    disabled_at = models.DateTimeField(
        null=True, editable=False, help_text="When the server disabled it, because all attempts had failed."
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = EndpointQuerySet.as_manager()

    class Meta:
        ordering = ("created_at",)

    def __str__(self) -> str:
        return self.description or str(self.pk)

    def new_secret(self) -> str:
        """Set a new secret on this object, without saving it, and return the secret."""
        self.secret = f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"
        return self.secret

    def renew_secret(self) -> str:
        """Save a new secret and return it. The previous one is used for SECRET_OVERLAP, too."""
        self.previous_secret, self.previous_secret_until = self.secret, timezone.now() + SECRET_OVERLAP
        secret = self.new_secret()
        self.save(update_fields=["secret", "previous_secret", "previous_secret_until"])
        return secret

    @property
    def valid_secrets(self) -> list[str]:
        """The secrets that sign a message now, the newest first."""
        until = self.previous_secret_until
        is_overlap = until is not None and until > timezone.now()
        return [self.secret, self.previous_secret] if is_overlap else [self.secret]

    def wants(self, event_type: str) -> bool:
        return not self.events or event_type in self.events


class WebhookEvent(models.Model):
    """Something that has happened. `object_id` is the utterance, clone, voice or device. `data` is sent as it is."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    type = models.CharField(max_length=20, choices=EventType)
    object_id = models.UUIDField()
    patient = models.ForeignKey(
        Patient, null=True, on_delete=models.CASCADE, related_name="+", help_text="Empty for a stock voice."
    )
    occurred_at = models.DateTimeField(default=timezone.now)
    data = models.JSONField(default=dict, encoder=DjangoJSONEncoder)

    class Meta:
        default_permissions = ()
        indexes = [models.Index(fields=["occurred_at"], name="webhook_event_time")]

    def __str__(self) -> str:
        return f"{self.type} {self.object_id}"

    @property
    def payload(self) -> dict[str, Any]:
        return {"id": str(self.pk), "type": self.type, "timestamp": self.occurred_at, "data": self.data}


class WebhookDelivery(models.Model):
    """One event for one endpoint. The pending rows are the queue.

    `attempts` counts the attempts and is the fencing token: a worker may write the outcome of its attempt only while
    `attempts` has the value that the worker has set. The lease of a worker that has died expires.
    """

    class Status(models.TextChoices):
        PENDING = "pending"
        DELIVERED = "delivered"
        FAILED = "failed", "Given up"
        CANCELLED = "cancelled"

    id = models.BigAutoField(primary_key=True)
    endpoint = models.ForeignKey(WebhookEndpoint, on_delete=models.CASCADE, related_name="deliveries")
    event = models.ForeignKey(WebhookEvent, on_delete=models.CASCADE, related_name="deliveries")
    object_id = models.UUIDField(help_text="That of the event. Events about one object are sent in their order.")
    status = models.CharField(max_length=9, choices=Status, default=Status.PENDING)
    attempts = models.PositiveIntegerField(default=0, help_text="How many attempts have started.")
    last_attempt = models.PositiveIntegerField(default=MAX_ATTEMPTS, help_text="After this attempt it is given up.")
    next_attempt_at = models.DateTimeField(default=timezone.now)
    lease_until = models.DateTimeField(null=True, help_text="A worker owns this row until then.")
    created_at = models.DateTimeField(default=timezone.now)
    ended_at = models.DateTimeField(null=True)

    class Meta:
        default_permissions = ("view",)
        verbose_name_plural = "webhook deliveries"
        ordering = ("-created_at", "-pk")
        indexes = [
            models.Index(fields=["next_attempt_at"], condition=Q(status="pending"), name="webhook_due"),
            models.Index(
                fields=["endpoint", "object_id", "id"], condition=Q(status="pending"), name="webhook_in_order"
            ),
            models.Index(fields=["endpoint", "created_at"], name="webhook_of_endpoint"),
            models.Index(fields=["created_at"], name="webhook_created"),
        ]
        constraints = [
            models.UniqueConstraint(fields=["endpoint", "event"], name="webhook_once"),
            models.CheckConstraint(
                condition=Q(status__in=["pending", "delivered", "failed", "cancelled"]), name="webhook_status"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.status} {self.created_at:%Y-%m-%d %H:%M:%S}"


class WebhookAttempt(models.Model):
    """One attempt of a delivery. Without a duration it is in progress, or its worker has died."""

    class Problem(models.TextChoices):
        REFUSED = "refused", "The response is not 2xx"
        REDIRECT = "redirect", "The response is a redirect, which is not followed"
        TIMEOUT = "timeout", "No response in time"
        UNREACHABLE = "unreachable", "The host could not be reached"
        CERTIFICATE = "certificate", "The certificate is not trusted, has expired, or is for another name"
        PRIVATE_ADDRESS = "private_address", "The host has a private address"

    id = models.BigAutoField(primary_key=True)
    delivery = models.ForeignKey(WebhookDelivery, on_delete=models.CASCADE, related_name="log")
    number = models.PositiveIntegerField()
    started_at = models.DateTimeField(default=timezone.now)
    duration_ms = models.PositiveIntegerField(null=True)
    status_code = models.PositiveSmallIntegerField(null=True)
    problem = models.CharField(max_length=16, choices=Problem, blank=True)
    excerpt = models.CharField(max_length=200, blank=True, help_text="The beginning of a response that is not 2xx.")

    class Meta:
        default_permissions = ()
        ordering = ("delivery", "number")
        constraints = [models.UniqueConstraint(fields=["delivery", "number"], name="webhook_attempt_once")]

    def __str__(self) -> str:
        return f"attempt {self.number}"
