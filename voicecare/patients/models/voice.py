"""The voices at the provider."""

import uuid
from datetime import timedelta

from django.apps import apps
from django.db import models
from django.db.models import Q
from django.utils import timezone

from voicecare.core import languages

MOVE_BEFORE_END = timedelta(hours=1)  # before its end, a voice is replaced in all conversations
CLONED_CATEGORY = "cloned"  # the provider's category of instant clones


class VoiceQuerySet(models.QuerySet["Voice"]):
    def default(self, language: str = "") -> "Voice | None":
        """The voice for patients without a voice of their own who speak this language, and the backup voice of all.

        Never a voice that is known to be gone, nor a clone of a patient. None if the account has no usable voice.
        """
        # By its name, because its module imports this one.
        return apps.get_model("patients", "DefaultVoice").in_use(language)

    def default_candidates(self) -> "VoiceQuerySet":
        """The voices from which the server may choose the default voice: never a clone of any person."""
        return self.filter(source=Voice.Source.STOCK, state=Voice.State.USABLE).exclude(category=CLONED_CATEGORY)


class Voice(models.Model):
    """A voice at the provider.

    `revision` is incremented when this row gets another voice of the provider, for example when a lost clone is created
    again. Audio cached with an older revision is not played.
    The columns from `category` to `read_at` are what the provider says of the voice. They are empty until it was read.
    """

    class Source(models.TextChoices):
        STOCK = "stock"
        CLONED = "cloned"

    class State(models.TextChoices):
        USABLE = "usable"
        GONE = "gone"
        WITHDRAWN = "withdrawn"

    class Refusal(models.TextChoices):
        REFUSED = "refused", "The provider refuses to speak in it"
        MISSING = "missing", "Not in this workspace"

    class EndSource(models.TextChoices):
        ANNOUNCED = "announced", "Announced by its owner"
        NOTICE = "notice", "Its owner stopped sharing it; it stays for the notice period"
        SAFETY = "safety", "Banned by the provider"
        PREMADE = "premade", "The provider ends all its default voices"

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
    refusal = models.CharField(
        max_length=8,
        choices=Refusal,
        blank=True,
        default="",
        db_default="",
        help_text="Why it is not used as the default or backup voice. The provider may still have it.",
    )
    successor = models.ForeignKey(
        "self",
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="predecessors",
        help_text="The voice that replaces this one when it ends. Empty: the default voice.",
    )
    category = models.CharField(max_length=20, blank=True, default="", db_default="")
    languages = models.CharField(
        max_length=200, blank=True, default="", db_default="", help_text="Language codes, separated by spaces."
    )
    gender = models.CharField(max_length=20, blank=True, default="", db_default="")
    age = models.CharField(max_length=20, blank=True, default="", db_default="")
    accent = models.CharField(max_length=50, blank=True, default="", db_default="")
    description = models.CharField(max_length=500, blank=True, default="", db_default="")
    preview_url = models.CharField(max_length=500, blank=True, default="", db_default="")
    price_rate = models.FloatField(null=True, blank=True, help_text="Price factor. Empty: the normal price.")
    notice_period_days = models.PositiveIntegerField(
        null=True, blank=True, help_text="How long its owner has to leave it to others after ending its sharing."
    )
    ends_at = models.DateTimeField(null=True, blank=True, help_text="When the provider ends this voice, if known.")
    end_source = models.CharField(max_length=10, choices=EndSource, blank=True, default="", db_default="")
    read_at = models.DateTimeField(null=True, blank=True, help_text="When the provider was last asked for its details.")
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

    @property
    def has_ended(self) -> bool:
        """Whether its end is less than MOVE_BEFORE_END away, or past. It may still speak."""
        return self.ends_at is not None and self.ends_at <= timezone.now() + MOVE_BEFORE_END

    @property
    def is_dependable(self) -> bool:
        """Whether the voice can be used: it is usable, was not refused, and its end is not near."""
        return self.is_usable and not self.refusal and not self.has_ended

    @property
    def can_be_default(self) -> bool:
        """Whether it may speak to everybody. A clone of a patient may not."""
        return self.source == self.Source.STOCK

    @property
    def language_names(self) -> str:
        """For example "English, German". Empty if the provider says nothing."""
        return ", ".join(languages.LANGUAGES.get(code, code) for code in self.languages.split())

    @property
    def speaker(self) -> str:
        """Gender, age and accent, for example "Female, middle-aged, British". Empty if the provider says nothing."""
        age, accent = self.age.replace("_", "-"), self.accent.replace("_", " ")
        words = ", ".join(filter(None, (self.gender.replace("_", " "), age, accent[:1].upper() + accent[1:])))
        return words[:1].upper() + words[1:]

    def or_successor(self) -> "Voice | None":
        """The first of this voice and its successor that `is_dependable` and may speak to everybody, or None."""
        both = (self, self.successor)
        return next((voice for voice in both if voice and voice.is_dependable and voice.can_be_default), None)
