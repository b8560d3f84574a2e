"""Authentication of devices by their token, for the device protocol and the REST API."""

from voicecare.patients.models import TOKEN_PREFIX_LENGTH, Device


def authenticate_device(token: str) -> Device | None:
    """Returns the device with this token, with its patient loaded. Returns None if the device may not connect.

    That is the case for an unknown token, a revoked device, a console whose time is over, and an archived or erased
    patient. Runs one query. The digest is compared in constant time.
    """
    prefix, dot, _ = token.partition(".")
    if not dot or len(prefix) != TOKEN_PREFIX_LENGTH or not prefix.isascii() or "\0" in prefix:
        return None
    device = Device.objects.unexpired().select_related("patient").filter(token_prefix=prefix).first()
    if device is None or not device.token_matches(token) or not device.can_connect:
        return None
    return device
