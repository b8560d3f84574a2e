"""The admin login limits wrong passwords in the same way as the REST login."""

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from voicecare.accounts import throttling

pytestmark = pytest.mark.django_db
PASSWORD = "correct horse battery"
TOO_MANY_FAILURES = "Too many failed logins"


@pytest.fixture
def boss(settings) -> User:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    return User.objects.create_superuser("boss", password=PASSWORD)


def log_in(username: str = "boss", password: str = PASSWORD) -> Any:
    return Client().post("/admin/login/?next=/admin/", {"username": username, "password": password})


def test_logins_with_the_right_password_are_not_limited(boss: User):
    assert {log_in().headers.get("Location") for _ in range(throttling.MAX_FAILURES_PER_USERNAME + 2)} == {"/admin/"}


def test_after_too_many_failures_the_right_password_is_refused_too(boss: User):
    pages = [log_in(password="wrong").content.decode() for _ in range(throttling.MAX_FAILURES_PER_USERNAME)]
    assert [TOO_MANY_FAILURES in page for page in pages] == [False] * throttling.MAX_FAILURES_PER_USERNAME
    refused = log_in()
    assert refused.status_code == 200
    assert TOO_MANY_FAILURES in refused.content.decode()


def test_failures_in_the_admin_also_count_for_the_rest_login(boss: User):
    for _ in range(throttling.MAX_FAILURES_PER_USERNAME):
        log_in(password="wrong")
    body = {"username": "boss", "password": PASSWORD}
    assert Client().post("/api/v1/auth/token/", body, "application/json").status_code == 429


def test_an_empty_form_shows_the_missing_fields(boss: User):
    page = log_in("", "").content.decode()
    assert "This field is required." in page
    assert TOO_MANY_FAILURES not in page
