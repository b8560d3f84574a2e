"""Checks of the public URL, as devices and people reach it: TLS, and what the proxy in front of the server does."""

import asyncio
import json
import socket
import ssl
import time
from dataclasses import dataclass
from typing import Any

import aiohttp
from yarl import URL

from voicecare.health import diagnostics
from voicecare.health.parts import Part

TIMEOUT_S = 10.0
CERTIFICATE_WARNING_DAYS = 14
FORGED_ADDRESS = "192.0.2.1"  # reserved for documentation, so nobody has it
PROXY_DOCS = "docs/operation.md says what the proxy must do."


@dataclass(frozen=True, slots=True)
class Reply:
    """The reply of `diagnostics`: what the server saw, and how many seconds passed between its first and last line."""

    seen: dict[str, Any]
    spread_s: float


async def check_public_url(address: str) -> list[Part]:
    """Checks the server behind this address. Never raises."""
    url = URL(address)
    found = [await _check_tls(url)]
    async with aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(TIMEOUT_S),
        headers={"Authorization": diagnostics.authorization(), "X-Forwarded-For": FORGED_ADDRESS},
    ) as http:
        try:
            reply = await _request(http, url)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            advice = "Check PUBLIC_URL, DNS, the proxy, and whether web runs. Another address: --url ADDRESS."
            return [*found, Part("public_url", "Public URL", False, f"{address} fails ({_explain(error)})", advice)]
        found.append(Part("public_url", "Public URL", True, f"{address} leads to this server"))
        found += [
            _check_scheme(url, reply),
            _check_client_address(reply),
            _check_host(url, reply),
            _check_buffering(reply),
        ]
        found.append(await _check_socket(http, url))
    return found


async def _request(http: aiohttp.ClientSession, url: URL) -> Reply:
    """Requests the slow reply. Raises ValueError for a reply of something else."""
    async with http.get(url.with_path(diagnostics.PATH), allow_redirects=False) as response:
        if response.status != 200:
            raise ValueError(_WRONG_STATUS.get(response.status, f"HTTP {response.status}"))
        first_at, body = 0.0, b""
        async for chunk in response.content.iter_any():
            first_at = first_at or time.monotonic()
            body += chunk
        spread_s = time.monotonic() - first_at
    return Reply(json.loads(body.partition(b"\n")[0]), spread_s)


_WRONG_STATUS = {
    400: "HTTP 400: its host is not in ALLOWED_HOSTS",
    403: "HTTP 403: it has another SECRET_KEY, or its clock is wrong",
    502: "HTTP 502: the proxy does not reach web",
    503: "HTTP 503: the proxy does not reach web",
    504: "HTTP 504: the proxy does not reach web",
}


async def _check_tls(url: URL) -> Part:
    title = "TLS"
    if url.scheme != "https":
        advice = "Passwords, tokens and texts can be read on the way. Let a proxy end TLS in front of web."
        return Part("tls", title, True, "not used", advice, warns=True)
    try:
        days = await asyncio.to_thread(_days_left, url)
    except (ssl.SSLError, OSError) as error:
        return Part(
            "tls", title, False, f"no trusted connection ({_explain(error)})", "Renew or correct the certificate."
        )
    state = f"the certificate is valid for {days:.0f} days"
    return Part("tls", title, True, state, "Renew it, and check what renews it.", warns=days < CERTIFICATE_WARNING_DAYS)


def _days_left(url: URL) -> float:
    context = ssl.create_default_context()
    with (
        socket.create_connection((url.host or "", url.port or 443), TIMEOUT_S) as plain,
        context.wrap_socket(plain, server_hostname=url.host) as secure,
    ):
        certificate = secure.getpeercert() or {}
    return (ssl.cert_time_to_seconds(str(certificate["notAfter"])) - time.time()) / 86400


def _check_scheme(url: URL, reply: Reply) -> Part:
    scheme = reply.seen["scheme"]
    advice = f"Links and logins fail. Let the proxy set X-Forwarded-Proto and X-Forwarded-For. {PROXY_DOCS}"
    state = f"the server sees {scheme}, as its clients do" if scheme == url.scheme else f"the server sees {scheme}"
    return Part("forwarded_proto", "X-Forwarded-Proto", scheme == url.scheme, state, advice)


def _check_client_address(reply: Reply) -> Part:
    client = reply.seen["client"]
    if client == FORGED_ADDRESS:
        state = "the server believes an address that the client has made up"
        advice = f"Let the proxy replace the header, not add to it: failed logins are counted by it. {PROXY_DOCS}"
        return Part("forwarded_for", "X-Forwarded-For", False, state, advice)
    if not reply.seen["is_forwarded"]:
        state, advice = f"not set; the server sees {client}", f"Put a proxy that sets it in front of web. {PROXY_DOCS}"
        return Part("forwarded_for", "X-Forwarded-For", True, state, advice, warns=True)
    return Part("forwarded_for", "X-Forwarded-For", True, f"the proxy replaces it; the server sees {client}")


def _check_host(url: URL, reply: Reply) -> Part:
    expected, host = url.authority.rpartition("@")[2], reply.seen["host"]
    advice = f"The origin of forms and device sockets is compared with it. Let the proxy pass Host on. {PROXY_DOCS}"
    return Part("forwarded_host", "Host", host == expected, f"the server sees {host}", advice)


def _check_buffering(reply: Reply) -> Part:
    sent_for_s = (diagnostics.LINES - 1) * diagnostics.PAUSE_S
    streams = reply.spread_s > sent_for_s / 2
    state = "replies are passed on as they are made" if streams else "the proxy keeps replies until they are complete"
    advice = f"Speech starts late. Turn off the buffering of responses (nginx: proxy_buffering off). {PROXY_DOCS}"
    return Part("buffering", "Streaming", streams, state, advice)


async def _check_socket(http: aiohttp.ClientSession, url: URL) -> Part:
    title, advice = "WebSocket", f"Devices cannot connect. Let the proxy pass Upgrade and Connection on. {PROXY_DOCS}"
    try:
        async with http.ws_connect(url.with_path(diagnostics.SOCKET_PATH)) as device:
            text = await device.receive_str()
    except (aiohttp.ClientError, TimeoutError, OSError, TypeError) as error:
        return Part("websocket", title, False, f"not passed on ({_explain(error)})", advice)
    works = text == diagnostics.GREETING
    return Part("websocket", title, works, "passed on" if works else "answered by another server", advice)


def _explain(error: BaseException) -> str:
    """Returns one line. The message of a failed handshake is its status."""
    if isinstance(error, aiohttp.WSServerHandshakeError):
        return f"HTTP {error.status}"
    return " ".join(str(error).split()) or type(error).__name__
