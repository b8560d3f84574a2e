"""The admin pages of incidents: what they show, what people can do there, and who was affected."""

import uuid
from datetime import timedelta
from html import unescape

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import Settings

from tests.conftest import Member
from tests.usage.alerts.postbox import Webhook
from tests.usage.test_models import create_event
from tests.waiting import until
from tts.models import Conversation, Utterance
from usage.alerts import endings, messages
from usage.models import Incident, IncidentEvent, NotificationChannel
from voicecare.audit.models import AuditEntry
from voicecare.patients.models import Voice

pytestmark = pytest.mark.django_db

INCIDENTS = reverse("admin:usage_incident_changelist")


def incident_url(incident: Incident) -> str:
    return reverse("admin:usage_incident_change", args=[incident.pk])


def incident_page(client: Client, incident: Incident) -> str:
    return unescape(client.get(incident_url(incident)).content.decode())


def respond(client: Client, incident: Incident, action: str, **fields: str) -> str:
    """Press a button of the incident's page. Returns the next page."""
    url = reverse("admin:usage_incident_respond", args=[incident.pk])
    response = client.post(url, {"action": action, **fields}, follow=True)
    assert response.redirect_chain == [(incident_url(incident), 302)]
    incident.refresh_from_db()
    return unescape(response.content.decode())


def buttons(page: str) -> list[str]:
    names = ("acknowledge", "mute", "unmute", "resolve", "note")
    return [name for name in names if f'name="action" value="{name}"' in page]


def listed(client: Client, **query: str) -> list[str]:
    response = client.get(INCIDENTS, query)
    assert response.status_code == 200
    return [row.detail for row in response.context["cl"].result_list]


# The page


@pytest.mark.parametrize("kind", list(Incident.Kind))
def test_the_page_shows_the_text_of_the_alert(admin_client: Client, kind: Incident.Kind):
    key = str(uuid.uuid4()) if kind in ("budget", "voice") else ""
    incident = Incident.objects.create(kind=kind, key=key, detail="said in the detail")
    words, page = messages.message_for(incident), incident_page(admin_client, incident)
    for part in (words.summary, words.patient_impact, words.action, "said in the detail"):
        assert part in page
        assert part in messages.body(incident, "opened")
    assert "so far" in page
    assert ("resolve" in buttons(page)) is not endings.is_end_detected(incident)
    Incident.objects.update(resolved_at=timezone.now())
    page = incident_page(admin_client, incident)
    assert f"Nothing. {words.resolved}" in page
    assert buttons(page) == ["note"]


def test_an_incident_is_acknowledged_and_resolved_on_its_page(admin_client: Client):
    incident = Incident.objects.create(kind="request")
    assert buttons(incident_page(admin_client, incident)) == ["acknowledge", "mute", "resolve", "note"]
    page = respond(admin_client, incident, "acknowledge", note="I call them.")
    assert incident.acknowledged_by == "admin"
    assert "I call them." in page
    assert buttons(page) == ["mute", "resolve", "note"]
    page = respond(admin_client, incident, "resolve")
    assert incident.resolved_by == "admin"
    assert "Marked as resolved by admin." in page
    assert buttons(page) == ["note"]


def test_an_incident_that_the_server_ends_is_muted_and_cannot_be_resolved(admin_client: Client):
    incident = Incident.objects.create(kind="quota")
    page = respond(admin_client, incident, "resolve")
    assert incident.resolved_at is None
    assert "The server resolves it when it detects that the cause has ended." in page
    page = respond(admin_client, incident, "mute", hours="4")
    assert timezone.now() + timedelta(hours=3) < incident.muted_until < timezone.now() + timedelta(hours=5)
    assert buttons(page) == ["acknowledge", "unmute", "note"]
    assert "Muted until" in page
    respond(admin_client, incident, "unmute")
    assert incident.muted_until is None


@pytest.mark.parametrize(
    "fields",
    [
        {"action": "mute", "hours": "5"},
        {"action": "mute", "hours": "-1"},
        {"action": "mute", "hours": "x"},
        {"action": "mute"},
        {"action": "note", "note": "  "},
        {"action": "erase"},
        {"action": ""},
    ],
)
def test_a_wrong_response_changes_nothing(admin_client: Client, fields: dict):
    incident = Incident.objects.create(kind="quota")
    assert "Nothing was done." in respond(admin_client, incident, **fields)
    assert (incident.muted_until, incident.events.count()) == (None, 0)
    assert admin_client.get(reverse("admin:usage_incident_respond", args=[incident.pk])).status_code == 405
    missing = reverse("admin:usage_incident_respond", args=[uuid.uuid4()])
    assert admin_client.post(missing, {"action": "acknowledge"}).status_code == 404


def test_each_response_is_one_entry_of_the_audit_trail(admin_client: Client):
    incident = Incident.objects.create(kind="request")
    respond(admin_client, incident, "acknowledge", note="Not for the audit trail.")
    respond(admin_client, incident, "acknowledge")
    respond(admin_client, incident, "note", note="Nor this.")
    respond(admin_client, incident, "resolve")
    entries = AuditEntry.objects.filter(object_type="usage.incident", object_id=str(incident.pk)).order_by("pk")
    assert [(entry.action, entry.user_name) for entry in entries] == [
        ("acknowledge", "admin"),
        ("note", "admin"),
        ("resolve", "admin"),
    ]
    assert "acknowledged_at" in entries[0].changes
    assert "Nor this." not in str([entry.changes for entry in entries])


def test_who_is_slower_learns_who_was_faster(admin_client: Client):
    incident = Incident.objects.create(kind="request", acknowledged_at=timezone.now(), acknowledged_by="ann")
    assert "Nothing was done. ann was faster." in respond(admin_client, incident, "acknowledge")
    assert incident.acknowledged_by == "ann"


def test_notes_and_alerts_are_in_the_timeline(admin_client: Client):
    incident = Incident.objects.create(kind="quota")
    incident.events.create(kind="alert", channel="webhook", text="opened")
    page = respond(admin_client, incident, "note", note="<b>Bought</b> credits.\nThey come at 5.")
    timeline = page.partition('class="timeline"')[2]
    assert timeline.index("Opened") < timeline.index("Alert sent: opened") < timeline.index("By webhook.")
    assert "<strong>Note</strong> by admin" in timeline
    assert "<b>Bought</b> credits.<br>They come at 5." in timeline  # unescaped by the test
    assert b"&lt;b&gt;Bought" in admin_client.get(incident_url(incident)).content


def test_the_timeline_of_an_earlier_release_has_times_without_names(admin_client: Client):
    now = timezone.now()
    incident = Incident.objects.create(
        kind="quota", opened_at=now - timedelta(hours=2), opening_sent_at=now, acknowledged_at=now, resolved_at=now
    )
    timeline = incident_page(admin_client, incident).partition('class="timeline"')[2]
    for words in ("Opened", "Alert sent: opened", "Acknowledged", "Resolved"):
        assert f"<strong>{words}</strong>" in timeline


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({}, "Not sent."),
        ({"opening_sent_at": timezone.now()}, "Sent, see below."),
        ({"sending_failures": 2}, "An alert failed 2 times and will be retried."),
    ],
)
def test_the_page_shows_whether_the_alert_was_sent(admin_client: Client, settings: Settings, columns: dict, words: str):
    settings.ADMIN_EMAILS = ["ann@example.org"]
    assert words in incident_page(admin_client, Incident.objects.create(kind="quota", **columns))


def test_the_only_channel_cannot_report_its_own_failure(admin_client: Client, settings: Settings):
    settings.ADMIN_EMAILS, settings.ALERT_WEBHOOK_URL = ["ann@example.org"], ""
    incident = Incident.objects.create(kind="alerts", key="mail")
    assert "No alert channel is configured." in incident_page(admin_client, incident)


def test_the_page_shows_what_only_notification_channels_have_sent(admin_client: Client, settings: Settings):
    settings.ADMIN_EMAILS, settings.ALERT_WEBHOOK_URL = [], ""
    incident = Incident.objects.create(kind="quota")
    assert "No alert channel is configured." in incident_page(admin_client, incident)
    NotificationChannel.objects.create(name="On call", url="json://127.0.0.1")
    assert "Not sent." in incident_page(admin_client, incident)
    IncidentEvent.objects.create(incident=incident, kind="alert", channel="On call", text="opened")
    page = incident_page(admin_client, incident)
    assert "Sent, see below." in page
    assert "By On call." in page


@pytest.mark.django_db(transaction=True)
def test_marking_an_incident_as_resolved_sends_an_alert_that_says_so(admin_client: Client, settings: Settings):
    incident = Incident.objects.create(kind="request", opening_sent_at=timezone.now())
    with Webhook() as webhook:
        settings.ALERT_WEBHOOK_URL = webhook.url
        respond(admin_client, incident, "resolve")
        until(lambda: Incident.objects.exclude(resolution_sent_at=None).exists())
    assert [body["state"] for body in webhook.received] == ["resolved"]
    assert "Marked as resolved by admin." in webhook.received[0]["text"]


def test_users_who_may_only_view_get_no_buttons(client: Client, django_user_model: type[User]):
    viewer = django_user_model.objects.create_user("vera", is_staff=True)
    viewer.user_permissions.add(Permission.objects.get(codename="view_incident"))
    client.force_login(viewer)
    incident = Incident.objects.create(kind="request")
    assert buttons(incident_page(client, incident)) == []
    url = reverse("admin:usage_incident_respond", args=[incident.pk])
    assert client.post(url, {"action": "resolve"}).status_code == 403
    client.post(INCIDENTS, {"action": "resolve", "_selected_action": [str(incident.pk)]})
    incident.refresh_from_db()
    assert incident.resolved_at is None


# The list


def test_the_list_has_open_incidents_by_default_and_all_of_a_key(admin_client: Client):
    now, key = timezone.now(), str(uuid.uuid4())
    Incident.objects.create(kind="quota", detail="old and open", opened_at=now - timedelta(days=500))
    Incident.objects.create(kind="voice", key=key, detail="muted", muted_until=now + timedelta(hours=1))
    Incident.objects.create(kind="slow", detail="acknowledged", acknowledged_at=now, acknowledged_by="ann")
    Incident.objects.create(kind="voice", key=key, detail="resolved", resolved_at=now, resolved_by="ann")
    opened = {"old and open", "muted", "acknowledged"}
    assert set(listed(admin_client)) == set(listed(admin_client, resolved_at__isnull="True")) == opened
    assert set(listed(admin_client, status="unacknowledged")) == {"old and open", "muted"}
    assert listed(admin_client, status="muted") == ["muted"]
    assert listed(admin_client, status="resolved") == ["resolved"]
    assert set(listed(admin_client, key=key)) == set(listed(admin_client, key__in=f"{key},b")) == {"muted", "resolved"}
    assert listed(admin_client, key=key, status="open") == ["muted"]
    assert listed(admin_client, q="acknowledged") == ["acknowledged"]
    assert set(listed(admin_client, status="all")) == {"muted", "acknowledged", "resolved"}  # of the past year


def test_the_list_says_how_many_patients_an_open_incident_affects(admin_client: Client, alice: Member):
    Voice.objects.filter(pk=alice.patient.voice_id).update(state="gone")
    incident = Incident.objects.create(kind="voice")
    assert '<td class="field-affected_count">1 patient</td>' in admin_client.get(INCIDENTS).content.decode()
    Incident.objects.filter(pk=incident.pk).update(resolved_at=timezone.now())
    page = admin_client.get(INCIDENTS, {"status": "all"}).content.decode()
    assert '<td class="field-affected_count">-</td>' in page


def test_the_list_shows_the_status_first(admin_client: Client):
    now = timezone.now()
    Incident.objects.create(kind="quota", reopened_at=now)
    Incident.objects.create(
        kind="slow", acknowledged_at=now, acknowledged_by="ann", muted_until=now + timedelta(hours=1)
    )
    Incident.objects.create(kind="voice", resolved_at=now, resolved_by="ben")
    page = admin_client.get(INCIDENTS, {"status": "all"}).content.decode()
    for words in ("Open again", "Acknowledged", "Muted", "Resolved", "by ann", "by ben"):
        assert f">{words}</span>" in page
    assert page.index("column-status") < page.index("column-what")


def test_the_action_of_the_list_leaves_incidents_open_that_the_server_ends(admin_client: Client):
    ids = [str(Incident.objects.create(kind=kind).pk) for kind in ("quota", "request", "slow")]
    data = {"action": "resolve", "_selected_action": ids}
    page = admin_client.post(INCIDENTS, data, follow=True).content.decode()
    assert "1 incident marked as resolved." in page
    assert "2 incidents left open." in page
    assert Incident.objects.get(resolved_by="admin").kind == "request"


# Who was affected


@pytest.mark.parametrize("may_see_patients", [False, True])
def test_only_users_who_may_view_patients_see_names(
    client: Client, django_user_model: type[User], alice: Member, may_see_patients: bool
):
    viewer = django_user_model.objects.create_user("vera", is_staff=True)
    codenames = ["view_incident", "view_patient"] if may_see_patients else ["view_incident"]
    viewer.user_permissions.set(Permission.objects.filter(codename__in=[*codenames, "view_all_patients"]))
    client.force_login(viewer)
    incident = Incident.objects.create(kind="quota")
    create_event(patient=alice.patient.pk, started_at=timezone.now(), kind="offline")
    said = incident_page(client, incident)
    assert ": 1 segments in the offline voice" in said
    assert ("Alice" in said, "a patient: 1" in said) == (may_see_patients, not may_see_patients)


@pytest.mark.parametrize(
    ("kind", "fields", "words"),
    [
        ("quota", {"kind": "offline"}, "Alice Archer</a>: 1 segments in the offline voice"),
        ("no_voice", {"kind": "offline", "outcome": "failed", "characters": 0}, "</a>: 1 segments without sound"),
        ("slow", {"first_chunk_ms": 501}, "</a>: 1 speeches with high latency"),
        ("slow", {"first_chunk_ms": 499}, "No patients so far."),
        ("provider_down", {}, "No patients so far."),
        ("silent", {"kind": "offline"}, "No patients are affected."),
    ],
)
def test_the_page_lists_affected_patients(admin_client: Client, alice: Member, kind: str, fields: dict, words: str):
    incident = Incident.objects.create(kind=kind)
    create_event(patient=alice.patient.pk, started_at=timezone.now(), **fields)
    assert words in incident_page(admin_client, incident)
    assert "Alice" not in messages.body(incident, "opened")


def test_the_page_names_the_patient_of_a_budget(admin_client: Client, alice: Member):
    incident = Incident.objects.create(kind="budget", key=str(alice.patient.pk))
    assert "Alice Archer</a>: speech over the budget was not spoken" in incident_page(admin_client, incident)
    Incident.objects.update(key=str(uuid.uuid4()))
    assert "an erased patient: speech over the budget" in incident_page(admin_client, incident)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"state": "queued", "queue_reason": "quota"}, "Alice Archer</a>: 1 message waiting to be spoken"),
        ({"state": "expired", "queue_reason": "quota"}, "</a>: 1 message expired before there were credits"),
        ({"state": "queued", "queue_reason": "busy"}, "No patients so far."),
        ({"state": "spoken", "queue_reason": "quota"}, "No patients so far."),
    ],
)
@pytest.mark.parametrize("origin", ["device", "server"])
def test_patients_whose_speech_waits_for_credits_are_affected(
    admin_client: Client, alice: Member, origin: str, columns: dict, words: str
):
    incident = Incident.objects.create(kind="quota", opened_at=timezone.now() - timedelta(minutes=5))
    conversation = Conversation.objects.create(
        patient=alice.patient, voice=alice.patient.voice, voice_source="selected", format="pcm_16000"
    )
    message = {"patient": alice.patient, "conversation": conversation, "client_speech_id": "s1", "text": "Hello."}
    Utterance.objects.create(origin=origin, **message, **columns)
    assert words in incident_page(admin_client, incident)
