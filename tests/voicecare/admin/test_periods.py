"""Lists of tables that grow with time show a period, or the rows of one id."""

import re
import uuid
from datetime import date, datetime, timedelta

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from tests.conftest import Member
from tests.usage.test_models import create_event
from tts.models import Utterance
from usage.models import DailyUsage, Incident, UsageEvent
from voicecare.admin import periods
from voicecare.patients.models import Patient

pytestmark = pytest.mark.django_db

EVENTS = reverse("admin:usage_usageevent_changelist")
MESSAGES = reverse("admin:tts_utterance_changelist")
NOW = timezone.now()
LONG_AGO = NOW - timedelta(days=400)


def listed(client: Client, url: str, **query: object) -> list[str]:
    """Return the ids of the rows on the page, in order."""
    page = client.get(url, query)
    assert page.status_code == 200
    return [str(row.pk) for row in page.context["cl"].result_list]


def message(member: Member, at: datetime, **fields: object) -> Utterance:
    row = {"patient": member.patient, "origin": "server", "text": "", "state": "heard", "received_at": at}
    return Utterance.objects.create(**{**row, **fields})


def test_a_list_shows_the_last_days_and_the_filter_leads_to_other_periods(admin_client: Client):
    old, recent = create_event(started_at=LONG_AGO), create_event()
    assert listed(admin_client, EVENTS) == [str(recent.pk)]
    assert listed(admin_client, EVENTS, period=f"{LONG_AGO:%Y-%m}") == [str(old.pk)]
    assert listed(admin_client, EVENTS, period="30") == [str(recent.pk)]
    page = admin_client.get(EVENTS).content.decode()
    assert "Past 7 days" in page
    assert f"?period={LONG_AGO:%Y-%m}" in page


@pytest.mark.parametrize("period", ["", "0", "9999999", "2026-13", "x", "-1", "2026-11-01"])
def test_an_unknown_period_is_the_default(admin_client: Client, period: str):
    create_event(started_at=LONG_AGO)
    recent = create_event()
    assert listed(admin_client, EVENTS, period=period) == [str(recent.pk)]


def test_a_month_begins_and_ends_at_midnight(admin_client: Client):
    first = timezone.localdate().replace(day=1)
    start = datetime(first.year, first.month, 1, tzinfo=timezone.get_current_timezone())
    create_event(started_at=start - timedelta(seconds=1))
    inside = create_event(started_at=start)
    assert listed(admin_client, EVENTS, period=f"{first:%Y-%m}") == [str(inside.pk)]


def test_a_column_of_days_has_periods_too(admin_client: Client):
    DailyUsage.objects.create(day=date(2020, 1, 1), kind="live")
    recent = DailyUsage.objects.create(day=timezone.localdate(), kind="live")
    assert listed(admin_client, reverse("admin:usage_dailyusage_changelist")) == [str(recent.pk)]


@pytest.mark.parametrize("name", ["id", "source", "conversation", "patient", "voice", "request_id"])
def test_an_id_finds_an_old_event(admin_client: Client, name: str):
    ids = {field: uuid.uuid4() for field in ("source", "conversation", "patient", "voice")}
    old = create_event(started_at=LONG_AGO, request_id="aZ09request", **ids)
    create_event(started_at=LONG_AGO)
    assert listed(admin_client, EVENTS, q=f" {getattr(old, name)} ") == [str(old.pk)]


def test_a_request_id_that_looks_like_an_id_is_found(admin_client: Client):
    old = create_event(started_at=LONG_AGO, request_id=str(uuid.uuid4()))
    assert listed(admin_client, EVENTS, q=old.request_id) == [str(old.pk)]


def test_a_chosen_period_limits_the_search_for_an_id(admin_client: Client):
    patient = uuid.uuid4()
    create_event(started_at=LONG_AGO, patient=patient)
    recent = create_event(patient=patient)
    assert listed(admin_client, EVENTS, q=patient, period="7") == [str(recent.pk)]


def test_unconfirmed_events_of_any_date_are_listed(admin_client: Client):
    old = create_event(started_at=LONG_AGO, outcome="unknown", characters=0)
    assert listed(admin_client, EVENTS, outcome__exact=UsageEvent.Outcome.UNKNOWN) == [str(old.pk)]


def test_a_message_is_found_by_the_id_that_its_device_knows(admin_client: Client, alice: Member):
    old = message(alice, LONG_AGO)
    assert listed(admin_client, MESSAGES, q=f"srv-{old.pk}") == [str(old.pk)]


def test_a_name_finds_the_messages_of_the_period(admin_client: Client, alice: Member, bob: Member):
    old, recent = message(alice, LONG_AGO), message(alice, NOW)
    message(bob, NOW)
    assert listed(admin_client, MESSAGES, q="alice") == [str(recent.pk)]
    assert listed(admin_client, MESSAGES, q="alice", period=f"{LONG_AGO:%Y-%m}") == [str(old.pk)]


@pytest.mark.parametrize(
    ("term", "found"),
    [
        ("Archer alice", ["alice"]),
        ("Baker Bobby", ["bob"]),
        (" S1 ", ["bob"]),
        ("a", ["alice", "bob"]),
        ("alice bobby", []),
        ("s", []),
    ],
)
def test_each_word_is_in_a_name_of_the_patient_or_the_term_is_the_speech_id(
    admin_client: Client, alice: Member, bob: Member, term: str, found: list[str]
):
    Patient.objects.filter(pk=bob.patient.pk).update(preferred_name="Bobby")
    rows = {"alice": message(alice, NOW), "bob": message(bob, NOW, client_speech_id="s1")}
    assert set(listed(admin_client, MESSAGES, q=term)) == {str(rows[name].pk) for name in found}


def test_open_incidents_of_any_date_are_listed(admin_client: Client):
    incident = Incident.objects.create(kind="quota", opened_at=NOW - timedelta(days=800))
    url = reverse("admin:usage_incident_changelist")
    for query in ({}, {"status": "open"}, {"resolved_at__isnull": "True"}):
        assert listed(admin_client, url, **query) == [str(incident.pk)]
    assert listed(admin_client, url, status="all") == []


def test_a_long_list_is_not_counted_to_its_end(admin_client: Client, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(periods, "MAX_COUNT", 3)
    for _ in range(2):
        create_event()
    assert "At least" not in admin_client.get(EVENTS).content.decode()
    for _ in range(2):
        create_event()
    assert re.search(r"At least\s+3\s+usage events", admin_client.get(EVENTS).content.decode())
