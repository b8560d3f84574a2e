"""Rows about logins."""

from django.db import models
from django_otp.plugins.otp_totp.models import TOTPDevice


class LoginAttempt(models.Model):
    """A login that has failed, or whose password is being checked. See throttling.py.

    `subject` is a keyed hash of an address, or of a username and an address. A typed username can be a password.
    """

    subject = models.CharField(max_length=64)
    made_at = models.DateTimeField()

    class Meta:
        default_permissions = ()  # no page shows these rows
        indexes = [models.Index(fields=["subject", "made_at"], name="login_attempt_by_subject")]


class SecondFactor(TOTPDevice):
    """The authenticator of a user, for the list in the admin. See two_factor.py."""

    class Meta:
        proxy = True
        default_permissions = ("view", "delete")
        verbose_name = "second factor"
        verbose_name_plural = "second factors"

    def __str__(self) -> str:
        return f"second factor of user {self.user_id}"
