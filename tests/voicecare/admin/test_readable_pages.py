"""The lists and pages of the admin: names instead of ids and codes, numbers that can be read, nothing without a use."""

import re
import uuid

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from tests.conftest import Member
from tests.roles import role
from tts.models import Phrase, Utterance
from usage.models import DailyUsage, ProviderState
from voicecare.audit.models import AuditEntry
from voicecare.patients.models import Clinic, Patient

pytestmark = pytest.mark.django_db


def page(client: Client, name: str, *args: object, **query: str) -> str:
    response = client.get(reverse(f"admin:{name}", args=args), query)
    assert response.status_code == 200, name
    return response.content.decode()


def text(html: str) -> str:
    """The words of a page, without tags and with single spaces."""
    return " ".join(re.sub("<[^>]*>", " ", html).split())


def test_an_erased_patient_is_a_number(admin_client: Client, alice: Member):
    Patient.objects.update(erased_at=timezone.now(), name="")
    shown = f"Erased patient {str(alice.patient.pk)[:8]}"
    assert str(Patient.objects.get()) == shown
    for name in ("patients_patient_changelist", "patients_device_changelist"):
        assert shown in page(admin_client, name)
    assert shown in page(admin_client, "patients_device_change", alice.device.pk)


def test_a_message_that_was_not_spoken_has_no_voice(admin_client: Client, alice: Member):
    message = Utterance.objects.create(patient=alice.patient, origin="server", text="Lunch", state="waiting")
    shown = text(page(admin_client, "tts_utterance_change", message.pk))
    assert "Voice: -" in shown
    assert "None" not in shown


def test_an_audit_entry_links_its_patient(admin_client: Client, alice: Member):
    entry = AuditEntry.objects.create(action="archive", source="admin", patient_id=alice.patient.pk)
    link = f'<a href="{reverse("admin:patients_patient_change", args=[alice.patient.pk])}">{alice.patient}</a>'
    assert link in page(admin_client, "audit_auditentry_change", entry.pk)


def test_an_audit_entry_of_an_unknown_patient_has_the_beginning_of_the_id(admin_client: Client):
    entry = AuditEntry.objects.create(action="archive", source="admin", patient_id=uuid.UUID(int=7))
    assert "Patient: 00000000 " in text(page(admin_client, "audit_auditentry_change", entry.pk))


def test_languages_have_names(client: Client, admin_client: Client, alice: Member):
    Patient.objects.update(language="de-AT")
    auditor = User.objects.create_user("auditor", is_staff=True)
    auditor.groups.add(role("Auditor"))
    client = Client()
    client.force_login(auditor)
    assert "Language: German" in text(page(client, "patients_patient_change", alice.patient.pk))
    Phrase.objects.create(language="cs", text="Dobrý den.")
    phrases = page(admin_client, "tts_phrase_changelist", language="cs")
    assert "Czech" in phrases
    assert "Dobrý den." in phrases
    assert "Dobrý den." not in page(admin_client, "tts_phrase_changelist", language="de")


def test_numbers_have_separators_but_no_value_of_a_form_has(admin_client: Client):
    usage = DailyUsage.objects.create(
        day=timezone.localdate(), patient=uuid.uuid4(), voice=uuid.uuid4(), kind="live", characters=1_234_567
    )
    assert "1,234,567" in page(admin_client, "usage_dailyusage_changelist")
    assert "1,234,567" in page(admin_client, "usage_dailyusage_change", usage.pk)
    clinic = Clinic.objects.create(name="Ward 3", monthly_character_budget=2_000_000)
    assert 'value="2000000"' in page(admin_client, "patients_clinic_change", clinic.pk)


def test_users_have_roles_and_no_crosses(admin_client: Client):
    nurse = User.objects.create_user("nurse", first_name="Nora", last_name="Nilsson")
    nurse.groups.add(Group.objects.get_or_create(name="Clinician")[0])
    html = page(admin_client, "auth_user_changelist")
    assert "icon-no" not in html
    assert "Active nurse Nora Nilsson - Clinician REST API only never" in text(html)


def test_the_number_of_queries_of_the_users_does_not_grow(
    admin_client: Client, django_assert_max_num_queries: DjangoAssertNumQueries
):
    group = Group.objects.create(name="Night shift")
    for number in range(20):
        User.objects.create_user(f"user-{number}").groups.add(group)
    with django_assert_max_num_queries(15):
        page(admin_client, "auth_user_changelist")


def test_the_state_of_the_provider_is_its_title(admin_client: Client):
    state = ProviderState.objects.get_or_create()[0]
    html = page(admin_client, "usage_providerstate_change", state.pk)
    assert "<h2>Provider: Reachable</h2>" in html
    assert "circuit closed" not in html


def test_show_all_is_only_there_if_something_is_hidden(admin_client: Client):
    assert "Show all" not in page(admin_client, "usage_incident_changelist")
    assert "0 results" in page(admin_client, "usage_incident_changelist", q="nothing")
    assert "Show all" in page(admin_client, "usage_incident_changelist", status="all")


def test_what_is_needed_every_day_comes_first(admin_client: Client):
    links = re.findall(r'<a href="/admin/(\w+)/" class="section"', page(admin_client, "patients_patient_changelist"))
    assert links == ["patients", "tts", "cloning", "usage", "webhooks", "audit", "accounts", "auth"]


def test_the_form_of_a_patient_has_no_buttons_that_delete_something_else(admin_client: Client, alice: Member):
    assert "related-widget-wrapper-link" not in page(admin_client, "patients_patient_change", alice.patient.pk)


def test_only_those_who_may_change_the_default_voice_are_asked_to(admin_client: Client, alice: Member):
    auditor = User.objects.create_user("auditor", is_staff=True)
    auditor.groups.add(role("Auditor"))
    client = Client()
    client.force_login(auditor)
    link = f'<a href="{reverse("admin:patients_defaultvoice_changelist")}">'
    assert f"{link}Change it</a>" in page(admin_client, "index")
    assert f"{link}Default voices</a>" in page(client, "index")
