"""The login form of the admin. It limits failed logins like the REST API does."""

from typing import Any

from django import forms
from django.contrib.admin.forms import AdminAuthenticationForm
from django.core.exceptions import ValidationError
from rest_framework.exceptions import AuthenticationFailed, Throttled

from voicecare.accounts import throttling, two_factor
from voicecare.admin.oidc_users import link_confirmed
from voicecare.audit.models import Action
from voicecare.audit.recording import record, record_failed_log_in, record_refused_log_in


class AdminLoginForm(AdminAuthenticationForm):
    otp = forms.CharField(
        label="Two-factor code:",
        required=False,
        max_length=40,
        help_text="Only if you have set up two-factor authentication: the code of your app, or a recovery code.",
        widget=forms.TextInput(attrs={"autocomplete": "one-time-code", "spellcheck": "false"}),
    )

    def clean(self) -> dict[str, Any]:
        """Checks password and second factor. Raises ValidationError if one is wrong, or after too many failures.

        Failed logins of the admin and of the REST API are counted together.
        """
        username = self.cleaned_data.get("username", "")
        address = self.request.META.get("REMOTE_ADDR", "") if self.request else ""
        try:
            with throttling.login_attempt(username, address):
                cleaned_data: dict[str, Any] = super().clean()
                user = self.get_user()
                if user is not None:
                    device = two_factor.check_second_factor(user, self.cleaned_data.get("otp", ""))
                    user.otp_device = device  # type: ignore[attr-defined]  # django-otp puts it into the session
                    record(self.request, Action.LOG_IN, user=user)
                    if self.request is not None:
                        self.request.session.set_expiry(None)  # a login at the provider that was not finished sets one
                        link_confirmed(self.request, user)
                return cleaned_data
        except Throttled as error:
            record_refused_log_in(self.request, username, Action.LOG_IN_THROTTLED)
            raise ValidationError("Too many failed logins. Wait a minute, then try again.") from error
        except AuthenticationFailed as error:
            record_failed_log_in(self.request, username)
            raise ValidationError(str(error.detail)) from error
        except ValidationError:  # a wrong password, or a user who may not log in here
            record_failed_log_in(self.request, username)
            raise
