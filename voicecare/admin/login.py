"""The admin's log-in, as slow to guess at as the clinicians'."""

from typing import Any

from django.contrib.admin.forms import AdminAuthenticationForm
from django.core.exceptions import ValidationError
from rest_framework.exceptions import Throttled

from voicecare.api import throttling


class AdminLoginForm(AdminAuthenticationForm):
    def clean(self) -> dict[str, Any]:
        """Counted together with the log-ins over REST: who is held up there is held up here."""
        address = self.request.META.get("REMOTE_ADDR", "") if self.request else ""
        try:
            with throttling.login_attempt(self.cleaned_data.get("username", ""), address):
                return super().clean()
        except Throttled as error:
            raise ValidationError("Too many log-ins have failed. Wait a minute, then try again.") from error
