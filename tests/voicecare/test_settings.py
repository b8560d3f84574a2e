"""Settings that depend on environment variables."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run_with_environment(name: str, **env: str) -> "subprocess.CompletedProcess[str]":
    code = f"from django.conf import settings; print(settings.{name})"
    env = {**os.environ, "DJANGO_SETTINGS_MODULE": "voicecare.settings", "SECRET_KEY": "s", **env}
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, text=True, capture_output=True, check=False)


def setting(name: str, **env: str) -> str:
    process = run_with_environment(name, **env)
    assert process.returncode == 0, process.stderr
    return process.stdout.strip()


def test_the_sandbox_and_the_provider_use_different_phrase_secrets():
    assert setting("PHRASE_SECRET") != setting("PHRASE_SECRET", ELEVENLABS_API_KEY="key")


@pytest.mark.parametrize("address", ["", "localhost:9000", "http://", "ftp://provider", "http://provider:99999"])
def test_an_invalid_provider_url_stops_the_start_with_an_error_message(address: str):
    """Otherwise every patient would hear the offline voice."""
    process = run_with_environment("ELEVENLABS_BASE_URL", ELEVENLABS_BASE_URL=address)
    assert process.returncode != 0
    assert "ELEVENLABS_BASE_URL" in process.stderr
    assert "It must be an address like https://api.elevenlabs.io." in process.stderr


@pytest.mark.parametrize("address", ["https://api.elevenlabs.io/", "http://127.0.0.1:8001", "http://sand_box/a/prefix"])
def test_a_valid_provider_url_is_accepted(address: str):
    assert setting("ELEVENLABS_BASE_URL", ELEVENLABS_BASE_URL=address) == address


@pytest.mark.parametrize(("address", "secure"), [("https://voices.example", "True"), ("http://localhost", "False")])
def test_cookies_are_secure_if_the_public_url_uses_tls(address: str, secure: str):
    for name in ("SESSION_COOKIE_SECURE", "CSRF_COOKIE_SECURE"):
        assert setting(name, PUBLIC_URL=address) == secure


@pytest.mark.parametrize(
    ("redis_url", "broker_url"),
    [
        ("redis://host:6379/1", "redis://host:6379/1"),
        ("rediss://:p%40ss@host/0", "rediss://:p%40ss@host/0?ssl_cert_reqs=required"),
        ("rediss://host/0?ssl_ca_certs=/ca.pem", "rediss://host/0?ssl_ca_certs=/ca.pem&ssl_cert_reqs=required"),
        ("rediss://host/0?ssl_cert_reqs=none", "rediss://host/0?ssl_cert_reqs=none"),
    ],
)
def test_celery_verifies_the_certificate_of_redis(redis_url: str, broker_url: str):
    assert setting("CELERY_BROKER_URL", REDIS_URL=redis_url) == broker_url


def test_postgresql_may_be_behind_a_pooler():
    name = "DATABASES['default']['DISABLE_SERVER_SIDE_CURSORS']"
    assert setting(name, DATABASE_URL="postgres://user@host/name") == "True"


def test_a_key_and_a_key_file_together_stop_the_start_with_an_error_message():
    process = run_with_environment("USE_SANDBOX", ELEVENLABS_API_KEY="key", ELEVENLABS_API_KEY_FILE="/run/key")
    assert process.returncode != 0
    assert "Set ELEVENLABS_API_KEY or ELEVENLABS_API_KEY_FILE, not both." in process.stderr


def test_with_a_key_file_the_provider_is_used():
    assert setting("USE_SANDBOX", ELEVENLABS_API_KEY_FILE="/run/key") == "False"


def test_an_empty_name_of_the_key_file_is_no_key_file():
    assert setting("USE_SANDBOX", ELEVENLABS_API_KEY_FILE="") == "True"
