"""Rows about logins."""

from django.contrib.auth.models import User
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django_otp.plugins.otp_totp.models import TOTPDevice
from knox.models import AuthToken


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


class ProviderIdentity(models.Model):
    """An account at an OpenID Connect provider that logs in as a user here. See `voicecare.admin.oidc_users`.

    `subject` is the provider's id of the account (`sub`), which never changes and is never given to another account.
    """

    user = models.ForeignKey(User, models.CASCADE, related_name="provider_identities")
    issuer = models.CharField(max_length=255)
    subject = models.CharField(max_length=255, help_text="The provider's id of the account.")
    created_at = models.DateTimeField("linked at", auto_now_add=True)

    class Meta:
        default_permissions = ("view", "delete")
        verbose_name = "account at a provider"
        verbose_name_plural = "accounts at a provider"
        constraints = [
            models.UniqueConstraint(fields=["issuer", "subject"], name="provider_identity_once"),
            models.UniqueConstraint(fields=["user", "issuer"], name="provider_identity_one_per_user"),
        ]

    def __str__(self) -> str:
        return f"account of user {self.user_id}"


class ApiToken(models.Model):
    """A token of the REST API: of a login, or a named one for a service. See tokens.py.

    knox's row has the digest. It is deleted when the token is revoked or has expired, and this row stays.
    """

    name = models.CharField(
        max_length=100, blank=True, help_text="The service that will use the token, such as Ward screens."
    )  # empty for a login
    owner = models.ForeignKey(
        User, models.CASCADE, related_name="api_tokens", help_text="The token may do what this user may do."
    )
    created_by = models.ForeignKey(User, models.SET_NULL, null=True, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(null=True, blank=True, help_text="Leave it empty for a token without an end.")
    last_used_at = models.DateTimeField(null=True)  # within a minute
    revoked_at = models.DateTimeField(null=True)
    knox_token = models.OneToOneField(AuthToken, models.SET_NULL, null=True, related_name="api_token")
    # How the user has logged in; only for logins.
    session_hash = models.CharField(max_length=64, blank=True)  # of the password, as in Django's sessions
    authenticator = models.ForeignKey(TOTPDevice, models.SET_NULL, null=True, related_name="+")

    class Meta:
        verbose_name = "API token"
        constraints = [
            models.UniqueConstraint(
                fields=["owner", "name"],
                condition=Q(revoked_at=None) & ~Q(name=""),
                name="api_token_name_in_use",
            )
        ]

    def __str__(self) -> str:
        return self.name or "Login"


class IdempotentCall(models.Model):
    """A REST call with an `Idempotency-Key` that has created a row. See voicecare/api/idempotency.py.

    The key and the request can contain names, so only keyed digests of them are stored.
    """

    user = models.ForeignKey(User, models.CASCADE, related_name="+")
    route = models.CharField(max_length=100)  # the name of the URL: each call has its own keys
    key_digest = models.CharField(max_length=64)
    request_digest = models.CharField(max_length=64)
    object_id = models.UUIDField(null=True)  # of the created row; null only within the transaction that creates it
    made_at = models.DateTimeField(db_default=Now())

    class Meta:
        default_permissions = ()  # no page shows these rows
        indexes = [models.Index(fields=["made_at"], name="idempotent_call_by_time")]
        constraints = [
            models.UniqueConstraint(fields=["user", "route", "key_digest"], name="idempotent_call_once"),
        ]
