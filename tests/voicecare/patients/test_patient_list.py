"""The list of patients over REST: search, filters and order. Lists refuse unknown parameters. External ids."""

from urllib.parse import quote

import pytest
from django.db import connection
from rest_framework.exceptions import ValidationError
from rest_framework.test import APIRequestFactory

from tests.clinicians import Clinician, clinician
from tests.conftest import Member
from voicecare.patients.models import Clinic, Patient
from voicecare.patients.serializers import PatientSerializer

pytestmark = pytest.mark.django_db


@pytest.fixture
def boss(alice: Member, bob: Member) -> Clinician:
    """An administrator. There are Alice Archer and three more patients."""
    Patient.objects.filter(pk=bob.patient.pk).update(external_id="MRN-2", language="de", preferred_name="Bobby")
    ward = Clinic.objects.create(name="Ward 3")
    Patient.objects.create(name="Carl Cole", companion_name="C", clinic=ward, archived_at="2026-11-01T00:00Z")
    Patient.objects.create(name="50% Dora", companion_name="C", external_id="MRN-22")
    return clinician("boss", in_role="Administrator")


def listed(user: Clinician, query: str) -> list[str]:
    return [row["name"].split()[0] for row in user.get(f"patients/?{query}")["results"]]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", ["50%", "Alice", "Bob", "Carl"]),
        ("search=arch", ["Alice"]),
        ("search=archer%20ALICE", ["Alice"]),
        ("search=archer%20bob", []),
        ("search=bobby", ["Bob"]),
        ("search=mrn-2", ["Bob"]),
        (f"search={quote('%')}", ["50%"]),
        ("search=_", []),
        ("external_id=MRN-22", ["50%"]),
        ("external_id=mrn-22", []),
        ("language=de", ["Bob"]),
        ("archived=true", ["Carl"]),
        ("archived=false&search=a", ["50%", "Alice", "Bob"]),
        ("archived=false&language=en", ["50%", "Alice"]),
        ("ordering=-name", ["Carl", "Bob", "Alice", "50%"]),
        ("ordering=-created_at&page_size=1", ["50%"]),
        ("ordering=created_at&page_size=1&page=4", ["50%"]),
    ],
)
def test_the_list_is_searched_filtered_and_ordered(boss: Clinician, query: str, found: list[str]):
    assert listed(boss, query) == found


def test_the_list_is_filtered_by_clinic_and_voice(boss: Clinician, alice: Member):
    assert listed(boss, f"clinic={Clinic.objects.get().pk}") == ["Carl"]
    assert listed(boss, f"voice={alice.patient.voice_id}") == ["Alice"]
    assert listed(boss, f"clinic={alice.patient.pk}") == []


def test_filters_do_not_show_patients_of_others(boss: Clinician, alice: Member):
    carol = clinician("carol", alice.patient)
    assert listed(carol, "external_id=MRN-2") == []
    assert listed(carol, "search=bob") == []


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("clinic=ward", "clinic"),
        ("archived=maybe", "archived"),
        ("ordering=language", "ordering"),
        ("search=a%00b", "search"),
        ("externalid=MRN-2", "externalid"),
    ],
)
def test_a_wrong_parameter_is_refused(boss: Clinician, query: str, field: str):
    answer = boss.call("GET", f"patients/?{query}")
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, field)


@pytest.mark.parametrize("path", ["patients/", "clinics/", "voices/", "conversations/", "usage/daily/"])
def test_every_list_refuses_unknown_parameters_and_names_the_known_ones(boss: Clinician, path: str):
    answer = boss.call("GET", f"{path}?page=1&nmae=Alice")
    (message,) = answer.json()["nmae"]
    assert answer.status_code == 400
    assert "page, page_size" in message
    assert ("search" in message) == (path == "patients/")


def test_an_external_id_belongs_to_one_patient(boss: Clinician, alice: Member):
    path = f"patients/{alice.patient.pk}/"
    refused = boss.call("PATCH", path, {"external_id": "MRN-2"})
    assert (refused.status_code, refused.json()["external_id"]) == (400, ["Another patient has this external id."])
    assert boss.call("PATCH", path, {"external_id": "MRN-1"}).json()["external_id"] == "MRN-1"
    assert boss.call("PATCH", path, {"external_id": "MRN-1", "name": "A"}).status_code == 200
    assert boss.call("PATCH", path, {"external_id": None}).json()["external_id"] is None


def test_an_external_id_that_was_taken_in_the_meantime_is_refused(boss: Clinician, alice: Member, bob: Member):
    request = APIRequestFactory().patch("/")
    serializer = PatientSerializer(
        Patient.objects.get(pk=alice.patient.pk),
        data={"external_id": "MRN-9", "name": "Changed"},
        partial=True,
        context={"request": request},
    )
    serializer.is_valid(raise_exception=True)
    Patient.objects.filter(pk=bob.patient.pk).update(external_id="MRN-9")
    with pytest.raises(ValidationError) as refused:
        serializer.save()
    assert refused.value.get_codes() == {"external_id": ["unique"]}
    assert not connection.needs_rollback
    assert Patient.objects.get(pk=alice.patient.pk).name == "Alice Archer"
