"""`manage.py doctor` on healthy and on broken installations: what it says, and its exit status."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import boto3
import pytest
import requests
from asgiref.sync import async_to_sync
from django.core import mail
from django.core.management import CommandError, call_command
from django.db import connection
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder
from pytest_django import Settings

from cloning.models import sample_storage
from cloning.voices.sync import sync_stock_voices
from tests.conftest import DEFAULT_VOICE, Member
from tests.sandbox import SandboxProcess
from tests.server import ROOT, environment, free_port
from tests.services import RedisProcess, S3Process
from tts.cache.stores import create_store
from usage.alerts import heartbeats
from usage.models import Incident, ProviderState, UsageEvent
from voicecare.health.parts import check_parts
from voicecare.infrastructure import storages
from voicecare.patients.models import Voice
from voicecare.providers.elevenlabs.sandbox.faults.faults import SPEECH_PATH

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(600)]

Parts = dict[str, dict[str, str]]


@pytest.fixture
def installation(transactional_db: None, settings: Settings, sandbox: SandboxProcess) -> SandboxProcess:
    """A complete installation whose provider is the sandbox."""
    settings.ELEVENLABS_BASE_URL = sandbox.url
    settings.ELEVENLABS_API_KEY, settings.USE_SANDBOX = "sk_right", False
    settings.ADMIN_EMAILS = ["on-call@example.org"]
    Voice.objects.default()  # so that the voice of DEFAULT_VOICE_ID is looked up, too
    sync_stock_voices()
    ProviderState.objects.create(pk=1)
    heartbeats.beat(heartbeats.WORKER)
    heartbeats.beat(heartbeats.BEAT, "one")
    return sandbox


def doctor(*arguments: str) -> tuple[Parts, str]:
    """Return the parts by name, and the error of the command, which is empty if the exit status is 0."""
    out, error = StringIO(), ""
    try:
        call_command("doctor", "--json", *arguments, stdout=out)
    except CommandError as failed:
        error = str(failed)
    found = json.loads(out.getvalue())
    assert found["status"] == ("failure" if error else "ok")
    return {part["name"]: part for part in found["parts"]}, error


def process(*arguments: str, **variables: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "manage.py", "doctor", "--no-speech", *arguments]
    env = {**os.environ, **environment(**variables)}
    return subprocess.run(command, cwd=ROOT, env=env, text=True, capture_output=True, check=False, timeout=300)


def line(process: "subprocess.CompletedProcess[str]", title: str) -> str:
    (found,) = [text for text in process.stdout.splitlines() if text[5:].startswith(f"{title}:")]
    return found


def failures(parts: Parts) -> set[str]:
    return {name for name, part in parts.items() if part["status"] == "failure"}


def test_a_complete_installation_has_no_failure(installation: SandboxProcess):
    parts, error = doctor()
    assert (failures(parts), error) == (set(), "")
    assert parts["database"]["state"].startswith(("SQLite 3.", "PostgreSQL "))
    assert ("clock_database" in parts) == (connection.vendor == "postgresql")
    assert parts["clock_provider"]["state"] == "they agree"
    assert parts["permission_voices_read"] == {
        "name": "permission_voices_read",
        "title": "May read voices",
        "status": "ok",
        "state": "yes",
        "advice": "",
    }
    assert parts["speech"]["state"].startswith("6 characters were spoken by Rachel in ")


def test_the_spoken_word_is_in_the_ledger(installation: SandboxProcess):
    doctor("--no-speech")
    assert not UsageEvent.objects.exists()
    assert installation.requests() == []
    doctor()
    event = UsageEvent.objects.get()
    assert (event.kind, event.requested_characters, event.region) == ("probe", 6, "us-central1")
    assert [request["text"] for request in installation.requests()] == ["Hello."]


def test_the_doctor_shows_everything_that_readyz_reports(installation: SandboxProcess):
    Incident.objects.create(kind=Incident.Kind.ALERTS, key="mail")
    parts, _ = doctor("--no-speech")
    shared = async_to_sync(check_parts)()
    assert {part.name for part in shared} <= parts.keys()
    for part in shared:
        if part.name != "default_voice":  # the doctor asks the provider for it
            assert (parts[part.name]["state"], parts[part.name]["status"]) == (part.state, part.status)
    assert failures(parts) == {"mail"}


def test_the_text_has_one_line_for_each_part_and_says_what_to_do(installation: SandboxProcess):
    installation.settings(api_key="sk_another")
    out = StringIO()
    with pytest.raises(CommandError, match=r"^\d of \d+ parts do not work: API key") as failed:
        call_command("doctor", "--no-speech", stdout=out, no_color=True)
    assert failed.value.returncode == 1
    lines = out.getvalue().splitlines()
    assert {text[:5] for text in lines} <= {"ok   ", "warn ", "FAIL "}
    (key,) = [text for text in lines if "API key" in text]
    assert key.startswith(
        "FAIL API key: refused (invalid_api_key). Patients hear cached phrases and the offline voice."
    )
    assert "sk_" not in out.getvalue()


# Database and processes


def test_a_missing_migration_is_a_failure(installation: SandboxProcess):
    ((_, latest),) = MigrationLoader(connection).graph.leaf_nodes("usage")
    MigrationRecorder(connection).record_unapplied("usage", latest)
    try:
        parts, _ = doctor("--no-speech")
    finally:
        MigrationRecorder(connection).record_applied("usage", latest)
    assert parts["migrations"]["state"] == "1 migrations have not run"
    assert "manage.py migrate" in parts["migrations"]["advice"]
    assert "worker" not in parts


def test_a_database_of_a_newer_version_is_a_failure(installation: SandboxProcess):
    MigrationRecorder(connection).record_applied("usage", "9999_of_next_year")
    try:
        parts, _ = doctor("--no-speech")
    finally:
        MigrationRecorder(connection).record_unapplied("usage", "9999_of_next_year")
    assert parts["migrations"]["state"] == "the database is newer than this code (it has usage.9999_of_next_year)"


def test_without_a_database_the_other_checks_run(tmp_path: Path):
    found = process(DATABASE_URL="postgres://user:sesame@127.0.0.1:1/voicecare", VOICECARE_DATA_DIR=tmp_path)
    assert found.returncode == 1
    assert line(found, "Database").startswith("FAIL Database: does not answer (")
    assert line(found, "Offline voice").startswith("ok")
    assert "Traceback" not in found.stdout + found.stderr
    assert "sesame" not in found.stdout + found.stderr


def test_missing_processes_and_a_second_beat_are_failures(installation: SandboxProcess):
    heartbeats.beat(heartbeats.BEAT, "two")
    assert failures(doctor("--no-speech")[0]) == set()  # beat was restarted
    heartbeats.beat(heartbeats.BEAT, "one")
    parts, _ = doctor("--no-speech")
    assert failures(parts) == {"beat"}
    assert parts["beat"]["state"].startswith("two processes, last heartbeat at ")


def test_processes_that_never_ran_are_failures(transactional_db: None, settings: Settings):
    settings.ELEVENLABS_BASE_URL = "http://127.0.0.1:1"
    parts, _ = doctor("--no-speech")
    assert {"worker", "beat", "provider_key"} <= failures(parts)
    assert parts["worker"]["advice"] == "Clones and new cached phrases wait. Start a worker (see Procfile)."


def test_a_wrong_password_of_redis_is_named(installation: SandboxProcess, settings: Settings):
    with RedisProcess() as redis:
        redis.client().config_set("requirepass", "sesame")
        settings.REDIS_URL = f"redis://:wrong-password@127.0.0.1:{redis.port}/0"
        parts, _ = doctor("--no-speech")
        assert parts["broker"]["state"] == "Redis refuses the user or the password"
        assert "wrong-password" not in json.dumps(parts)
        settings.REDIS_URL = settings.REDIS_URL.replace("wrong-password", "sesame")
        assert doctor("--no-speech")[0]["broker"]["status"] == "ok"


# Stores


def test_a_bucket_without_permission_is_a_failure(tmp_path: Path):
    with S3Process() as s3:
        environment = {**s3.environment, "PHRASE_STORE": "s3", "VOICECARE_DATA_DIR": tmp_path}
        allowed = process(**environment)
        assert line(allowed, "Phrase store") == "ok   Phrase store: s3, answers"
        assert line(allowed, "Recordings").startswith("ok")
        credentials = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
        users = boto3.client("iam", endpoint_url=s3.url, **credentials)
        users.create_user(UserName="nobody")
        key = users.create_access_key(UserName="nobody")["AccessKey"]
        requests.post(
            f"{s3.url}/moto-api/reset-auth", data="0", timeout=10
        ).raise_for_status()  # from now on, rights count
        environment |= {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}
        refused = process(**environment)
    assert line(refused, "Phrase store").startswith("FAIL Phrase store: s3, fails (AccessDenied).")
    assert line(refused, "Recordings").startswith("FAIL Recordings: voicecare-test fails (AccessDenied).")
    assert refused.returncode == 1


def test_a_store_that_cannot_be_written_is_a_failure(installation: SandboxProcess, settings: Settings, tmp_path: Path):
    file = tmp_path / "file"
    file.touch()
    settings.PHRASE_STORE, settings.AWS_STORAGE_BUCKET_NAME = "file", ""
    settings.STORAGES = {
        **settings.STORAGES,
        "phrases": storages.atomic_file_storage(file),
        "samples": storages.private_file_storage(file),
    }
    parts, _ = doctor("--no-speech")
    assert failures(parts) == {"cache", "recordings"}
    assert parts["cache"]["state"] == "file, fails (NotADirectoryError)"


def test_nothing_stays_in_the_stores(installation: SandboxProcess, settings: Settings):
    doctor("--no-speech")
    assert list(create_store(settings).keys()) == []
    assert not [name for name in sample_storage().listdir("")[1] if name.startswith("doctor")]


def test_a_check_that_fails_unexpectedly_is_one_line(installation: SandboxProcess, settings: Settings, tmp_path: Path):
    settings.DATA_DIR = tmp_path / "missing"
    parts, _ = doctor("--no-speech")
    assert parts["disk_space"]["state"].startswith("the check failed (FileNotFoundError: ")
    assert "mail_server" in parts


# The provider


@pytest.mark.parametrize(
    ("path", "name", "is_needed"),
    [
        ("^/v2/voices", "permission_voices_read", True),
        ("^/v1/user", "permission_user_read", False),
        ("^/v1/(usage|workspace/analytics/(query|usage))", "permission_usage", False),
        ("^/v1/workspace/analytics/requests", "permission_requests", False),
        ("^/v1/history$", "permission_history", False),
        ("^/v1/history/voicecareDoctor", "permission_history_write", False),
        ("^/v1/voices/voicecareDoctor", "permission_voices_write", False),
        (SPEECH_PATH, "speech", True),
    ],
)
def test_each_missing_permission_is_named(installation: SandboxProcess, path: str, name: str, is_needed: bool):
    installation.fault(kind="error", preset="missing_permissions", match={"path": path})
    parts, _ = doctor()
    assert "missing_permissions" in parts[name]["state"]
    assert parts[name]["status"] == ("failure" if is_needed else "warning")
    assert failures(parts) == ({name} if is_needed else set())
    assert [part for part in parts if "missing_permissions" in parts[part]["state"]] == [name]
    assert parts["provider_key"]["status"] == "ok"


@pytest.mark.parametrize("call", ["credits", "cost", "deprecated"])
def test_any_call_that_reads_usage_is_enough(installation: SandboxProcess, call: str):
    installation.settings(usage_call=call)
    assert doctor("--no-speech")[0]["permission_usage"]["status"] == "ok"


def test_a_model_that_loses_something_is_a_warning_and_one_that_is_no_model_for_speech_a_failure(
    installation: SandboxProcess, settings: Settings, member: Callable[..., Member]
):
    member("Nora Nilsen", speech_rate="0.80")
    assert doctor("--no-speech")[0]["model"]["status"] == "ok"
    settings.ELEVENLABS_MODEL_ID = "eleven_v3"
    part = doctor("--no-speech")[0]["model"]
    assert part["status"] == "warning"
    assert part["state"] == "eleven_v3 has no speech rate. All patients hear its normal rate."
    listed = {"model_id": "eleven_v3", "can_do_text_to_speech": False}
    installation.fault(kind="json", body=[listed], match={"path": "^/v1/models"})
    assert doctor("--no-speech")[0]["model"]["status"] == "failure"


def test_a_key_that_may_not_list_models_is_accepted(installation: SandboxProcess):
    installation.fault(kind="error", preset="missing_permissions", match={"path": "^/v1/models"})
    assert doctor("--no-speech")[0]["provider_key"]["state"] == "accepted"


def test_a_provider_that_is_down_is_one_failure(installation: SandboxProcess):
    installation.fault(kind="error", preset="service_unavailable", match={"path": "^/v1/"})
    parts, _ = doctor()
    assert {"provider_key", "speech"} == failures(parts)


def test_a_lost_default_voice_is_a_failure(installation: SandboxProcess):
    installation.fault(kind="error", preset="voice_not_found", match={"path": f"^/v1/voices/{DEFAULT_VOICE}"})
    parts, _ = doctor("--no-speech")
    assert failures(parts) == {"default_voice"}
    assert parts["default_voice"]["state"] == "Rachel is refused (voice_not_found)"


def test_exhausted_credits_are_no_missing_permission(installation: SandboxProcess):
    installation.settings(characters_used=100_000)
    parts, _ = doctor()
    assert parts["speech"]["status"] == "warning"


# Mail, alerts, settings


def test_a_mail_server_that_does_not_answer_is_a_failure(installation: SandboxProcess, settings: Settings):
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", free_port()
    parts, _ = doctor("--no-speech")
    assert failures(parts) == {"mail_server"}
    assert parts["mail_server"]["state"] == f"127.0.0.1:{settings.EMAIL_PORT} fails (ConnectionRefusedError)"


def test_a_test_alert_is_sent_only_on_request(installation: SandboxProcess, settings: Settings):
    settings.ALERT_WEBHOOK_URL = f"http://127.0.0.1:{free_port()}"
    doctor("--no-speech")
    assert mail.outbox == []
    parts, _ = doctor("--no-speech", "--test-alert")
    assert [message.subject for message in mail.outbox] == ["voicecare: test alert"]
    assert parts["test_alert_1"]["title"] == "Test alert by mail"
    assert failures(parts) == {"test_alert_2"}


def test_unsafe_settings_are_warnings_and_errors_are_failures(installation: SandboxProcess, settings: Settings):
    settings.OIDC_ISSUER = "http://login.example.org"
    parts, _ = doctor("--no-speech")
    assert parts["settings_voicecare_W004"]["status"] == "warning"
    assert failures(parts) == {"settings_voicecare_E001"}


def test_an_address_that_is_none_is_refused():
    with pytest.raises(CommandError, match=r"^voice\.example\.org is no address like https://"):
        call_command("doctor", "--url", "voice.example.org")
