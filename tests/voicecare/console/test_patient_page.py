"""The page of a patient in the console: what it shows to whom, and what its forms do."""

import html
import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from tests.conftest import DEFAULT_VOICE, Member
from tests.roles import give_permissions, role
from tts.models import Conversation, Utterance
from tts.outbox import store
from usage.alerts.messages import message_for
from usage.budgets import current_month
from usage.models import DailyUsage, Incident, Price
from voicecare.audit.models import AuditEntry
from voicecare.console.patient_page import HEARD_KINDS
from voicecare.patients.models import Clinic, Device, Patient, Voice

pytestmark = pytest.mark.django_db

LUNCH = "Lunch is ready."
WRITES = ("voices", "say")


def logged_in(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def clinician(alice: Member) -> Client:
    """A clinician of Alice's team, who may not log in to the admin."""
    user = User.objects.create_user("clinician")
    user.patients.add(alice.patient)  # type: ignore[attr-defined]
    return logged_in(user)


def url(member: Member, name: str = "patient") -> str:
    return reverse(f"console:{name}", args=[member.patient.pk])


def shown(client: Client, member: Member, name: str = "patient", **query: str) -> str:
    response = client.get(url(member, name), query)
    assert response.status_code == 200
    return html.unescape(response.content.decode())


def say(client: Client, member: Member, text: str = LUNCH, **data: Any) -> Any:
    fields = {"text": text, "expires_in_s": "900", "key": str(uuid.uuid4()), **data}
    return client.post(url(member, "say"), fields, follow=True)


def choose(client: Client, member: Member, before: Patient, **changes: Any) -> Any:
    """Send the form of the voices, which was opened when the patient was as in `before`."""
    names = {"voice": before.voice_id or "", "backup_voice": before.backup_voice_id or "", "backup_policy": "switch"}
    initial = {f"initial-{name}": value for name, value in names.items()}
    return client.post(url(member, "voices"), {**names, **initial, **changes}, follow=True)


def actions() -> list[tuple[str, str]]:
    return [*AuditEntry.objects.order_by("pk").values_list("action", "source")]


def message_to(member: Member, **fields: Any) -> Utterance:
    values = {"origin": "server", "text": LUNCH, "state": "waiting", "received_at": timezone.now(), **fields}
    return Utterance.objects.create(patient=member.patient, **values)


# Who sees it


def test_a_clinician_has_the_pages_of_the_own_patients_only(clinician: Client, alice: Member, bob: Member):
    assert alice.patient.name in shown(clinician, alice)
    for name in ("patient", "patient-live", "usage", "conversations"):
        assert clinician.get(url(bob, name)).status_code == 404, name
        assert clinician.get(reverse(f"console:{name}", args=[uuid.uuid4()])).status_code == 404
    for name in WRITES:
        assert clinician.post(url(bob, name), {"text": LUNCH, "voice": ""}).status_code == 404
    other = message_to(bob)
    assert clinician.post(reverse("console:cancel", args=[other.pk])).status_code == 404
    assert Utterance.objects.get().state == "waiting"
    assert actions() == []


def test_the_list_of_patients_leads_to_the_page(clinician: Client, alice: Member):
    assert url(alice) in clinician.get(reverse("console:patients")).content.decode()


def test_an_auditor_sees_the_page_and_may_do_nothing(alice: Member):
    auditor = User.objects.create_user("auditor", is_staff=True)
    auditor.groups.add(role("Auditor"))
    client, message = logged_in(auditor), message_to(alice)
    page = shown(client, alice)
    for words in ("Say this now", "Save the voices", "Cancel", "Try in the browser"):
        assert words not in page, words
    for name in WRITES:
        assert client.post(url(alice, name)).status_code == 403
    assert client.post(reverse("console:cancel", args=[message.pk])).status_code == 403
    assert Utterance.objects.get().state == "waiting"


def test_each_part_needs_the_permission_of_the_call_over_rest(alice: Member):
    user = User.objects.create_user("limited")
    user.patients.add(alice.patient)  # type: ignore[attr-defined]
    client = logged_in(give_permissions(user, "patients.view_patient"))
    DailyUsage.objects.create(day=current_month(), patient=alice.patient.pk, kind="live", characters=1_234)
    Conversation.objects.create(patient=alice.patient, device=alice.device, voice_source="default")
    message_to(alice)
    page = shown(client, alice)
    for words in ("1,234", "Budget", alice.device.name, "Conversations", "Messages", "Say this now"):
        assert words not in page, words
    for name in ("usage", "conversations"):
        assert client.get(url(alice, name)).status_code == 403, name
    assert client.get(reverse("console:preview", args=[alice.patient.voice_id])).status_code == 403


def test_without_a_log_in_pages_lead_to_it_and_the_live_part_says_so(alice: Member):
    assert Client().get(url(alice))["Location"].startswith(reverse("console:log-in"))
    assert Client().get(url(alice, "patient-live")).json() == {"code": "logged_out"}


# What it shows


def test_it_shows_voices_budget_and_usage(clinician: Client, alice: Member):
    backup = Voice.objects.create(provider_id="b", name="Backup Bella")
    Patient.objects.update(monthly_character_budget=2_000, backup_voice=backup)
    DailyUsage.objects.create(
        day=current_month(), patient=alice.patient.pk, kind="live", model="m", characters=1_800, credits=900
    )
    page = shown(clinician, alice)
    for words in (
        alice.patient.voice.name,
        "Backup Bella",
        "1,800",
        "of 2,000",
        "200 characters remain",
        "900 credits",
    ):
        assert words in page, words
    assert "Cost" not in page
    Price.objects.create(model="", valid_from="2020-01-01", per_1000_credits=10)
    assert "9.00 USD" in shown(clinician, alice)


def test_a_voice_that_is_gone_is_named_with_the_one_that_speaks_instead(clinician: Client, alice: Member):
    Voice.objects.filter(pk=alice.patient.voice_id).update(state="gone")
    default = Voice.objects.get(provider_id=DEFAULT_VOICE)
    assert f"{default.name}, instead of {alice.patient.voice.name}" in shown(clinician, alice)


def test_devices_are_online_or_have_a_last_connection(clinician: Client, alice: Member):
    assert "was never connected" in shown(clinician, alice)
    past = timezone.now() - timedelta(days=3)
    Device.objects.update(last_seen=past)
    assert f"last connected {past:%Y-%m-%d %H:%M}" in shown(clinician, alice, "patient-live")
    Device.objects.update(online_until=timezone.now() + timedelta(minutes=1))
    assert ">Online<" in shown(clinician, alice, "patient-live")
    Device.objects.update(revoked_at=timezone.now())
    assert "The patient has no device." in shown(clinician, alice, "patient-live")


def test_incidents_that_the_patient_hears_are_shown(clinician: Client, alice: Member, bob: Member):
    clinic, other = Clinic.objects.create(name="Ward 3"), Clinic.objects.create(name="Ward 4")
    Patient.objects.filter(pk=alice.patient.pk).update(clinic=clinic)
    theirs = [bob.patient.pk, other.pk, uuid.uuid4()]
    for key in theirs:
        Incident.objects.create(kind="budget", key=str(key))
    Incident.objects.create(kind="drift")
    Incident.objects.create(kind="default_voice", key=str(uuid.uuid4()))  # Alice has a voice of her own
    Incident.objects.create(kind="provider_down", resolved_at=timezone.now())
    assert "Open incidents" not in shown(clinician, alice)
    for key in (alice.patient.pk, clinic.pk):
        incident = Incident.objects.create(kind="budget", key=str(key))
        assert "Nothing else is spoken to the patient" in shown(clinician, alice)
        incident.delete()
    for kind in ("provider_down", "quota", "slow"):
        incident = Incident.objects.create(kind=kind, detail="internal")
        page = shown(clinician, alice, "patient-live")
        assert message_for(incident).patient_impact in page
        assert "internal" not in page


def test_an_incident_about_several_voices_is_shown_if_the_voice_of_the_patient_is_one(clinician: Client, alice: Member):
    Incident.objects.create(kind="voice", key="")
    assert "Open incidents" not in shown(clinician, alice)
    Voice.objects.filter(pk=alice.patient.voice_id).update(state="gone")
    assert "Open incidents" in shown(clinician, alice)


def test_the_heard_kinds_are_those_that_change_something_for_patients():
    changing = {
        kind for kind in Incident.Kind if not message_for(Incident(kind=kind)).patient_impact.startswith("No change")
    }
    assert changing == HEARD_KINDS


# Voices


def test_another_voice_is_chosen(clinician: Client, alice: Member):
    stock = Voice.objects.get(provider_id=DEFAULT_VOICE)
    assert choose(clinician, alice, alice.patient, voice=stock.pk).redirect_chain
    patient = Patient.objects.get(pk=alice.patient.pk)
    assert patient.voice == stock
    entry = AuditEntry.objects.get()
    assert (entry.action, entry.source, entry.patient_id) == ("change", "console", patient.pk)
    assert entry.changes == {"voice": [str(alice.patient.voice_id), str(stock.pk)]}


def test_a_form_without_changes_writes_nothing(clinician: Client, alice: Member):
    assert choose(clinician, alice, alice.patient).redirect_chain
    assert actions() == []


def test_only_what_was_changed_in_the_form_is_saved(clinician: Client, alice: Member):
    """A clone became ready while the form was open."""
    clone = Voice.objects.create(provider_id="c", name="Anna", source="cloned", patient=alice.patient)
    backup = Voice.objects.create(provider_id="b", name="Backup Bella")
    Patient.objects.filter(pk=alice.patient.pk).update(voice=clone)
    choose(clinician, alice, alice.patient, backup_voice=backup.pk)
    patient = Patient.objects.get(pk=alice.patient.pk)
    assert (patient.voice, patient.backup_voice) == (clone, backup)
    assert [*AuditEntry.objects.get().changes] == ["backup_voice"]


def test_a_voice_that_is_refused_changes_nothing(clinician: Client, alice: Member, bob: Member):
    foreign = Voice.objects.create(provider_id="c", name="Anna", source="cloned", patient=bob.patient)
    gone = Voice.objects.create(provider_id="g", name="Gone", state="gone")
    assert foreign.name not in shown(clinician, alice)
    for voice in (foreign.pk, gone.pk, uuid.uuid4(), "nonsense"):
        response = choose(clinician, alice, alice.patient, voice=voice)
        assert not response.redirect_chain
        assert 'class="errorlist"' in response.content.decode()
    response = choose(clinician, alice, alice.patient, voice="", backup_policy="own_voice_only")
    assert "Choose a voice for this patient" in response.content.decode()
    assert Patient.objects.get(pk=alice.patient.pk).voice == alice.patient.voice
    assert actions() == []


# Say this now


def test_a_text_waits_for_a_device_and_is_recorded_once(clinician: Client, alice: Member):
    assert "No device is connected." in shown(clinician, alice)
    response = say(clinician, alice, expires_in_s="3600")
    message = Utterance.objects.get()
    assert (message.patient, message.text, message.state) == (alice.patient, LUNCH, "waiting")
    assert message.expires_at - message.received_at == timedelta(hours=1)
    assert "The text is spoken as soon as one connects" in response.content.decode()
    assert ">Waiting<" in response.content.decode()
    assert LUNCH not in response.content.decode()
    assert actions() == [("speak", "console")]


def test_a_double_click_speaks_once_and_leaves_one_entry(clinician: Client, alice: Member):
    key = str(uuid.uuid4())
    for _ in range(2):
        assert say(clinician, alice, key=key).redirect_chain
    assert Utterance.objects.count() == 1
    assert actions() == [("speak", "console")]
    changed = say(clinician, alice, "Dinner is ready.", key=key)
    assert "has been sent before" in changed.content.decode()
    assert changed.context["say_form"]["key"].value() != key
    assert Utterance.objects.count() == 1


@pytest.mark.parametrize("text", ["", "  \n ", "[laughs]", "a" * 10_001, "\x00"])
def test_a_wrong_text_is_refused_in_words(text: str, clinician: Client, alice: Member):
    response = say(clinician, alice, text)
    assert not response.redirect_chain
    assert 'class="errorlist"' in response.content.decode()
    assert not Utterance.objects.exists()
    assert actions() == []


def test_nothing_is_said_to_an_archived_patient(clinician: Client, alice: Member):
    Patient.objects.update(archived_at=timezone.now())
    page = shown(clinician, alice)
    assert "Archived" in page
    assert "Say this now" not in page
    assert say(clinician, alice).status_code == 404


def test_a_console_that_takes_the_messages_is_named(clinician: Client, alice: Member):
    issued = clinician.post(reverse("console:issue", args=[alice.patient.pk]), {"takes_messages": "true"}).json()
    Device.objects.filter(pk=issued["device"]).update(
        last_seen=timezone.now(), online_until=timezone.now() + timedelta(hours=1)
    )
    page = shown(clinician, alice, "patient-live")
    assert "Device console of clinician is connected and takes the messages" in page
    assert "No device is connected" not in page


STATES = [
    ({"queue_reason": "no_device"}, "Waiting", "No device connected"),
    ({"state": "queued", "queue_reason": "quota"}, "Waiting for credits", ""),
    ({"state": "spoken", "source": "backup"}, "Spoken", "Backup voice"),
    ({"state": "spoken", "played_ms": 3240}, "Spoken", "played for 3.2 s"),
    ({"state": "heard", "source": "live"}, "Heard", ""),
    ({"state": "failed", "code": "over_budget"}, "Failed", "This text exceeds a budget"),
    ({"state": "failed", "code": "text_rejected"}, "Failed", "The speech provider refuses this text"),
    ({"expires_at": timezone.now() - timedelta(hours=1)}, "Expired", "expired before it could be played"),
    ({"state": "interrupted"}, "Cancelled", ""),
    ({"state": "interrupted", "spoken_at": timezone.now()}, "Interrupted", ""),
]


@pytest.mark.parametrize(
    ("fields", "state", "reason"), STATES, ids=[f"{state} {x}" for x, (_, state, _) in enumerate(STATES)]
)
def test_the_state_of_a_message_in_words(
    fields: dict[str, Any], state: str, reason: str, clinician: Client, alice: Member
):
    message = message_to(alice, **fields)
    live = shown(clinician, alice, "patient-live")
    assert f">{state}<" in live
    assert reason in live
    can_be_cancelled = reverse("console:cancel", args=[message.pk]) in live
    assert can_be_cancelled == (state in ("Waiting", "Waiting for credits"))
    assert LUNCH not in live


def test_a_waiting_message_is_cancelled_once(clinician: Client, alice: Member):
    message = store.submit(alice.patient.pk, LUNCH, expires_in_s=300, author=None)
    cancel = reverse("console:cancel", args=[message.pk])
    assert "The message is cancelled." in clinician.post(cancel, follow=True).content.decode()
    assert Utterance.objects.get().state == "interrupted"
    assert "cannot be cancelled" in clinician.post(cancel, follow=True).content.decode()
    assert actions() == [("cancel", "console")]


@pytest.mark.parametrize(
    "fields",
    [{"state": "speaking"}, {"state": "heard"}, {"expires_at": timezone.now() - timedelta(hours=1)}],
    ids=["plays", "heard", "expired"],
)
def test_what_does_not_wait_is_not_cancelled(fields: dict[str, Any], clinician: Client, alice: Member):
    message = message_to(alice, **fields)
    clinician.post(reverse("console:cancel", args=[message.pk]))
    message.refresh_from_db()
    assert message.state == fields.get("state", "waiting")
    assert actions() == []


def test_speech_of_a_device_is_no_message(clinician: Client, alice: Member):
    conversation = Conversation.objects.create(patient=alice.patient, device=alice.device, voice_source="default")
    own = message_to(alice, origin="device", conversation=conversation, client_speech_id="s1", state="queued")
    for name in ("message", "cancel"):
        call = clinician.get if name == "message" else clinician.post
        assert call(reverse(f"console:{name}", args=[own.pk])).status_code == 404


# Usage


def test_usage_by_day_with_the_figures_of_the_admin(clinician: Client, alice: Member, bob: Member):
    today = timezone.localdate()
    Price.objects.create(model="", valid_from="2020-01-01", per_1000_credits=10)
    for member, characters in ((alice, 1_500), (bob, 7_777)):
        DailyUsage.objects.create(
            day=today, patient=member.patient.pk, kind="live", model="m", characters=characters, credits=characters
        )
    page = shown(clinician, alice, "usage")
    for words in ("1,500", "15.00", f'<th scope="row">{today}'):
        assert words in page, words
    assert "7,777" not in page
    assert 'href="/admin/' not in page
    older = shown(clinician, alice, "usage", **{"from": "2020-01-01", "to": "2020-02-01"})
    assert "Nothing was spoken on these days." in older
    assert "The range ends before it begins." in shown(
        clinician, alice, "usage", **{"from": "2020-02-01", "to": "2020-01-01"}
    )


# Queries


def test_the_number_of_queries_does_not_grow_with_the_data(clinician: Client, alice: Member):
    names = ("patient", "patient-live", "usage", "conversations")

    def counted() -> list[int]:
        numbers = []
        for name in names:
            with CaptureQueriesContext(connection) as queries:
                shown(clinician, alice, name)
            numbers.append(len(queries))
        return numbers

    def add_rows(number: int) -> None:
        author = User.objects.create_user(f"author-{number}")
        device, _ = Device.objects.issue(alice.patient, f"Tablet {number}")
        voice = Voice.objects.create(provider_id=f"v{number}", name=f"Voice {number}")
        conversation = Conversation.objects.create(
            patient=alice.patient, device=device, voice=voice, voice_source="selected"
        )
        message_to(alice, author=author, conversation=conversation, state="heard")
        Incident.objects.create(kind="provider_down", key=str(number))
        DailyUsage.objects.create(
            day=timezone.localdate() - timedelta(days=number), patient=alice.patient.pk, kind="live", characters=9
        )

    add_rows(0)
    counted()
    few = counted()
    for number in range(1, 8):
        add_rows(number)
    assert counted() == few
    assert max(few) <= 40, few
    assert few[1] <= 16, few  # every page that is open requests it every few seconds
