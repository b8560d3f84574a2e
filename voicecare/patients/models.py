"""Patients, the devices that play speech to them, and the voices that speak."""

import hashlib
import hmac
import secrets
import uuid
from decimal import Decimal

from django.conf import settings
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import AnonymousUser
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models, transaction
from django.db.models import F, Q
from django.utils import timezone

TOKEN_PREFIX_LENGTH = 8


class VoiceQuerySet(models.QuerySet["Voice"]):
    def default(self) -> "Voice":
        """The voice of DEFAULT_VOICE_ID. Creates its row if the provider's voices have not been read yet."""
        voice, _ = self.get_or_create(
            provider_id=settings.DEFAULT_VOICE_ID, defaults={"name": "Default", "source": Voice.Source.STOCK}
        )
        return voice


class Voice(models.Model):
    """A voice at the provider.

    `revision` increases when the voice behind the same id changes. Audio cached with an older revision is not played.
    """

    class Source(models.TextChoices):
        STOCK = "stock"
        CLONED = "cloned"

    class State(models.TextChoices):
        USABLE = "usable"
        GONE = "gone"
        WITHDRAWN = "withdrawn"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    provider_id = models.CharField(max_length=64, unique=True)
    name = models.CharField(max_length=100)
    source = models.CharField(max_length=8, choices=Source, default=Source.STOCK)
    patient = models.ForeignKey(
        "patients.Patient",
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="own_voices",
        help_text="The patient that this voice was cloned for. Empty for a stock voice.",
    )
    revision = models.PositiveIntegerField(
        default=1,
        help_text="Increases when the voice behind the provider id changes. Audio of older revisions is not played.",
    )
    state = models.CharField(max_length=10, choices=State, default=State.USABLE)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = VoiceQuerySet.as_manager()

    class Meta:
        ordering = ("name",)
        constraints = [
            models.CheckConstraint(condition=Q(source__in=["stock", "cloned"]), name="voice_source"),
            models.CheckConstraint(condition=Q(state__in=["usable", "gone", "withdrawn"]), name="voice_state"),
            models.CheckConstraint(
                condition=Q(source="cloned") | Q(patient__isnull=True), name="voice_stock_belongs_to_nobody"
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def is_usable(self) -> bool:
        return self.state == self.State.USABLE


class PatientQuerySet(models.QuerySet["Patient"]):
    def visible_to(self, user: AbstractBaseUser | AnonymousUser) -> "PatientQuerySet":
        """Staff users see all patients, others see those of their care teams. Erased patients are always hidden."""
        if not user.is_authenticated:
            return self.none()
        existing = self.filter(erased_at=None)
        return existing if getattr(user, "is_staff", False) else existing.filter(team=user.pk)


class Patient(models.Model):
    """A person with an AI companion. `voice` alone decides which voice speaks to them; null is the default voice."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=100)
    preferred_name = models.CharField(max_length=100, blank=True, help_text="How the companion addresses them.")
    companion_name = models.CharField(max_length=100, help_text="The name of the AI companion.")
    language = models.CharField(max_length=10, default="en", help_text="ISO 639-1 code, for example en or de.")
    speech_rate = models.DecimalField(
        max_digits=3,
        decimal_places=2,
        default=Decimal("1.00"),
        validators=[MinValueValidator(Decimal("0.70")), MaxValueValidator(Decimal("1.20"))],
        help_text="From 0.70 (slow) to 1.20 (fast). 1.00 is the normal speed.",
    )
    voice = models.ForeignKey(
        Voice,
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="spoken_to",
        help_text="Empty: the default voice.",
    )
    monthly_character_budget = models.PositiveIntegerField(null=True, blank=True, help_text="Empty: no limit.")
    archived_at = models.DateTimeField(null=True, blank=True)
    erased_at = models.DateTimeField(null=True, blank=True, editable=False)
    team = models.ManyToManyField(settings.AUTH_USER_MODEL, blank=True, related_name="patients")
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = PatientQuerySet.as_manager()

    class Meta:
        ordering = ("name",)
        constraints = [
            models.CheckConstraint(
                condition=Q(speech_rate__gte=Decimal("0.70")) & Q(speech_rate__lte=Decimal("1.20")),
                name="patient_speech_rate",
            )
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def form_of_address(self) -> str:
        return self.preferred_name or self.name

    @property
    def is_active(self) -> bool:
        return self.archived_at is None and self.erased_at is None


class DeviceQuerySet(models.QuerySet["Device"]):
    def issue(self, patient: Patient, name: str) -> tuple["Device", str]:
        """Create a device. Returns it with its token, which cannot be read again: the row stores a digest."""
        device = Device(patient=patient, name=name)
        token = device.renew_token()
        device.save(force_insert=True)
        return device, token


class Device(models.Model):
    """A device at the patient's bedside. `epoch` counts its connections: only the latest one may speak."""

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
        """Set a new token on this object without saving it. Returns the token.

        Plain SHA-256 is enough for 32 random bytes. A digest keyed with SECRET_KEY would become invalid when the key is
        rotated, and every device in the house would need a new token.
        """
        self.token_prefix = secrets.token_hex(TOKEN_PREFIX_LENGTH // 2)
        token = f"{self.token_prefix}.{secrets.token_urlsafe(32)}"
        self.token_digest = _digest(token)
        return token

    def token_matches(self, token: str) -> bool:
        return hmac.compare_digest(self.token_digest, _digest(token))

    def register_connection(self) -> int:
        """Count a new connection and return its epoch. It replaces all older connections of this device."""
        with transaction.atomic():  # keeps the row locked until it is read: two connections never get the same epoch
            Device.objects.filter(pk=self.pk).update(epoch=F("epoch") + 1, last_seen=timezone.now())
            self.refresh_from_db(fields=["epoch", "last_seen"])
        return self.epoch


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()
