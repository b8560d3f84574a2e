"""An authenticator app in code."""

import time
from base64 import b32decode

from django_otp.oath import TOTP


def code_of(secret: str, steps_ahead: int = 0) -> str:
    """Return the six digits that an app shows now for a Base32 secret, or shows `steps_ahead` times 30 s later."""
    totp = TOTP(b32decode(secret.replace(" ", "")))
    totp.time = time.time() + 30 * steps_ahead
    return f"{totp.token():06}"
