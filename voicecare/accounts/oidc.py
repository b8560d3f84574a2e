"""Log-in to the admin with OpenID Connect: the authorization code flow with PKCE, by Authlib.

The provider's ID token says who logs in. Authlib checks its signature, issuer, audience, expiry and nonce, and the
state of the request. Who that is here is stored by issuer and `sub` (`voicecare.admin.oidc_users`). The claim
`OIDC_USERNAME_CLAIM` is needed only until then. The provider may also decide the groups of the user.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from authlib.integrations.django_client import DjangoOAuth2App
from authlib.integrations.django_client.integration import DjangoIntegration
from django.conf import settings
from django.contrib.auth.models import Group
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from yarl import URL

MAX_SUBJECT_LENGTH = 255  # as OpenID Connect allows
TIMEOUT_S = 5  # for each request to the provider
ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
_LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
_TWO_FACTORS_SESSION_KEY = "oidc_two_factors"


class LogInRefused(Exception):
    """The provider's answer does not let anybody in. The message is for the user, `reason` is for the log."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Identity:
    """Whom the provider has logged in.

    `subject` is the account at the provider, for ever. `username` is its name there now. `groups` are those of this
    server, None if the provider does not decide them.
    """

    subject: str
    username: str
    groups: list[Group] | None


def is_configured() -> bool:
    return bool(settings.OIDC_ISSUER) and not configuration_problems()


def configuration_problems() -> list[str]:
    """Returns what is wrong with the settings, each in one line. Without any setting, nothing is wrong."""
    secret = settings.OIDC_CLIENT_SECRET or settings.OIDC_CLIENT_SECRET_FILE
    needed = {
        "OIDC_ISSUER": settings.OIDC_ISSUER,
        "OIDC_CLIENT_ID": settings.OIDC_CLIENT_ID,
        "OIDC_CLIENT_SECRET (or OIDC_CLIENT_SECRET_FILE)": secret,
    }
    missing = [name for name, value in needed.items() if not value]
    if len(missing) == len(needed):
        return []
    if missing:
        return [f"OpenID Connect is half configured and therefore off: set {' and '.join(missing)}, too."]
    if settings.OIDC_CLIENT_SECRET and settings.OIDC_CLIENT_SECRET_FILE:
        return ["Set OIDC_CLIENT_SECRET or OIDC_CLIENT_SECRET_FILE, not both. OpenID Connect is off."]
    if not _is_safe(settings.OIDC_ISSUER):
        return ["OIDC_ISSUER must be an address that begins with https://. OpenID Connect is off."]
    return []


def _is_safe(issuer: str) -> bool:
    try:
        url = URL(issuer)
    except ValueError:
        return False
    return bool(url.host) and (url.scheme == "https" or (url.scheme == "http" and url.host in _LOCAL_HOSTS))


def redirect_to_provider(request: HttpRequest) -> HttpResponse:
    """Returns the redirect to the provider's login page. State, nonce and PKCE verifier are kept in the session."""
    redirect_uri = settings.PUBLIC_URL.rstrip("/") + reverse("admin:oidc-callback")
    try:
        response: HttpResponse = _client().authorize_redirect(request, redirect_uri)
    except Exception as error:  # a provider, or whatever answers in its place, can answer anything
        raise _unusable(error) from error
    return response


def identity_of(request: HttpRequest) -> Identity:
    """Returns whom the provider has sent back with this request. Raises LogInRefused."""
    try:
        claims = _claims(_client(), request)
    except Exception as error:  # see above
        raise _unusable(error) from error
    return _identity(claims)


def _client() -> DjangoOAuth2App:
    """Returns a new client, which reads the provider's metadata and keys anew. Logins are rare, and keys change."""
    secret = settings.OIDC_CLIENT_SECRET or Path(settings.OIDC_CLIENT_SECRET_FILE).read_text().strip()
    return DjangoOAuth2App(
        DjangoIntegration("oidc"),
        name="oidc",
        client_id=settings.OIDC_CLIENT_ID,
        client_secret=secret,
        server_metadata_url=f"{settings.OIDC_ISSUER.rstrip('/')}/.well-known/openid-configuration",
        client_kwargs={
            "scope": settings.OIDC_SCOPES,
            "code_challenge_method": "S256",
            "default_timeout": TIMEOUT_S,
        },
    )


def _claims(client: DjangoOAuth2App, request: HttpRequest) -> Mapping[str, Any]:
    """Returns the checked claims of the ID token, and those of the provider's user info if they are needed."""
    client.load_server_metadata()["id_token_signing_alg_values_supported"] = ALGORITHMS  # never "none"
    expected = {
        "iss": {"essential": True, "value": settings.OIDC_ISSUER},
        "aud": {"essential": True, "value": settings.OIDC_CLIENT_ID},
    }
    token = client.authorize_access_token(request, claims_options=expected)
    claims: dict[str, Any] = token["userinfo"]  # of the ID token
    wanted = {settings.OIDC_USERNAME_CLAIM, *filter(None, [settings.OIDC_GROUPS_CLAIM])}
    if not wanted <= claims.keys() and client.server_metadata.get("userinfo_endpoint"):
        info = client.userinfo(token=token)
        if info["sub"] != claims["sub"]:
            raise ValueError("the user info is about another user")
        claims = {**info, **claims}
    return claims


def _unusable(error: Exception) -> LogInRefused:
    return LogInRefused(type(error).__name__, "The login did not work. Try again, or log in with a password.")


def _identity(claims: Mapping[str, Any]) -> Identity:
    name = claims.get(settings.OIDC_USERNAME_CLAIM)
    if not isinstance(name, str) or not name:
        raise LogInRefused("no_username", "The provider did not say who you are. Ask an administrator.")
    if settings.OIDC_USERNAME_CLAIM == "email" and claims.get("email_verified") is not True:
        raise LogInRefused("email_not_verified", "Your provider has not verified your address. Ask an administrator.")
    subject = claims["sub"]
    if not isinstance(subject, str) or not 0 < len(subject) <= MAX_SUBJECT_LENGTH:
        raise LogInRefused("bad_subject", "The provider did not say who you are. Ask an administrator.")
    return Identity(subject, name, _groups(claims))


def _groups(claims: Mapping[str, Any]) -> list[Group] | None:
    """Returns the groups that the provider names and that exist here. None if the provider does not decide them."""
    if not settings.OIDC_GROUPS_CLAIM:
        return None
    named = claims.get(settings.OIDC_GROUPS_CLAIM)
    named = [named] if isinstance(named, str) else named if isinstance(named, list) else []
    return list(Group.objects.filter(name__in=[name for name in named if isinstance(name, str)]))


def mark_session(request: HttpRequest) -> None:
    """Records in the session, after the login, that the provider has checked the user."""
    request.session[_TWO_FACTORS_SESSION_KEY] = True


def has_checked_two_factors(request: HttpRequest) -> bool:
    """Whether the session was opened at a provider that checks two factors (OIDC_COUNTS_AS_TWO_FACTOR)."""
    return settings.OIDC_COUNTS_AS_TWO_FACTOR and request.session.get(_TWO_FACTORS_SESSION_KEY) is True
