"""The settings on the page System health have no secret in them, whatever the environment is."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from voicecare.health import configuration

CANARY = "c4n4ry"
SECRET_VARIABLES = {
    "SECRET_KEY": CANARY,
    "ELEVENLABS_API_KEY": CANARY,
    "METRICS_TOKEN": CANARY,
    "ALERT_WEBHOOK_SECRET": CANARY,
    "ALERT_WEBHOOK_URL": f"https://hooks.example/{CANARY}?token={CANARY}",
    "DATABASE_URL": f"postgres://{CANARY}:{CANARY}@db.example/voicecare?sslpassword={CANARY}",
    "REDIS_URL": f"redis://:{CANARY}@redis.example:6379/1",
    "EMAIL_URL": f"submission://{CANARY}:{CANARY}@mail.example:587",
    "AWS_S3_ENDPOINT_URL": f"https://{CANARY}:{CANARY}@s3.example/{CANARY}",
    "PUBLIC_URL": f"https://{CANARY}@voicecare.example/{CANARY}",
}
SHOW = """
import django
django.setup()
from voicecare.health.configuration import masked_settings
for name, value in masked_settings():
    print(name, value)
"""


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The settings as a process with secrets everywhere shows them, by name."""
    environment = {"PATH": os.environ["PATH"], "DJANGO_SETTINGS_MODULE": "voicecare.settings", **SECRET_VARIABLES}
    environment["VOICECARE_DATA_DIR"] = str(tmp_path_factory.mktemp("data"))
    root = Path(__file__).resolve().parents[3]
    command = [sys.executable, "-c", SHOW]
    output = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=True).stdout
    return dict(row.partition(" ")[::2] for row in output.splitlines())


def test_no_setting_shows_a_secret(shown: dict[str, str]):
    assert {name for name, value in shown.items() if CANARY in value} == set()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ELEVENLABS_API_KEY", "set"),
        ("ELEVENLABS_API_KEY_FILE", "not set"),
        ("METRICS_TOKEN", "set"),
        ("ALERT_WEBHOOK_URL", "https://hooks.example"),
        ("DATABASE_URL", "postgresql db.example"),
        ("EMAIL_URL", "smtp mail.example"),
        ("REDIS_URL", "redis://redis.example:6379"),
        ("ADMIN_EMAILS", "not set"),
        ("PHRASE_STORE", "file"),
        ("QUOTA_POLL_S", "15.0"),
    ],
)
def test_settings_are_shown_in_words(shown: dict[str, str], name: str, value: str):
    assert shown[name] == value


@pytest.mark.django_db
def test_the_versions_name_python_the_database_and_the_packages():
    names = [name for name, _ in configuration.versions()]
    assert names[0] == "Python"
    assert {"django", "daphne", "celery"} <= set(names)
    assert all(version for _, version in configuration.versions())
