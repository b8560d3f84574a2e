"""In the admin, a user sees the patients of their care teams only, unless they may see all. See also every_url.py."""

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from tests.conftest import Member
from tests.roles import role
from tests.voicecare.every_url import body_of
from usage.ledger.rollup import day_of
from usage.models import DailyUsage
from voicecare.admin.overview.devices import NO_DEVICE
from voicecare.patients import erasure
from voicecare.patients.models import Device, Patient

pytestmark = pytest.mark.django_db


def browser(name: str, *patients: Patient, in_role: str = "Clinician") -> Client:
    user = User.objects.create_user(name, is_staff=True)
    user.groups.add(role(in_role))
    user.patients.set(patients)  # type: ignore[attr-defined]
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def clinician(alice: Member) -> Client:
    return browser("carol", alice.patient)


def body(client: Client, path: str) -> str:
    return client.get(path).content.decode()


@pytest.mark.parametrize("path", ["/admin/patients/patient/", "/admin/patients/device/", "/admin/live/"])
def test_lists_show_the_patients_of_ones_own_teams(clinician: Client, alice: Member, bob: Member, path: str):
    Device.objects.update(online_until=timezone.now().replace(year=2099), last_seen=timezone.now())
    assert "Alice Archer" in body(clinician, path)
    assert "Bob Baker" not in body(clinician, path)
    for name in ("Auditor", "Administrator"):
        assert "Bob Baker" in body(browser(name, in_role=name), path)


@pytest.mark.parametrize(
    "path", ["/admin/figures/patients.csv", f"/admin/statements/{timezone.now():%Y-%m}/patients.csv"]
)
def test_csv_files_list_the_patients_of_ones_own_teams(clinician: Client, alice: Member, bob: Member, path: str):
    for member in (alice, bob):
        DailyUsage.objects.create(day=day_of(timezone.now()), patient=member.patient.pk, kind="live", characters=9)
    found = body_of_csv(clinician, path)
    assert "Alice Archer" in found
    assert "Bob Baker" not in found
    assert str(bob.patient.pk) not in found
    assert "Bob Baker" in body_of_csv(browser("auditor", in_role="Auditor"), path)


def body_of_csv(client: Client, path: str) -> str:
    return body_of(client.get(path)).decode()


def test_a_device_or_a_recording_for_another_teams_patient_is_refused(clinician: Client, bob: Member):
    page = clinician.post("/admin/patients/device/add/", {"patient": bob.patient.pk, "name": "forged"})
    assert page.context["adminform"].form.errors["patient"] == [NO_DEVICE]
    assert (
        "patient" in clinician.post("/admin/cloning/clonejob/add/", {"patient": bob.patient.pk}).context["form"].errors
    )
    assert Device.objects.filter(patient=bob.patient).count() == 1


def test_an_action_leaves_other_teams_rows_alone(clinician: Client, alice: Member, bob: Member):
    chosen = [alice.device.pk, bob.device.pk]
    clinician.post("/admin/patients/device/", {"action": "revoke", "_selected_action": chosen, "confirmed": "yes"})
    assert [*Device.objects.exclude(revoked_at=None)] == [alice.device]


def test_a_patient_added_in_the_admin_has_their_creator_in_the_team(clinician: Client):
    form = {"name": "Nora", "companion_name": "C", "language": "en", "speech_rate": "1.00", "backup_policy": "switch"}
    inline = {"devices-TOTAL_FORMS": 0, "devices-INITIAL_FORMS": 0}
    assert clinician.post("/admin/patients/patient/add/", {**form, **inline}).status_code == 302
    assert "Nora" in body(clinician, "/admin/patients/patient/")


# Devices of patients who are to be erased


def test_no_device_is_added_for_a_patient_who_is_to_be_erased(alice: Member):
    erasure.start_erasure(alice.patient.pk)
    administrator = browser("boss", in_role="Administrator")
    page = administrator.post("/admin/patients/device/add/", {"patient": alice.patient.pk, "name": "late"})
    assert page.context["adminform"].form.errors["patient"] == [NO_DEVICE]
    assert "device/add/?patient=" not in body(administrator, f"/admin/patients/patient/{alice.patient.pk}/change/")
    with pytest.raises(Patient.DoesNotExist):
        Device.objects.issue(alice.patient, "late")
    assert not Device.objects.filter(revoked_at=None).exists()
    erasure.undo_erasure(alice.patient.pk)
    assert Device.objects.issue(alice.patient, "new")[0].revoked_at is None
