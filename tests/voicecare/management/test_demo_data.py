"""The demo data of `make run`: complete after the first run, unchanged by later runs, with private secret files."""

import stat
from collections.abc import Callable, Iterator
from importlib import import_module
from io import StringIO
from pathlib import Path

import pytest
import requests
import responses
from django.apps import apps
from django.conf import settings
from django.contrib.auth import authenticate
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.utils import timezone

from tests.roles import role
from tts.conversations.lifecycle import render_greeting
from tts.models import Phrase
from usage.alerts import heartbeats
from voicecare.management.commands import seed_demo
from voicecare.management.demo_data import DEMO_TOKEN_FILE, PASSWORD_FILE, seed
from voicecare.patients.authentication import authenticate_device
from voicecare.patients.models import Device, Patient, Voice
from voicecare.providers.elevenlabs.sandbox.account.voices import stock_voices

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def data_dir(settings, tmp_path: Path) -> Path:
    settings.DATA_DIR = tmp_path
    settings.DEBUG = True
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # the default hasher is slow
    return tmp_path


@pytest.fixture
def seed_demo_output() -> Callable[..., str]:
    def run(*arguments: str) -> str:
        out = StringIO()
        call_command("seed_demo", *arguments, stdout=out)
        return out.getvalue()

    return run


def rows() -> list[object]:
    models = (User, Patient, Device, Voice, Phrase, Patient.team.through)
    return [list(model.objects.order_by("pk").values()) for model in models]


def test_the_demo_has_patients_devices_teams_and_a_device_token():
    demo = seed()
    patients = list(Patient.objects.order_by("language", "name"))
    assert [patient.language for patient in patients] == ["de", "en", "en"]
    assert len({patient.companion_name for patient in patients}) == 3
    assert [patient.devices.count() for patient in patients] == [1, 1, 1]
    assert [patient.team.get().username for patient in patients] == ["clinician"] * 3
    assert sum(patient.voice is not None for patient in patients) == 1
    assert authenticate_device(demo.token) == demo.device


def test_both_users_can_log_in_and_only_one_is_an_administrator():
    role("Clinician")
    demo = seed()
    admin, clinician = (authenticate(username=name, password=demo.password) for name in ("admin", "clinician"))
    assert (admin.is_superuser, admin.is_staff) == (True, True)
    assert (clinician.is_superuser, clinician.is_staff) == (False, False)
    assert [group.name for group in clinician.groups.all()] == ["Clinician"]


def test_the_demo_voices_are_the_stock_voices_of_the_sandbox(settings):
    seed()
    assert {(voice.provider_id, voice.name) for voice in Voice.objects.all()} == {
        (voice.voice_id, voice.name) for voice in stock_voices()
    }
    assert Voice.objects.default().provider_id == settings.DEFAULT_VOICE_ID


def test_with_a_real_provider_the_only_demo_voice_is_the_default_voice(settings):
    settings.USE_SANDBOX = False
    seed()
    assert Voice.objects.get() == Voice.objects.default()


@pytest.mark.parametrize("language", ["en", "de"])
def test_the_demo_adds_common_phrases_to_those_of_the_migration(language: str):
    import_module("tts.migrations.0006_default_phrases").add_phrases(apps, None)
    seed()
    phrases = Phrase.objects.for_language(language)
    patient = Patient.objects.filter(language=language).first()
    template = phrases.get(kind="greeting").text
    greeting = render_greeting(template, patient.form_of_address, patient.companion_name)
    assert patient.form_of_address in greeting
    assert patient.companion_name in greeting
    assert phrases.filter(kind="holding").count() == 1
    assert phrases.filter(kind="common").count() == 10


def test_a_second_run_changes_nothing_and_prints_the_same_text(seed_demo_output, data_dir):
    first, before = seed_demo_output(), rows()
    files = {path: path.read_bytes() for path in data_dir.iterdir()}
    assert seed_demo_output() == first
    assert rows() == before
    assert {path: path.read_bytes() for path in data_dir.iterdir()} == files


def test_changes_of_a_user_are_kept():
    demo = seed()
    Patient.objects.filter(pk=demo.device.patient_id).update(name="Renamed")
    Voice.objects.update(name="Renamed")
    Phrase.objects.filter(text="Take your time.").delete()
    User.objects.get(username="clinician").patients.clear()
    changed = rows()
    assert seed() == demo
    assert rows() == changed


@pytest.mark.parametrize("name", [DEMO_TOKEN_FILE, PASSWORD_FILE])
def test_a_secret_file_is_readable_only_by_its_owner(name, data_dir):
    seed()
    assert stat.S_IMODE((data_dir / name).stat().st_mode) == 0o600


def test_an_existing_secret_file_loses_its_read_permission_for_others(data_dir):
    path = data_dir / DEMO_TOKEN_FILE
    path.write_text("old")
    path.chmod(0o644)
    seed()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_lost_token_is_renewed(data_dir):
    old = seed()
    (data_dir / DEMO_TOKEN_FILE).unlink()
    renewed = seed()
    assert renewed.device == old.device
    assert authenticate_device(renewed.token) == old.device
    assert authenticate_device(old.token) is None
    assert (data_dir / DEMO_TOKEN_FILE).read_text().strip() == renewed.token


def test_a_lost_password_is_renewed(data_dir):
    old = seed()
    (data_dir / PASSWORD_FILE).unlink()
    renewed = seed()
    assert authenticate(username="admin", password=renewed.password)
    assert authenticate(username="clinician", password=renewed.password)
    assert authenticate(username="admin", password=old.password) is None


def test_a_revoked_device_is_replaced_by_a_new_one():
    old = seed()
    Device.objects.filter(pk=old.device.pk).update(revoked_at=timezone.now())
    renewed = seed()
    assert renewed.device != old.device
    assert authenticate_device(renewed.token) == renewed.device


def test_it_prints_the_urls_and_the_credentials(seed_demo_output, data_dir):
    text = seed_demo_output("--port", "9000")
    assert "http://127.0.0.1:9000/admin/" in text
    assert "http://127.0.0.1:9000/api/docs/" in text
    assert "ws://127.0.0.1:9000/ws/device/" in text
    assert (data_dir / DEMO_TOKEN_FILE).read_text().strip() in text
    assert (data_dir / PASSWORD_FILE).read_text().strip() in text
    assert '\ntalk        .venv/bin/python manage.py talk "Good morning"' in text  # it finds the port by itself
    assert "sandbox" in text


def test_with_verbosity_0_it_prints_nothing(seed_demo_output):
    assert seed_demo_output("-v", "0") == ""
    assert User.objects.exists()


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bool]]:
    """Map each process of `make run` to whether it answers. A request to the web process triggers the heartbeats."""
    answers = dict.fromkeys(("web", "sandbox", "worker", "beat"), True)

    def web(request: requests.PreparedRequest) -> tuple[int, dict[str, str], str]:
        for name in (heartbeats.WORKER, heartbeats.BEAT):
            if answers[name]:
                heartbeats.beat(name)
        return 200 if answers["web"] else 503, {}, ""

    def sandbox(request: requests.PreparedRequest) -> tuple[int, dict[str, str], str]:
        return 200 if answers["sandbox"] else 503, {}, ""

    monkeypatch.setattr(seed_demo, "POLL_INTERVAL_S", 0.01)
    monkeypatch.setattr(seed_demo, "START_TIMEOUT_S", 0.3)
    with responses.RequestsMock() as mock:
        mock.add_callback("GET", "http://127.0.0.1:9000/readyz", web)
        mock.add_callback("GET", settings.ELEVENLABS_BASE_URL, sandbox)
        yield answers


def test_it_waits_for_all_processes_and_prints_ready(seed_demo_output, processes):
    text = seed_demo_output("--port", "9000", "--when-ready")
    assert text.startswith("\nReady.")
    assert "http://127.0.0.1:9000/admin/" in text


@pytest.mark.parametrize("name", ["web", "sandbox", "worker", "beat"])
def test_it_prints_the_name_of_a_process_that_does_not_answer(seed_demo_output, processes, name: str):
    processes[name] = False
    assert f"no answer from: {name}." in seed_demo_output("--port", "9000", "--when-ready").splitlines()[1]


def test_it_is_refused_with_debug_off(seed_demo_output, settings):
    settings.DEBUG = False
    with pytest.raises(CommandError, match="DEBUG"):
        seed_demo_output()
    assert not User.objects.exists()
