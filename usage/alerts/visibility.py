"""Which incidents a user may see: those about the whole service, and those about their own patients and clinics."""

import uuid
from contextlib import suppress

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


def without_other_clinics(incidents: QuerySet[Incident], clinic: Clinic) -> QuerySet[Incident]:
    """Leave out what concerns only other patients: their budgets and cloned voices, and the budgets of other clinics.

    What remains is about this clinic, or about the whole service. `incidents` are few, such as the open ones.
    """
    of_one_patient = incidents.filter(kind__in=KINDS_OF_ONE_PATIENT).order_by()
    ids = []
    for key in of_one_patient.values_list("key", flat=True):
        with suppress(ValueError):  # the key of an incident about several voices is no id
            ids.append(uuid.UUID(key))
    others = [
        *Patient.objects.filter(pk__in=ids).exclude(clinic=clinic).values_list("pk", flat=True),
        *Voice.objects.filter(pk__in=ids, patient__isnull=False)
        .exclude(patient__clinic=clinic)
        .values_list("pk", flat=True),
        *Clinic.objects.filter(pk__in=ids).exclude(pk=clinic.pk).values_list("pk", flat=True),
    ]
    return incidents.exclude(kind__in=KINDS_OF_ONE_PATIENT, key__in=map(str, others)) if others else incidents
