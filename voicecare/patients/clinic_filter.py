"""The filter of lists by the clinic of the patient. Lists have it as soon as there is a clinic."""

import uuid
from typing import Any

from django.contrib import admin
from django.contrib.admin import ModelAdmin
from django.db.models import QuerySet
from django.http import HttpRequest

from voicecare.patients.models import Clinic, Patient

NO_CLINIC = "none"


class ClinicFilter(admin.SimpleListFilter):
    """By the clinic that the patient belongs to now. `patient_field` of the rows has the id of the patient."""

    title = "clinic"
    parameter_name = "clinic"
    patient_field = "patient"

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin) -> list[tuple[str, str]]:
        if not (request.user.has_perm("patients.view_clinic") or request.user.has_perm("patients.change_clinic")):
            return []
        clinics = [(str(key), name) for key, name in Clinic.objects.values_list("pk", "name")]
        return [*clinics, (NO_CLINIC, "No clinic")] if clinics else []

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        chosen = self.value()
        if not chosen:
            return queryset
        try:
            clinic = None if chosen == NO_CLINIC else uuid.UUID(chosen)
        except ValueError:
            return queryset.none()
        patients = Patient.objects.filter(clinic=clinic).order_by()
        return self.of_patients(queryset, patients)

    def of_patients(self, rows: QuerySet[Any], patients: QuerySet[Patient]) -> QuerySet[Any]:
        """Limits the rows to those of these patients."""
        return rows.filter(**{f"{self.patient_field}__in": patients.values("pk")})
