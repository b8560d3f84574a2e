"""The clinic of a patient over REST, and the list of clinics."""

import pytest

from tests.clinicians import clinician
from tests.conftest import Member
from voicecare.audit.models import AuditEntry
from voicecare.patients.models import Clinic, Patient

pytestmark = pytest.mark.django_db


@pytest.fixture
def ward(alice: Member) -> Clinic:
    """A clinic with Alice."""
    ward = Clinic.objects.create(name="Ward 3")
    Patient.objects.filter(pk=alice.patient.pk).update(clinic=ward)
    return ward


def test_rest_shows_the_clinic_and_lets_administrators_change_it(ward: Clinic, alice: Member):
    boss, path = clinician("boss", in_role="Administrator"), f"patients/{alice.patient.pk}/"
    assert boss.get(path)["clinic"] == str(ward.pk)
    other = Clinic.objects.create(name="Ward 4")
    assert boss.call("PATCH", path, {"clinic": str(other.pk)}).json()["clinic"] == str(other.pk)
    assert AuditEntry.objects.get().changes == {"clinic": [str(ward.pk), str(other.pk)]}
    assert boss.call("PATCH", path, {"clinic": None}).json()["clinic"] is None
    assert boss.call("PATCH", path, {"clinic": str(alice.patient.pk)}).status_code == 400
    assert [row["name"] for row in boss.get("clinics/")["results"]] == ["Ward 3", "Ward 4"]


def test_rest_refuses_another_clinic_without_permission(ward: Clinic, alice: Member):
    carol, path = clinician("carol", alice.patient, in_role="Clinician"), f"patients/{alice.patient.pk}/"
    for value in (str(Clinic.objects.create(name="Ward 4").pk), None):
        answer = carol.call("PATCH", path, {"clinic": value, "name": "Changed"})
        assert (answer.status_code, answer.json()["code"]) == (403, "permission_denied")
    assert carol.call("PATCH", path, {"clinic": str(ward.pk)}).status_code == 200
    assert Patient.objects.get(pk=alice.patient.pk).name == "Alice Archer"
    assert carol.get("clinics/")["results"] == []
    ward.members.add(carol.user)
    assert carol.get("clinics/")["results"] == [{"id": str(ward.pk), "name": "Ward 3"}]
    created = carol.call("POST", "patients/", {"name": "Nora", "companion_name": "C", "clinic": None}).json()
    assert created["clinic"] == str(ward.pk)
