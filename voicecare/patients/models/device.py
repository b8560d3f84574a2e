"""The devices that play speech to patients."""

import hashlib
import hmac
import secrets
import uuid

from django.db import models, transaction
from django.db.models import F
from django.db.models.functions import Now
from django.utils import timezone

from voicecare.patients.models.patient import Patient

TOKEN_PREFIX_LENGTH = 8


class DeviceQuerySet(models.QuerySet["Device"]):
    @transaction.atomic
    def issue(self, patient: Patient, name: str) -> tuple["Device", str]:
        """Creates a device. Returns the device and its token.

        The token cannot be read again, because the row has only a digest. Raises Patient.DoesNotExist if the patient is
        to be erased. The patient is locked, so an erasure that begins meanwhile revokes the new device, too.
        """
        Patient.objects.remaining().select_for_update(no_key=True).get(pk=patient.pk)
        device = Device(patient=patient, name=name)
        token = device.renew_token()
        device.save(force_insert=True)
        return device, token


class Device(models.Model):
    """A device at the patient's bedside.

    `epoch` is the number of its latest connection, and only this one may speak.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    patient = models.ForeignKey(Patient, on_delete=models.PROTECT, related_name="devices")
    name = models.CharField(max_length=100)
    token_prefix = models.CharField(max_length=TOKEN_PREFIX_LENGTH, unique=True, editable=False)
    token_digest = models.CharField(max_length=64, editable=False)
    revoked_at = models.DateTimeField(null=True, blank=True)
    epoch = models.PositiveBigIntegerField(default=0, editable=False)
    format = models.CharField(max_length=20, blank=True, editable=False, help_text="Format of the last connection.")
    last_seen = models.DateTimeField(null=True, blank=True, editable=False, help_text="Time of the last connection.")
    online_until = models.DateTimeField(
        null=True,
        blank=True,
        editable=False,
        help_text="The device counts as disconnected after this time. Its server keeps extending it.",
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


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()
