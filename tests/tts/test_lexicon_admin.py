"""The admin of pronunciations: who may do what, what is refused, and Listen before saving."""

from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse

from tests.conftest import Member
from tests.roles import role
from tts.models import LexiconEntry
from voicecare.patients.models import Clinic

pytestmark = pytest.mark.django_db
ADD = "admin:tts_lexiconentry_add"


def in_role(name: str, *team: Member) -> Client:
    user = User.objects.create_user(name.lower(), is_staff=True)
    user.groups.add(role(name))
    for one in team:
        one.patient.team.add(user)
    client = Client()
    client.force_login(user)
    return client


def send(client: Client, url: str = "", **fields: object) -> Any:
    return client.post(url or reverse(ADD), {"written": "Metformin", "spoken": "met for min", **fields})


def test_an_administrator_adds_entries_for_everybody_and_for_clinics(alice: Member):
    boss = in_role("Administrator")
    assert send(boss).status_code == 302
    assert send(boss, clinic=Clinic.objects.create(name="North").pk, language="de").status_code == 302
    assert send(boss, patient=alice.patient.pk, match_case="on").status_code == 302
    assert LexiconEntry.objects.count() == 3
    page = boss.get(reverse("admin:tts_lexiconentry_changelist")).content.decode()
    assert all(words in page for words in ("Everybody", "North", "Alice Archer", "All languages", "German"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"written": "(a"}, "begin with a letter"),
        ({"written": "a[b]"}, "not allowed"),
        ({"spoken": "..."}, "must have a letter"),
        ({"spoken": "[laughs] a"}, "not allowed"),
        ({"spoken": "*a*"}, "not allowed"),
        ({"written": "METFORMIN"}, "already"),
        ({"language": "xx"}, "Select a valid choice"),
    ],
)
def test_a_wrong_entry_is_refused(fields: dict[str, str], message: str):
    boss = in_role("Administrator")
    LexiconEntry.objects.create(written="Metformin", spoken="x")
    response = send(boss, **fields)
    assert (response.status_code, LexiconEntry.objects.count()) == (200, 1)
    assert message in response.content.decode()


def test_a_clinician_changes_entries_of_their_patients_only(alice: Member, bob: Member):
    clinician = in_role("Clinician", alice)
    assert send(clinician).status_code == 200
    assert send(clinician, patient=bob.patient.pk).status_code == 200
    assert LexiconEntry.objects.count() == 0
    assert send(clinician, patient=alice.patient.pk).status_code == 302
    everybody = LexiconEntry.objects.create(written="Everyone", spoken="x")
    bobs = LexiconEntry.objects.create(written="Bobs word", spoken="x", patient=bob.patient)
    page = clinician.get(reverse("admin:tts_lexiconentry_changelist")).content.decode()
    assert "Everyone" in page
    assert "Bobs word" not in page
    change = "admin:tts_lexiconentry_change"
    assert send(clinician, reverse(change, args=[everybody.pk]), patient=alice.patient.pk).status_code == 403
    assert send(clinician, reverse(change, args=[bobs.pk]), patient=alice.patient.pk).status_code in (302, 404)
    delete = {"action": "delete_selected", "_selected_action": [everybody.pk], "post": "yes"}
    clinician.post(reverse("admin:tts_lexiconentry_changelist"), delete)
    assert set(LexiconEntry.objects.values_list("written", flat=True)) == {"Everyone", "Bobs word", "Metformin"}


def test_an_auditor_only_reads(alice: Member):
    entry = LexiconEntry.objects.create(written="Everyone", spoken="x")
    auditor = in_role("Auditor")
    auditor_user = User.objects.get(username="auditor")
    auditor_user.user_permissions.add(Permission.objects.get(codename="view_all_patients"))
    assert auditor.get(reverse("admin:tts_lexiconentry_change", args=[entry.pk])).status_code == 200
    assert send(auditor).status_code == 403
    assert send(auditor, reverse("admin:tts_lexiconentry_listen")).status_code == 403


def test_the_page_of_a_patient_leads_to_their_pronunciations(alice: Member):
    boss = in_role("Administrator")
    page = boss.get(reverse("admin:patients_patient_change", args=[alice.patient.pk])).content.decode()
    add = f"{reverse(ADD)}?patient={alice.patient.pk}"
    assert add in page
    assert "Alice Archer" in boss.get(add).content.decode()
    assert f"{reverse('admin:tts_lexiconentry_changelist')}?patient__id__exact={alice.patient.pk}" in page


def test_listen_refuses_a_wrong_entry_and_saves_nothing():
    response = send(in_role("Administrator"), reverse("admin:tts_lexiconentry_listen"), spoken="...")
    assert response.status_code == 400
    page = response.content.decode()
    assert "letter or a digit" in page
    assert "Close this tab, and correct the form." in page
    assert LexiconEntry.objects.count() == 0
