"""`manage.py setup` on a new database against the sandbox: every step, each failure, and a second run."""

import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import import_module
from io import StringIO
from pathlib import Path

import pytest
from django.apps import apps
from django.contrib.auth import authenticate
from django.contrib.auth.models import User
from django.core import mail
from django.core.management import CommandError, call_command
from pytest_django import Settings

from tests.sandbox import SandboxProcess
from tts.models import Phrase
from usage.models import ProviderState
from voicecare.patients.authentication import authenticate_device
from voicecare.patients.models import DefaultVoice, Device, Patient, Voice

pytestmark = pytest.mark.django_db

FIRST = ("--patient", "Ada Lind", "--companion", "Clara")


@pytest.fixture(autouse=True)
def installation(db: None, settings: Settings, sandbox: SandboxProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.ELEVENLABS_BASE_URL = sandbox.url
    settings.DEFAULT_VOICE_ID = ""
    settings.ADMIN_EMAILS = ["on-call@example.org"]
    settings.PUBLIC_URL = "https://voice.example.org"
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # the default hasher is slow
    monkeypatch.delenv("DJANGO_SUPERUSER_PASSWORD", raising=False)
    # The phrases that `migrate` adds. Tests begin without them.
    import_module("tts.migrations.0006_default_phrases").add_phrases(apps, None)


def run_setup(*arguments: str) -> str:
    out = StringIO()
    call_command("setup", "--no-input", *arguments, stdout=out, no_color=True)
    return out.getvalue()


def failing_setup(*arguments: str) -> tuple[str, str]:
    """Return the output and the error."""
    out = StringIO()
    with pytest.raises(CommandError) as failure:
        call_command("setup", "--no-input", *arguments, stdout=out, no_color=True)
    return out.getvalue(), str(failure.value)


def line(output: str, step: str) -> str:
    (found,) = [text for text in output.splitlines() if text[5:].startswith(f"{step}:")]
    return found


def test_a_new_database_is_complete_after_one_run():
    output = run_setup("--test-alert", *FIRST)
    assert [text[:4] for text in output.splitlines() if text[:4] in ("ok  ", "todo")] == ["ok  "] * 9
    password = re.search(r"password (\S+) \(not shown again\)", output)
    assert password is not None
    user = authenticate(username="admin", password=password[1])
    assert isinstance(user, User)
    assert user.is_superuser
    assert "100,000 of 100,000 credits are left" in line(output, "Provider")
    assert Voice.objects.filter(source="stock").count() > 5
    assert Voice.objects.default() is not None
    assert [message.subject for message in mail.outbox] == ["voicecare: test alert"]
    patient = Patient.objects.get()
    assert (patient.name, patient.companion_name, patient.language) == ("Ada Lind", "Clara", "en")


def test_the_printed_token_opens_the_device():
    output = run_setup(*FIRST)
    token = re.search(r'python manage\.py talk --url \S+ --token (\S+) "Good morning"', output)
    assert token is not None
    device = authenticate_device(token[1])
    assert device is not None
    assert device.name == "Bedside tablet"
    assert "wss://voice.example.org/ws/device/" in output
    assert output.index(f"The token of the device is {token[1]}") < output.index("Alerts:")


def test_a_second_run_changes_nothing():
    run_setup(*FIRST)
    models = (User, Patient, Device, Voice, DefaultVoice, Phrase)
    before = [list(model.objects.order_by("pk").values_list("pk", flat=True)) for model in models]
    digest = Device.objects.get().token_digest
    output = run_setup(*FIRST)
    assert [list(model.objects.order_by("pk").values_list("pk", flat=True)) for model in models] == before
    assert Device.objects.get().token_digest == digest
    assert "exists" in line(output, "Administrator")
    assert "exists" in line(output, "First device")
    assert "talk --url" not in output


def test_a_refused_key_is_reported_and_the_other_steps_run(sandbox: SandboxProcess, settings: Settings):
    settings.USE_SANDBOX, settings.ELEVENLABS_API_KEY = False, "sk_wrong"
    sandbox.settings(api_key="sk_right")
    output, error = failing_setup(*FIRST)
    assert line(output, "Provider").startswith("todo Provider: The provider refuses the key (invalid_api_key).")
    assert "1 of the steps above need attention" in error
    assert "talk --url" not in output  # nothing would be heard but the offline voice
    assert "The token of the device is" in output
    assert Patient.objects.count() == 1
    assert "sk_" not in output


def test_an_unreachable_provider_is_reported(settings: Settings):
    settings.USE_SANDBOX, settings.ELEVENLABS_API_KEY = False, "key"
    settings.ELEVENLABS_BASE_URL = "http://127.0.0.1:1"
    output, _ = failing_setup(*FIRST)
    assert "http://127.0.0.1:1 cannot be reached." in line(output, "Provider")


def test_a_sandbox_that_does_not_run_is_reported(settings: Settings):
    settings.ELEVENLABS_BASE_URL = "http://127.0.0.1:1"
    output, _ = failing_setup(*FIRST)
    assert "The sandbox does not run at http://127.0.0.1:1." in line(output, "Provider")


def test_the_default_voice_can_be_named():
    run_setup(*FIRST)
    other = Voice.objects.filter(source="stock").exclude(pk=Voice.objects.default().pk).first()
    assert other is not None
    output = run_setup("--default-voice", other.name.upper())
    assert other.name in line(output, "Default voice")
    assert Voice.objects.default() == other
    assert other.name in line(run_setup(), "Default voice")


def test_a_default_voice_of_the_settings_that_does_not_exist_is_reported(settings: Settings):
    settings.DEFAULT_VOICE_ID = "typo0000000000000001"
    for _ in range(2):
        output, _ = failing_setup(*FIRST)
        assert "The voice of DEFAULT_VOICE_ID cannot be used." in line(output, "Default voice")


@pytest.mark.parametrize("content", ["", None], ids=["empty", "missing"])
def test_a_key_file_without_a_key_is_named(content: str | None, settings: Settings, tmp_path: Path):
    path = tmp_path / "key"
    if content is not None:
        path.write_text(content)
    settings.ELEVENLABS_API_KEY_FILE = str(path)
    output, _ = failing_setup(*FIRST)
    assert f"{path} (ELEVENLABS_API_KEY_FILE) cannot be read or has no key." in line(output, "Provider")


def test_a_redis_that_does_not_answer_is_reported(settings: Settings):
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    output, _ = failing_setup(*FIRST)
    assert "Redis does not answer (ConnectionError). Check REDIS_URL." in line(output, "Broker")


def test_ctrl_c_ends_with_a_message_and_keeps_the_token_on_the_screen(monkeypatch: pytest.MonkeyPatch):
    User.objects.create_superuser("root", password="x")

    def answer(question: str) -> str:
        if "test alert" in question:
            raise KeyboardInterrupt
        return {"Name of the first patient (empty: none): ": "Ada Lind"}.get(question, "")

    monkeypatch.setattr("builtins.input", answer)
    out = StringIO()
    with pytest.raises(CommandError, match="Setup was interrupted"):
        call_command("setup", stdout=out, no_color=True)
    assert "The token of the device is" in out.getvalue()


def test_without_a_terminal_setup_says_which_option_to_use(monkeypatch: pytest.MonkeyPatch):
    User.objects.create_superuser("root", password="x")
    monkeypatch.setattr("sys.stdin", StringIO())
    with pytest.raises(CommandError, match="use --no-input"):
        call_command("setup", stdout=StringIO(), no_color=True)


def test_an_unknown_default_voice_is_refused_with_the_names():
    output, _ = failing_setup("--default-voice", "Nobody", *FIRST)
    refusal = line(output, "Default voice")
    assert refusal.startswith("todo Default voice: 0 voices are called Nobody.")
    assert "Rachel" in refusal


def test_without_an_alert_address_setup_says_that_nobody_would_be_alerted(settings: Settings):
    settings.ADMIN_EMAILS = []
    output, _ = failing_setup(*FIRST)
    assert line(output, "Alerts").startswith("todo Alerts: Nobody would be alerted.")


def test_no_test_alert_is_sent_unless_it_is_wanted():
    assert "no test alert was sent" in line(run_setup(*FIRST), "Alerts")
    assert mail.outbox == []


@pytest.fixture
def receiver() -> Iterator[Callable[[], list[bytes]]]:
    """A webhook on a socket. Returns a function that returns the bodies it has received."""
    bodies: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(204 if self.path == "/ok" else 500)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        yield lambda: [url.encode(), *bodies]
        server.shutdown()


@pytest.mark.parametrize(("path", "mark"), [("/ok", "ok  "), ("/broken", "todo")])
def test_the_test_alert_goes_to_the_webhook(
    path: str, mark: str, receiver: Callable[[], list[bytes]], settings: Settings
):
    settings.ADMIN_EMAILS = []
    settings.ALERT_WEBHOOK_URL = receiver()[0].decode() + path
    out = StringIO()
    try:
        call_command("setup", "--no-input", "--test-alert", *FIRST, stdout=out, no_color=True)
    except CommandError:
        assert mark == "todo"
    assert line(out.getvalue(), "Alerts")[:4] == mark
    (_, body) = receiver()
    assert b'"kind": "test"' in body


def test_without_a_patient_setup_says_how_to_add_one():
    output, _ = failing_setup()
    assert line(output, "First device").startswith("todo First device: none yet.")
    assert not Patient.objects.exists()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--language", "xx"), "xx is no language of the list"),
        (("--patient", "x" * 101), "name: Ensure this value has at most 100 characters"),
        (("--device", "x" * 101), "name: Ensure this value has at most 100 characters"),
    ],
)
def test_an_invalid_patient_is_refused_and_nothing_is_created(arguments: tuple[str, ...], reason: str):
    output, _ = failing_setup(*FIRST, *arguments)
    assert reason in line(output, "First device")
    assert not Patient.objects.exists()


def test_a_patient_whose_language_has_no_greeting_is_reported():
    output, _ = failing_setup(*FIRST, "--language", "fi")
    assert "No greeting in: Finnish (fi)." in line(output, "Phrases")


def test_an_existing_user_is_not_made_an_administrator():
    User.objects.create_user("admin")
    output, _ = failing_setup(*FIRST)
    assert "There is a user admin who is no administrator." in line(output, "Administrator")
    assert not User.objects.filter(is_superuser=True).exists()


def test_a_weak_password_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DJANGO_SUPERUSER_PASSWORD", "12345")
    output, _ = failing_setup(*FIRST)
    assert "The password is too weak." in line(output, "Administrator")


def test_setup_asks_for_what_is_missing(monkeypatch: pytest.MonkeyPatch):
    answers = iter(["chief", "Ada Lind", "Clara", "german", "de", "yes"])
    asked: list[str] = []

    def answer(question: str) -> str:
        asked.append(question)
        return next(answers)

    passwords = iter(["short", "one long thing", "another thing", "a long password", "a long password"])
    monkeypatch.setattr("builtins.input", answer)
    monkeypatch.setattr("getpass.getpass", lambda _: next(passwords))
    out = StringIO()
    call_command("setup", stdout=out, no_color=True)
    assert "The password is too weak." in out.getvalue()
    assert "The two passwords differ." in out.getvalue()
    assert "german is no language of the list." in out.getvalue()
    assert authenticate(username="chief", password="a long password") is not None
    assert Patient.objects.get().language == "de"
    assert len(mail.outbox) == 1
    assert list(answers) == []


def test_the_incident_of_a_refused_key_ends_with_setup():
    ProviderState.objects.create(pk=1, access="key")
    run_setup(*FIRST)
    assert ProviderState.objects.get().access == "granted"
