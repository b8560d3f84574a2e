"""Limits rows of all apps to the patients whom a user may see, by `PatientQuerySet.visible_to`, as REST does.

These are the patients of the user's care teams, and of the clinics that the user is a member of.
"""

from typing import Any, TypeVar

from django.contrib import admin
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import AnonymousUser
from django.db.models import Model, Q, QuerySet
from django.http import HttpRequest

from voicecare.patients.models import Clinic, Patient, Voice
from voicecare.patients.models.patient import may_erase, sees_all_patients

Row = TypeVar("Row", bound=Model)
NOTHING = Q(pk__in=[])
STOCK_VOICE = Q(source=Voice.Source.STOCK)


def limit(
    rows: QuerySet[Row], user: AbstractBaseUser | AnonymousUser, field: str = "patient", also: Q = NOTHING
) -> QuerySet[Row]:
    """Returns those of the rows whose `field` is a patient whom the user may see, and those that match `also`.

    A user who sees all patients gets all rows, but no rows of patients who are to be erased, unless the user may undo
    their erasure.
    """
    visible = limit_records(rows, user, field, also)
    if not sees_all_patients(user) or may_erase(user):
        return visible
    leaving = Patient.objects.exclude(erases_at=None, erased_at=None)
    return visible.exclude(**{f"{field}__in": leaving.order_by().values("pk")})


def limit_records(
    rows: QuerySet[Row], user: AbstractBaseUser | AnonymousUser, field: str = "patient", also: Q = NOTHING
) -> QuerySet[Row]:
    """Like `limit`, but a user who sees all patients gets all rows. For records that outlive the patient.

    They have the id of a patient and neither names nor texts, so the ledger and the audit trail stay complete.
    """
    if sees_all_patients(user):
        return rows
    return rows.filter(Q(**{f"{field}__in": Patient.objects.visible_to(user).order_by().values("pk")}) | also)


def visible_clinics(user: AbstractBaseUser | AnonymousUser) -> QuerySet[Clinic]:
    """All clinics for a user who sees all patients, else those that the user is a member of."""
    return Clinic.objects.all() if sees_all_patients(user) else Clinic.objects.filter(members=user.pk)


def clinic_of_new_patient(user: AbstractBaseUser | AnonymousUser) -> Clinic | None:
    """The clinic of a patient whom this user adds without choosing one: the only one that the user is a member of.

    So a new patient counts for the budget of the clinic, although only few users may choose the clinic of a patient.
    """
    clinics = list(Clinic.objects.filter(members=user.pk)[:2]) if user.is_authenticated else []
    return clinics[0] if len(clinics) == 1 else None


class CareTeamAdmin(admin.ModelAdmin):
    """Shows the rows of the user's patients only, in lists, pages, searches, actions and choices."""

    patient_field = "patient"
    also_visible = NOTHING

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return limit(super().get_queryset(request), request.user, self.patient_field, self.also_visible)
