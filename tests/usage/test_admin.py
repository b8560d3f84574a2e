"""The provider's state and its incidents, in words."""

from datetime import date, timedelta

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import Settings

from tests.usage.postbox import Webhook
from tests.waiting import until
from usage.models import Incident, ProviderState, Reconciliation

pytestmark = pytest.mark.django_db

STATE = reverse("admin:usage_providerstate_changelist")
INCIDENTS = reverse("admin:usage_incident_changelist")


def page(client: Client, address: str) -> str:
    return client.get(address).content.decode()


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({}, "not read yet"),
        ({"quota_limit": 100_000, "quota_used": 99_000, "polled_at": timezone.now()}, "1,000 of 100,000 left"),
        ({"quota_used": 99_000, "polled_at": timezone.now()}, "99,000 used, without a limit"),
    ],
)
def test_the_quota_stands_in_words(admin_client: Client, columns: dict, words: str):
    ProviderState.objects.create(**columns)
    assert words in page(admin_client, STATE)
    assert words in page(admin_client, reverse("admin:usage_providerstate_change", args=[1]))


def test_the_list_says_when_it_was_read(admin_client: Client):
    ProviderState.objects.create()
    assert "never" in page(admin_client, STATE)
    ProviderState.objects.update(polled_at=timezone.now() - timedelta(minutes=3))
    assert "3\xa0minutes ago" in page(admin_client, STATE)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({}, "not sent"),
        ({"opening_sent_at": timezone.now()}, "told that it began"),
        (
            {"opening_sent_at": timezone.now(), "resolution_sent_at": timezone.now()},
            "told that it began, told that it is over",
        ),
        ({"sending_failures": 2}, "failed 2 times, is tried again"),
    ],
)
def test_the_list_of_incidents_says_whether_the_alert_went_out(
    admin_client: Client, settings: Settings, columns: dict, words: str
):
    settings.ADMIN_EMAILS = ["ann@example.org"]
    Incident.objects.create(kind="quota", **columns)
    assert words in page(admin_client, INCIDENTS)


def test_it_says_where_nobody_is_to_be_told(admin_client: Client):
    Incident.objects.create(kind="quota")
    assert "nobody to send it to" in page(admin_client, INCIDENTS)


@pytest.mark.django_db(transaction=True)
def test_an_incident_that_is_resolved_by_hand_is_told_as_resolved(admin_client: Client, settings: Settings):
    incident = Incident.objects.create(kind="access", opening_sent_at=timezone.now())
    with Webhook() as webhook:
        settings.ALERT_WEBHOOK_URL = webhook.url
        admin_client.post(INCIDENTS, {"action": "resolve", "_selected_action": [str(incident.pk)]})
        until(lambda: Incident.objects.exclude(resolution_sent_at=None).exists())
    assert [body["state"] for body in webhook.received] == ["resolved"]


def test_a_reconciliation_stands_in_words_and_cannot_be_changed(admin_client: Client):
    row = Reconciliation.objects.create(day=date(2026, 3, 1), explanation="Characters: 10, as the provider has it.")
    assert row.explanation in page(admin_client, reverse("admin:usage_reconciliation_changelist"))
    own = reverse("admin:usage_reconciliation_change", args=[row.pk])
    assert row.explanation in page(admin_client, own)
    assert "busy_until" not in page(admin_client, own)
    assert admin_client.post(own, {"explanation": "All is well."}).status_code == 403
