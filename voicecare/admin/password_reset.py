"""The pages with which users get a mail and set a new password. They are Django's, on the site of the admin.

They exist only if a mail server is configured. They say the same for every address, whether a user has it or not.
"""

from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.contrib.auth import views
from django.contrib.auth.forms import PasswordResetForm, SetPasswordForm
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import URLPattern, path, reverse_lazy
from rest_framework.exceptions import Throttled

from voicecare.accounts import throttling
from voicecare.audit.models import Action
from voicecare.audit.recording import record
from voicecare.core import task_names, task_queue

SiteContext = Callable[[HttpRequest], dict[str, Any]]


class ResetForm(PasswordResetForm):
    def __init__(self, *args: Any, address: str, **kwargs: Any) -> None:  # noqa: ANN401 - Django's signature
        super().__init__(*args, **kwargs)
        self._address = address
        self._may_send = False

    def clean_email(self) -> str:
        email: str = self.cleaned_data["email"]
        try:
            self._may_send = throttling.count_password_reset(email, self._address)
        except Throttled as error:
            raise ValidationError("Too many requests. Wait a minute, then try again.") from error
        return email

    def save(self, **options: object) -> None:  # type: ignore[override]  # Django's options are about the mail
        """Has the worker mail the users with this address. The message is sent to it even if there are none."""
        users = [user.pk for user in self.get_users(self.cleaned_data["email"])]
        task_queue.enqueue_on_commit(task_names.SEND_RESET_LINKS, *(users if self._may_send else ()))


class _SitePage:
    """What the four views have in common: the context of the site, and 404 if no mail server is configured."""

    site_context: SiteContext | None = None

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:  # noqa: ANN401
        if not settings.CAN_RESET_PASSWORDS:
            raise Http404("No mail server is configured.")
        return super().dispatch(request, *args, **kwargs)  # type: ignore[misc, no-any-return]

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:  # noqa: ANN401
        context = super().get_context_data(**kwargs)  # type: ignore[misc]
        return {**self.site_context(self.request), **context}  # type: ignore[misc, attr-defined]


class ResetView(_SitePage, views.PasswordResetView):
    form_class = ResetForm
    success_url = reverse_lazy("admin:password-reset-done")

    def get_form_kwargs(self) -> dict[str, Any]:
        return {**super().get_form_kwargs(), "address": self.request.META.get("REMOTE_ADDR", "")}


class ResetDoneView(_SitePage, views.PasswordResetDoneView):
    pass


class ResetConfirmView(_SitePage, views.PasswordResetConfirmView):
    """The token is in the query, because logs have paths. It moves to the session, and the address loses it."""

    success_url = reverse_lazy("admin:password-reset-complete")

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:  # noqa: ANN401
        token = request.GET.get("token", self.reset_url_token)
        return super().dispatch(request, *args, token=token, **kwargs)

    @transaction.atomic
    def form_valid(self, form: "SetPasswordForm[User]") -> HttpResponse:
        response = super().form_valid(form)
        record(self.request, Action.CHANGE, self.user, {"password": None}, user=self.user)
        return response


class ResetCompleteView(_SitePage, views.PasswordResetCompleteView):
    pass


def urls(site_context: SiteContext) -> list[URLPattern]:
    context, root = {"site_context": site_context}, "password-reset"
    return [
        path(f"{root}/", ResetView.as_view(**context), name=root),
        path(f"{root}/done/", ResetDoneView.as_view(**context), name=f"{root}-done"),
        path(f"{root}/complete/", ResetCompleteView.as_view(**context), name=f"{root}-complete"),
        path(f"{root}/<uidb64>/", ResetConfirmView.as_view(**context), name=f"{root}-confirm"),
    ]
