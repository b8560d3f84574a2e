"""Tokens of the REST API. A login returns one that is valid for twelve hours. Administrators create named ones for
services in the admin.

Each token has a row of knox with its digest, and an ApiToken with its name and its use. A token without an ApiToken is
not valid. Every request reads both, so a token that is revoked is refused from the next request on.

A login is bound to the password and the second factor with which it was made, as sessions of the admin are. A named
token does not depend on them. It is refused while its owner must log in with a second factor, which it does not have.
"""

from datetime import datetime, timedelta

import structlog
from django.contrib.auth.models import User
from django.db import DatabaseError, transaction
from django.db.models import Q, QuerySet
from django.db.models.functions import Now
from django.utils import timezone
from django.utils.crypto import constant_time_compare
from django_otp.plugins.otp_totp.models import TOTPDevice
from knox.models import AuthToken
from rest_framework.exceptions import AuthenticationFailed

from voicecare.accounts import two_factor
from voicecare.accounts.models import ApiToken

LAST_USE_ACCURACY = timedelta(minutes=1)  # one write a minute at most

log = structlog.get_logger(__name__)


@transaction.atomic
def issue_for_log_in(user: User, authenticator: TOTPDevice | None) -> tuple[ApiToken, str]:
    """Returns a new token for a user whose password was checked, and the code of this authenticator, if there is one.

    The second value is the text of the token. It is not stored.
    """
    knox_token, text = AuthToken.objects.create(user)
    token = ApiToken.objects.create(
        owner=user,
        created_by=user,
        expires_at=knox_token.expiry,
        knox_token=knox_token,
        session_hash=user.get_session_auth_hash(),
        authenticator=authenticator,
    )
    return token, text


@transaction.atomic
def issue(token: ApiToken) -> str:
    """Saves a new named token, and returns its text, which is not stored."""
    text: str
    knox_token, text = AuthToken.objects.create(token.owner, expiry=None)
    knox_token.expiry = token.expires_at
    knox_token.save()
    token.knox_token = knox_token
    token.save()
    return text


def check(knox_token: AuthToken) -> None:
    """Raises AuthenticationFailed (401) if the token must not be used any more. Records the use of a valid token.

    knox has checked the digest, the expiry, and that the owner is active.
    """
    token = ApiToken.objects.filter(knox_token=knox_token).first()
    if token is None:
        raise AuthenticationFailed("Invalid token.")
    owner = knox_token.user
    if token.name:
        if two_factor.is_required(owner):
            raise AuthenticationFailed("This user needs two-factor authentication. Use a token of a service user.")
    else:
        authenticator = two_factor.authenticator_of(owner)
        if is_outdated(token, owner, authenticator):
            raise AuthenticationFailed("The password or the second factor was changed. Log in again.")
        if authenticator is None and two_factor.is_required(owner):
            raise AuthenticationFailed("Set up two-factor authentication in the admin first.", "otp_setup_required")
    _record_use(token)


def is_outdated(token: ApiToken, owner: User, authenticator: TOTPDevice | None) -> bool:
    """Whether the owner has changed the password or set up an authenticator since the login of this token."""
    if token.name:
        return False
    if not constant_time_compare(token.session_hash, owner.get_session_auth_hash()):
        return True
    return authenticator is not None and token.authenticator_id != authenticator.pk


def _record_use(token: ApiToken) -> None:
    now = timezone.now()
    if token.last_used_at is not None and token.last_used_at > now - LAST_USE_ACCURACY:
        return
    is_due = Q(last_used_at=None) | Q(last_used_at__lte=now - LAST_USE_ACCURACY)  # not written by another request since
    try:
        ApiToken.objects.filter(is_due, pk=token.pk).update(last_used_at=now)
    except DatabaseError as error:  # a database that is read-only for a moment still answers requests that read
        log.warning("api_token.use_not_recorded", error=type(error).__name__)


@transaction.atomic
def revoke(tokens: QuerySet[ApiToken]) -> list[ApiToken]:
    """Revokes those of the tokens that are not revoked yet, and returns them."""
    found = list(tokens.select_for_update(of=("self",)).filter(revoked_at=None))
    AuthToken.objects.filter(api_token__in=found).delete()
    ApiToken.objects.filter(pk__in=[token.pk for token in found]).update(revoked_at=timezone.now())
    return found


@transaction.atomic
def delete(tokens: QuerySet[ApiToken]) -> None:
    """Deletes the tokens and their digests, so that they are not valid any more."""
    found = [token.pk for token in tokens]
    AuthToken.objects.filter(api_token__in=found).delete()
    ApiToken.objects.filter(pk__in=found).delete()


def log_out(knox_token: AuthToken) -> None:
    """Ends a token at the wish of its holder: deletes a login, and revokes a named token."""
    tokens = ApiToken.objects.filter(knox_token=knox_token)
    if tokens.filter(name="").exists():
        delete(tokens)
    else:
        revoke(tokens)


def delete_expired() -> None:
    """Deletes the digests of expired tokens, and the rows of expired logins. Rows of named tokens stay."""
    AuthToken.objects.filter(expiry__lt=Now()).delete()
    ApiToken.objects.filter(name="", expires_at__lt=Now()).delete()


def default_expiry() -> datetime:
    """Returns the expiry that the admin offers for a new named token: a year from now."""
    return (timezone.now() + timedelta(days=365)).replace(second=0, microsecond=0)
