"""The list of patients in the admin: devices, usage, team and incidents, and filters in words."""

import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from tests.conftest import Member
from usage.budgets import current_month
from usage.models import DailyUsage, Incident, Price
from voicecare.patients.models import Device, Patient, Voice

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.filterwarnings("ignore:No directory at:UserWarning"),  # whitenoise in a fresh checkout
]

LIST = "/admin/patients/patient/"


def row_of(client: Client, patient: Patient) -> str:
    """The text of the patient's row in the list."""
    page = client.get(LIST).content.decode()
    (row,) = (row for row in page.split("<tr>") if f"/{patient.pk}/change/" in row)
    return " ".join(re.sub(r"<[^>]+>", " ", row.split("</tr>")[0]).split())


def names(client: Client, **query: Any) -> set[str]:
    response = client.get(LIST, query)
    assert response.status_code == 200
    return {patient.name for patient in response.context["cl"].result_list}


def test_a_row_shows_the_device_the_usage_the_budget_the_team_and_incidents(admin_client: Client, alice: Member):
    nurse = User.objects.create_user("nora")
    Patient.objects.filter(pk=alice.patient.pk).update(monthly_character_budget=2_000, language="de-AT")
    alice.patient.team.add(nurse)
    Device.objects.filter(pk=alice.device.pk).update(online_until=timezone.now() + timedelta(hours=1))
    for kind, characters in (("live", 1_800), ("warm", 5_000)):
        DailyUsage.objects.create(day=current_month(), patient=alice.patient.pk, kind=kind, characters=characters)
    last_month = current_month() - timedelta(days=1)
    DailyUsage.objects.create(day=last_month, patient=alice.patient.pk, kind="live", characters=70_000)
    Incident.objects.create(kind="budget", key=str(alice.patient.pk))
    Incident.objects.create(kind="voice", key=str(alice.patient.voice_id))
    Incident.objects.create(kind="voice", key="another", resolved_at=timezone.now())
    row = row_of(admin_client, alice.patient)
    for words in ("Online", "2 open incidents", "now", "German", "6,800", "90%", "nora", str(alice.patient.voice)):
        assert words in row, words


def test_without_the_permission_for_usage_and_incidents_a_row_shows_neither(client: Client, alice: Member):
    DailyUsage.objects.create(day=current_month(), patient=alice.patient.pk, kind="live", characters=1_234)
    Incident.objects.create(kind="budget", key=str(alice.patient.pk))
    user = User.objects.create_user("viewer", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=["view_patient", "view_all_patients"]))
    client.force_login(user)
    row = row_of(client, alice.patient)
    assert "1,234" not in row
    assert "incident" not in row


def test_the_incidents_of_a_patient_are_one_click_away(admin_client: Client, alice: Member):
    incident = Incident.objects.create(kind="budget", key=str(alice.patient.pk))
    Incident.objects.create(kind="budget", key="another", detail="Of another patient.")
    page = admin_client.get(LIST).content.decode()
    (url,) = re.findall(r'href="(/admin/usage/incident/\?[^"]+)"', page)
    found = admin_client.get(url.replace("&amp;", "&"))
    assert list(found.context["cl"].result_list) == [incident]


@pytest.fixture
def people(db: None) -> dict[str, Patient]:
    now = timezone.now()
    stock = Voice.objects.create(provider_id="stock", name="Rachel")
    found = {}
    for name, seen, online in (
        ("online", now - timedelta(days=3), now + timedelta(hours=1)),
        ("offline", now - timedelta(hours=2), None),
        ("unseen", now - timedelta(hours=25), None),
        ("none", None, None),
    ):
        found[name] = Patient.objects.create(name=name, companion_name="Clara", voice=stock)
        if name != "none":
            device, _ = Device.objects.issue(found[name], "Tablet")
            Device.objects.filter(pk=device.pk).update(last_seen=seen, online_until=online)
    revoked, _ = Device.objects.issue(found["none"], "Revoked")
    Device.objects.filter(pk=revoked.pk).update(revoked_at=now, last_seen=now, online_until=now + timedelta(hours=1))
    return found


@pytest.mark.parametrize(
    ("choice", "expected"),
    [("online", {"online"}), ("offline", {"offline", "unseen"}), ("unseen", {"unseen"}), ("none", {"none"})],
)
def test_the_filter_by_device(choice: str, expected: set[str], admin_client: Client, people: dict[str, Patient]):
    assert names(admin_client, device=choice) == expected


def test_the_filters_by_status_voice_language_and_team(admin_client: Client, people: dict[str, Patient]):
    nurse = User.objects.create_user("nora")
    people["online"].team.add(nurse)
    clone = Voice.objects.create(provider_id="clone", name="Anna", source="cloned", patient=people["offline"])
    Patient.objects.filter(name="online").update(archived_at=timezone.now(), voice=None, language="de-AT")
    Patient.objects.filter(name="offline").update(voice=clone, language="de")
    others = {"unseen", "none"}
    assert names(admin_client, status="archived") == {"online"}
    assert names(admin_client, status="active") == {"offline", *others}
    assert names(admin_client, voice="default") == {"online"}
    assert names(admin_client, voice="clone") == {"offline"}
    assert names(admin_client, voice="stock") == others
    assert names(admin_client, language="de") == {"online", "offline"}
    assert names(admin_client, team=nurse.pk) == {"online"}
    assert names(admin_client, team="none") == {"offline", *others}
    assert names(admin_client, team="no-such-team") == set()
    page = admin_client.get(LIST).content.decode()
    for words in ("Not seen for 24 h", "Archived", "Default voice", "Clone", "German", "nora"):
        assert words in page


def test_the_list_is_sorted_by_the_time_when_a_device_was_last_seen(admin_client: Client, people: dict[str, Patient]):
    columns = admin_client.get(LIST).context["cl"].list_display
    place = columns.index("last_seen")
    response = admin_client.get(LIST, {"o": f"-{place}"})
    found = [patient.name for patient in response.context["cl"].result_list if patient.name != "none"]
    assert found == ["offline", "unseen", "online"]


def test_a_row_shows_what_the_cache_has_saved(admin_client: Client, alice: Member, bob: Member):
    Price.objects.create(model="", valid_from=current_month().replace(year=2020), per_1000_credits=500)
    usage = {"day": current_month(), "patient": alice.patient.pk}
    DailyUsage.objects.create(**usage, kind="live", characters=700, credits=700)
    DailyUsage.objects.create(**usage, kind="cache", saved_characters=300)
    DailyUsage.objects.create(**usage, kind="offline", saved_characters=900)
    assert "700 30% from the cache, 150.00 USD saved" in row_of(admin_client, alice.patient)
    assert "from the cache" not in row_of(admin_client, bob.patient)


def test_a_page_of_many_patients_needs_few_queries(admin_client: Client, alice: Member):
    with CaptureQueriesContext(connection) as few:
        admin_client.get(LIST)
    for number in range(30):
        patient = Patient.objects.create(name=f"Patient {number}", companion_name="Clara", voice=alice.patient.voice)
        Device.objects.issue(patient, "Tablet")
        DailyUsage.objects.create(day=current_month(), patient=patient.pk, kind="live", characters=1)
    with CaptureQueriesContext(connection) as many:
        admin_client.get(LIST)
    assert len(many) <= len(few) <= 14


def test_the_page_of_a_patient_links_what_belongs_to_the_patient(admin_client: Client, alice: Member):
    Incident.objects.create(kind="budget", key=str(alice.patient.pk))
    page = admin_client.get(f"{LIST}{alice.patient.pk}/change/").content.decode()
    links = re.findall(r'href="(/admin/[^"]+\?(?:patient__id__exact|key__in)=[^"]+)">(\w+)</a>', page)
    assert [words for _, words in links] == ["Conversations", "Messages", "Pronunciations", "Clones", "Incidents"]
    for url, words in links:
        assert admin_client.get(url).status_code == 200, words
