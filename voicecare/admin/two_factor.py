"""The page on which users turn two-factor authentication on and off, and the rule that the admin's pages need it."""

from collections.abc import Callable
from typing import Any, cast

import segno
from django import forms
from django.contrib.auth.models import User
from django.core import signing
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django_otp import DEVICE_ID_SESSION_KEY
from django_otp.plugins.otp_totp.models import TOTPDevice
from rest_framework.exceptions import AuthenticationFailed, Throttled

from voicecare.accounts import oidc, throttling, two_factor
from voicecare.audit.models import Action
from voicecare.audit.recording import record

SET_UP_S = 3600  # the page's key can be confirmed for an hour
_SALT = "voicecare.admin.two_factor"


class CodeForm(forms.Form):
    otp = forms.CharField(
        label="Code",
        max_length=40,
        widget=forms.TextInput(attrs={"autocomplete": "one-time-code", "autofocus": True, "spellcheck": "false"}),
    )


def is_verified(request: HttpRequest) -> bool:
    """Whether the session was opened with the second factor, or the user has none. One query for each request.

    A session that is older than the second factor is not verified. A login with OpenID Connect is, if its provider
    checks two factors.
    """
    if not hasattr(request, "_is_verified"):
        device = two_factor.authenticator_of(request.user)
        is_valid = device is None or request.session.get(DEVICE_ID_SESSION_KEY) == device.persistent_id
        is_valid = is_valid or oidc.has_checked_two_factors(request)
        request._is_verified, request._has_second_factor = is_valid, device is not None  # type: ignore[attr-defined]
    return request._is_verified  # type: ignore[no-any-return, attr-defined]


def must_set_up(request: HttpRequest) -> bool:
    """Whether a logged-in user may only open the set-up page, because of REQUIRE_TWO_FACTOR."""
    has_factor = not is_verified(request) or request._has_second_factor or oidc.has_checked_two_factors(request)  # type: ignore[attr-defined]
    return not has_factor and two_factor.is_required(request.user)


@never_cache
@sensitive_post_parameters()
def two_factor_page(request: HttpRequest, site_context: Callable[[HttpRequest], dict[str, Any]]) -> HttpResponse:
    """Turns two-factor authentication on or off, or renews the recovery codes. Every change needs a valid code."""
    form = CodeForm(request.POST if request.method == "POST" else None)
    has_factor = two_factor.authenticator_of(request.user) is not None
    context: dict[str, Any] = {"form": form, "title": "Two-factor authentication", "has_factor": has_factor}
    if has_factor:
        if form.is_valid() and has_valid_code(request, form):
            if "turn_off" in request.POST:
                with transaction.atomic():
                    two_factor.turn_off(request.user)
                    record(request, Action.TURN_OFF_TWO_FACTOR, cast(User, request.user))
                return HttpResponseRedirect(reverse("admin:two-factor"))
            with transaction.atomic():
                context["recovery_codes"] = two_factor.renew_recovery_codes(request.user)
                record(request, Action.RENEW_RECOVERY_CODES, cast(User, request.user))
        context["codes_left"] = two_factor.recovery_codes_left(request.user)
        context["is_required"] = two_factor.is_required(request.user)
    else:
        key = _pending_key(request)
        with transaction.atomic():
            result = two_factor.set_up(request.user, key, form.cleaned_data["otp"]) if form.is_valid() else None
            if result:
                record(request, Action.TURN_ON_TWO_FACTOR, cast(User, request.user))
        if result:
            device, context["recovery_codes"] = result
            request.session[DEVICE_ID_SESSION_KEY] = device.persistent_id
            request.session.cycle_key()
        else:
            if form.is_valid():
                form.add_error("otp", "The code is wrong. Check the clock of your phone and enter the present code.")
            context |= _set_up_context(request, key)
    return TemplateResponse(request, "admin/two_factor.html", {**site_context(request), **context})


def has_valid_code(request: HttpRequest, form: CodeForm) -> bool:
    try:
        with throttling.login_attempt(request.user.get_username(), request.META.get("REMOTE_ADDR", "")):
            two_factor.check_second_factor(request.user, form.cleaned_data["otp"])
    except Throttled:
        form.add_error("otp", "Too many wrong codes. Wait a minute, then try again.")
    except AuthenticationFailed as error:
        form.add_error("otp", str(error.detail))
    return form.is_valid()


def _pending_key(request: HttpRequest) -> str:
    """Returns the key that the page has shown to this user, or a new one. Nothing is stored before it is confirmed."""
    try:
        user_id, key = signing.loads(request.POST.get("key", ""), salt=_SALT, max_age=SET_UP_S)
    except signing.BadSignature:
        user_id = key = None
    return key if user_id == request.user.pk else two_factor.new_key()


def _set_up_context(request: HttpRequest, key: str) -> dict[str, Any]:
    device = TOTPDevice(user=request.user, key=key)
    secret = device.config_url.partition("secret=")[2].partition("&")[0]
    return {
        "key": signing.dumps([request.user.pk, key], salt=_SALT),
        "secret": " ".join(secret[i : i + 4] for i in range(0, len(secret), 4)),
        "qr_code": segno.make(device.config_url).svg_data_uri(scale=5, light="white"),
        "is_required": two_factor.is_required(request.user),
    }
