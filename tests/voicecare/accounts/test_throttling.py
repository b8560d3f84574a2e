"""Failed logins are counted per address, and per username from one address, by all processes together."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import connection
from django.test import Client
from django.utils import timezone
from rest_framework.exceptions import Throttled

from voicecare.accounts import throttling
from voicecare.accounts.models import LoginAttempt

LIMIT = throttling.MAX_FAILURES_PER_USERNAME
HERE, ELSEWHERE = "198.51.100.4", "203.0.113.7"

pytestmark = pytest.mark.django_db


def fail(username: str = "carol", address: str = HERE) -> bool:
    """Try to log in with a wrong password. Return whether the password was checked."""
    try:
        with throttling.login_attempt(username, address):
            raise PermissionError
    except PermissionError:
        return True
    except Throttled:
        return False


def test_a_stranger_cannot_lock_a_user_out_at_another_address():
    assert [fail(address=ELSEWHERE) for _ in range(LIMIT + 1)] == [True] * LIMIT + [False]
    assert fail(address=HERE)


def test_a_refused_attempt_does_not_count():
    for _ in range(throttling.MAX_FAILURES_PER_ADDRESS + LIMIT):
        fail()
    assert LoginAttempt.objects.count() == 2 * LIMIT
    assert fail("dave")


@pytest.mark.parametrize(
    ("first", "second", "is_same"),
    [
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("::ffff:198.51.100.4", "198.51.100.4", True),
        ("::ffff:198.51.100.4", "::ffff:198.51.100.5", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("", "", True),
        ("not an address", "neither", False),
    ],
)
def test_one_ipv6_network_counts_as_one_address(first: str, second: str, is_same: bool):
    for _ in range(LIMIT):
        fail(address=first)
    assert fail(address=second) is not is_same


def test_a_typed_username_is_not_stored_or_guessable(settings):
    fail("hunter2")
    subjects = set(LoginAttempt.objects.values_list("subject", flat=True))
    settings.SECRET_KEY = "another"
    fail("hunter2")
    assert subjects.isdisjoint(LoginAttempt.objects.exclude(subject__in=subjects).values_list("subject", flat=True))
    assert LoginAttempt.objects.count() == 4
    assert not [subject for subject in subjects if "hunter2" in subject]


def test_old_attempts_are_deleted_and_new_ones_stay():
    fail()
    LoginAttempt.objects.update(made_at=timezone.now() - timedelta(seconds=throttling.WINDOW_S + 1))
    fail()
    throttling.delete_old_attempts()
    assert LoginAttempt.objects.count() == 2


@pytest.mark.django_db(transaction=True)
def test_concurrent_logins_do_not_exceed_the_limit():
    def log_in(_: int) -> int:
        try:
            body = {"username": "carol", "password": "wrong"}
            return Client().post("/api/v1/auth/token/", body, "application/json").status_code
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as pool:
        codes = list(pool.map(log_in, range(24)))
    assert set(codes) <= {401, 429}
    assert codes.count(401) <= LIMIT
