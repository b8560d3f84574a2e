"""Limits failed logins per username and per address, against guessing passwords.

Each web process counts in its own memory, so the limits do not depend on Redis.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from django.core.cache import caches
from rest_framework.exceptions import Throttled

WINDOW_S = 60
MAX_FAILURES_PER_USERNAME = 5
MAX_FAILURES_PER_ADDRESS = 30  # the clinicians of a hospital share one address


@contextmanager
def login_attempt(username: str, address: str) -> Iterator[None]:
    """Context manager for one login attempt. Raises Throttled if there were too many failures within WINDOW_S.

    The attempt counts before the password check, so that concurrent attempts cannot exceed the limit. A success, which
    is a block without an exception, is subtracted again.
    """
    _count(f"name {username}", MAX_FAILURES_PER_USERNAME)
    _count(f"address {address}", MAX_FAILURES_PER_ADDRESS)
    yield
    _uncount(f"name {username}")
    _uncount(f"address {address}")


def _count(subject: str, limit: int) -> None:
    cache, key = caches["logins"], _key(subject)
    cache.add(key, 0, WINDOW_S)
    try:
        count = cache.incr(key)
    except ValueError:  # the window has just ended
        return
    if count > limit:
        raise Throttled(wait=WINDOW_S)


def _uncount(subject: str) -> None:
    with suppress(ValueError):
        caches["logins"].decr(_key(subject))


def _key(subject: str) -> str:
    """Usernames may contain characters that cache keys may not. The hash also hides them."""
    return hashlib.sha256(subject.encode()).hexdigest()
