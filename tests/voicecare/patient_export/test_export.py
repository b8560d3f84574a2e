"""The export of a patient has everything about them, and nothing about others."""

import asyncio
import io
import json
import stat
import zipfile
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.core.files.base import ContentFile
from django.core.management import CommandError, call_command
from django.db.models import Field, Model, UUIDField
from django.utils import timezone
from pytest_django import Settings

from cloning.models import CloneJob, sample_storage
from tests.clinicians import clinician
from tests.conftest import Member
from tests.roles import give_permissions
from tests.usage.test_models import create_event
from tts.models import Clip, Conversation, Phrase, Utterance
from usage.models import DailyUsage, Incident
from voicecare.audit.models import AuditEntry
from voicecare.infrastructure.storages import private_file_storage
from voicecare.patient_export.api import PERMISSIONS
from voicecare.patient_export.sections import SECTIONS
from voicecare.patients.models import Device, Patient, Voice

pytestmark = pytest.mark.django_db

EXCEPTIONS: dict[str, str] = {}
"""Models about patients that are not exported, with the reason. There is none."""


def refers_to_a_patient(field: Any) -> bool:
    if not isinstance(field, Field):
        return False
    if field.is_relation:
        return field.related_model is Patient
    return isinstance(field, UUIDField) and field.name in ("patient", "patient_id")


def test_every_model_about_a_patient_is_exported():
    exported = {section.model for section in SECTIONS}
    models: list[type[Model]] = list(apps.get_models(include_auto_created=True))
    about = {model for model in models if any(map(refers_to_a_patient, model._meta.get_fields()))}
    assert len(about) > 8
    assert {model._meta.label for model in about - exported} == set(EXCEPTIONS)
    assert Patient in exported


@pytest.fixture
def full(alice: Member, settings: Settings, tmp_path: Path) -> Member:
    """A patient with a row of each kind."""
    settings.STORAGES = {**settings.STORAGES, "samples": private_file_storage(tmp_path / "samples")}
    now, patient = timezone.now(), alice.patient
    voice = Voice.objects.create(name="Anna", provider_id="clone", source="cloned", patient=patient)
    talk = Conversation.objects.create(
        patient=patient, device=alice.device, voice=voice, voice_source="cloned", format="mp3_44100_128"
    )
    Utterance.objects.create(
        patient=patient,
        conversation=talk,
        client_speech_id="s1",
        origin="server",
        text="Grüß Gott.",
        state="heard",
        played_ms=900,
    )
    CloneJob.objects.create(
        patient=patient,
        name="Anna",
        sample=sample_storage().save("sample", ContentFile(b"ID3 a recording")),
        content_type="audio/mpeg",
        consent_by="Anna Archer",
        status="ready",
        voice=voice,
    )
    Clip.objects.create(
        digest="d",
        voice=voice,
        phrase=Phrase.objects.create(kind="greeting", text="Hello {patient_name}."),
        patient=patient,
        language="en",
        speed=1.0,
        format="mp3_44100_128",
        characters=6,
        size=5,
        expires_at=now,
    )
    create_event(patient=patient.pk)
    DailyUsage.objects.create(day=now.date(), patient=patient.pk, kind="live", characters=9)
    Incident.objects.create(kind="budget", key=str(patient.pk))
    Incident.objects.create(kind="voice", key=str(voice.pk))
    return alice


def export(member: Member, folder: Path) -> dict[str, bytes]:
    file = folder / "export.zip"
    call_command("export_patient", str(member.patient.pk), str(file))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    return contents(file.read_bytes())


def contents(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


async def body_of(response: Any) -> bytes:
    return b"".join([chunk async for chunk in response.streaming_content])


def rows(files: dict[str, bytes], name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(files[f"{name}.json"])
    return found


def test_the_command_writes_all_rows_and_recordings(full: Member, bob: Member, tmp_path: Path):
    files = export(full, tmp_path)
    assert rows(files, "profile")[0]["name"] == "Alice Archer"
    assert [(row["text"], row["played_ms"]) for row in rows(files, "messages")] == [("Grüß Gott.", 900)]
    assert rows(files, "phrases")[0]["text"] == "Hello {patient_name}."
    assert rows(files, "voice_clones")[0]["consent_by"] == "Anna Archer"
    assert [len(rows(files, name)) for name in ("devices", "voices", "conversations", "usage_by_day", "requests")] == [
        1
    ] * 5
    assert {row["kind"] for row in rows(files, "incidents")} == {"budget", "voice"}
    [recording] = [name for name in files if name.startswith("recordings/")]
    assert (recording[-4:], files[recording]) == (".mp3", b"ID3 a recording")
    assert {row["action"] for row in rows(files, "audit_trail")} == {"export", "read_text", "play_recording"}
    readme = files["README.txt"].decode()
    assert all(f"{section.name}.json" in readme for section in SECTIONS)


def test_no_token_and_nothing_about_others(full: Member, bob: Member, tmp_path: Path):
    everything = b"".join(export(full, tmp_path).values()).decode()
    device = Device.objects.get(pk=full.device.pk)
    for secret in (full.token, device.token_digest, device.token_prefix, "Bob", str(bob.patient.pk)):
        assert secret not in everything


def test_an_existing_file_and_an_unknown_patient_are_refused(full: Member, tmp_path: Path):
    export(full, tmp_path)
    with pytest.raises(CommandError, match="File exists"):
        export(full, tmp_path)
    with pytest.raises(CommandError, match="no patient"):
        call_command("export_patient", "00000000-0000-4000-8000-000000000000", str(tmp_path / "other.zip"))


@pytest.mark.django_db(transaction=True)
def test_the_rest_call_sends_the_file_and_is_in_the_audit_trail(full: Member):
    carol = clinician("carol", full.patient)
    response = carol.call("GET", f"patients/{full.patient.pk}/export/")
    assert (response.status_code, response["Content-Type"]) == (200, "application/zip")
    assert rows(contents(asyncio.run(body_of(response))), "profile")[0]["name"] == "Alice Archer"
    actions = AuditEntry.objects.filter(user_name="carol", patient_id=full.patient.pk).values_list("action", flat=True)
    assert {"export", "read_text", "play_recording"} <= set(actions)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("name", "sees"), [("Clinician", False), ("Auditor", True)])
def test_the_audit_trail_is_only_for_those_who_may_view_it(full: Member, name: str, sees: bool):
    reader = clinician("reader", full.patient, in_role=name)
    files = contents(asyncio.run(body_of(reader.call("GET", f"patients/{full.patient.pk}/export/"))))
    assert ("audit_trail.json" in files) == (b"audit_trail" in files["README.txt"]) == sees
    assert rows(files, "requests")


@pytest.mark.parametrize("missing", PERMISSIONS)
def test_all_permissions_of_the_single_calls_are_needed(full: Member, missing: str):
    reader = clinician("reader", full.patient)
    give_permissions(reader.user, *(permission for permission in PERMISSIONS if permission != missing))
    response = reader.call("GET", f"patients/{full.patient.pk}/export/")
    assert (response.status_code, response.json()["code"]) == (403, "permission_denied")
    assert not AuditEntry.objects.filter(action="export").exists()


def test_a_stranger_gets_nothing(full: Member):
    assert clinician("eve").call("GET", f"patients/{full.patient.pk}/export/").status_code == 404
    assert not AuditEntry.objects.filter(action="export").exists()
