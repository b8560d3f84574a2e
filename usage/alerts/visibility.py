"""Which incidents a user may see: those about the whole service, and those about their own patients and clinics."""

from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import AnonymousUser
from django.db.models import Q, QuerySet

from usage.models import Incident
from voicecare.patients import care_teams
from voicecare.patients.models import Clinic, Patient, Voice
from voicecare.patients.models.patient import sees_all_patients

KINDS_OF_ONE_PATIENT = (Incident.Kind.BUDGET, Incident.Kind.VOICE)
"""The key is a patient or a clinic, or a voice, often a clone."""


def visible_incidents(incidents: QuerySet[Incident], user: AbstractBaseUser | AnonymousUser) -> QuerySet[Incident]:
    if sees_all_patients(user):
        return incidents
    patients = Patient.objects.visible_to(user).values_list("pk", flat=True)
    voices = care_teams.limit(Voice.objects.all(), user, also=care_teams.STOCK_VOICE).values_list("pk", flat=True)
    clinics = Clinic.objects.filter(members=user.pk).values_list("pk", flat=True)
    keys = ["", *map(str, [*patients, *voices, *clinics])]
    return incidents.filter(~Q(kind__in=KINDS_OF_ONE_PATIENT) | Q(key__in=keys))
