"""Reads the device token from the ASGI scope of a WebSocket handshake (docs/protocol.md, "Connecting")."""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from django.http.request import validate_host

SUBPROTOCOL = "voicecare.v1"
TOKEN_PREFIX = "token."  # noqa: S105 - a prefix, no secret


def extract_token(scope: Mapping[str, Any], allowed_hosts: Sequence[str]) -> str | None:
    """Return the device token without verifying it.

    Return None if the handshake has no token, does not offer the subprotocol, or has an origin that is not allowed.

    A browser always sends the origin of the page, and pages of other sites are rejected. Some libraries of devices send
    an origin that names no site, for example `null` or `file://`. Such an origin is accepted if the token is in the
    header Authorization, because no page can set that header for a WebSocket.
    """
    headers: dict[bytes, str] = {name: value.decode("latin-1") for name, value in scope["headers"]}
    subprotocols: list[str] = scope.get("subprotocols", [])  # ASGI lets a server leave it out
    if SUBPROTOCOL not in subprotocols:
        return None
    kind, _, token = headers.get(b"authorization", "").partition(" ")
    has_header = kind.lower() == "bearer"
    if not _is_origin_allowed(headers.get(b"origin"), allowed_hosts, allow_no_site=has_header):
        return None
    if has_header:
        return token.strip()
    offered = (name for name in subprotocols if name.startswith(TOKEN_PREFIX))
    return next((name.removeprefix(TOKEN_PREFIX) for name in offered), None)


def _is_origin_allowed(origin: str | None, allowed_hosts: Sequence[str], *, allow_no_site: bool) -> bool:
    if origin is None:
        return True
    try:
        host = urlsplit(origin).hostname
    except ValueError:
        return False
    if host is None:
        return allow_no_site
    return validate_host(f"[{host}]" if ":" in host else host, list(allowed_hosts))
