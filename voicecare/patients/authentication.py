"""Authentication of devices by their token, for the device protocol and the REST API."""

from voicecare.patients.models import TOKEN_PREFIX_LENGTH, Device


def authenticate_device(token: str) -> Device | None:
    """Returns the device with this token, with its patient loaded. Returns None if the device may not connect.

    That is the case for an unknown token, a revoked device, a console whose time is over, and an archived or erased
    patient. Runs one query.
    """
    device = find_device(token)
    return device if device is not None and device.can_connect else None


def find_device(token: str) -> Device | None:
    """Returns the device with this token, with its patient loaded, also if it may not connect.

    Returns None for an unknown token, and for a console whose time is over. Runs one query. The digest is compared in
    constant time.
    """
    prefix, dot, _ = token.partition(".")
    if not dot or len(prefix) != TOKEN_PREFIX_LENGTH or not prefix.isascii() or "\0" in prefix:
        return None
    device = Device.objects.unexpired().select_related("patient").filter(token_prefix=prefix).first()
    return device if device is not None and device.token_matches(token) else None
