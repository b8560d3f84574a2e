"""The admin site. Its first page is the dashboard, and each patient has a page with their usage."""

import uuid
from typing import Any

from django.contrib.admin import AdminSite
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import URLPattern, URLResolver, path

from usage.models import DailyUsage
from voicecare.admin.login import AdminLoginForm
from voicecare.dashboard.chart import csv_response
from voicecare.dashboard.chart_registry import ChartRegistry
from voicecare.dashboard.dashboards import AdminDashboard, PatientDashboard
from voicecare.dashboard.live import LiveStatus
from voicecare.dashboard.permissions import AdminPermissions
from voicecare.patients.models import Patient


class VoicecareAdminSite(AdminSite):
    login_form = AdminLoginForm
    site_url = None  # hides the link "View site"

    def get_urls(self) -> list[URLPattern | URLResolver]:
        patient_path = "patients/patient/<uuid:patient_id>/usage/"
        return [
            path("live/", self.admin_view(self.live), name="live"),
            path("figures/<slug:name>.csv", self.admin_view(self.csv), name="usage-csv"),
            path(patient_path, self.admin_view(self.patient_usage), name="patient-usage"),
            path(f"{patient_path}live/", self.admin_view(self.live), name="patient-live"),
            path(f"{patient_path}<slug:name>.csv", self.admin_view(self.csv), name="patient-usage-csv"),
            *super().get_urls(),
        ]

    def index(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> TemplateResponse:
        context = {"dashboard": AdminDashboard(AdminPermissions(request.user)), "title": "Dashboard"}
        return super().index(request, {**context, **(extra_context or {})})

    def live(self, request: HttpRequest, patient_id: uuid.UUID | None = None) -> HttpResponse:
        """The part of a dashboard that the page polls, as HTML."""
        live = LiveStatus(AdminPermissions(request.user), _patient(request, patient_id))
        return TemplateResponse(request, "admin/dashboard/live.html", {"live": live})

    def csv(self, request: HttpRequest, name: str, patient_id: uuid.UUID | None = None) -> HttpResponse:
        chart = ChartRegistry(AdminPermissions(request.user), _patient(request, patient_id)).get(name)
        if chart is None:
            raise Http404("Unknown chart, or no permission to view it.")
        return csv_response(chart)

    def patient_usage(self, request: HttpRequest, patient_id: uuid.UUID) -> HttpResponse:
        patient = _patient(request, patient_id)
        if patient is None or not AdminPermissions(request.user).can_view(DailyUsage):
            raise PermissionDenied
        dashboard = PatientDashboard(AdminPermissions(request.user), patient)
        context = {"dashboard": dashboard, "title": f"Usage of {patient}", "opts": Patient._meta}
        template = "admin/patients/patient/usage.html"
        return TemplateResponse(request, template, {**self.each_context(request), **context})


def _patient(request: HttpRequest, patient_id: uuid.UUID | None) -> Patient | None:
    """The patient of the URL, or None for all patients. Raises 403 without permission and 404 if unknown."""
    if patient_id is None:
        return None
    if not AdminPermissions(request.user).can_view(Patient):
        raise PermissionDenied
    return get_object_or_404(Patient, pk=patient_id, erased_at=None)
