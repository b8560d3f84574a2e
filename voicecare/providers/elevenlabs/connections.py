"""The connections to the provider. Only the public interface of aiohttp is used.

A firewall or load balancer can forget an idle connection: it then drops or rejects the packets of this connection. All
that the client notices is that a request on the connection gets no response. Usually the other idle connections of the
same age are affected, too. So all of them are discarded: `Connections` replaces the pool with a new one, and the old
pool is closed when its last request has ended. The retry of the request must not have the same fault, so it uses a
connection that no other request has used.

To prevent this, the operating system sends a probe on each idle connection from time to time (TCP keepalive). So the
firewall does not forget the connection, and dead connections are found.
"""

import asyncio
import math
import socket
from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp

KEEPALIVE_S = 240.0
"""Lifetime of an idle connection. Patients pause between turns, and a new connection costs two or three round trips."""

UNUSED_S = 30.0
"""Connections that were opened in advance are closed after this time if the pool has served no speech."""

_DNS_CACHE_S = 300
_TCP_KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}
"""Idle seconds before the first probe, seconds between probes, and unanswered probes that end a connection."""


@dataclass(eq=False, slots=True)
class Pool:
    """A session of aiohttp with its connections.

    `running` is the number of requests in progress. `used_at` is the time at which the last request began, in seconds
    of the event loop's clock. Requests that only open connections in advance do not change it.
    """

    session: aiohttp.ClientSession
    running: int = 0
    used_at: float = -math.inf


class Connections:
    """The connections of this process: a pool for reuse, and connections that serve one request each.

    All methods must be called on one event loop. The number of connections has no limit here, because the number of
    concurrent requests is limited elsewhere.
    """

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._headers = headers
        self._pool: Pool | None = None
        self._single_use: Pool | None = None
        self._retired: set[Pool] = set()
        self._closing: set[asyncio.Task[None]] = set()
        self._unused_timer: asyncio.TimerHandle | None = None

    def open(self) -> None:
        """Creates the pools in the running event loop, without opening a connection. A second call does nothing."""
        if self._pool is None:
            self._pool = self._create_pool()
            self._single_use = self._create_pool(reuse=False)

    async def close(self) -> None:
        """Closes all connections. Requests in progress fail, and `begin` returns None from then on."""
        pools = [*filter(None, (self._pool, self._single_use)), *self._retired]
        self._pool = self._single_use = None
        self._retired.clear()
        if self._unused_timer is not None:
            self._unused_timer.cancel()
        for pool in pools:
            await pool.session.close()
        if self._closing:
            await asyncio.wait(self._closing)

    def change_headers(self, headers: Mapping[str, str]) -> None:
        """Send these headers from now on, on new connections. Running requests continue."""
        self._headers = headers
        if self._pool is not None and self._single_use is not None:
            self._retire(self._pool)
            self._retire(self._single_use)
            self._pool, self._single_use = self._create_pool(), self._create_pool(reuse=False)

    def begin(self, *, new_connection: bool) -> Pool | None:
        """Returns the pool for one request, or None if the client is not open. Call `end` when the request has ended.

        With `new_connection`, the request gets a new connection, which is closed when the request has ended.
        """
        pool = self._single_use if new_connection else self._pool
        if pool is not None:
            pool.running += 1
            pool.used_at = asyncio.get_running_loop().time()
        return pool

    def begin_in_advance(self) -> Pool | None:
        """Does the same as `begin`, for a request that only opens a connection or tests an idle one."""
        if self._pool is not None:
            self._pool.running += 1
        return self._pool

    def end(self, pool: Pool, *, unanswered: bool = False) -> None:
        """Must be called when a request of this pool has ended.

        If the request is `unanswered`, which means that it got no response, the idle connections of the pool are
        discarded.
        """
        pool.running -= 1
        if unanswered:
            self._discard_idle(pool)
        if pool in self._retired and not pool.running:
            self._retired.discard(pool)
            self._close_in_background(pool)

    def close_if_unused(self) -> None:
        """Starts a timer of `UNUSED_S` seconds. A further call starts the timer again.

        When the timer ends, the idle connections are closed if no request has begun in the last `KEEPALIVE_S` seconds.
        """
        if self._unused_timer is not None:
            self._unused_timer.cancel()
        if (pool := self._pool) is not None:
            loop = asyncio.get_running_loop()
            self._unused_timer = loop.call_later(UNUSED_S, self._discard_unused, pool)

    def _discard_unused(self, pool: Pool) -> None:
        if asyncio.get_running_loop().time() - pool.used_at > KEEPALIVE_S:
            self._discard_idle(pool)

    def _discard_idle(self, pool: Pool) -> None:
        """Replaces the pool with a new one. Requests of the old pool continue.

        Does nothing if `pool` was already replaced.
        """
        if pool is self._pool:
            self._pool = self._create_pool()
            self._retire(pool)

    def _retire(self, pool: Pool) -> None:
        """Closes the pool when its running requests have ended."""
        if pool.running:
            self._retired.add(pool)
        else:
            self._close_in_background(pool)

    def _close_in_background(self, pool: Pool) -> None:
        task = asyncio.get_running_loop().create_task(pool.session.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _create_pool(self, *, reuse: bool = True) -> Pool:
        connector = aiohttp.TCPConnector(
            limit=0,
            force_close=not reuse,
            keepalive_timeout=KEEPALIVE_S if reuse else None,
            ttl_dns_cache=_DNS_CACHE_S,
            socket_factory=_create_socket,
        )
        session = aiohttp.ClientSession(
            connector=connector,
            headers=self._headers,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
        )
        return Pool(session)


def _create_socket(address: aiohttp.AddrInfoType) -> socket.socket:
    """Returns a socket with TCP keepalive.

    An interval that the operating system cannot set keeps its longer default.
    """
    family, kind, protocol, _, _ = address
    created = socket.socket(family, kind, protocol)
    created.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _TCP_KEEPALIVE.items():
        if hasattr(socket, name):
            created.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return created
