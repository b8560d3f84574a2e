"""Whoever guesses passwords at the admin's door is stopped as at the clinicians'."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.cache import caches
from django.test import Client

from voicecare.api import throttling

pytestmark = pytest.mark.django_db
PASSWORD = "correct horse battery"
HELD_UP = "Too many log-ins have failed"


@pytest.fixture(autouse=True)
def nobody_has_tried() -> Iterator[None]:
    caches["logins"].clear()
    yield
    caches["logins"].clear()


@pytest.fixture
def boss(settings) -> User:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    return User.objects.create_superuser("boss", password=PASSWORD)


def log_in(username: str = "boss", password: str = PASSWORD) -> Any:
    return Client().post("/admin/login/?next=/admin/", {"username": username, "password": password})


def test_who_is_right_comes_in_as_often_as_they_like(boss: User):
    assert {log_in().headers.get("Location") for _ in range(throttling.MAX_FAILURES_PER_USERNAME + 2)} == {"/admin/"}


def test_guessing_is_stopped_even_if_the_next_guess_were_right(boss: User):
    pages = [log_in(password="wrong").content.decode() for _ in range(throttling.MAX_FAILURES_PER_USERNAME)]
    assert [HELD_UP in page for page in pages] == [False] * throttling.MAX_FAILURES_PER_USERNAME
    refused = log_in()
    assert refused.status_code == 200
    assert HELD_UP in refused.content.decode()


def test_guesses_at_one_door_count_at_the_other(boss: User):
    for _ in range(throttling.MAX_FAILURES_PER_USERNAME):
        log_in(password="wrong")
    body = {"username": "boss", "password": PASSWORD}
    assert Client().post("/api/v1/auth/token/", body, "application/json").status_code == 429


def test_an_empty_form_is_told_what_is_missing(boss: User):
    page = log_in("", "").content.decode()
    assert "This field is required." in page
    assert HELD_UP not in page
