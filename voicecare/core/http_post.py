"""Sends one HTTP POST to an address that somebody has configured: the webhook of the alerts, and those of integrators.

Redirects are not followed and proxies of the environment are not used, so a message goes to the configured address
only. A receiver that hangs, or that answers slowly or endlessly, is given up after TIMEOUT_S.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Mapping
from typing import NamedTuple

import aiohttp
from aiohttp.abc import ResolveResult
from yarl import URL

CONNECT_TIMEOUT_S, TIMEOUT_S = 3.0, 10.0
EXCERPT_BYTES = 1000  # of a response; the rest is not read

# Addresses that stand for an IPv4 address of any network: 6to4, and NAT64.
_TRANSLATED = (ipaddress.ip_network("2002::/16"), ipaddress.ip_network("64:ff9b::/96"))


class PrivateAddress(OSError):
    """The host is in a private network, or it is this machine."""


class Reply(NamedTuple):
    """The status of the response, and the beginning of its body as text."""

    status: int
    excerpt: str

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300


class _PublicResolver(aiohttp.ThreadedResolver):
    """Resolves names, and refuses addresses that are not public. The connection goes to the address that was checked.

    So a name that resolves to another address a moment later does not help an attacker.
    """

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await super().resolve(host, port, family)
        public = [address for address in found if is_public(address["host"])]
        if not public:
            raise PrivateAddress
        return public


def is_public(address: str) -> bool:
    """Whether an IP address is reachable on the internet: not private, loopback, link-local or reserved."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        elif any(ip in network for network in _TRANSLATED):
            return False
    return ip.is_global and not ip.is_multicast


def session(*, public_only: bool) -> aiohttp.ClientSession:
    """Return a session for `post`. With `public_only`, a connection to another address raises PrivateAddress."""
    # Only connections to names use the resolver. `post` checks an IP address.
    resolver = _PublicResolver() if public_only else aiohttp.ThreadedResolver()
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(resolver=resolver, use_dns_cache=False, force_close=True),
        timeout=aiohttp.ClientTimeout(total=TIMEOUT_S, sock_connect=CONNECT_TIMEOUT_S),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        headers={"User-Agent": "voicecare"},
    )


async def post(
    client: aiohttp.ClientSession, url: str, body: bytes, headers: Mapping[str, str], *, public_only: bool
) -> Reply:
    """Send the body and return the reply, whatever its status.

    Raises TimeoutError, PrivateAddress, or another OSError or aiohttp.ClientError if there is no reply.
    """
    host = URL(url).host or ""
    if public_only and _is_ip_address(host) and not is_public(host):
        raise PrivateAddress
    async with client.post(url, data=body, headers=headers, allow_redirects=False) as response:
        start = await response.content.read(EXCERPT_BYTES)
    return Reply(response.status, start.decode(errors="replace"))


def post_once(url: str, body: bytes, headers: Mapping[str, str]) -> Reply:
    """Like `post`, in a thread without an event loop, to any address."""

    async def send() -> Reply:
        async with session(public_only=False) as client:
            return await post(client, url, body, headers, public_only=False)

    return asyncio.run(send())


def _is_ip_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True
