"""The demo of `make run`: whole after the first run, untouched by the next, and its secrets for their owner alone."""

import stat
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path

import pytest
import requests
import responses
from django.conf import settings
from django.contrib.auth import authenticate
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.utils import timezone

from tts.conversations.lifecycle import render_greeting
from tts.devices.client import DEMO_TOKEN_FILE
from tts.models import Phrase
from usage.alerts import heartbeats
from voicecare.management.commands import seed_demo
from voicecare.management.demo_data import PASSWORD_FILE, seed
from voicecare.patients.authentication import authenticate_device
from voicecare.patients.models import Device, Patient, Voice
from voicecare.providers.elevenlabs.sandbox.account.voices import stock_voices

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def folder(settings, tmp_path: Path) -> Path:
    settings.DATA_DIR = tmp_path
    settings.DEBUG = True
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # the slow one would be run each time
    return tmp_path


@pytest.fixture
def printed() -> Callable[..., str]:
    def run(*arguments: str) -> str:
        out = StringIO()
        call_command("seed_demo", *arguments, stdout=out)
        return out.getvalue()

    return run


def rows() -> list[object]:
    models = (User, Patient, Device, Voice, Phrase, Patient.team.through)
    return [list(model.objects.order_by("pk").values()) for model in models]


def test_it_makes_what_a_visitor_needs():
    demo = seed()
    patients = list(Patient.objects.order_by("language", "name"))
    assert [patient.language for patient in patients] == ["de", "en", "en"]
    assert len({patient.companion_name for patient in patients}) == 3
    assert [patient.devices.count() for patient in patients] == [1, 1, 1]
    assert [patient.team.get().username for patient in patients] == ["clinician"] * 3
    assert sum(patient.voice is not None for patient in patients) == 1
    assert authenticate_device(demo.token) == demo.device


def test_both_users_log_in_and_one_of_them_is_the_administrator():
    demo = seed()
    admin, clinician = (authenticate(username=name, password=demo.password) for name in ("admin", "clinician"))
    assert (admin.is_superuser, admin.is_staff) == (True, True)
    assert (clinician.is_superuser, clinician.is_staff) == (False, False)


def test_the_voices_are_those_of_the_sandbox(settings):
    seed()
    assert {(voice.provider_id, voice.name) for voice in Voice.objects.all()} == {
        (voice.voice_id, voice.name) for voice in stock_voices()
    }
    assert Voice.objects.default().provider_id == settings.DEFAULT_VOICE_ID


def test_with_a_real_provider_there_is_the_default_voice_alone(settings):
    settings.USE_SANDBOX = False
    seed()
    assert Voice.objects.get() == Voice.objects.default()


@pytest.mark.parametrize("language", ["en", "de"])
def test_each_language_has_a_greeting_with_both_names_a_holding_phrase_and_common_ones(language):
    seed()
    phrases = Phrase.objects.for_language(language)
    patient = Patient.objects.filter(language=language).first()
    greeting = render_greeting(phrases.get(kind="greeting").text, patient)
    assert patient.form_of_address in greeting
    assert patient.companion_name in greeting
    assert phrases.filter(kind="holding").count() == 1
    assert phrases.filter(kind="common").count() >= 5


def test_the_owners_phrases_are_among_them():
    seed()
    assert Phrase.objects.filter(text__in=["That's wonderful!", "I see.", "Tell me more."]).count() == 3


def test_a_second_run_changes_nothing_and_prints_the_same(printed, folder):
    first, before = printed(), rows()
    files = {path: path.read_bytes() for path in folder.iterdir()}
    assert printed() == first
    assert rows() == before
    assert {path: path.read_bytes() for path in folder.iterdir()} == files


def test_what_somebody_changed_stays_changed():
    demo = seed()
    Patient.objects.filter(pk=demo.device.patient_id).update(name="Renamed")
    Voice.objects.update(name="Renamed")
    Phrase.objects.filter(text="I see.").delete()
    User.objects.get(username="clinician").patients.clear()
    changed = rows()
    assert seed() == demo
    assert rows() == changed


@pytest.mark.parametrize("name", [DEMO_TOKEN_FILE, PASSWORD_FILE])
def test_a_secret_is_readable_by_its_owner_alone(name, folder):
    seed()
    assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600


def test_a_renewed_secret_is_not_written_into_a_file_that_others_may_read(folder):
    path = folder / DEMO_TOKEN_FILE
    path.write_text("old")
    path.chmod(0o644)
    seed()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_lost_token_is_renewed(folder):
    former = seed()
    (folder / DEMO_TOKEN_FILE).unlink()
    renewed = seed()
    assert renewed.device == former.device
    assert authenticate_device(renewed.token) == former.device
    assert authenticate_device(former.token) is None
    assert (folder / DEMO_TOKEN_FILE).read_text().strip() == renewed.token


def test_a_lost_pass_phrase_is_renewed(folder):
    former = seed()
    (folder / PASSWORD_FILE).unlink()
    renewed = seed()
    assert authenticate(username="admin", password=renewed.password)
    assert authenticate(username="clinician", password=renewed.password)
    assert authenticate(username="admin", password=former.password) is None


def test_a_revoked_device_is_replaced_by_a_new_one():
    former = seed()
    Device.objects.filter(pk=former.device.pk).update(revoked_at=timezone.now())
    renewed = seed()
    assert renewed.device != former.device
    assert authenticate_device(renewed.token) == renewed.device


def test_it_prints_how_to_get_in(printed, folder):
    text = printed("--port", "9000")
    assert "http://127.0.0.1:9000/admin/" in text
    assert "http://127.0.0.1:9000/api/docs/" in text
    assert "ws://127.0.0.1:9000/ws/device/" in text
    assert (folder / DEMO_TOKEN_FILE).read_text().strip() in text
    assert (folder / PASSWORD_FILE).read_text().strip() in text
    assert 'PORT=9000 .venv/bin/python manage.py talk "Good morning"' in text
    assert "sandbox" in text


def test_on_the_default_port_the_talk_command_needs_no_port(printed):
    assert '\ntalk        .venv/bin/python manage.py talk "Good morning"' in printed("--port", "8000")


def test_with_verbosity_0_it_prints_nothing(printed):
    assert printed("-v", "0") == ""
    assert User.objects.exists()


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bool]]:
    """Whether each process of `make run` answers. A web process that is asked lets the others send their heartbeats."""
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


def test_it_waits_for_all_processes_and_says_ready(printed, processes):
    text = printed("--port", "9000", "--when-ready")
    assert text.startswith("\nReady.")
    assert "http://127.0.0.1:9000/admin/" in text


@pytest.mark.parametrize("name", ["web", "sandbox", "worker", "beat"])
def test_it_names_the_process_that_does_not_answer(printed, processes, name: str):
    processes[name] = False
    assert f"no answer from: {name}." in printed("--port", "9000", "--when-ready").splitlines()[1]


def test_it_is_refused_with_debug_off(printed, settings):
    settings.DEBUG = False
    with pytest.raises(CommandError, match="DEBUG"):
        printed()
    assert not User.objects.exists()
