"""Which URLs an endpoint may have, and which IP addresses are public."""

import pytest
from django.core.exceptions import ValidationError
from pytest_django import Settings

from voicecare.core.http_post import is_public
from voicecare.webhooks.addresses import validate_url


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1:248:1893:25c8:1946", True),
        ("127.0.0.1", False),
        ("10.0.0.1", False),
        ("172.16.5.4", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("::ffff:10.0.0.1", False),
        ("64:ff9b::7f00:1", False),
        ("2002:7f00:1::", False),
    ],
)
def test_public_addresses(address: str, public: bool):
    assert is_public(address) is public


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("https://records.example.org/hooks?x=1", None),
        ("https://93.184.216.34:8443/", None),
        ("http://records.example.org/hooks", "https_needed"),
        ("ftp://records.example.org/", "invalid"),
        ("records.example.org", "invalid"),
        ("https://", "invalid"),
        ("https://host:99999/", "invalid"),
        ("https://a b.example.org/", "invalid"),
        ("https://[::1/", "invalid"),
        ("https://user:password@records.example.org/", "credentials"),
        ("https://127.0.0.1/", "private_address"),
        ("https://localhost./", "private_address"),
        ("https://[::1]/", "private_address"),
        ("https://192.168.0.7/", "private_address"),
    ],
)
def test_urls_in_production(settings: Settings, url: str, code: str | None):
    settings.WEBHOOK_ALLOW_PRIVATE = False
    assert problem_of(url) == code


def test_private_addresses_and_http_need_their_settings(settings: Settings):
    settings.WEBHOOK_ALLOW_PRIVATE = True
    assert problem_of("https://192.168.0.7/") is None
    assert problem_of("http://192.168.0.7/") == "https_needed"
    settings.DEBUG = True
    assert problem_of("http://192.168.0.7/") is None


def problem_of(url: str) -> str | None:
    try:
        validate_url(url)
    except ValidationError as error:
        return error.code
    return None
