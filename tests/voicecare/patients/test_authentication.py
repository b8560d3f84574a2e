"""Authentication of devices: a token identifies its device, and every other value is refused."""

import pytest
from django.utils import timezone

from tests.conftest import Member
from voicecare.patients.authentication import authenticate_device
from voicecare.patients.models import Device, Patient

pytestmark = pytest.mark.django_db


def test_a_token_authenticates_its_device(alice: Member, bob: Member):
    assert authenticate_device(alice.token) == alice.device
    assert authenticate_device(bob.token) == bob.device


def test_authentication_reads_device_and_patient_in_one_query(alice: Member, django_assert_num_queries):
    with django_assert_num_queries(1):
        assert authenticate_device(alice.token).patient.name == "Alice Archer"


def test_the_secret_of_another_device_is_refused(alice: Member, bob: Member):
    prefix, secret = alice.token.split(".")[0], bob.token.split(".")[1]
    assert authenticate_device(f"{prefix}.{secret}") is None


def test_a_replaced_token_is_refused(alice: Member):
    renewed = alice.device.renew_token()
    alice.device.save()
    assert authenticate_device(alice.token) is None
    assert authenticate_device(renewed) == alice.device


def test_a_revoked_device_is_refused(alice: Member):
    Device.objects.update(revoked_at=timezone.now())
    assert authenticate_device(alice.token) is None


@pytest.mark.parametrize("field", ["archived_at", "erased_at"])
def test_the_device_of_an_inactive_patient_is_refused(field, alice: Member, bob: Member):
    Patient.objects.filter(pk=alice.patient.pk).update(**{field: timezone.now()})
    assert authenticate_device(alice.token) is None
    assert authenticate_device(bob.token) == bob.device


def variants(token: str) -> list[str]:
    prefix, secret = token.split(".")
    return [
        token[:-1],
        token + "x",
        token + " ",
        " " + token,
        token + "\n",
        token + "\0",
        token + "." + secret,
        prefix,
        prefix + ".",
        "." + secret,
        secret,
        prefix + secret,
        prefix.upper() + "." + secret + "é",
        prefix + "." + secret.swapcase(),
        prefix + "." + "x" * 1_000_000,
    ]


def test_a_variation_of_a_valid_token_is_refused(alice: Member):
    assert [token for token in variants(alice.token) if authenticate_device(token) is not None] == []


@pytest.mark.parametrize(
    "token",
    [
        "",
        ".",
        "..",
        "x",
        "a" * 1_000_000,
        "a" * 8 + ".",
        "\0" * 8 + ".x",
        "aaaaaaa\0.x",
        "é" * 8 + ".x",
        "\ud800" * 8 + ".x",
        "aaaaaaaa.\ud800",
        "％" * 8 + ".x",
        "%%%%%%%%.x",
        "' or 1=1.x",
        "aaaaaaaa.\0",
        "💚.💚",
    ],
)
def test_a_malformed_token_is_refused(token, alice: Member):
    assert authenticate_device(token) is None
