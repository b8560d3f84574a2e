"""The admin pages of the ledger, the provider's state and incidents."""

import uuid
from datetime import UTC, date, datetime, timedelta

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from tests.conftest import Member
from tests.usage.test_models import create_event
from usage.models import DailyUsage, ProviderState, Reconciliation, UsageEvent
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


def test_the_internals_of_the_provider_state_are_collapsed(admin_client: Client):
    ProviderState.objects.create()
    shown = page(admin_client, reverse("admin:usage_providerstate_change", args=[1]))
    facts, internals = shown.index("Last checked"), shown.index("Internals")
    assert facts < shown.index("<details", facts) < internals < shown.index("Failed health probes")


def test_the_ledgers_page_does_not_read_the_whole_table(admin_client: Client):
    create_event()
    with CaptureQueriesContext(connection) as captured:
        assert "completed" in page(admin_client, reverse("admin:usage_usageevent_changelist"))
    of_events = [query["sql"] for query in captured if 'FROM "usage_usageevent"' in query["sql"]]
    assert len(of_events) == 2  # the count and one page
    assert not [sql for sql in of_events if "DISTINCT" in sql]


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
    user.user_permissions.set(
        Permission.objects.filter(codename__in=["view_usageevent", "view_dailyusage", "view_all_patients"])
    )
    client.force_login(user)
    shown = client.get(page).content.decode()
    assert alice.patient.name not in shown
    assert str(alice.patient.pk) in shown


def test_the_page_of_a_day_shows_names_and_no_histogram(admin_client: Client, alice: Member, ledger: uuid.UUID):
    day = DailyUsage.objects.get(patient=alice.patient.pk)
    shown = admin_client.get(f"/admin/usage/dailyusage/{day.pk}/change/").content.decode()
    assert f">{alice.patient}</a>" in shown
    assert "Chunk" not in shown


def test_the_list_of_the_provider_shows_its_state_in_badges(admin_client: Client):
    ProviderState.objects.update_or_create(pk=1, defaults={"circuit": "open", "quota": "spent", "access": "key"})
    for words in ("Unreachable", "Exhausted", "Key refused"):
        assert f'<span class="badge badge-bad">{words}</span>' in page(admin_client, STATE)
