"""Which URLs an endpoint may have.

HTTPS only, except with DEBUG. No private addresses, except with WEBHOOK_ALLOW_PRIVATE. A name is resolved when a
message is sent (`voicecare.core.http_post`), because what it resolves to can change.
"""

import ipaddress

from django.conf import settings
from django.core.exceptions import ValidationError
from yarl import URL

from voicecare.core.http_post import is_public


def validate_url(url: str) -> None:
    """Raise ValidationError if an endpoint may not have this URL. The message says why."""
    try:
        parts = URL(url)
        host = parts.host or ""
    except ValueError:  # a port out of range, half a bracket
        parts, host = URL(), ""
    if parts.scheme not in ("http", "https") or not host or not url.isascii() or any(c.isspace() for c in url):
        raise ValidationError("Enter a URL like https://host.example.org/hooks.", "invalid")
    if parts.scheme == "http" and not settings.DEBUG:
        raise ValidationError("The URL must begin with https://.", "https_needed")
    if parts.user is not None or parts.password is not None:
        raise ValidationError("The URL must not contain a user name or password. Messages are signed.", "credentials")
    if not settings.WEBHOOK_ALLOW_PRIVATE and _is_private(host):
        raise ValidationError(
            "This is an address of this machine or of a private network. WEBHOOK_ALLOW_PRIVATE allows them.",
            "private_address",
        )


def _is_private(host: str) -> bool:
    if host.rstrip(".").lower() == "localhost":
        return True
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:  # a name
        return False
    return not is_public(host)
