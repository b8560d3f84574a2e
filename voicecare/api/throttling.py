"""Guessing passwords is slow: a few failed log-ins a minute for a user name, some more for an address.

Counted in the memory of each web process, so that it holds whatever became of Redis.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from django.core.cache import caches
from rest_framework.exceptions import Throttled

WINDOW_S = 60
MAX_FAILURES_PER_USERNAME = 5
MAX_FAILURES_PER_ADDRESS = 30  # a hospital's clinicians share one


@contextmanager
def login_attempt(username: str, address: str) -> Iterator[None]:
    """Around the look at a password: raises Throttled before it, counts what raises, forgets what succeeds.

    Counted before the look, or many at once would all pass.
    """
    _count(f"name {username}", MAX_FAILURES_PER_USERNAME)
    _count(f"address {address}", MAX_FAILURES_PER_ADDRESS)
    yield
    _forget(f"name {username}")
    _forget(f"address {address}")


def _count(what: str, limit: int) -> None:
    cache, key = caches["logins"], _key(what)
    cache.add(key, 0, WINDOW_S)
    try:
        count = cache.incr(key)
    except ValueError:  # the window ended this very moment
        return
    if count > limit:
        raise Throttled(wait=WINDOW_S)


def _forget(what: str) -> None:
    with suppress(ValueError):
        caches["logins"].decr(_key(what))


def _key(what: str) -> str:
    """A name may hold anything; a key may not, and shows none."""
    return hashlib.sha256(what.encode()).hexdigest()
