"""Reads the ASGI scope of a WebSocket handshake (docs/protocol.md, "Connecting")."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from django.http.request import validate_host

from tts.protocol.refusals import FORBIDDEN_ORIGIN, MISSING_TOKEN, WRONG_SUBPROTOCOL, HandshakeError

SUBPROTOCOL = "voicecare.v1"
TOKEN_PREFIX = "token."  # noqa: S105 - a prefix, no secret


def extract_token(scope: Mapping[str, Any], allowed_hosts: Sequence[str], device_origins: Collection[str]) -> str:
    """Return the device token without verifying it.

    Raises HandshakeError if the handshake does not offer the subprotocol, has an origin that is not allowed, or has no
    token.

    A browser always sends the origin of the page. Pages of `allowed_hosts` and of `device_origins` may connect. The
    origins are in lower case. Some libraries of devices send an origin that names no site, for example `null` or
    `file://`. Such an origin is accepted if the token is in the header Authorization, because no page can set that
    header for a WebSocket.
    """
    if SUBPROTOCOL not in _subprotocols(scope):
        raise HandshakeError(WRONG_SUBPROTOCOL)
    bearer = _bearer_token(scope)
    origin = _headers(scope).get(b"origin")
    is_own = origin is None or origin.lower() in device_origins
    if not is_own and not _is_allowed_site(origin or "", allowed_hosts, allow_no_site=bearer is not None):
        raise HandshakeError(FORBIDDEN_ORIGIN)
    offered = (name for name in _subprotocols(scope) if name.startswith(TOKEN_PREFIX))
    token = next((name.removeprefix(TOKEN_PREFIX) for name in offered), "") if bearer is None else bearer
    if not token:
        raise HandshakeError(MISSING_TOKEN)
    return token


def is_browser(scope: Mapping[str, Any]) -> bool:
    """Whether a page in a browser has sent the handshake.

    Every browser sends the header Origin, and no page can send a token in the header Authorization.
    """
    return b"origin" in _headers(scope) and _bearer_token(scope) is None


def subprotocol_for_refusal(scope: Mapping[str, Any]) -> str | None:
    """Return the subprotocol with which a refused handshake is accepted, so that a browser can be told the reason.

    A browser fails the connection if it has offered subprotocols and none of them is chosen. The one with the token is
    never chosen, because the response headers would have the token. No browser offers a name outside of ASCII.
    """
    offered = [name for name in _subprotocols(scope) if name.isascii() and not name.startswith(TOKEN_PREFIX)]
    return SUBPROTOCOL if SUBPROTOCOL in offered else next(iter(offered), None)


def _headers(scope: Mapping[str, Any]) -> dict[bytes, str]:
    return {name: value.decode("latin-1") for name, value in scope["headers"]}


def _subprotocols(scope: Mapping[str, Any]) -> list[str]:
    return scope.get("subprotocols") or []  # ASGI lets a server leave it out


def _bearer_token(scope: Mapping[str, Any]) -> str | None:
    """Return the token in the header Authorization. Return None without a header of the kind Bearer."""
    kind, _, token = _headers(scope).get(b"authorization", "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else None


def _is_allowed_site(origin: str, allowed_hosts: Sequence[str], *, allow_no_site: bool) -> bool:
    try:
        host = urlsplit(origin).hostname
    except ValueError:
        return False
    if host is None:
        return allow_no_site
    return validate_host(f"[{host}]" if ":" in host else host, list(allowed_hosts))
