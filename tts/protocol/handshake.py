"""Reads the device token from the ASGI scope of a WebSocket handshake (docs/protocol.md, "Connecting")."""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from django.http.request import validate_host

SUBPROTOCOL = "voicecare.v1"
TOKEN_PREFIX = "token."  # noqa: S105


def extract_token(scope: Mapping[str, Any], allowed_hosts: Sequence[str]) -> str | None:
    """Return the device token, unverified.

    Return None if the handshake has no token, does not offer the subprotocol, or has an origin that is not allowed.
    """
    headers: dict[bytes, str] = {name: value.decode("latin-1") for name, value in scope["headers"]}
    subprotocols: list[str] = scope.get("subprotocols", [])  # ASGI lets a server leave it out
    if SUBPROTOCOL not in subprotocols or not _is_origin_allowed(headers.get(b"origin"), allowed_hosts):
        return None
    kind, _, token = headers.get(b"authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return token.strip()
    offered = (name for name in subprotocols if name.startswith(TOKEN_PREFIX))
    return next((name.removeprefix(TOKEN_PREFIX) for name in offered), None)


def _is_origin_allowed(origin: str | None, allowed_hosts: Sequence[str]) -> bool:
    """Devices send no Origin. Browsers do, and a page of another site may not connect with a token of this one."""
    if origin is None:
        return True
    try:
        host = urlsplit(origin).hostname
    except ValueError:
        return False
    return host is not None and validate_host(f"[{host}]" if ":" in host else host, list(allowed_hosts))
