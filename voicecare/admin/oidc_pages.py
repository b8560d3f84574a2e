"""The pages of the login with OpenID Connect. See voicecare/accounts/oidc.py."""

from collections.abc import Callable
from typing import Any

import structlog
from django.contrib import messages
from django.contrib.auth import login
from django.contrib.auth.decorators import login_required
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django_otp import DEVICE_ID_SESSION_KEY

from voicecare.accounts import oidc, two_factor
from voicecare.admin.oidc_users import find_user
from voicecare.admin.two_factor import CodeForm, has_valid_code
from voicecare.audit.models import Action
from voicecare.audit.recording import record, record_refused_log_in

LOG_IN_S = 600  # seconds to log in at the provider
_NEXT_SESSION_KEY = "oidc_next"

log = structlog.get_logger(__name__)


@never_cache
def start(request: HttpRequest) -> HttpResponse:
    """Redirects to the provider. The address in `next`, if it is one of this site, is opened after the login."""
    _require_configuration()
    try:
        response = oidc.redirect_to_provider(request)
    except oidc.LogInRefused as refusal:
        return _refused(request, refusal)
    request.session[_NEXT_SESSION_KEY] = request.GET.get("next", "")
    if not request.user.is_authenticated:
        request.session.set_expiry(LOG_IN_S)  # most of these sessions are needed for the login only
    return response


@never_cache
def callback(request: HttpRequest) -> HttpResponse:
    """Logs in the user with whom the provider sends the browser back."""
    _require_configuration()
    username = ""  # until the provider has said it
    try:
        identity = oidc.identity_of(request)
        username = identity.username
        user = find_user(request, identity)
    except oidc.LogInRefused as refusal:
        record_refused_log_in(request, username)
        return _refused(request, refusal)
    next_url = request.session.get(_NEXT_SESSION_KEY, "")
    with transaction.atomic():
        login(request, user, backend="django.contrib.auth.backends.ModelBackend")
        record(request, Action.LOG_IN, user=user)
    request.session.set_expiry(None)
    request.session[_NEXT_SESSION_KEY] = next_url
    oidc.mark_session(request)
    if two_factor.authenticator_of(user) and not oidc.has_checked_two_factors(request):
        return HttpResponseRedirect(reverse("admin:oidc-code"))
    return _redirect_to_next(request)


def code_page(site_context: Callable[[HttpRequest], dict[str, Any]]) -> Callable[[HttpRequest], HttpResponse]:
    """Returns the view that asks for the second factor, because the provider does not check it for this site."""

    @never_cache
    @sensitive_post_parameters()
    @login_required
    def ask(request: HttpRequest) -> HttpResponse:
        _require_configuration()
        form = CodeForm(request.POST if request.method == "POST" else None)
        authenticator = two_factor.authenticator_of(request.user)
        if authenticator is None:
            return _redirect_to_next(request)
        if form.is_valid():
            if has_valid_code(request, form):
                request.session[DEVICE_ID_SESSION_KEY] = authenticator.persistent_id
                request.session.cycle_key()
                return _redirect_to_next(request)
            record_refused_log_in(request, request.user.get_username())
        context = {**site_context(request), "form": form, "title": "Two-factor code"}
        return TemplateResponse(request, "admin/oidc_code.html", context)

    return ask


def urls(site_context: Callable[[HttpRequest], dict[str, Any]]) -> list[URLPattern]:
    return [
        path("oidc/", start, name="oidc"),
        path("oidc/callback/", callback, name="oidc-callback"),
        path("oidc/code/", code_page(site_context), name="oidc-code"),
    ]


def _require_configuration() -> None:
    if not oidc.is_configured():
        raise Http404("OpenID Connect is not configured.")


def _refused(request: HttpRequest, refusal: oidc.LogInRefused) -> HttpResponse:
    log.warning("oidc.refused", reason=refusal.reason)
    messages.error(request, str(refusal))
    return HttpResponseRedirect(reverse("admin:login"))


def _redirect_to_next(request: HttpRequest) -> HttpResponse:
    url = request.session.pop(_NEXT_SESSION_KEY, "")
    is_ours = url_has_allowed_host_and_scheme(url, {request.get_host()}, require_https=request.is_secure())
    return HttpResponseRedirect(url if is_ours else reverse("admin:index"))
