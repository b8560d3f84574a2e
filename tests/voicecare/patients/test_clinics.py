"""Clinics: who sees their patients, who may choose the clinic of a patient, their pages, filters and figures."""

import csv
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.core.cache import cache
from django.core.exceptions import ValidationError
from django.db.models import ProtectedError
from django.test import Client
from django.utils import timezone

from cloning.models import CloneJob
from tests.clinicians import clinician
from tests.conftest import Member
from tests.roles import give_permissions, role
from tests.voicecare.every_url import body_of
from tts.models import Conversation, Utterance
from usage.ledger.rollup import day_of
from usage.models import DailyUsage, Incident, UsageEvent
from voicecare.audit.models import AuditEntry
from voicecare.patients import care_teams
from voicecare.patients.models import Clinic, Device, Patient, Voice

pytestmark = pytest.mark.django_db

PATIENTS = "/admin/patients/patient/"
CLINICS = "/admin/patients/clinic/"
NEW = {
    "name": "Nora",
    "companion_name": "C",
    "language": "en",
    "speech_rate": "1.00",
    "backup_policy": "switch",
    "devices-TOTAL_FORMS": 0,
    "devices-INITIAL_FORMS": 0,
}


@pytest.fixture
def ward(alice: Member) -> Clinic:
    """A clinic with Alice."""
    ward = Clinic.objects.create(name="Ward 3")
    Patient.objects.filter(pk=alice.patient.pk).update(clinic=ward)
    return ward


def user(name: str, *clinics: Clinic, in_role: str = "Clinician") -> User:
    made = User.objects.create_user(name, is_staff=True)
    made.groups.add(role(in_role))
    made.clinics.set(clinics)  # type: ignore[attr-defined]
    return made


def browser(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def body(client: Client, path: str) -> str:
    response = client.get(path)
    assert response.status_code == 200
    return response.content.decode()


# The model


def test_alert_addresses_are_separated_by_lines_or_commas():
    clinic = Clinic(name="Ward 3", alert_emails="a@example.org, b@example.org\n\nc@example.org;d@example.org ")
    clinic.full_clean()
    assert clinic.alert_addresses == [f"{name}@example.org" for name in "abcd"]


def test_an_address_that_is_not_valid_is_refused():
    with pytest.raises(ValidationError, match="valid email"):
        Clinic(name="Ward 3", alert_emails="a@example.org\nWard three").full_clean()


def test_a_clinic_with_patients_cannot_be_deleted(ward: Clinic):
    with pytest.raises(ProtectedError):
        ward.delete()


# Who sees the patients


def test_members_see_the_patients_of_the_clinic_and_of_their_teams(ward: Clinic, alice: Member, bob: Member):
    carol = user("carol", ward)
    assert set(Patient.objects.visible_to(carol)) == {alice.patient}
    bob.patient.team.add(carol)
    alice.patient.team.add(carol)
    assert sorted(Patient.objects.visible_to(carol).values_list("name", flat=True)) == ["Alice Archer", "Bob Baker"]
    ward.members.remove(carol)
    alice.patient.team.remove(carol)
    assert set(Patient.objects.visible_to(carol)) == {bob.patient}


def test_patients_without_a_clinic_are_not_those_of_users_without_one(alice: Member):
    assert not Patient.objects.visible_to(user("carol")).exists()
    assert not Patient.objects.visible_to(AnonymousUser()).exists()


def test_lists_and_rest_show_a_members_patients(ward: Clinic, alice: Member, bob: Member):
    carol = clinician("carol", in_role="Clinician", is_staff=True)
    ward.members.add(carol.user)
    Device.objects.update(online_until=timezone.now().replace(year=2099), last_seen=timezone.now())
    client = browser(carol.user)
    for path in (PATIENTS, "/admin/patients/device/", "/admin/live/"):
        assert "Alice Archer" in body(client, path)
        assert "Bob Baker" not in body(client, path)
    assert [row["name"] for row in carol.get("patients/")["results"]] == ["Alice Archer"]
    assert carol.call("GET", f"patients/{bob.patient.pk}/").status_code == 404


def test_a_member_without_a_role_is_a_clinician(ward: Clinic, alice: Member):
    boss = clinician("boss", is_staff=True)
    assert boss.call("GET", "patients/").status_code == 403
    ward.members.add(boss.user)
    assert [row["name"] for row in boss.get("patients/")["results"]] == ["Alice Archer"]


# The clinic of a patient


def test_the_clinic_of_a_new_patient_is_the_only_one_of_the_user(ward: Clinic):
    other = Clinic.objects.create(name="Ward 4")
    assert care_teams.clinic_of_new_patient(user("one", ward)) == ward
    assert care_teams.clinic_of_new_patient(user("two", ward, other)) is None
    assert care_teams.clinic_of_new_patient(user("none")) is None


@pytest.mark.parametrize(("in_role", "may_choose"), [("Administrator", True), ("Clinician", False)])
def test_who_may_change_clinics_chooses_the_clinic_of_a_patient(ward: Clinic, in_role: str, may_choose: bool):
    other = Clinic.objects.create(name="Ward 4")
    client = browser(user("u", ward, in_role=in_role))
    assert client.post(f"{PATIENTS}add/", {**NEW, "clinic": str(other.pk)}).status_code == 302
    nora = Patient.objects.get(name="Nora")
    assert nora.clinic == (other if may_choose else ward)
    assert client.post(f"{PATIENTS}{nora.pk}/change/", {**NEW, "clinic": ""}).status_code == 302
    nora.refresh_from_db()
    assert nora.clinic == (None if may_choose else ward)


def test_the_list_of_patients_has_the_clinic_as_soon_as_there_is_one(alice: Member, bob: Member):
    client = browser(user("boss", in_role="Administrator"))
    assert "clinic" not in body(client, PATIENTS).lower().split("<main")[-1]
    ward = Clinic.objects.create(name="Ward 3")
    Patient.objects.filter(pk=alice.patient.pk).update(clinic=ward)
    found = {
        chosen: [patient.name for patient in client.get(f"{PATIENTS}?clinic={chosen}").context["cl"].result_list]
        for chosen in (ward.pk, "none", "", "nonsense")
    }
    everybody = ["Alice Archer", "Bob Baker"]
    assert found == {ward.pk: everybody[:1], "none": everybody[1:], "": everybody, "nonsense": []}
    assert "Ward 3" in body(client, PATIENTS)


# The pages of clinics


@pytest.fixture
def boss() -> Client:
    return browser(user("boss", in_role="Administrator"))


def test_the_list_shows_patients_usage_and_budgets(ward: Clinic, alice: Member, bob: Member, boss: Client):
    Clinic.objects.update(monthly_character_budget=200, daily_character_budget=10)
    today = day_of(timezone.now())
    for member, kind, characters in ((alice, "live", 9), (alice, "warm", 1000), (bob, "live", 50_000)):
        DailyUsage.objects.create(day=today, patient=member.patient.pk, kind=kind, characters=characters)
    Patient.objects.create(name="Gone", companion_name="C", clinic=ward, erases_at=timezone.now())
    cells = body(boss, CLINICS).split("<tbody>")[1]
    for expected in (">1<", ">1,009<", ">4%<", ">90%<"):
        assert expected in cells
    assert "1,009" in body(boss, f"{CLINICS}{ward.pk}/change/")


def test_the_list_costs_the_same_for_many_clinics(
    ward: Clinic, boss: Client, django_assert_num_queries: Callable[..., Any], django_assert_max_num_queries: Any
):
    with django_assert_max_num_queries(20) as few:
        boss.get(CLINICS)
    for number in range(20):
        clinic = Clinic.objects.create(name=f"Ward {10 + number}")
        Patient.objects.create(name=f"P {number}", companion_name="C", clinic=clinic)
    with django_assert_num_queries(len(few)):
        boss.get(CLINICS)


def test_a_user_who_sees_only_own_patients_sees_only_own_clinics(ward: Clinic):
    Clinic.objects.create(name="Ward 4")
    assert "Ward 4" not in body(browser(user("carol", ward)), CLINICS)
    assert "Ward 4" in body(browser(user("ann", in_role="Auditor")), CLINICS)


@pytest.mark.parametrize("name", ["Clinician", "Auditor"])
def test_other_roles_see_clinics_and_change_nothing(ward: Clinic, name: str):
    client = browser(user("u", ward, in_role=name))
    page = f"{CLINICS}{ward.pk}/change/"
    assert "Ward 3" in body(client, page)
    answers = [
        client.post(page, {"name": "Mine"}),
        client.post(f"{CLINICS}add/", {"name": "New"}),
        client.post(f"{CLINICS}{ward.pk}/delete/", {"post": "yes"}),
    ]
    assert [answer.status_code for answer in answers] == [403] * 3
    assert [*Clinic.objects.values_list("name", flat=True)] == ["Ward 3"]


def test_who_may_not_see_clinics_gets_no_page(ward: Clinic):
    client = browser(give_permissions(User.objects.create_user("u", is_staff=True), "patients.view_patient"))
    assert client.get(f"{CLINICS}{ward.pk}/change/").status_code == 403


@pytest.mark.parametrize("by", ["page", "action"])
def test_deleting_a_clinic_with_patients_is_refused_with_what_to_do(ward: Clinic, boss: Client, by: str):
    if by == "page":
        answer = boss.post(f"{CLINICS}{ward.pk}/delete/", {"post": "yes"}, follow=True)
    else:
        form = {"action": "delete_selected", "_selected_action": [str(ward.pk)], "post": "yes"}
        answer = boss.post(CLINICS, form, follow=True)
    text = answer.content.decode()
    assert "Ward 3 was not deleted, because 1 patient belongs to it. Choose another clinic or none" in text
    assert "Alice Archer" not in text
    assert Clinic.objects.count() == 1
    assert not AuditEntry.objects.filter(action="delete").exists()


def test_a_clinic_without_patients_is_deleted_and_leaves_erased_ones(ward: Clinic, alice: Member, boss: Client):
    Patient.objects.update(erases_at=timezone.now(), erased_at=timezone.now())
    assert boss.post(f"{CLINICS}{ward.pk}/delete/", {"post": "yes"}).status_code == 302
    assert not Clinic.objects.exists()
    alice.patient.refresh_from_db()
    assert alice.patient.clinic is None
    assert AuditEntry.objects.get(action="delete").object_id == str(ward.pk)


# Filters


def test_lists_can_be_limited_to_a_clinic(ward: Clinic, alice: Member, bob: Member, boss: Client):
    today, ids = day_of(timezone.now()), {}
    for member in (alice, bob):
        patient = member.patient
        talk = Conversation.objects.create(
            patient=patient, device=member.device, voice=patient.voice, voice_source="default", format="mp3_44100_128"
        )
        usage = {"patient": patient.pk, "kind": "live"}
        UsageEvent.objects.create(
            source=talk.pk, segment=0, attempt=1, outcome="completed", requested_characters=9, **usage
        )
        DailyUsage.objects.create(day=today, characters=9, **usage)
        clone = Voice.objects.create(name="Anna", provider_id=f"v{patient.pk}", source="cloned", patient=patient)
        job = {"name": "Anna", "consent_by": "Anna", "consented_at": timezone.now(), "sample_digest": str(patient.pk)}
        CloneJob.objects.create(patient=patient, **job)
        Utterance.objects.create(
            patient=patient, conversation=talk, client_speech_id="s1", origin="device", text="Hi", state="heard"
        )
        Incident.objects.create(kind="budget", key=str(patient.pk))
        Incident.objects.create(kind="voice", key=str(clone.pk))
        ids[patient.pk] = {str(patient.pk), str(clone.pk)}
    Incident.objects.create(kind="budget", key=str(ward.pk))
    models = (Conversation, Utterance, UsageEvent, DailyUsage, CloneJob, Device, Voice)
    for model in models:
        path = f"/admin/{model._meta.app_label}/{model._meta.model_name}/?clinic={ward.pk}"
        (found,) = boss.get(path).context["cl"].result_list
        assert getattr(found, "patient_id", getattr(found, "patient", None)) == alice.patient.pk, model
    incidents = boss.get(f"/admin/usage/incident/?clinic={ward.pk}").context["cl"].result_list
    assert {incident.key for incident in incidents} == {*ids[alice.patient.pk], str(ward.pk)}


# The dashboard and the statement


@pytest.fixture
def usage(ward: Clinic, alice: Member, bob: Member) -> None:
    cache.clear()
    for member, characters in ((alice, 4321), (bob, 8765)):
        DailyUsage.objects.create(
            day=day_of(timezone.now()), patient=member.patient.pk, kind="live", characters=characters, events=1
        )


def csv_rows(client: Client, path: str) -> list[dict[str, str]]:
    return list(csv.DictReader(body_of(client.get(path)).decode("utf-8-sig").splitlines()))


def test_the_dashboard_can_be_limited_to_a_clinic(ward: Clinic, usage: None, boss: Client):
    page = body(boss, f"/admin/?clinic={ward.pk}")
    assert "Dashboard of Ward 3" in page
    assert "4,321" in page
    assert "8,765" not in page
    assert "13,086" in body(boss, "/admin/")
    chart = csv_rows(boss, f"/admin/figures/patients.csv?clinic={ward.pk}")
    assert [row["Patient"] for row in chart] == ["Alice Archer"]
    assert [row["Clinic"] for row in csv_rows(boss, "/admin/figures/clinics.csv")] == ["Ward 3"]
    assert boss.get("/admin/?clinic=nonsense").status_code == 404
    carol = browser(give_permissions(user("carol"), "usage.view_dailyusage"))
    assert carol.get(f"/admin/?clinic={ward.pk}").status_code == 404


def test_the_connected_devices_can_be_limited_to_a_clinic(ward: Clinic, boss: Client, alice: Member, bob: Member):
    Device.objects.update(online_until=timezone.now().replace(year=2099), last_seen=timezone.now())
    page = body(boss, f"/admin/live/?clinic={ward.pk}")
    assert "Alice Archer" in page
    assert "Bob Baker" not in page


def test_the_statement_has_clinics(ward: Clinic, usage: None, boss: Client):
    page = f"/admin/statements/{day_of(timezone.now()):%Y-%m}/"
    patients = csv_rows(boss, f"{page}patients.csv")
    assert [(row["Name"], row["Clinic"], row["Characters"]) for row in patients] == [
        ("Bob Baker", "", "8765"),
        ("Alice Archer", "Ward 3", "4321"),
    ]
    clinics = csv_rows(boss, f"{page}clinics.csv")
    assert [(row["Name"], row["Characters"]) for row in clinics] == [("", "8765"), ("Ward 3", "4321")]
    limited = csv_rows(boss, f"{page}patients.csv?clinic={ward.pk}")
    assert [row["Name"] for row in limited] == ["Alice Archer"]
    shown = body(boss, f"{page}?clinic={ward.pk}")
    assert "Total of Ward 3" in shown
    assert "13,086" not in shown
    assert "By clinic" in body(boss, page)
