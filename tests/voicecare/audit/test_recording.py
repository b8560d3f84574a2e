"""What an entry says: the person, the object, the patient and the change, and no name or text of a patient."""

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client
from django_otp.plugins.otp_totp.models import TOTPDevice
from pytest_django import Settings

from tests.clinicians import Clinician, clinician
from tests.conftest import Member
from tts.models import Utterance
from voicecare.audit import recording
from voicecare.audit.models import AuditEntry
from voicecare.patients.models import Device, Patient

pytestmark = pytest.mark.django_db
PATIENTS, DEVICES = "/admin/patients/patient/", "/admin/patients/device/"


@pytest.fixture
def carol(alice: Member) -> Clinician:
    return clinician("carol", alice.patient)


def patient_form(patient: Patient, **changes: object) -> dict[str, object]:
    fields = ("name", "preferred_name", "companion_name", "language", "speech_rate", "backup_policy")
    inline = {f"devices-{name}": 0 for name in ("TOTAL_FORMS", "INITIAL_FORMS")}
    return {**{name: getattr(patient, name) for name in fields}, "voice": patient.voice_id or "", **inline, **changes}


def act(client: Client, url: str, action: str, *rows: Any, **more: str) -> Any:
    data = {"action": action, "_selected_action": [str(row.pk) for row in rows], "confirmed": "yes"}
    return client.post(url, {**data, **more})


# Changes


def test_a_form_stores_values_of_numbers_and_only_the_names_of_texts(admin_client: Client, alice: Member):
    changes = {"name": "Alicia Bell", "speech_rate": 0.8}
    assert admin_client.post(f"{PATIENTS}{alice.patient.pk}/change/", patient_form(alice.patient, **changes)).url
    entry = AuditEntry.objects.get()
    boss = User.objects.get()
    assert (entry.user_id, entry.user_name, entry.source, entry.address) == (boss.pk, "admin", "admin", "127.0.0.1")
    assert (entry.action, entry.object_type, entry.object_id) == ("change", "patients.patient", str(alice.patient.pk))
    assert entry.patient_id == alice.patient.pk
    assert entry.changes == {"name": None, "speech_rate": ["1.00", "0.8"]}


def test_a_reference_is_stored_as_an_id(admin_client: Client, alice: Member):
    user = User.objects.create_user("carol")
    form = patient_form(alice.patient, voice="", team=user.pk)
    assert admin_client.post(f"{PATIENTS}{alice.patient.pk}/change/", form).url
    voice = str(alice.patient.voice_id)
    assert AuditEntry.objects.get().changes == {"voice": [voice, None], "team": [[], [user.pk]]}


def test_a_call_says_what_it_has_changed(carol: Clinician, alice: Member):
    body = {"name": "Alicia Bell", "speech_rate": 0.8, "language": "de"}
    assert carol.call("PATCH", f"patients/{alice.patient.pk}/", body).status_code == 200
    entry = AuditEntry.objects.get()
    assert (entry.user_name, entry.source, entry.action) == ("carol", "rest", "change")
    assert entry.patient_id == alice.patient.pk
    assert entry.changes == {"name": None, "language": None, "speech_rate": ["1.00", "0.80"]}


def test_an_action_leaves_an_entry_for_each_selected_row_with_its_change(
    admin_client: Client, alice: Member, bob: Member
):
    act(admin_client, PATIENTS, "archive", alice.patient, bob.patient)
    entries = AuditEntry.objects.all()
    assert {entry.patient_id for entry in entries} == {alice.patient.pk, bob.patient.pk}
    for entry in entries:
        assert (entry.action, list(entry.changes)) == ("archive", ["archived_at"])
        assert entry.changes["archived_at"][0] is None


def test_the_device_of_a_patient_counts_for_the_patient(admin_client: Client, alice: Member):
    act(admin_client, DEVICES, "revoke", alice.device)
    entry = AuditEntry.objects.get()
    assert (entry.object_type, entry.object_id, entry.patient_id) == (
        "patients.device",
        str(alice.device.pk),
        alice.patient.pk,
    )


def test_no_entry_has_a_name_a_text_or_a_token(admin_client: Client, carol: Clinician, alice: Member):
    admin_client.post(f"{DEVICES}add/", {"patient": alice.patient.pk, "name": "Tablet of Alice"})
    carol.call("POST", f"patients/{alice.patient.pk}/speak/", {"text": "Your son is in hospital."})
    answer = carol.call("POST", f"patients/{alice.patient.pk}/devices/", {"name": "Phone of Alice"}).json()
    assert AuditEntry.objects.count() == 3
    device = Device.objects.get(pk=answer["id"])
    for values in AuditEntry.objects.values():
        written = str(values)
        for secret in ("Alice", "Tablet", "Phone", "hospital", answer["token"], str(device.token_digest)):
            assert secret not in written


def test_a_change_that_fails_leaves_no_entry(carol: Clinician, admin_client: Client, alice: Member):
    for path, body in [("speak/", {"text": " "}), ("devices/", {}), ("", {"speech_rate": 99})]:
        method = "POST" if path else "PATCH"
        assert carol.call(method, f"patients/{alice.patient.pk}/{path}", body).status_code == 400
    form = patient_form(alice.patient, name="")
    assert admin_client.post(f"{PATIENTS}{alice.patient.pk}/change/", form).status_code == 200
    assert carol.call("DELETE", f"patients/{alice.patient.pk}/").status_code == 403
    assert not AuditEntry.objects.exists()


def test_a_question_before_an_action_leaves_no_entry(admin_client: Client):
    user = User.objects.create_user("carol")
    assert act(admin_client, "/admin/auth/user/", "delete_selected", user).status_code == 200
    assert not AuditEntry.objects.exists()
    act(admin_client, "/admin/auth/user/", "delete_selected", user, post="yes")
    entry = AuditEntry.objects.get()
    assert (entry.action, entry.object_type, entry.object_id) == ("delete", "auth.user", str(user.pk))
    assert entry.changes["is_staff"] == [False, None]
    assert entry.changes["password"] is None


# Reading


def test_the_page_of_a_message_is_recorded_and_the_list_is_not(admin_client: Client, alice: Member):
    said = Utterance.objects.create(patient=alice.patient, origin="server", text="Hello", state="heard")
    admin_client.get("/admin/tts/utterance/")
    assert not AuditEntry.objects.exists()
    assert "Hello" in admin_client.get(f"/admin/tts/utterance/{said.pk}/change/").content.decode()
    entry = AuditEntry.objects.get()
    assert (entry.action, entry.object_id, entry.patient_id) == ("read_text", str(said.pk), alice.patient.pk)


# Login


def log_in(username: str, password: str) -> None:
    for url, content_type in [("/admin/login/", None), ("/api/v1/auth/token/", "application/json")]:
        form: Any = {"username": username, "password": password}
        Client().post(url, form, **({"content_type": content_type} if content_type else {}))


def test_log_ins_and_failed_ones_are_recorded_and_other_names_are_not(settings: Settings):
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    user = User.objects.create_user("carol", password="correct horse battery", is_staff=True)
    log_in("carol", "correct horse battery")
    log_in("carol", "wrong")
    log_in("my password", "carol")
    entries = AuditEntry.objects.order_by("pk").values_list("action", "source", "user_id", "user_name")
    assert list(entries) == [
        ("log_in", "admin", user.pk, "carol"),
        ("log_in", "rest", user.pk, "carol"),
        ("log_in_failed", "admin", user.pk, "carol"),
        ("log_in_failed", "rest", user.pk, "carol"),
        ("log_in_failed", "admin", None, ""),
        ("log_in_failed", "rest", None, ""),
    ]


def test_log_ins_after_too_many_failures_are_recorded_once_a_minute(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    user = User.objects.create_user("carol", password="correct horse battery", is_staff=True)
    for _ in range(4):  # of both kinds, so the sixth and all later ones are refused
        log_in("carol", "wrong")
    refused = AuditEntry.objects.filter(action="log_in_throttled")
    assert list(refused.values_list("user_id", "user_name", "address")) == [(user.pk, "carol", "127.0.0.1")]
    assert AuditEntry.objects.filter(action="log_in_failed").count() == 5
    monkeypatch.setattr(recording, "REFUSAL_INTERVAL", timedelta(0))  # as if a minute had passed
    log_in("carol", "correct horse battery")
    assert refused.count() == 3  # by the form and over REST


def test_the_command_that_resets_a_second_factor_is_recorded():
    user = User.objects.create_user("carol")
    TOTPDevice.objects.create(user=user, key="00" * 20)
    call_command("reset_two_factor", "carol")
    entry = AuditEntry.objects.get()
    assert (entry.action, entry.source, entry.user_id) == ("turn_off_two_factor", "command", None)
    assert (entry.object_type, entry.object_id) == ("auth.user", str(user.pk))
