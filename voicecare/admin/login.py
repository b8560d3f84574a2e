"""The login form of the admin, with the login throttling of the REST API."""

from typing import Any

from django.contrib.admin.forms import AdminAuthenticationForm
from django.core.exceptions import ValidationError
from rest_framework.exceptions import Throttled

from voicecare.api import throttling


class AdminLoginForm(AdminAuthenticationForm):
    def clean(self) -> dict[str, Any]:
        """Check username and password. Attempts count together with those over REST."""
        address = self.request.META.get("REMOTE_ADDR", "") if self.request else ""
        try:
            with throttling.login_attempt(self.cleaned_data.get("username", ""), address):
                return super().clean()
        except Throttled as error:
            raise ValidationError("Too many failed logins. Wait a minute, then try again.") from error
