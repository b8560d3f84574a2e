"""What follows from the environment that a process is started in."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def setting(name: str, **env: str) -> str:
    code = f"from django.conf import settings; print(settings.{name})"
    env = {**os.environ, "DJANGO_SETTINGS_MODULE": "voicecare.settings", "SECRET_KEY": "s", **env}
    return subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, env=env, text=True).strip()


def test_what_the_sandbox_said_is_not_played_as_the_providers_voice():
    assert setting("PHRASE_SECRET") != setting("PHRASE_SECRET", ELEVENLABS_API_KEY="key")
