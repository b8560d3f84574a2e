"""System checks for production settings."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.test import override_settings

from voicecare.checks import check_production_settings

SAFE: dict[str, Any] = {
    "USE_SANDBOX": False,
    "ELEVENLABS_BASE_URL": "https://api.elevenlabs.io",
    "PUBLIC_URL": "https://voice.example.org",
    "ALLOWED_HOSTS": ["voice.example.org"],
    "ADMIN_EMAILS": ["on-call@example.org"],
    "STATEMENT_EMAILS": [],
    "CAN_RESET_PASSWORDS": True,
    "ALERT_WEBHOOK_URL": "",
    "METRICS_TOKEN": "token",
    "REDIS_URL": "redis://redis.example.org",
    "PHRASE_STORE": "s3",
    "AWS_STORAGE_BUCKET_NAME": "bucket",
}
ROOT = Path(__file__).resolve().parents[2]


def warnings(**changes: object) -> set[str]:
    """Return the short ids of the warnings for safe settings with these changes, without the one about SQLite."""
    with override_settings(**{**SAFE, **changes}):
        found = check_production_settings(None)
    assert all(message.hint for message in found)
    return {str(message.id).removeprefix("voicecare.") for message in found} - {"W002"}


def test_safe_settings_have_no_warning():
    assert warnings() == set()


@pytest.mark.parametrize(
    ("changes", "warning"),
    [
        ({"USE_SANDBOX": True}, "W001"),
        ({"ADMIN_EMAILS": []}, "W003"),
        ({"PUBLIC_URL": "https://localhost:8000", "ALLOWED_HOSTS": ["localhost"]}, "W004"),
        ({"PUBLIC_URL": "http://voice.example.org"}, "W004"),
        ({"CAN_RESET_PASSWORDS": False}, "W006"),
        ({"CAN_RESET_PASSWORDS": False, "ADMIN_EMAILS": [], "STATEMENT_EMAILS": ["a@example.org"]}, "W006"),
        ({"METRICS_TOKEN": ""}, "W007"),
        ({"REDIS_URL": ""}, "W008"),
        ({"ELEVENLABS_BASE_URL": "http://provider.example.org"}, "W009"),
        ({"ALLOWED_HOSTS": ["*"]}, "W010"),
        ({"ALLOWED_HOSTS": ["10.0.0.1"]}, "W011"),
        ({"ALERT_WEBHOOK_URL": "https://hooks.example.org", "ALERT_WEBHOOK_SECRET": ""}, "W012"),
    ],
)
def test_each_unsafe_setting_has_its_warning(changes: dict[str, object], warning: str):
    assert warning in warnings(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"ADMIN_EMAILS": [], "ALERT_WEBHOOK_URL": "https://hooks.example.org", "ALERT_WEBHOOK_SECRET": "secret"},
        {"ALLOWED_HOSTS": [".example.org"]},
        {"ELEVENLABS_BASE_URL": "http://127.0.0.1:8001"},
        {"PHRASE_STORE": "redis"},
    ],
)
def test_other_safe_settings_have_none(changes: dict[str, object]):
    assert warnings(**changes) == set()


def test_sqlite_in_production_is_a_warning():
    with override_settings(**SAFE):
        ids = {message.id for message in check_production_settings(None)}
    assert ("voicecare.W002" in ids) == (connection.vendor == "sqlite")


@pytest.mark.parametrize(
    ("host", "changes", "is_warned"),
    [
        ("db.example.org", {"PHRASE_STORE": "file"}, True),
        ("db.example.org", {"PHRASE_STORE": "redis", "AWS_STORAGE_BUCKET_NAME": ""}, True),  # recordings are files
        ("db.example.org", {}, False),
        ("127.0.0.1", {"PHRASE_STORE": "file"}, False),
        ("/run/postgresql", {"PHRASE_STORE": "file"}, False),
    ],
)
def test_files_beside_a_shared_database_are_a_warning(
    host: str, changes: dict[str, object], is_warned: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(connection.settings_dict, "HOST", host)
    monkeypatch.setattr(connection, "vendor", "postgresql")
    assert ("W005" in warnings(**changes)) == is_warned


def check_deploy(**variables: object) -> str:
    """Return what `check --deploy` prints in a process with only these variables."""
    env = {"PATH": os.environ["PATH"], **{name: str(value) for name, value in variables.items()}}
    command = [sys.executable, "manage.py", "check", "--deploy"]
    process = subprocess.run(command, cwd=ROOT, env=env, text=True, capture_output=True, check=False, timeout=120)
    return process.stderr + process.stdout


def test_a_complete_environment_leaves_no_remark(tmp_path: Path):
    """All remarks of `check --deploy` have something that an operator can set, so none is left."""
    output = check_deploy(
        DEBUG=0,
        SECRET_KEY="0123456789abcdefghijklmnopqrstuvwxyz" * 2,
        ALLOWED_HOSTS="voice.example.org",
        PUBLIC_URL="https://voice.example.org",
        DATABASE_URL="postgres://voicecare:password@127.0.0.1:1/voicecare",
        REDIS_URL="redis://127.0.0.1:6379/0",
        VOICECARE_DATA_DIR=tmp_path,
        ELEVENLABS_API_KEY="key",
        ADMIN_EMAILS="on-call@example.org",
        EMAIL_URL="submission://user:password@mail.example.org",
        METRICS_TOKEN="token",
    )
    assert output.startswith("System check identified no issues")


def test_development_settings_are_reported(tmp_path: Path):
    output = check_deploy(VOICECARE_DATA_DIR=tmp_path)
    for identifier in ("voicecare.W001", "voicecare.W003", "voicecare.W004", "security.W018"):
        assert f"({identifier})" in output
