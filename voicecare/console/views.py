"""The pages of the device console, and the calls of their scripts: the token of the page, and faults of the sandbox."""

import uuid
from typing import Any

from csp.decorators import csp_update
from django.conf import settings
from django.contrib import admin
from django.contrib.auth.views import LoginView, LogoutView
from django.db.models.functions import Now
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from tts.models import Phrase
from voicecare.accounts import oidc
from voicecare.audio.formats import DEVICE_FORMATS, FORMATS
from voicecare.audit.models import Action
from voicecare.audit.recording import record
from voicecare.console import devices
from voicecare.console.access import (
    CLONE_PERMISSIONS,
    DEVICE_PERMISSIONS,
    ConsoleLoginForm,
    console_call,
    console_page,
    find_patient,
    has_permissions,
    page,
)
from voicecare.console.pages import render
from voicecare.management import sandbox_faults
from voicecare.patients.models import Device, Patient
from voicecare.patients.models.device import CONSOLE_TIME
from voicecare.providers.elevenlabs.sandbox.scenarios import SCENARIOS

LATENCY_GOAL_MS = 500
FORMATS_OF_CONSOLE = tuple(name for name in DEVICE_FORMATS if FORMATS[name].codec != "opus")
"""Browsers cannot play Ogg while it arrives."""
SHOWN_PATIENTS = 100  # of the list; more are found by name
KEEP_EVERY_S = CONSOLE_TIME.total_seconds() / 9  # so often does a page notice that its user has logged out


class ConsoleLoginView(LoginView):
    """The login of the console. Its limits and second factors are those of the admin."""

    authentication_form = ConsoleLoginForm
    template_name = "admin/login.html"
    next_page = "console:patients"

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:  # noqa: ANN401 - Django's signature
        context = {
            "title": "Log in",
            "app_path": self.request.get_full_path(),
            "next": self.get_redirect_url() or reverse(self.next_page),
            "can_reset_password": settings.CAN_RESET_PASSWORDS,
            "oidc_name": settings.OIDC_NAME if oidc.is_configured() else "",
        }
        return super().get_context_data(**{**admin.site.each_context(self.request), **context, **kwargs})


class ConsoleLogoutView(LogoutView):
    next_page = "console:log-in"

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - Django's signature
        if request.user.is_authenticated:
            devices.revoke_of_session(request)
            record(request, Action.LOG_OUT)
        return super().post(request, *args, **kwargs)


@require_GET
@never_cache
@page("patients.view_patient")
def patients(request: HttpRequest) -> HttpResponse:
    """The patients of the user, to choose one."""
    context = {
        "title": "Patients",
        "has_device_console": has_permissions(request, *DEVICE_PERMISSIONS),
        "can_clone": has_permissions(request, *CLONE_PERMISSIONS),
        **found_patients(request),
    }
    return render(request, "console/patients.html", context)


def found_patients(request: HttpRequest) -> dict[str, Any]:
    """The patients of the user whose name contains the search `q`, as the context of a page with a search."""
    search = request.GET.get("q", "").strip()
    found = Patient.objects.visible_to(request.user).active().named(search).order_by("name", "pk")
    shown = list(found[: SHOWN_PATIENTS + 1])
    return {
        "patients": shown[:SHOWN_PATIENTS],
        "has_more": len(shown) > SHOWN_PATIENTS,
        "shown": SHOWN_PATIENTS,
        "search": search,
    }


# The audio element plays MP3 from a MediaSource, whose address is a blob. Everything else is of this host.
@require_GET
@never_cache
@csp_update({"media-src": ["'self'", "blob:"]})
@console_page
def console(request: HttpRequest, patient_id: uuid.UUID) -> HttpResponse:
    """The page that is a device of this patient. Its token is issued when it connects."""
    patient = find_patient(request, patient_id)
    connected = patient.devices.bedside().filter(revoked_at=None, online_until__gt=Now())
    phrases = Phrase.objects.for_language(patient.language).filter(kind=Phrase.Kind.COMMON)
    context = {
        "title": f"Device console: {patient}",
        "patient": patient,
        "phrases": phrases.order_by("text"),
        "connected_devices": connected.order_by("name"),
        "formats": FORMATS_OF_CONSOLE,
        "scenarios": SCENARIOS.items() if settings.USE_SANDBOX else (),
        "active_fault": sandbox_faults.active() if settings.USE_SANDBOX else "",
        "latency_goal_ms": LATENCY_GOAL_MS,
        "keep_every_s": KEEP_EVERY_S,
    }
    return render(request, "console/console.html", context)


@require_POST
@never_cache
@console_call
def issue(request: HttpRequest, patient_id: uuid.UUID) -> JsonResponse:
    """Creates the device of the page, and returns its token. No other response contains it.

    The server uses `format` for a conversation that it opens itself. Status 400 for an unknown format.
    """
    patient, audio_format = find_patient(request, patient_id), request.POST.get("format", DEVICE_FORMATS[0])
    if audio_format not in FORMATS_OF_CONSOLE:
        return JsonResponse({"code": "unknown_format"}, status=400)
    takes_messages = request.POST.get("takes_messages") == "true"
    try:
        device = devices.issue(request, patient, audio_format, takes_messages=takes_messages)
    except Patient.DoesNotExist:  # the erasure has been started meanwhile
        raise Http404 from None
    return JsonResponse({"device": str(device.id), "token": device.token}, status=201)


@require_POST
@never_cache
@console_call
def keep(request: HttpRequest, device_id: uuid.UUID) -> HttpResponse:
    """Extends the time of the page's device. Status 410 if it was revoked, or its time is over."""
    device = _find_device(request, device_id)
    return HttpResponse(status=204 if Device.objects.filter(pk=device.pk).keep_console() else 410)


@require_POST
@never_cache
@console_call
def revoke(request: HttpRequest, device_id: uuid.UUID) -> HttpResponse:
    """Ends the device of the page. The page sends this when it is left."""
    devices.revoke(request, _find_device(request, device_id))
    return HttpResponse(status=204)


@require_POST
@console_call
def fault(request: HttpRequest, fault_name: str) -> HttpResponse:
    """Makes the sandbox provider fail. Status 404 with the real provider, 502 with a message if there is no sandbox."""
    if not settings.USE_SANDBOX or fault_name not in SCENARIOS:
        raise Http404
    try:
        sandbox_faults.choose(fault_name, settings.ELEVENLABS_BASE_URL)
    except sandbox_faults.SandboxError as error:
        return JsonResponse({"message": str(error)}, status=502)
    return HttpResponse(status=204)


def _find_device(request: HttpRequest, device_id: uuid.UUID) -> Device:
    visible = Patient.objects.visible_to(request.user)
    return get_object_or_404(Device.objects.consoles(), pk=device_id, patient__in=visible)
