"""Limits rows of all apps to the patients whom a user may see, by `PatientQuerySet.visible_to`, as REST does."""

from typing import Any, TypeVar

from django.contrib import admin
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import AnonymousUser
from django.db.models import Model, Q, QuerySet
from django.http import HttpRequest

from voicecare.patients.models import Patient, Voice
from voicecare.patients.models.patient import sees_all_patients

Row = TypeVar("Row", bound=Model)
NOTHING = Q(pk__in=[])
STOCK_VOICE = Q(source=Voice.Source.STOCK)


def limit(
    rows: QuerySet[Row], user: AbstractBaseUser | AnonymousUser, field: str = "patient", also: Q = NOTHING
) -> QuerySet[Row]:
    """Returns those of the rows whose `field` is a patient of the user's care teams, and those that match `also`.

    For a user who sees all patients, returns all rows, which may also belong to an erased patient or to none.
    """
    if sees_all_patients(user):
        return rows
    return rows.filter(Q(**{f"{field}__in": Patient.objects.visible_to(user).order_by().values("pk")}) | also)


class CareTeamAdmin(admin.ModelAdmin):
    """Shows the rows of the user's patients only, in lists, pages, searches, actions and choices."""

    patient_field = "patient"
    also_visible = NOTHING

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return limit(super().get_queryset(request), request.user, self.patient_field, self.also_visible)
