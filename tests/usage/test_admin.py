"""The admin pages of the ledger, the provider's state and incidents."""

import uuid
from datetime import UTC, date, datetime, timedelta
from html import unescape

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from pytest_django import Settings

from tests.conftest import Member
from tests.usage.alerts.postbox import Webhook
from tests.usage.test_models import create_event
from tests.waiting import until
from usage.alerts import messages
from usage.models import DailyUsage, Incident, ProviderState, Reconciliation, UsageEvent
from voicecare.patients.models import Patient

pytestmark = pytest.mark.django_db

STATE = reverse("admin:usage_providerstate_changelist")
INCIDENTS = reverse("admin:usage_incident_changelist")
SENT_AT = datetime(2026, 11, 29, 15, 15, tzinfo=UTC)


def page(client: Client, address: str) -> str:
    return client.get(address).content.decode()


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({}, "not read yet"),
        ({"quota_limit": 100_000, "quota_used": 99_000, "polled_at": timezone.now()}, "1,000 of 100,000 left"),
        ({"quota_used": 99_000, "polled_at": timezone.now()}, "99,000 used, no limit"),
    ],
)
def test_the_quota_is_shown_as_text(admin_client: Client, columns: dict, words: str):
    ProviderState.objects.create(**columns)
    assert words in page(admin_client, STATE)
    assert words in page(admin_client, reverse("admin:usage_providerstate_change", args=[1]))


def test_the_list_shows_when_the_subscription_was_checked(admin_client: Client):
    ProviderState.objects.create()
    assert "never" in page(admin_client, STATE)
    ProviderState.objects.update(polled_at=timezone.now() - timedelta(minutes=3))
    assert "3\xa0minutes ago" in page(admin_client, STATE)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({}, "not sent"),
        ({"opening_sent_at": SENT_AT}, "opened alert sent Nov. 29, 2026, 3:15 p.m. UTC"),
        (
            {"opening_sent_at": SENT_AT, "resolution_sent_at": SENT_AT + timedelta(minutes=5)},
            "opened alert sent Nov. 29, 2026, 3:15 p.m. UTC, resolved alert sent Nov. 29, 2026, 3:20 p.m. UTC",
        ),
        ({"sending_failures": 2}, "failed 2 times, will be retried"),
    ],
)
def test_the_list_of_incidents_shows_whether_the_alert_was_sent(
    admin_client: Client, settings: Settings, columns: dict, words: str
):
    settings.ADMIN_EMAILS = ["ann@example.org"]
    Incident.objects.create(kind="quota", **columns)
    assert words in page(admin_client, INCIDENTS)


def test_the_list_shows_that_no_channel_is_configured(admin_client: Client):
    Incident.objects.create(kind="quota")
    assert "no alert channel configured" in page(admin_client, INCIDENTS)


def test_the_ledgers_page_does_not_read_the_whole_table(admin_client: Client):
    create_event()
    with CaptureQueriesContext(connection) as captured:
        assert "completed" in page(admin_client, reverse("admin:usage_usageevent_changelist"))
    of_events = [query["sql"] for query in captured if 'FROM "usage_usageevent"' in query["sql"]]
    assert len(of_events) == 2  # the count and one page
    assert not [sql for sql in of_events if "DISTINCT" in sql]


# The page of an incident


def incident_url(incident: Incident) -> str:
    return reverse("admin:usage_incident_change", args=[incident.pk])


def incident_page(client: Client, incident: Incident) -> str:
    return unescape(page(client, incident_url(incident)))


@pytest.mark.parametrize("kind", list(Incident.Kind))
def test_the_page_shows_the_text_of_the_alert(admin_client: Client, kind: Incident.Kind):
    key = str(uuid.uuid4()) if kind in ("budget", "voice") else ""
    incident = Incident.objects.create(kind=kind, key=key, detail="said in the detail")
    words = messages.message_for(incident)
    alert = messages.body(incident, "opened")
    for part in (words.summary, words.patient_impact, words.action, "said in the detail"):
        assert part in incident_page(admin_client, incident)
        assert part in alert
    assert "minutes ago" in incident_page(admin_client, incident)
    Incident.objects.update(resolved_at=timezone.now())
    assert words.resolved in incident_page(admin_client, incident)


def test_an_incident_is_acknowledged_and_resolved_on_its_page(admin_client: Client):
    incident = Incident.objects.create(kind="access")
    for action, left in [("acknowledge", ["resolve"]), ("resolve", [])]:
        assert f'value="{action}"' in incident_page(admin_client, incident)
        data = {"action": action, "_selected_action": [str(incident.pk)], "index": "0", "page": "1"}
        assert admin_client.post(INCIDENTS, data).url == incident_url(incident)
        buttons = [
            name for name in ("acknowledge", "resolve") if f'value="{name}"' in incident_page(admin_client, incident)
        ]
        assert buttons == left
    incident.refresh_from_db()
    assert incident.acknowledged_at
    assert incident.resolved_at


def test_users_who_may_only_view_get_no_buttons(client: Client, django_user_model: type[User]):
    viewer = django_user_model.objects.create_user("vera", is_staff=True)
    viewer.user_permissions.add(Permission.objects.get(codename="view_incident"))
    client.force_login(viewer)
    incident = Incident.objects.create(kind="access")
    assert "page-actions" not in incident_page(client, incident)
    data = {"action": "resolve", "_selected_action": [str(incident.pk)], "index": "0", "page": "1"}
    client.post(INCIDENTS, data)
    incident.refresh_from_db()
    assert incident.resolved_at is None


@pytest.mark.parametrize("may_see_patients", [False, True])
def test_only_users_who_may_view_patients_see_names(
    client: Client, django_user_model: type[User], alice: Member, may_see_patients: bool
):
    viewer = django_user_model.objects.create_user("vera", is_staff=True)
    codenames = ["view_incident", "view_patient"] if may_see_patients else ["view_incident"]
    viewer.user_permissions.set(Permission.objects.filter(codename__in=codenames))
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


def test_the_only_channel_cannot_report_its_own_failure(admin_client: Client, settings: Settings):
    settings.ADMIN_EMAILS, settings.ALERT_WEBHOOK_URL = ["ann@example.org"], ""
    assert "no alert channel configured" in incident_page(
        admin_client, Incident.objects.create(kind="alerts", key="mail")
    )


@pytest.mark.django_db(transaction=True)
def test_resolving_an_incident_by_hand_sends_the_alert(admin_client: Client, settings: Settings):
    incident = Incident.objects.create(kind="access", opening_sent_at=timezone.now())
    with Webhook() as webhook:
        settings.ALERT_WEBHOOK_URL = webhook.url
        admin_client.post(INCIDENTS, {"action": "resolve", "_selected_action": [str(incident.pk)]})
        until(lambda: Incident.objects.exclude(resolution_sent_at=None).exists())
    assert [body["state"] for body in webhook.received] == ["resolved"]


def test_a_reconciliation_is_shown_and_cannot_be_changed(admin_client: Client):
    row = Reconciliation.objects.create(
        day=date(2026, 3, 1), explanation="Characters: 10 in the ledger and at the provider."
    )
    assert row.explanation in page(admin_client, reverse("admin:usage_reconciliation_changelist"))
    own = reverse("admin:usage_reconciliation_change", args=[row.pk])
    assert row.explanation in page(admin_client, own)
    assert "lease_until" not in page(admin_client, own)
    assert admin_client.post(own, {"explanation": "All is well."}).status_code == 403


@pytest.fixture
def ledger(alice: Member) -> uuid.UUID:
    """Two rows in each list: one of Alice, and one of a patient who was erased. Returns the id of the latter."""
    erased = Patient.objects.create(name="Erased person", companion_name="Clara", erased_at=timezone.now()).pk
    for patient in (alice.patient.pk, erased):
        ids = {"patient": patient, "voice": alice.patient.voice_id, "kind": "live"}
        attempt = {"segment": 0, "attempt": 1, "requested_characters": 9, "outcome": "completed"}
        DailyUsage.objects.create(day=timezone.localdate(), **ids)
        UsageEvent.objects.create(source=uuid.uuid4(), **attempt, **ids)
    return erased


@pytest.mark.parametrize("page", ["/admin/usage/usageevent/", "/admin/usage/dailyusage/"])
def test_patients_and_voices_are_names_with_links(page: str, admin_client: Client, alice: Member, ledger: uuid.UUID):
    shown = admin_client.get(page).content.decode()
    assert f'<a href="/admin/patients/patient/{alice.patient.pk}/change/">{alice.patient}</a>' in shown
    assert f'<a href="/admin/patients/voice/{alice.patient.voice_id}/change/">{alice.patient.voice}</a>' in shown
    assert f">{ledger}<" in shown
    assert "Erased person" not in shown


@pytest.mark.parametrize("page", ["/admin/usage/usageevent/", "/admin/usage/dailyusage/"])
def test_the_name_of_a_patient_finds_their_rows(page: str, admin_client: Client, alice: Member, ledger: uuid.UUID):
    def found(term: str) -> list[uuid.UUID]:
        return [row.patient for row in admin_client.get(page, {"q": term}).context["cl"].result_list]

    assert found(alice.patient.name) == [alice.patient.pk]
    assert found("Erased person") == []
    assert found(str(ledger)) == [ledger]


@pytest.mark.parametrize("page", ["/admin/usage/usageevent/", "/admin/usage/dailyusage/"])
def test_names_of_patients_need_the_permission_to_view_them(
    page: str, client: Client, django_user_model: type[User], alice: Member, ledger: uuid.UUID
):
    user = django_user_model.objects.create_user("billing", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=["view_usageevent", "view_dailyusage"]))
    client.force_login(user)
    shown = client.get(page).content.decode()
    assert alice.patient.name not in shown
    assert str(alice.patient.pk) in shown


def test_the_page_of_a_day_shows_names_and_no_histogram(admin_client: Client, alice: Member, ledger: uuid.UUID):
    day = DailyUsage.objects.get(patient=alice.patient.pk)
    shown = admin_client.get(f"/admin/usage/dailyusage/{day.pk}/change/").content.decode()
    assert f">{alice.patient}</a>" in shown
    assert "Chunk" not in shown
