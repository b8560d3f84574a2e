"""Who may open the pages of the console, and for which patients: the rules of the REST API and of the admin.

Besides staff these are clinicians who may not log in to the admin. So the console has a login page of its own.
"""

import functools
import uuid
from collections.abc import Callable
from typing import Any, cast

from django.contrib.auth.forms import AuthenticationForm
from django.contrib.auth.models import User
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse, reverse_lazy

from voicecare.admin.login import AdminLoginForm
from voicecare.admin.two_factor import is_verified, must_set_up
from voicecare.patients.access import may
from voicecare.patients.models import Patient

LOGIN_URL = reverse_lazy("console:log-in")
# The device console is a new device that speaks to the patient.
DEVICE_PERMISSIONS = ("patients.view_patient", "patients.add_device", "tts.add_utterance")
CLONE_PERMISSIONS = (
    "patients.view_patient",
    "patients.view_voice",
    "cloning.view_clonejob",
    "cloning.add_clonejob",
    "cloning.change_clonejob",
)

View = Callable[..., HttpResponse]


class ConsoleLoginForm(AdminLoginForm):
    """The login form of the admin, for active users who are not staff, too."""

    def confirm_login_allowed(self, user: User) -> None:
        AuthenticationForm.confirm_login_allowed(self, user)


def page(*permissions: str) -> Callable[[View], View]:
    """Returns a decorator for a page that needs all these permissions.

    It sends visitors to the login, and those who must set up a second factor to the page for it. Without a permission
    it raises PermissionDenied (403).
    """

    def decorate(view: View) -> View:
        @functools.wraps(view)
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:  # noqa: ANN401 - of any page
            if not request.user.is_authenticated or not is_verified(request):
                return redirect_to_login(request.get_full_path(), str(LOGIN_URL))
            if must_set_up(request):
                return HttpResponseRedirect(reverse("admin:two-factor"))
            if not has_permissions(request, *permissions):
                raise PermissionDenied
            return view(request, *args, **kwargs)

        return guarded

    return decorate


def call(*permissions: str) -> Callable[[View], View]:
    """Returns a decorator for a call of the scripts that needs all these permissions.

    Scripts cannot follow a redirect to the login, so a refusal is a 403 with a code: `logged_out` or `forbidden`. A 403
    without a code is Django's own, for a CSRF token of another login.
    """

    def decorate(view: View) -> View:
        @functools.wraps(view)
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:  # noqa: ANN401 - of any call
            if not request.user.is_authenticated or not is_verified(request) or must_set_up(request):
                return JsonResponse({"code": "logged_out"}, status=403)
            if not has_permissions(request, *permissions):
                return JsonResponse({"code": "forbidden"}, status=403)
            return view(request, *args, **kwargs)

        return guarded

    return decorate


console_page, console_call = page(*DEVICE_PERMISSIONS), call(*DEVICE_PERMISSIONS)
"""For the pages and the calls of the device console."""


def has_permissions(request: HttpRequest, *permissions: str) -> bool:
    """Whether the user has all these permissions, as for calls of the REST API."""
    return all(may(cast(User, request.user), permission) for permission in permissions)


def find_patient(request: HttpRequest, patient_id: uuid.UUID) -> Patient:
    """Returns the patient, if the user sees them and they can be spoken to. Raises Http404 otherwise."""
    return get_object_or_404(Patient.objects.visible_to(request.user).active(), pk=patient_id)
