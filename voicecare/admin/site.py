"""The admin site: the dashboard, a page with the usage of each patient, and the health of the system."""

import functools
import uuid
from collections.abc import Callable, Iterable
from datetime import date
from typing import Any

from asgiref.sync import async_to_sync
from django.conf import settings
from django.contrib.admin import AdminSite, ModelAdmin
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import Model
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBadRequest, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import URLPattern, URLResolver, path, reverse
from django.utils.formats import date_format

from usage.models import DailyUsage, ProviderState
from usage.reports import queries
from voicecare.accounts import oidc
from voicecare.admin import oidc_pages, password_reset
from voicecare.admin.audited import audited
from voicecare.admin.login import AdminLoginForm
from voicecare.admin.speech_models import models_page, trial_page
from voicecare.admin.two_factor import is_verified, must_set_up, two_factor_page
from voicecare.audit.models import Action
from voicecare.audit.recording import record
from voicecare.console import devices
from voicecare.dashboard import ranges
from voicecare.dashboard.chart import csv_response
from voicecare.dashboard.chart_registry import ChartRegistry
from voicecare.dashboard.dashboards import AdminDashboard, PatientDashboard
from voicecare.dashboard.live import LiveStatus
from voicecare.dashboard.permissions import AdminPermissions
from voicecare.dashboard.statement_page import SUBJECTS, StatementPage
from voicecare.health import configuration
from voicecare.health.parts import check_parts
from voicecare.patients.models import Clinic, Patient

APP_ORDER = ("patients", "tts", "cloning", "usage", "webhooks", "audit", "accounts", "auth")


class VoicecareAdminSite(AdminSite):
    login_form = AdminLoginForm
    site_url = None  # hides the link "View site"

    def register(
        self,
        model_or_iterable: type[Model] | Iterable[type[Model]],
        admin_class: type[ModelAdmin] | None = None,
        **options: Any,  # noqa: ANN401 - Django's signature
    ) -> None:
        """Registers an admin that also records everything in the audit trail, so that none can leave it out."""
        super().register(model_or_iterable, audited(admin_class or ModelAdmin), **options)

    def get_urls(self) -> list[URLPattern | URLResolver]:
        patient_path = "patients/patient/<uuid:patient_id>/usage/"
        return [
            path("two-factor/", super().admin_view(self.two_factor), name="two-factor"),
            *oidc_pages.urls(self.each_context),
            *password_reset.urls(self.each_context),
            path("health/", self.admin_view(self.system_health), name="system-health"),
            path("models/", self.admin_view(self.models), name="models"),
            path("models/trial/", self.admin_view(self.model_trial), name="models-trial"),
            path("live/", self.admin_view(self.live), name="live"),
            path("statements/<int:year>-<int:month>/", self.admin_view(self.statement), name="statement"),
            path(
                "statements/<int:year>-<int:month>/<slug:subject>.csv",
                self.admin_view(self.statement_csv),
                name="statement-csv",
            ),
            path("figures/<slug:name>.csv", self.admin_view(self.csv), name="usage-csv"),
            path(patient_path, self.admin_view(self.patient_usage), name="patient-usage"),
            path(f"{patient_path}live/", self.admin_view(self.live), name="patient-live"),
            path(f"{patient_path}<slug:name>.csv", self.admin_view(self.csv), name="patient-usage-csv"),
            # Without Django's redirect to the public page of a row: no row has one, and an id that is no UUID fails.
            *(known for known in super().get_urls() if getattr(known, "name", None) != "view_on_site"),
        ]

    def has_permission(self, request: HttpRequest) -> bool:
        """Whether the user may open the admin: staff, logged in with the second factor if the user has one."""
        return super().has_permission(request) and is_verified(request)

    def admin_view(self, view: Callable[..., Any], cacheable: bool = False) -> Any:  # noqa: ANN401 - a type that Django's stubs hide
        """Sends users who must set up a second factor to the page for it. They can only log out instead."""
        page = super().admin_view(view, cacheable)
        if view == self.logout:
            return page

        @functools.wraps(page)
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:  # noqa: ANN401
            if self.has_permission(request) and must_set_up(request):
                return HttpResponseRedirect(reverse("admin:two-factor"))
            return page(request, *args, **kwargs)  # type: ignore[no-any-return]

        return guarded

    def login(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        context = {
            "can_reset_password": settings.CAN_RESET_PASSWORDS,
            "oidc_name": settings.OIDC_NAME if oidc.is_configured() else "",
        }
        return super().login(request, {**context, **(extra_context or {})})

    def two_factor(self, request: HttpRequest) -> HttpResponse:
        return two_factor_page(request, self.each_context)

    def logout(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> TemplateResponse:
        if request.method == "POST" and request.user.is_authenticated:
            devices.revoke_of_session(request)
            record(request, Action.LOG_OUT)
        return super().logout(request, extra_context)

    @transaction.atomic
    def password_change(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> TemplateResponse:
        response = super().password_change(request, extra_context)
        if response.status_code == 302:
            record(request, Action.CHANGE, request.user, {"password": None})  # type: ignore[arg-type]  # a user's row
        return response

    def get_app_list(self, request: HttpRequest, app_label: str | None = None) -> list[Any]:
        """Returns Django's list of apps, those that are needed every day first. Django sorts them by their names."""
        apps: list[Any] = super().get_app_list(request, app_label)
        places = {label: place for place, label in enumerate(APP_ORDER)}
        return sorted(apps, key=lambda app: places.get(app["app_label"], len(places)))

    def index(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> TemplateResponse:
        permissions, clinic = AdminPermissions(request.user), _clinic(request)
        dashboard = AdminDashboard(permissions, days=ranges.parse(request.GET), clinic=clinic)
        context = {"dashboard": dashboard, "title": f"Dashboard of {clinic}" if clinic else "Dashboard"}
        return super().index(request, {**context, **(extra_context or {})})

    def live(self, request: HttpRequest, patient_id: uuid.UUID | None = None) -> HttpResponse:
        """Returns the HTML of the live part of a dashboard. The page requests it every ten seconds."""
        live = LiveStatus(AdminPermissions(request.user), _patient(request, patient_id), _clinic(request))
        return TemplateResponse(request, "admin/dashboard/live.html", {"live": live})

    def csv(self, request: HttpRequest, name: str, patient_id: uuid.UUID | None = None) -> HttpResponse:
        days = ranges.parse(request.GET)
        if days.error:
            return HttpResponseBadRequest("Wrong range of days.", content_type="text/plain")
        patient, clinic = _patient(request, patient_id), _clinic(request)
        chart = ChartRegistry(AdminPermissions(request.user), days, patient, clinic).get(name)
        if chart is None:
            raise Http404("Unknown chart, or no permission to view it.")
        return csv_response(chart)

    def system_health(self, request: HttpRequest) -> HttpResponse:
        """Returns the page with the state of every part of the service, the versions and the settings."""
        if not AdminPermissions(request.user).can_view(ProviderState):
            raise PermissionDenied
        context = {
            "title": "System health",
            "parts": async_to_sync(check_parts)(),
            "versions": configuration.versions(),
            "settings": configuration.masked_settings(),
        }
        return TemplateResponse(request, "admin/health.html", {**self.each_context(request), **context})

    def models(self, request: HttpRequest) -> HttpResponse:
        return models_page(request, self.each_context)

    def model_trial(self, request: HttpRequest) -> HttpResponse:
        return trial_page(request, self.each_context)

    def statement(self, request: HttpRequest, year: int, month: int) -> HttpResponse:
        """Returns the page with the usage and the cost of a month, by patient and by voice."""
        page = StatementPage(AdminPermissions(request.user), _month(request, year, month), _clinic(request))
        context = {"title": f"Statement of {date_format(page.statement.month, 'F Y')}", "page": page}
        return TemplateResponse(request, "admin/statement.html", {**self.each_context(request), **context})

    def statement_csv(self, request: HttpRequest, year: int, month: int, subject: str) -> HttpResponseBase:
        if subject not in SUBJECTS:
            raise Http404("Unknown file.")
        page = StatementPage(AdminPermissions(request.user), _month(request, year, month), _clinic(request))
        return page.csv_response(subject)

    def patient_usage(self, request: HttpRequest, patient_id: uuid.UUID) -> HttpResponse:
        patient = _patient(request, patient_id)
        if patient is None or not AdminPermissions(request.user).can_view(DailyUsage):
            raise PermissionDenied
        dashboard = PatientDashboard(AdminPermissions(request.user), patient, ranges.parse(request.GET))
        context = {"dashboard": dashboard, "title": f"Usage of {patient}", "opts": Patient._meta}
        template = "admin/patients/patient/usage.html"
        return TemplateResponse(request, template, {**self.each_context(request), **context})


def _month(request: HttpRequest, year: int, month: int) -> date:
    """Returns the first day of the month in the URL.

    Raises PermissionDenied (403) if the user may not view usage, and Http404 for a month of the future or without data.
    """
    if not AdminPermissions(request.user).can_view(DailyUsage):
        raise PermissionDenied
    current = queries.today().replace(day=1)
    if not (1 <= month <= 12 and ranges.FIRST_DAY.year <= year <= current.year):
        raise Http404("There is no such month.")
    first = date(year, month, 1)
    if first > current:
        raise Http404("This month has not begun.")
    return first


def _clinic(request: HttpRequest) -> Clinic | None:
    """Returns the clinic of the query parameter `clinic`, or None without one. Raises Http404 if the user sees none."""
    chosen = request.GET.get("clinic")
    if not chosen:
        return None
    try:
        return get_object_or_404(AdminPermissions(request.user).visible_clinics(), pk=uuid.UUID(chosen))
    except ValueError:
        raise Http404("There is no such clinic.") from None


def _patient(request: HttpRequest, patient_id: uuid.UUID | None) -> Patient | None:
    """Returns the patient with the id in the URL, or None if the URL has no id and the page is about all patients.

    Raises PermissionDenied (403) if the user may not view patients, and Http404 if the user sees no such patient.
    """
    if patient_id is None:
        return None
    if not AdminPermissions(request.user).can_view(Patient):
        raise PermissionDenied
    return get_object_or_404(Patient.objects.shown_in_admin_to(request.user), pk=patient_id, erased_at=None)
