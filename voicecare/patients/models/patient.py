"""Patients."""

import uuid
from decimal import Decimal

from django.conf import settings
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import AnonymousUser, PermissionsMixin
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q
from django.utils import timezone

from voicecare.core import languages
from voicecare.patients.models.clinic import Clinic
from voicecare.patients.models.voice import MOVE_BEFORE_END, Voice

OWN_VOICE_NEEDED = (
    "Choose a voice for this patient, or let another voice speak: without both, only the offline voice can."
)

VIEW_ALL_PATIENTS = "patients.view_all_patients"
ERASE_PATIENT = "patients.erase_patient"


def _has_permission(user: AbstractBaseUser | AnonymousUser, permission: str) -> bool:
    return isinstance(user, PermissionsMixin | AnonymousUser) and user.has_perm(permission)


def sees_all_patients(user: AbstractBaseUser | AnonymousUser) -> bool:
    """Whether the user sees all patients, not only those of their own care teams and clinics."""
    return _has_permission(user, VIEW_ALL_PATIENTS)


def may_erase(user: AbstractBaseUser | AnonymousUser) -> bool:
    """Whether the user may erase patients. Only such users see a patient who is to be erased."""
    return _has_permission(user, ERASE_PATIENT)


class PatientQuerySet(models.QuerySet["Patient"]):
    def visible_to(self, user: AbstractBaseUser | AnonymousUser) -> "PatientQuerySet":
        """The patients that the user may see.

        With the permission `view_all_patients` these are all. Other users see the patients of their care teams and of
        the clinics that they are members of. Patients who are to be erased are hidden from everybody.
        `shown_in_admin_to` has them for users who may erase.
        """
        return self._in_care_of(user).remaining()

    def shown_in_admin_to(self, user: AbstractBaseUser | AnonymousUser) -> "PatientQuerySet":
        """Like `visible_to`, with erased patients, and with those who are to be erased if the user can undo it."""
        patients = self._in_care_of(user)
        return patients if may_erase(user) else patients.filter(erases_at=None)

    def _in_care_of(self, user: AbstractBaseUser | AnonymousUser) -> "PatientQuerySet":
        if not user.is_authenticated:
            return self.none()
        if sees_all_patients(user):
            return self
        of_teams = Patient.team.through.objects.filter(user=user.pk).values("patient")
        of_clinics = Clinic.members.through.objects.filter(user=user.pk).values("clinic")
        return self.filter(Q(pk__in=of_teams) | Q(clinic__in=of_clinics))  # a join would repeat patients of both

    def named(self, words: str) -> "PatientQuerySet":
        """The patients who have each of these words in a name, or as their whole external id."""
        found = self
        for word in words.split():
            found = found.filter(
                Q(name__icontains=word) | Q(preferred_name__icontains=word) | Q(external_id__iexact=word)
            )
        return found

    def remaining(self) -> "PatientQuerySet":
        """The patients who are neither to be erased nor being erased."""
        return self.filter(erases_at=None, erased_at=None)

    def active(self) -> "PatientQuerySet":
        """The patients who can be spoken to: neither archived, nor to be erased, nor being erased."""
        return self.remaining().filter(archived_at=None)

    def keeping_voice(self) -> "PatientQuerySet":
        """The patients for whom `DefaultVoices.for_patient` returns their own voice, whatever the other voices are."""
        lasting = Q(voice__ends_at=None) | Q(voice__ends_at__gt=timezone.now() + MOVE_BEFORE_END)
        own_only = Q(backup_policy=Patient.BackupPolicy.OWN_VOICE_ONLY) & ~Q(voice__state=Voice.State.WITHDRAWN)
        return self.filter(own_only | (Q(voice__state=Voice.State.USABLE) & lasting), voice__isnull=False)


class Patient(models.Model):
    """A person with an AI companion.

    The companion speaks in `voice`, or in the default voice if `voice` is null. `backup_policy` says what follows if
    that is not possible. `DefaultVoices` has the rules.
    """

    class BackupPolicy(models.TextChoices):
        SWITCH = "switch", "Switch to the backup voice, then to the offline voice"
        OWN_VOICE_ONLY = "own_voice_only", "No other voice: cached phrases and the offline voice only"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=100)
    preferred_name = models.CharField(max_length=100, blank=True, help_text="How the companion addresses them.")
    companion_name = models.CharField(max_length=100, help_text="The name of the AI companion.")
    external_id = models.CharField(
        max_length=64,
        null=True,
        blank=True,
        unique=True,
        help_text="The patient's id in another system, for example the record number. No two patients have the same.",
    )
    language = models.CharField(
        max_length=languages.MAX_LENGTH,
        default=languages.DEFAULT,
        help_text="The language that the companion speaks. The offline voice cannot read every language.",
    )
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
    backup_voice = models.ForeignKey(
        Voice,
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="backup_for",
        help_text="Speaks when the voice above cannot. Empty: the default voice.",
    )
    backup_policy = models.CharField(
        max_length=14,
        choices=BackupPolicy,
        default=BackupPolicy.SWITCH,
        db_default=BackupPolicy.SWITCH.value,
        help_text="No other voice: the person hears only the voice above and the offline voice, not the default voice.",
    )
    monthly_character_budget = models.PositiveIntegerField(null=True, blank=True, help_text="Empty: no limit.")
    clinic = models.ForeignKey(
        Clinic,
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="patients",
        help_text="Its members see the patient, and its budgets limit the patient's speech, too.",
    )
    archived_at = models.DateTimeField(null=True, blank=True)
    erases_at = models.DateTimeField(
        null=True,
        blank=True,
        editable=False,
        verbose_name="to be erased at",
        help_text="When the data is erased. Until then, an administrator can undo it.",
    )
    erased_at = models.DateTimeField(
        null=True, blank=True, editable=False, help_text="When the removal of the data began. It cannot be undone."
    )
    team = models.ManyToManyField(settings.AUTH_USER_MODEL, blank=True, related_name="patients")
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = PatientQuerySet.as_manager()

    class Meta:
        ordering = ("name",)
        permissions = (
            ("view_all_patients", "Can see the patients of all care teams"),
            ("erase_patient", "Can erase patients, and undo it during the grace period"),
        )
        constraints = [
            models.CheckConstraint(
                condition=Q(speech_rate__gte=Decimal("0.70")) & Q(speech_rate__lte=Decimal("1.20")),
                name="patient_speech_rate",
            ),
            models.CheckConstraint(
                condition=Q(backup_policy__in=["switch", "own_voice_only"]), name="patient_backup_policy"
            ),
        ]

    def __str__(self) -> str:
        return self.name if self.erased_at is None else f"Erased patient {str(self.pk)[:8]}"

    @property
    def form_of_address(self) -> str:
        return self.preferred_name or self.name

    @property
    def is_active(self) -> bool:
        return self.archived_at is None and self.erases_at is None and self.erased_at is None

    @property
    def hears_own_voice_only(self) -> bool:
        """Whether only `voice` and the offline voice may speak to this patient, never another voice of the provider."""
        return self.backup_policy == self.BackupPolicy.OWN_VOICE_ONLY
