"""The devices that play speech to patients."""

import hashlib
import hmac
import secrets
import uuid
from datetime import timedelta

from django.db import models, transaction
from django.db.models import F, Q
from django.db.models.functions import Now
from django.utils import timezone

from voicecare.patients.models.patient import Patient

TOKEN_PREFIX_LENGTH = 8
CONSOLE_TIME = timedelta(minutes=3)  # browsers run the timers of a hidden page once a minute
REFUSAL_INTERVAL = timedelta(minutes=1)


class DeviceQuerySet(models.QuerySet["Device"]):
    def bedside(self) -> "DeviceQuerySet":
        """The devices of the patients themselves, without the browsers of the device console."""
        return self.filter(console_until=None)

    def consoles(self) -> "DeviceQuerySet":
        """The browsers in which somebody has opened the device console."""
        return self.filter(console_until__isnull=False)

    def unexpired(self) -> "DeviceQuerySet":
        """The devices without the consoles whose time is over."""
        return self.exclude(console_until__lte=Now())

    def connectable(self) -> "DeviceQuerySet":
        """The devices that may be connected now."""
        return self.unexpired().filter(
            revoked_at=None, patient__archived_at=None, patient__erases_at=None, patient__erased_at=None
        )

    def issue_console(
        self, patient: Patient, name: str, *, takes_messages: bool, **fields: object
    ) -> tuple["Device", str]:
        """Like `issue`, for the device console. The token is valid for CONSOLE_TIME; `keep_console` extends it."""
        return self.issue(patient, name, console_until=Now() + CONSOLE_TIME, takes_messages=takes_messages, **fields)

    def keep_console(self) -> bool:
        """Lets these consoles connect for CONSOLE_TIME from now. Returns False if their time is over, or was ended."""
        return bool(self.connectable().consoles().update(console_until=Now() + CONSOLE_TIME))

    @transaction.atomic
    def issue(self, patient: Patient, name: str, **fields: object) -> tuple["Device", str]:
        """Creates a device. Returns the device and its token. `fields` are further fields of the device.

        The token cannot be read again, because the row has only a digest. Raises Patient.DoesNotExist if the patient is
        to be erased. The patient is locked, so an erasure that begins meanwhile revokes the new device, too.
        """
        Patient.objects.remaining().select_for_update(no_key=True).get(pk=patient.pk)
        device = Device(patient=patient, name=name, **fields)
        token = device.renew_token()
        device.save(force_insert=True)
        return device, token


class Device(models.Model):
    """A device at the patient's bedside, or a browser with the device console.

    `console_until` is set for a console. Its token is valid until then. Lists, states and figures of a patient's
    devices leave consoles out (`DeviceQuerySet.bedside`). What was said in a console is never delivered to another
    device. A console plays messages to the patient only if `takes_messages` is set.

    `epoch` is the number of its latest connection, and only this one may speak.
    """

    class Refusal(models.TextChoices):
        """Why a device whose token is known may not connect (docs/protocol.md, "Refusal")."""

        REVOKED_DEVICE = "revoked_device", "The device is revoked"
        INACTIVE_PATIENT = "inactive_patient", "The patient is archived or erased"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    patient = models.ForeignKey(Patient, on_delete=models.PROTECT, related_name="devices")
    name = models.CharField(max_length=100)
    token_prefix = models.CharField(max_length=TOKEN_PREFIX_LENGTH, unique=True, editable=False)
    token_digest = models.CharField(max_length=64, editable=False)
    revoked_at = models.DateTimeField(null=True, blank=True)
    epoch = models.PositiveBigIntegerField(default=0, editable=False)
    format = models.CharField(max_length=20, blank=True, editable=False, help_text="Format of the last connection.")
    buffer_ms = models.PositiveIntegerField(
        "buffer (ms)", null=True, editable=False, help_text="Audio that the device can hold, if it has said so."
    )
    last_seen = models.DateTimeField(null=True, blank=True, editable=False, help_text="Time of the last connection.")
    online_until = models.DateTimeField(
        null=True,
        blank=True,
        editable=False,
        help_text="The device counts as disconnected after this time. Its server keeps extending it.",
    )
    offline_reported_for = models.DateTimeField(
        null=True, editable=False, help_text="The end of `online_until` that integrators were informed about."
    )
    console_until = models.DateTimeField(null=True, editable=False)
    takes_messages = models.BooleanField(
        default=True,
        db_default=True,
        editable=False,
        help_text="Whether messages to the patient may be delivered to this device.",
    )
    refused_at = models.DateTimeField(null=True, blank=True, editable=False, help_text="Time of the last refusal.")
    refusal = models.CharField(
        max_length=20,
        blank=True,
        default="",
        db_default="",
        choices=Refusal,
        editable=False,
        help_text="Why its last attempt to connect was refused.",
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = DeviceQuerySet.as_manager()

    class Meta:
        ordering = ("patient", "name")

    def __str__(self) -> str:
        return self.name

    @property
    def can_connect(self) -> bool:
        return self.revoked_at is None and self.patient.is_active

    def renew_token(self) -> str:
        """Sets a new token on this object, without saving it, and returns the token.

        The digest in the row is plain SHA-256, which is enough for 32 random bytes. A digest keyed with SECRET_KEY
        would become invalid when the key is changed, and every device would need a new token.
        """
        self.token_prefix = secrets.token_hex(TOKEN_PREFIX_LENGTH // 2)
        token = f"{self.token_prefix}.{secrets.token_urlsafe(32)}"
        self.token_digest = _digest(token)
        return token

    def token_matches(self, token: str) -> bool:
        return hmac.compare_digest(self.token_digest, _digest(token))

    def register_connection(self) -> int:
        """Registers a new connection of this device and returns its epoch.

        The epoch increases by one with each connection. All connections with a lower epoch are closed.
        """
        with transaction.atomic():  # keeps the row locked until it is read: two connections never get the same epoch
            Device.objects.filter(pk=self.pk).update(epoch=F("epoch") + 1, last_seen=Now())
            self.refresh_from_db(fields=["epoch", "last_seen"])
        return self.epoch

    def record_refusal(self, refusal: str) -> None:
        """Records that an attempt to connect was refused, at most once in REFUSAL_INTERVAL.

        A device may try again many times in a second. `refusal` is a value of `Device.Refusal`.
        """
        is_due = Q(refused_at=None) | Q(refused_at__lte=Now() - REFUSAL_INTERVAL) | ~Q(refusal=refusal)
        Device.objects.filter(is_due, pk=self.pk).update(refused_at=Now(), refusal=refusal)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()
