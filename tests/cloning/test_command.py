"""The command `manage.py clone`."""

from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from cloning.models import CloneJob
from tests.cloning import at_provider
from tests.cloning.samples.recordings import encoded, speech
from tests.conftest import Member
from tests.sandbox import SandboxProcess
from voicecare.patients.models import Patient

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recording") / "anna.wav"
    path.write_bytes(encoded(speech(61, rate=8000), "pcm_s16le", 8000))
    return path


def clone(patient: object, file: Path, *options: str) -> str:
    output = StringIO()
    call_command("clone", str(patient), str(file), "--consent-by", "Anna Archer", *options, stdout=output)
    return output.getvalue()


@pytest.mark.parametrize("identified_by", ["id", "name"])
def test_it_creates_the_voice_and_prints_the_progress(
    identified_by: str, recording: Path, provider: SandboxProcess, alice: Member
):
    output = clone(alice.patient.pk if identified_by == "id" else alice.patient.name, recording)
    job = CloneJob.objects.get()
    assert (job.status, job.patient, job.consent_by, job.name) == ("ready", alice.patient, "Anna Archer", "Anna Archer")
    assert (job.witness, at_provider.ids(provider)) == (None, [job.voice.provider_id])
    assert "note: The recording sounds like a telephone call." in output
    assert "\nready\n" in output
    assert str(job.voice_id) in output


def test_the_options_are_stored_with_the_job(recording: Path, provider: SandboxProcess, alice: Member):
    clone(alice.patient.pk, recording, "--name", "Her daughter", "--remove-background-noise")
    job = CloneJob.objects.get()
    assert (job.name, job.remove_background_noise) == ("Her daughter", True)


def test_a_refused_recording_is_an_error_with_a_message(tmp_path: Path, alice: Member):
    (tmp_path / "a.mp3").write_bytes(b"no sound")
    with pytest.raises(CommandError, match="unsupported_format: This is not a recording"):
        clone(alice.patient.pk, tmp_path / "a.mp3")


def test_a_refusal_of_the_provider_is_an_error_with_a_message(recording: Path, provider: SandboxProcess, alice: Member):
    provider.settings(voice_limit=0)
    with pytest.raises(CommandError, match="no room for another voice"):
        clone(alice.patient.pk, recording)


@pytest.mark.parametrize(
    ("patient", "words"),
    [
        ("Nobody", "no such patient"),
        ("00000000-0000-4000-8000-000000000000", "no such patient"),
        ("Alice Archer", "Use an id"),
    ],
)
def test_an_unknown_or_ambiguous_patient_is_an_error(patient: str, words: str, recording: Path, alice: Member):
    Patient.objects.create(name="Alice Archer", companion_name="Clara")
    with pytest.raises(CommandError, match=words):
        clone(patient, recording)


def test_a_missing_file_is_an_error(tmp_path: Path, alice: Member):
    with pytest.raises(CommandError, match="No such file"):
        clone(alice.patient.pk, tmp_path / "missing.mp3")
