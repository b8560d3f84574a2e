"""Limits failed logins, against attempts to guess passwords. The REST API and the admin are counted together. Also
limits requests to reset a password.

There are two limits: per address, and per username from one address. A username has no limit for all addresses
together, because a stranger could then keep its owner from logging in.

The attempts are rows of the database, so all processes of all machines count together. docs/architecture.md says why
this is not django-axes.
"""

import ipaddress
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from django.utils import timezone
from django.utils.crypto import salted_hmac
from rest_framework.exceptions import Throttled

from voicecare.accounts.models import LoginAttempt

WINDOW_S = 60
MAX_FAILURES_PER_USERNAME = 5  # from one address
MAX_FAILURES_PER_ADDRESS = 30  # the clinicians of a hospital share one address
IPV6_PREFIX_LENGTH = 64  # the smallest network that a provider assigns; its owner has all addresses in it


@contextmanager
def login_attempt(username: str, address: str) -> Iterator[None]:
    """Context manager for one login. Raises Throttled (429) if there were too many failed logins within WINDOW_S.

    The password is checked inside the block. An exception in the block counts as a failed login. Every login is counted
    before the block, so that concurrent logins cannot exceed the limit. It is subtracted again if the block succeeds.
    """
    network = _network(address)
    in_address = _count(f"address {network}", MAX_FAILURES_PER_ADDRESS)
    try:
        of_username = _count(f"name {username} from {network}", MAX_FAILURES_PER_USERNAME)
    except Throttled:
        LoginAttempt.objects.filter(pk=in_address).delete()
        raise
    yield
    LoginAttempt.objects.filter(pk__in=(in_address, of_username)).delete()


def count_password_reset(email: str, address: str) -> bool:
    """Counts a request to reset a password. Returns whether a mail may be sent.

    There is at most one mail within WINDOW_S to an address of mail, whoever asks. The typed address is counted, whether
    it is a user's or not, so that both take the same time. Raises Throttled (429) after too many requests of one
    address. Logins are counted separately.
    """
    _count(f"reset from {_network(address)}", MAX_FAILURES_PER_ADDRESS)
    try:
        _count(f"reset of {email.lower()}", 1)
    except Throttled:
        return False
    return True


def delete_old_attempts() -> None:
    """Deletes the attempts that no longer count."""
    LoginAttempt.objects.filter(made_at__lt=timezone.now() - timedelta(seconds=WINDOW_S)).delete()


def _count(subject: str, limit: int) -> int:
    """Adds an attempt and returns its id. Raises Throttled, and adds none, if `limit` attempts are in the window.

    The row is inserted before the rows are counted. Of concurrent attempts, each one sees those that were inserted
    before it, so at most `limit` of them continue.
    """
    digest, now = salted_hmac("voicecare.accounts.throttling", subject, algorithm="sha256").hexdigest(), timezone.now()
    attempt = LoginAttempt.objects.create(subject=digest, made_at=now)
    window = LoginAttempt.objects.filter(subject=digest, made_at__gt=now - timedelta(seconds=WINDOW_S))
    if window.count() > limit:
        attempt.delete()  # a refused attempt does not prolong the refusal
        raise Throttled(wait=WINDOW_S)
    return attempt.pk


def _network(address: str) -> str:
    """Returns the network of an IPv6 address, and every other address unchanged."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:  # a socket of this machine has no address
        return address
    if ip.version == 4:
        return address
    if ip.ipv4_mapped:
        return str(ip.ipv4_mapped)
    return str(ipaddress.ip_network(f"{ip.compressed.partition('%')[0]}/{IPV6_PREFIX_LENGTH}", strict=False))
