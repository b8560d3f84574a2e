"""Two-factor authentication: a code of an authenticator app (TOTP), or a recovery code, in addition to the password.

A user has at most one authenticator (django-otp's TOTPDevice) and one list of recovery codes (StaticDevice). Both are
created and deleted together. Only digests of recovery codes are stored. django-otp refuses a code that was used before,
and delays further codes after wrong ones.
"""

import hashlib
import re
import secrets
import time
from base64 import b32encode

from django.conf import settings
from django.contrib.auth.models import AnonymousUser, User
from django.db import transaction
from django_otp.oath import TOTP
from django_otp.plugins.otp_static.models import StaticDevice, StaticToken
from django_otp.plugins.otp_totp.models import TOTPDevice, default_key
from rest_framework.exceptions import AuthenticationFailed

RECOVERY_CODES = 10
_TOTP_CODE = re.compile("[0-9]{6}")
_DIGEST_LENGTH = 16  # hexadecimal digits, the length of django-otp's column


def new_key() -> str:
    """Returns a new key of 20 random bytes, in hexadecimal."""
    key: str = default_key()
    return key


def is_required(user: User | AnonymousUser) -> bool:
    """Whether REQUIRE_TWO_FACTOR obliges the user to have a second factor."""
    if settings.REQUIRE_TWO_FACTOR == "administrators":  # those who may change users could give themselves any right
        return user.has_perm("auth.change_user")
    return settings.REQUIRE_TWO_FACTOR == "staff" and user.is_staff


def authenticator_of(user: User | AnonymousUser) -> TOTPDevice | None:
    """Returns the user's authenticator, or None if two-factor authentication is off for this user."""
    return TOTPDevice.objects.filter(user_id=user.pk, confirmed=True).first()


def check_second_factor(user: User | AnonymousUser, code: str) -> TOTPDevice | None:
    """Returns the user's authenticator after the code was checked, or None if the user has no second factor.

    Call this after the password was checked, inside of `throttling.login_attempt`. Raises AuthenticationFailed (401)
    with the code `otp_required` if the code is missing, or `otp_invalid` if it is wrong.
    """
    authenticator = authenticator_of(user)
    if authenticator is None:
        return None
    if not code.strip():
        raise AuthenticationFailed("Enter the code of your authenticator app or a recovery code.", "otp_required")
    if not verify_code(user, code):
        raise AuthenticationFailed("The code is wrong or was used before. Wait for the next one.", "otp_invalid")
    return authenticator


def verify_code(user: User | AnonymousUser, code: str) -> bool:
    """Whether the code is valid now. A valid code is used up. The row is locked, so it is valid only once."""
    code = re.sub(r"[\s-]", "", code)
    is_totp = _TOTP_CODE.fullmatch(code) is not None
    model, token = (TOTPDevice, code) if is_totp else (StaticDevice, _digest(code))
    with transaction.atomic():
        device = model.objects.select_for_update().filter(user_id=user.pk, confirmed=True).first()
        return device is not None and device.verify_token(token)


@transaction.atomic
def set_up(user: User | AnonymousUser, key: str, code: str) -> tuple[TOTPDevice, list[str]] | None:
    """Turns two-factor authentication on, if `code` is the present code of an app that has `key` (hexadecimal).

    Returns the authenticator and the recovery codes. Returns None, and changes nothing, if the code is wrong or the
    user has an authenticator already.
    """
    User.objects.select_for_update().get(username=user.get_username())
    code = re.sub(r"\s", "", code)
    totp = TOTP(bytes.fromhex(key))
    totp.time = time.time()
    if authenticator_of(user) or not _TOTP_CODE.fullmatch(code) or not totp.verify(int(code), 1):
        return None
    device = TOTPDevice.objects.create(
        user_id=user.pk, name="authenticator app", key=key, last_t=totp.t(), drift=totp.drift
    )
    return device, renew_recovery_codes(user)


@transaction.atomic
def renew_recovery_codes(user: User | AnonymousUser) -> list[str]:
    """Replaces all recovery codes of the user, and returns the new ones. They cannot be read again."""
    StaticDevice.objects.filter(user_id=user.pk).delete()
    device = StaticDevice.objects.create(user_id=user.pk, name="recovery codes")
    codes = [b32encode(secrets.token_bytes(10)).decode().lower() for _ in range(RECOVERY_CODES)]
    StaticToken.objects.bulk_create(StaticToken(device=device, token=_digest(code)) for code in codes)
    return ["-".join(re.findall("....", code)) for code in codes]


def recovery_codes_left(user: User | AnonymousUser) -> int:
    left: int = StaticToken.objects.filter(device__user_id=user.pk).count()
    return left


@transaction.atomic
def turn_off(user: User | AnonymousUser) -> bool:
    """Deletes the second factor of a user. Returns whether there was one. Sessions that used it are logged out."""
    StaticDevice.objects.filter(user_id=user.pk).delete()
    deleted: int = TOTPDevice.objects.filter(user_id=user.pk).delete()[0]
    return deleted > 0


def _digest(code: str) -> str:
    """Returns the stored form of a recovery code. The codes have 80 random bits, so they need no salt."""
    return hashlib.sha256(code.lower().encode()).hexdigest()[:_DIGEST_LENGTH]
