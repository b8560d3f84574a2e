"""What follows from the environment that a process is started in."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def started(name: str, **env: str) -> "subprocess.CompletedProcess[str]":
    code = f"from django.conf import settings; print(settings.{name})"
    env = {**os.environ, "DJANGO_SETTINGS_MODULE": "voicecare.settings", "SECRET_KEY": "s", **env}
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, text=True, capture_output=True, check=False)


def setting(name: str, **env: str) -> str:
    process = started(name, **env)
    assert process.returncode == 0, process.stderr
    return process.stdout.strip()


def test_what_the_sandbox_said_is_not_played_as_the_providers_voice():
    assert setting("PHRASE_SECRET") != setting("PHRASE_SECRET", ELEVENLABS_API_KEY="key")


@pytest.mark.parametrize("address", ["", "localhost:9000", "http://", "ftp://provider", "http://provider:99999"])
def test_a_provider_that_has_no_address_stops_the_start_with_a_word_about_it(address: str):
    """Else every patient would hear the offline voice."""
    process = started("ELEVENLABS_BASE_URL", ELEVENLABS_BASE_URL=address)
    assert process.returncode != 0
    assert "ELEVENLABS_BASE_URL" in process.stderr
    assert "It must be an address like https://api.elevenlabs.io." in process.stderr


@pytest.mark.parametrize("address", ["https://api.elevenlabs.io/", "http://127.0.0.1:8001", "http://sand_box/a/prefix"])
def test_a_provider_may_be_anywhere(address: str):
    assert setting("ELEVENLABS_BASE_URL", ELEVENLABS_BASE_URL=address) == address


@pytest.mark.parametrize(("address", "secure"), [("https://voices.example", "True"), ("http://localhost", "False")])
def test_cookies_of_a_site_with_tls_do_not_travel_without(address: str, secure: str):
    for name in ("SESSION_COOKIE_SECURE", "CSRF_COOKIE_SECURE"):
        assert setting(name, PUBLIC_URL=address) == secure
