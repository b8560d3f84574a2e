"""The pages of the admin that erase a patient and undo it. Both need the permission `patients.erase_patient`."""

import uuid
from typing import Any

from django import forms
from django.conf import settings
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.views.decorators.http import require_POST

from voicecare.audit.models import Action
from voicecare.audit.recording import record
from voicecare.patients import erasure
from voicecare.patients.admin import PatientAdmin
from voicecare.patients.models import Patient
from voicecare.patients.models.patient import ERASE_PATIENT


class NameForm(forms.Form):
    """Accepts only the name of the patient, so that nobody erases a patient by a wrong click."""

    name = forms.CharField(label="Name of the patient", max_length=100)

    def __init__(self, patient: Patient, *args: Any) -> None:  # noqa: ANN401 - Django's signature
        super().__init__(*args)
        self._expected = patient.name
        self.fields["name"].widget.attrs.update({"autocomplete": "off", "autofocus": True})

    def clean_name(self) -> str:
        if self.cleaned_data["name"] != self._expected.strip():
            raise forms.ValidationError("This is not the name of the patient. Nothing was changed.")
        return self._expected


class PatientErasureAdmin(PatientAdmin):
    """Adds the pages. Patients who are to be erased cannot be changed."""

    def get_urls(self) -> list[URLPattern]:
        undo = require_POST(self.undo_erasure)
        return [
            path("<uuid:patient_id>/erase/", self.admin_site.admin_view(self.erase), name="patient-erase"),
            path("<uuid:patient_id>/undo-erasure/", self.admin_site.admin_view(undo), name="patient-undo-erasure"),
            *super().get_urls(),
        ]

    def has_change_permission(self, request: HttpRequest, obj: Patient | None = None) -> bool:
        return (obj is None or obj.erases_at is None) and super().has_change_permission(request, obj)

    def erase(self, request: HttpRequest, patient_id: uuid.UUID) -> HttpResponse:
        patient = self._patient(request, patient_id)
        form = NameForm(patient, request.POST if request.method == "POST" else None)
        if request.method == "POST" and form.is_valid():
            if self._start(request, patient):
                self.message_user(request, "The erasure has started. Speech ends and the devices are revoked.")
            return HttpResponseRedirect(reverse("admin:patients_patient_changelist"))
        context = {"title": "Erase this patient?", "patient": patient, "form": form, "opts": self.opts}
        context |= {"original": patient, "grace_days": settings.ERASURE_GRACE_DAYS}
        template = "admin/patients/patient/erase.html"
        return TemplateResponse(request, template, {**self.admin_site.each_context(request), **context})

    def undo_erasure(self, request: HttpRequest, patient_id: uuid.UUID) -> HttpResponse:
        patient = self._patient(request, patient_id)
        if self._undo(request, patient):
            self.message_user(request, "The patient is not erased. Add new devices: the former ones stay revoked.")
        else:
            self.message_user(request, "It is too late, or there is nothing to undo.", messages.ERROR)
        return HttpResponseRedirect(reverse("admin:patients_patient_change", args=[patient.pk]))

    @transaction.atomic
    def _start(self, request: HttpRequest, patient: Patient) -> bool:
        erases_at = erasure.start_erasure(patient.pk)
        if erases_at:
            record(request, Action.ERASE, patient, {"erases_at": [None, erases_at]})
        return erases_at is not None

    @transaction.atomic
    def _undo(self, request: HttpRequest, patient: Patient) -> bool:
        is_undone = erasure.undo_erasure(patient.pk)
        if is_undone:
            record(request, Action.UNDO_ERASURE, patient, {"erases_at": [patient.erases_at, None]})
        return is_undone

    def _patient(self, request: HttpRequest, patient_id: uuid.UUID) -> Patient:
        if not request.user.has_perm(ERASE_PATIENT):
            raise PermissionDenied
        return get_object_or_404(self.get_queryset(request), pk=patient_id, erased_at=None)
