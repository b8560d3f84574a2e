"""The page of a patient in the admin: what is true now, Say, Listen, Archive, Restore, and links to other lists."""

import html
import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from tests.conftest import DEFAULT_VOICE, Member
from tests.roles import give_permissions
from tts.models import Conversation, Utterance
from usage.budgets import current_month
from usage.models import DailyUsage, Incident
from voicecare.audit.models import AuditEntry
from voicecare.patients.authentication import authenticate_device
from voicecare.patients.models import Device, Patient, Voice

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.filterwarnings("ignore:No directory at:UserWarning"),  # whitenoise in a fresh checkout
]

LUNCH = "Lunch is ready."


def url(member: Member, name: str) -> str:
    return f"/admin/patients/patient/{member.patient.pk}/{name}/"


def page(client: Client, member: Member, name: str = "change") -> str:
    response = client.get(url(member, name))
    assert response.status_code == 200
    return html.unescape(response.content.decode())


def say(client: Client, member: Member, text: str, **data: Any):
    fields = {"text": text, "expires_in_s": "900", "key": str(uuid.uuid4()), **data}
    return client.post(url(member, "say"), fields, follow=True)


def staff(client: Client, *permissions: str) -> Client:
    client.force_login(give_permissions(User.objects.create_user("staff", is_staff=True), *permissions))
    return client


# What is true now


def test_the_page_shows_the_state_the_usage_and_the_budget(admin_client: Client, alice: Member):
    Patient.objects.filter(pk=alice.patient.pk).update(monthly_character_budget=2_000)
    Device.objects.filter(pk=alice.device.pk).update(online_until=timezone.now() + timedelta(hours=1))
    DailyUsage.objects.create(day=current_month(), patient=alice.patient.pk, kind="live", characters=1_800)
    Incident.objects.create(kind="budget", key=str(alice.patient.pk))
    shown = page(admin_client, alice)
    for words in ("Online", "1 open incident", "1,800", "90%"):
        assert words in shown, words
    for label in ("Conversations", "Messages", "Clones", "Incidents", "Usage"):
        assert f">{label}</a>" in shown, label


def test_the_links_show_the_rows_of_the_patient_only(admin_client: Client, alice: Member, bob: Member):
    for member in (alice, bob):
        Incident.objects.create(kind="budget", key=str(member.patient.pk), detail=f"Of {member.patient.name}.")
        Conversation.objects.create(patient=member.patient, device=member.device, voice_source="default")
    Incident.objects.create(kind="voice", key=str(alice.patient.voice_id), detail="Of her voice.")
    incidents = admin_client.get("/admin/usage/incident/", {"key__in": f"{alice.patient.pk},{alice.patient.voice_id}"})
    assert incidents.request["QUERY_STRING"].replace("%2C", ",") in page(admin_client, alice).replace("%2C", ",")
    assert {row.detail for row in incidents.context["cl"].result_list} == {"Of Alice Archer.", "Of her voice."}
    conversations = f"/admin/tts/conversation/?patient__id__exact={alice.patient.pk}"
    assert conversations in page(admin_client, alice)
    assert [row.patient for row in admin_client.get(conversations).context["cl"].result_list] == [alice.patient]


def test_without_permissions_there_are_no_links_and_no_buttons(client: Client, alice: Member):
    DailyUsage.objects.create(day=current_month(), patient=alice.patient.pk, kind="live", characters=1_234)
    shown = page(staff(client, "patients.view_patient", "patients.view_all_patients"), alice)
    for words in ("1,234", "/say/", "/archive/", "<audio", ">Conversations<", ">Incidents<", ">Clones<", ">Usage<"):
        assert words not in shown, words
    for name in ("say", "archive", "restore"):
        assert client.post(url(alice, name), {"text": LUNCH}).status_code == 403, name
    assert client.get(url(alice, "say")).status_code == 403


# Listen


def test_the_page_plays_the_voice_that_the_patient_hears(admin_client: Client, alice: Member, bob: Member):
    Patient.objects.update(language="de", speech_rate="0.90")
    default = Voice.objects.get(provider_id=DEFAULT_VOICE)
    query = "speech_rate=0.90&language=de"
    shown = page(admin_client, alice)
    assert f'src="/admin/voices/{alice.patient.voice_id}/preview/?{query}"' in shown
    shown = page(admin_client, bob)
    assert f'src="/admin/voices/{default.pk}/preview/?{query}"' in shown
    assert f"{default.name}, the default voice" in shown


def test_a_patient_without_a_usable_voice_hears_the_offline_voice(admin_client: Client, alice: Member):
    Voice.objects.update(state=Voice.State.GONE)
    Patient.objects.update(backup_policy="own_voice_only")
    assert "Only the offline voice can speak now." in page(admin_client, alice)


# Say


def test_a_text_is_queued_and_its_message_is_shown(admin_client: Client, alice: Member):
    assert "No device is connected." in page(admin_client, alice, "say")
    response = say(admin_client, alice, LUNCH, expires_in_s="3600")
    message = Utterance.objects.get()
    assert (message.patient, message.text, message.state) == (alice.patient, LUNCH, "waiting")
    assert message.author == User.objects.get(username="admin")
    assert message.expires_at - message.received_at == timedelta(hours=1)
    assert response.redirect_chain == [(f"/admin/tts/utterance/{message.pk}/change/", 302)]
    assert "No device is connected. The text is spoken as soon as one connects" in response.content.decode()


def test_a_text_for_a_connected_device_is_spoken_now(admin_client: Client, alice: Member):
    alice.device.register_connection()
    Device.objects.update(online_until=timezone.now() + timedelta(hours=1))
    assert "No device is connected." not in page(admin_client, alice, "say")
    assert "The text is spoken now" in say(admin_client, alice, LUNCH).content.decode()
    assert Utterance.objects.get().queue_reason == ""


def test_a_console_that_takes_the_messages_is_named(admin_client: Client, alice: Member):
    in_an_hour = timezone.now() + timedelta(hours=1)
    console, _ = Device.objects.issue_console(alice.patient, "Device console of carol", takes_messages=False)
    Device.objects.filter(pk=console.pk).update(last_seen=timezone.now(), online_until=in_an_hour)
    assert "No device is connected." in page(admin_client, alice, "say")
    Device.objects.filter(pk=console.pk).update(takes_messages=True)
    shown = page(admin_client, alice, "say")
    assert "Device console of carol is connected and takes the messages of this patient." in shown
    assert "No device is connected." not in shown
    assert "The text is spoken now" in say(admin_client, alice, LUNCH).content.decode()


def test_a_form_that_is_sent_twice_speaks_once(admin_client: Client, alice: Member):
    key = str(uuid.uuid4())
    for _ in range(2):
        assert say(admin_client, alice, LUNCH, key=key).redirect_chain
    assert Utterance.objects.count() == 1
    changed = say(admin_client, alice, "Dinner is ready.", key=key)
    assert "has been sent before" in changed.content.decode()
    assert changed.context["form"]["key"].value() != key
    assert Utterance.objects.count() == 1
    assert AuditEntry.objects.filter(action="speak").count() == 1


@pytest.mark.parametrize("text", ["", "  \n ", "a" * 10_001, "\x00"])
def test_a_wrong_text_is_refused_in_the_form(text: str, admin_client: Client, alice: Member):
    response = say(admin_client, alice, text)
    assert not response.redirect_chain
    assert 'class="errorlist"' in response.content.decode()
    assert not Utterance.objects.exists()


@pytest.mark.parametrize("expires_in_s", ["", "0", "-1", "soon", str(10**12)])
def test_a_wrong_time_is_refused_in_the_form(expires_in_s: str, admin_client: Client, alice: Member):
    assert not say(admin_client, alice, LUNCH, expires_in_s=expires_in_s).redirect_chain
    assert not Utterance.objects.exists()


def test_nothing_is_said_to_patients_who_are_archived_or_to_be_erased(admin_client: Client, alice: Member):
    Patient.objects.update(archived_at=timezone.now())
    assert url(alice, "say") not in page(admin_client, alice)
    assert say(admin_client, alice, LUNCH).status_code == 404
    Patient.objects.update(archived_at=None, erases_at=timezone.now() + timedelta(days=1))
    assert url(alice, "say") not in page(admin_client, alice)
    assert say(admin_client, alice, LUNCH).status_code == 404
    assert not Utterance.objects.exists()


def test_the_text_is_in_no_message_and_no_log_entry(admin_client: Client, alice: Member):
    admin_client.post(url(alice, "say"), {"text": LUNCH, "expires_in_s": "900", "key": str(uuid.uuid4())})
    assert LUNCH not in str(list(AuditEntry.objects.values()))
    assert AuditEntry.objects.filter(action="speak", patient_id=alice.patient.pk).count() == 1
    assert LUNCH not in page(admin_client, alice)


# Archive and restore


def test_a_patient_is_archived_and_restored_by_buttons(admin_client: Client, alice: Member):
    assert url(alice, "archive") in page(admin_client, alice)
    assert "Yes, archive" in admin_client.get(url(alice, "archive")).content.decode()
    assert authenticate_device(alice.token) == alice.device
    shown = admin_client.post(url(alice, "archive"), follow=True).content.decode()
    assert "1 patient archived." in shown
    assert url(alice, "archive") not in shown
    assert authenticate_device(alice.token) is None
    shown = admin_client.post(url(alice, "restore"), follow=True).content.decode()
    assert "1 patient restored." in shown
    assert authenticate_device(alice.token) == alice.device
    assert [entry.action for entry in AuditEntry.objects.filter(patient_id=alice.patient.pk)] in (
        ["archive", "restore"],
        ["restore", "archive"],
    )
    assert admin_client.get(url(alice, "restore")).status_code == 405


def test_an_archived_patient_is_not_archived_again(admin_client: Client, alice: Member):
    admin_client.post(url(alice, "archive"))
    archived_at = Patient.objects.get().archived_at
    assert "0 patients archived." in admin_client.post(url(alice, "archive"), follow=True).content.decode()
    assert Patient.objects.get().archived_at == archived_at
    assert AuditEntry.objects.filter(action="archive").count() == 1


def test_the_number_of_queries_does_not_grow_with_the_data(admin_client: Client, alice: Member):
    alice.patient.team.add(User.objects.create_user("nurse"))
    page(admin_client, alice)
    with CaptureQueriesContext(connection) as few:
        page(admin_client, alice)
    for number in range(5):
        Device.objects.issue(alice.patient, f"Tablet {number}")
        Incident.objects.create(kind="budget", key=str(alice.patient.pk), resolved_at=timezone.now())
        alice.patient.team.add(User.objects.create_user(f"nurse-{number}"))
    with CaptureQueriesContext(connection) as many:
        page(admin_client, alice)
    assert len(many) == len(few)
