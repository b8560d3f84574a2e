"""A client that is generated from the schema walks through the whole life of a patient."""

import asyncio
import io
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User

from tests.cloning.samples import recordings
from tests.conftest import OTHER_VOICE
from tests.e2e.device import Device
from tests.roles import role
from tests.server import ROOT, ServerProcess
from tests.waiting import until
from voicecare.patients.models import Clinic, Voice

PASSWORD = "correct horse battery"
TEXT = "Lunch is ready."
PACKAGE = "generated_client"


@pytest.fixture
def generated(web: ServerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Generate the client with the configuration of docs/rest.md. Yield what the generator has printed."""
    schema, config = tmp_path / "schema.json", tmp_path / "config.yaml"
    schema.write_bytes(web.get("/api/schema/")[1])
    documented = re.search(r"```yaml\n(.*?)```", (ROOT / "docs/rest.md").read_text(), re.DOTALL)
    assert documented is not None
    config.write_text(documented[1] + "post_hooks: []\n")
    options = ["--path", schema, "--config", config, "--meta", "none", "--output-path", tmp_path / PACKAGE]
    command = [sys.executable, "-m", "openapi_python_client", "generate", *options, "--fail-on-warning"]
    made = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert made.returncode == 0, made.stdout + made.stderr
    monkeypatch.syspath_prepend(tmp_path)
    yield made.stdout + made.stderr
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[name]


@pytest.fixture
def voice(web: ServerProcess) -> Voice:
    """A stock voice of the sandbox."""
    return Voice.objects.create(provider_id=OTHER_VOICE, name="Sarah")


@pytest.fixture
def boss(web: ServerProcess) -> User:
    """An administrator, who is a member of one clinic."""
    user = User.objects.create_user("boss", password=PASSWORD)
    user.groups.add(role("Administrator"))
    Clinic.objects.create(name="Ward 3").members.add(user)
    return user


class Client:
    """The functions of the generated client by their names. Each call has the expected status."""

    def __init__(self, url: str) -> None:
        self._models = import_module(f"{PACKAGE}.models")
        self._types = import_module(f"{PACKAGE}.types")
        self._connection = import_module(f"{PACKAGE}.client").Client(base_url=url, timeout=60)
        self._url = url

    def log_in(self, username: str, password: str) -> None:
        token = self("auth.log_in", 200, body=self.model("CredentialsRequest", username=username, password=password))
        authenticated = import_module(f"{PACKAGE}.client").AuthenticatedClient
        self._connection = authenticated(base_url=self._url, token=token.token, timeout=60)

    def model(self, name: str, /, **fields: Any) -> Any:
        return getattr(self._models, name)(**fields)

    def file(self, content: bytes, name: str, kind: str) -> Any:
        return self._types.File(payload=io.BytesIO(content), file_name=name, mime_type=kind)

    def __call__(self, function: str, status: int, /, *arguments: Any, **keywords: Any) -> Any:
        """Call a function such as `patients.list_patients`, and return the parsed response."""
        module = import_module(f"{PACKAGE}.api.{function}")
        response = module.sync_detailed(*arguments, client=self._connection, **keywords)
        assert response.status_code == status, response.content
        return response.parsed

    def all_rows(self, function: str, *arguments: Any, **keywords: Any) -> list[Any]:
        """Return the rows of all pages, by cursor, one row a page."""
        rows, cursor = [], ""
        while cursor is not None:
            page = self(function, 200, *arguments, cursor=cursor, page_size=1, **keywords)
            rows += page.results
            cursor = page.next_cursor
        return rows


def test_the_generator_warns_about_nothing(generated: str):
    assert "warning" not in generated.lower()


@pytest.mark.timeout(300)
def test_the_whole_life_of_a_patient(
    generated: str, web: ServerProcess, worker: "subprocess.Popen[bytes]", voice: Voice, boss: User, tmp_path: Path
):
    client = Client(web.url)
    client.log_in("boss", PASSWORD)

    # A patient in the clinic of the user, created once although the call is repeated
    body = client.model("PatientRequest", name="Zoe Zimmer", companion_name="Clara", external_id="MRN-7")
    patient = client("patients.create_patient", 201, body=body, idempotency_key="zoe")
    assert client("patients.create_patient", 201, body=body, idempotency_key="zoe").id == patient.id
    assert [clinic.id for clinic in client("clinics.list_clinics", 200).results] == [patient.clinic]
    assert [row.id for row in client("patients.list_patients", 200, external_id="MRN-7").results] == [patient.id]
    taken = client("patients.create_patient", 400, body=body)
    assert [(error.field, error.code) for error in taken.errors] == [("external_id", "unique")]

    # A device and a voice
    device_body = client.model("DeviceRequest", name="Bedside")
    device = client("patients.create_device", 201, patient.id, body=device_body, idempotency_key="bed")
    assert client("patients.create_device", 409, patient.id, body=device_body, idempotency_key="bed").code == (
        "secret_already_shown"
    )
    voices = client("voices.list_voices", 200, source=client._models.ListVoicesSource("stock")).results
    assert voice.pk in [row.id for row in voices]
    changed = client.model("PatchedPatientRequest", voice=voice.pk, speech_rate=0.9)
    assert client("patients.update_patient", 200, patient.id, body=changed).voice == voice.pk
    assert len(client("voices.preview_voice", 200, voice.pk).payload.read()) > 1000
    speech = client.model("SpeechRequest", text=TEXT, voice=voice.pk)
    assert len(client("speech.stream_speech", 200, body=speech).payload.read()) > 1000

    # How a name is said
    said = client.model("PronunciationRequest", written="Zimmer", spoken="Tsimmer", patient=patient.id, language="en")
    entry = client("pronunciations.create_pronunciation", 201, body=said, idempotency_key="zimmer")
    assert client("pronunciations.create_pronunciation", 201, body=said, idempotency_key="zimmer").id == entry.id
    again = client.model("PatchedPronunciationRequest", spoken="Tsimma", language="")
    client("pronunciations.update_pronunciation", 200, entry.id, body=again)
    (listed,) = client("pronunciations.list_pronunciations", 200, patient=patient.id, search="zimmer").results
    assert (listed.spoken, listed.language, listed.clinic) == ("Tsimma", "", None)
    assert client("pronunciations.get_pronunciation", 200, entry.id) == listed
    client("pronunciations.delete_pronunciation", 204, entry.id)

    # A voice clone
    recording = recordings.encoded(recordings.speech(65), "libmp3lame")
    upload = client.model(
        "UploadRequest",
        name="Anna",
        sample=client.file(recording, "anna.mp3", "audio/mpeg"),
        consent_by="Anna Archer",
        consent=True,
    )
    clone = client("patients.create_clone", 202, patient.id, body=upload)
    ready = until(
        lambda: client("clones.get_clone", 200, clone.id), 90, wanted=lambda row: row.status in ("ready", "failed")
    )
    assert (ready.status, ready.report.warnings is not None) == ("ready", True)
    assert client("patients.get_patient", 200, patient.id).voice == ready.voice
    assert [row.id for row in client.all_rows("patients.list_clones", patient.id)] == [clone.id]

    # Speech on the device, and what the lists say about it
    def send() -> Any:
        text = client.model("SpeakRequest", text=TEXT)
        return client("patients.speak_to_patient", 202, patient.id, body=text, idempotency_key="lunch")

    sent = asyncio.run(hear(web, device.token, send))
    assert send().id == sent.id
    utterance = until(
        lambda: client("utterances.get_utterance", 200, sent.id), 30, wanted=lambda row: row.status == "heard"
    )
    (conversation,) = client.all_rows("conversations.list_conversations", patient=patient.id)
    assert utterance.conversation == conversation.id
    assert client("conversations.get_conversation", 200, conversation.id).voice.id == ready.voice
    spoken = client.all_rows("conversations.list_conversation_utterances", conversation.id)
    assert {row.client_id for row in spoken} >= {"say-1", f"srv-{sent.id}"}

    # Usage
    (day,) = until(
        lambda: client.all_rows("usage.list_daily_usage", patient=patient.id), 30, wanted=lambda rows: len(rows) == 1
    )
    assert day.characters > 0
    assert client("patients.get_budget", 200, patient.id).used > 0
    assert client.all_rows("usage.list_monthly_usage", patient=patient.id)[0].characters == day.characters
    client("usage.get_quota", 200)

    # Export, and the end
    with zipfile.ZipFile(client("patients.export_patient", 200, patient.id).payload) as archive:
        assert "MRN-7" in "".join(archive.read(name).decode("latin-1") for name in archive.namelist())
    client("devices.revoke_device", 204, device.id)
    (revoked,) = client("patients.list_devices", 200, patient.id, revoked=True).results
    assert revoked.id == device.id
    assert client("clones.withdraw_clone", 202, clone.id).status in ("withdrawing", "withdrawn")
    archived = client.model("PatchedPatientRequest", archived=True)
    assert client("patients.update_patient", 200, patient.id, body=archived).archived is True
    assert client("patients.erase_patient", 202, patient.id).erases_at is not None
    assert client("patients.get_patient", 404, patient.id).code == "not_found"
    client("auth.log_out", 204)
    assert client("patients.list_patients", 401).code == "authentication_failed"


async def hear(web: ServerProcess, token: str, send: Callable[[], Any]) -> Any:
    """Be the device: have a sentence spoken, then hear and acknowledge the text of `send`. Return its result."""
    async with Device(web.ws, token) as device:
        await device.start(greeting=False)
        await device.speak("Good morning.", "say-1")
        sent = await asyncio.to_thread(send)
        heard = await device.wait_for(f"srv-{sent.id}")
        await device.send({"type": "ack", "id": heard.id})
        await device.end()
    return sent
