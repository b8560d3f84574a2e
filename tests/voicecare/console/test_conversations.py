"""Conversations in the console: what was said, and the entry that reading it leaves in the audit trail."""

import html
import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from tests.conftest import Member
from tests.roles import give_permissions
from tests.voicecare.console.test_patient_page import logged_in, shown
from tts.models import Conversation, Utterance
from voicecare.audit.models import AuditEntry

pytestmark = pytest.mark.django_db


@pytest.fixture
def clinician(alice: Member) -> Client:
    user = User.objects.create_user("clinician")
    user.patients.add(alice.patient)  # type: ignore[attr-defined]
    return logged_in(user)


def conversation_of(member: Member, **fields: Any) -> Conversation:
    return Conversation.objects.create(patient=member.patient, device=member.device, voice_source="default", **fields)


def say_in(conversation: Conversation, text: str, **fields: Any) -> Utterance:
    values = {"origin": "device", "client_speech_id": uuid.uuid4().hex, "state": "spoken", **fields}
    return Utterance.objects.create(patient=conversation.patient, conversation=conversation, text=text, **values)


def page_of(row: Conversation | Utterance) -> str:
    return reverse("console:conversation" if isinstance(row, Conversation) else "console:message", args=[row.pk])


def read(client: Client, row: Conversation | Utterance, **query: str) -> str:
    response = client.get(page_of(row), query)
    assert response.status_code == 200
    return html.unescape(response.content.decode())


def test_a_conversation_shows_what_was_said_heard_queued_or_failed(clinician: Client, alice: Member):
    conversation = conversation_of(alice)
    say_in(conversation, "Good morning, Alice.", origin="greeting", source="cache")
    say_in(conversation, "Did you sleep well?", source="offline")
    say_in(conversation, "The doctor comes at three.", state="queued", queue_reason="quota")
    say_in(conversation, "This was too long.", state="failed", code="over_budget")
    say_in(conversation, "Your son has called.", origin="server", state="heard", client_speech_id="")
    page = read(clinician, conversation)
    for words in (
        *("Good morning, Alice.", "Greeting", "Phrase cache", "Did you sleep well?", "Offline voice"),
        *("The doctor comes at three.", "Waiting for credits", "This was too long.", "Failed", "exceeds a budget"),
        *("Your son has called.", "Message", "Heard"),
    ):
        assert words in page, words
    listed = shown(clinician, alice, "conversations")
    assert "1 waiting for credits, 2 spoken, 1 heard, 1 failed" in listed
    assert "Good morning" not in listed


def test_reading_leaves_one_entry_for_each_page(clinician: Client, alice: Member):
    conversation = conversation_of(alice)
    message = say_in(conversation, "Your son has called.", origin="server", client_speech_id="")
    shown(clinician, alice)
    shown(clinician, alice, "conversations")
    assert not AuditEntry.objects.exists()
    read(clinician, conversation)
    assert "Your son has called." in read(clinician, message)
    entries = AuditEntry.objects.order_by("pk").values_list("action", "source", "object_id", "patient_id")
    assert [*entries] == [
        ("read_text", "console", str(conversation.pk), alice.patient.pk),
        ("read_text", "console", str(message.pk), alice.patient.pk),
    ]
    assert "son" not in str([*AuditEntry.objects.values()])


def test_a_conversation_in_which_nothing_was_said_leaves_no_entry(clinician: Client, alice: Member):
    assert "Nothing was said." in read(clinician, conversation_of(alice))
    assert not AuditEntry.objects.exists()


def test_texts_need_the_permission_for_messages(alice: Member):
    user = User.objects.create_user("limited")
    user.patients.add(alice.patient)  # type: ignore[attr-defined]
    client = logged_in(give_permissions(user, "patients.view_patient", "tts.view_conversation"))
    conversation = conversation_of(alice)
    message = say_in(conversation, "Your son has called.", origin="server", client_speech_id="")
    page = read(client, conversation)
    assert "son" not in page
    assert "You may not read what was said." in page
    assert "spoken" not in shown(client, alice, "conversations")
    assert client.get(page_of(message)).status_code == 403
    assert not AuditEntry.objects.exists()


def test_conversations_of_other_patients_are_not_found(clinician: Client, bob: Member):
    conversation = conversation_of(bob)
    message = say_in(conversation, "Your son has called.", origin="server", client_speech_id="")
    for row in (conversation, message):
        assert clinician.get(page_of(row)).status_code == 404
    assert not AuditEntry.objects.exists()


def test_a_text_that_was_deleted_is_said_to_be(clinician: Client, alice: Member):
    conversation = conversation_of(alice)
    say_in(conversation, "")
    assert "The text was deleted." in read(clinician, conversation)


def test_long_lists_have_pages(clinician: Client, alice: Member):
    now = timezone.now()
    for number in range(30):
        conversation_of(alice, started_at=now - timedelta(days=number))
    first, second = (shown(clinician, alice, "conversations", page=page) for page in ("1", "2"))
    assert "Page 1 of 2" in first
    assert 'href="?page=2"' in first
    assert f"{now - timedelta(days=29):%Y-%m-%d}" in second
    assert f"{now - timedelta(days=29):%Y-%m-%d}" not in first
    assert "Page 1 of 2" in shown(clinician, alice, "conversations", page="nonsense")
    assert "Page 2 of 2" in shown(clinician, alice, "conversations", page="999")
    conversation = conversation_of(alice)
    Utterance.objects.bulk_create(
        Utterance(
            patient=alice.patient, conversation=conversation, origin="device", state="spoken",
            client_speech_id=str(number), text=f"Line {number:03}", received_at=now + timedelta(seconds=number),
        )
        for number in range(60)
    )  # fmt: skip
    assert "Line 049" in read(clinician, conversation)
    assert "Line 050" not in read(clinician, conversation)
    assert "Line 059" in read(clinician, conversation, page="2")


def test_what_was_said_is_never_code(clinician: Client, alice: Member):
    conversation = conversation_of(alice)
    say_in(conversation, "<script>alert(1)</script>")
    assert "<script>alert(1)" not in clinician.get(page_of(conversation)).content.decode()
