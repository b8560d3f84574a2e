"""The admin's site: its first page is the dashboard, and a patient has a page of usage."""

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
from voicecare.dashboard.chart import Chart, csv_file
from voicecare.dashboard.chart_registry import Charts
from voicecare.dashboard.dashboards import Board, PatientBoard
from voicecare.dashboard.live import Live
from voicecare.dashboard.permissions import Viewer
from voicecare.patients.models import Patient


class VoicecareAdminSite(AdminSite):
    login_form = AdminLoginForm
    site_url = None  # there is no site beside the admin to view

    def get_urls(self) -> list[URLPattern | URLResolver]:
        of_patient = "patients/patient/<uuid:key>/usage/"
        return [
            path("live/", self.admin_view(self.live), name="live"),
            path("figures/<slug:name>.csv", self.admin_view(self.csv), name="usage-csv"),
            path(of_patient, self.admin_view(self.patient_usage), name="patient-usage"),
            path(f"{of_patient}live/", self.admin_view(self.live), name="patient-live"),
            path(f"{of_patient}<slug:name>.csv", self.admin_view(self.csv), name="patient-usage-csv"),
            *super().get_urls(),
        ]

    def index(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> TemplateResponse:
        board = {"board": Board(Viewer(request.user)), "title": "Dashboard"}
        return super().index(request, {**board, **(extra_context or {})})

    def live(self, request: HttpRequest, key: uuid.UUID | None = None) -> HttpResponse:
        """The part of a page that is read again and again, as HTML."""
        live = Live(Viewer(request.user), _patient(request, key))
        return TemplateResponse(request, "admin/dashboard/live.html", {"live": live})

    def csv(self, request: HttpRequest, name: str, key: uuid.UUID | None = None) -> HttpResponse:
        return csv_file(_chart(Charts(Viewer(request.user), _patient(request, key)), name))

    def patient_usage(self, request: HttpRequest, key: uuid.UUID) -> HttpResponse:
        patient = _patient(request, key)
        if patient is None or not Viewer(request.user).sees(DailyUsage):
            raise PermissionDenied
        board = PatientBoard(Viewer(request.user), patient)
        page = {"board": board, "title": f"Usage of {patient}", "opts": Patient._meta}
        template = "admin/patients/patient/usage.html"
        return TemplateResponse(request, template, {**self.each_context(request), **page})


def _patient(request: HttpRequest, key: uuid.UUID | None) -> Patient | None:
    """None: everybody. Raises 403 for who may not look at patients, 404 for one who is not there."""
    if key is None:
        return None
    if not Viewer(request.user).sees(Patient):
        raise PermissionDenied
    return get_object_or_404(Patient, pk=key, erased_at=None)


def _chart(charts: Charts, name: str) -> Chart:
    chart = charts.named(name)
    if chart is None:
        raise Http404("There is no such chart, or not for you.")
    return chart
