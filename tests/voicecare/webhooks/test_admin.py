"""The pages of endpoints and deliveries in the admin."""

from html import unescape
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from tests.conftest import Member
from tests.roles import role
from voicecare.audit.models import AuditEntry
from voicecare.webhooks import events
from voicecare.webhooks.events import Subject
from voicecare.webhooks.models import EventType, WebhookAttempt, WebhookDelivery, WebhookEndpoint

pytestmark = pytest.mark.django_db

URL = "https://records.example.org/hooks"
LIST, DELIVERIES = "/admin/webhooks/webhookendpoint/", "/admin/webhooks/webhookdelivery/"


def logged_in(client: Client, name: str) -> Client:
    user = User.objects.create_user(name.lower(), is_staff=True)
    user.groups.add(role(name))
    client.force_login(user)
    return client


@pytest.fixture
def administrator(client: Client) -> Client:
    return logged_in(client, "Administrator")


def endpoint(**columns: Any) -> WebhookEndpoint:
    row = WebhookEndpoint(**{"url": URL, "description": "Records", **columns})
    row.new_secret()
    row.save()
    return row


def actions() -> list[str]:
    return list(AuditEntry.objects.order_by("pk").values_list("action", flat=True))


def text_of(response: Any) -> str:
    return unescape(response.content.decode())


def test_a_new_endpoint_shows_its_secret_once(administrator: Client):
    fields = {"url": URL, "description": "Records", "enabled": "on", "events": ["utterance.heard"]}
    page = text_of(administrator.post(f"{LIST}add/", fields))
    row = WebhookEndpoint.objects.get()
    assert row.secret in page
    assert (row.events, row.clinic, row.enabled) == (["utterance.heard"], None, True)
    for path in (LIST, f"{LIST}{row.pk}/change/"):
        response = administrator.get(path)
        assert response.status_code == 200
        assert row.secret not in text_of(response)
    assert actions() == ["add"]


def test_an_invalid_url_is_refused(administrator: Client):
    page = text_of(administrator.post(f"{LIST}add/", {"url": "http://records.example.org/"}))
    assert "The URL must begin with https://." in page
    assert not WebhookEndpoint.objects.exists()


def test_a_change_and_a_deletion_leave_one_entry_each(administrator: Client, alice: Member):
    row = endpoint()
    key = alice.device.pk
    events.emit(EventType.DEVICE_OFFLINE, [Subject(key, alice.patient.pk, {"id": key})])
    secret = row.secret
    administrator.post(f"{LIST}{row.pk}/change/", {"url": f"{URL}/2", "description": "Records", "enabled": "on"})
    row.refresh_from_db()
    assert (row.url, row.secret) == (f"{URL}/2", secret)
    assert administrator.post(f"{LIST}{row.pk}/delete/", {"post": "yes"}).status_code == 302
    assert not WebhookEndpoint.objects.exists()
    assert actions() == ["change", "delete"]


def test_the_secret_is_renewed_after_a_question(administrator: Client):
    row = endpoint()
    old = row.secret
    path = f"{LIST}{row.pk}/renew-secret/"
    assert "Renew the secret?" in text_of(administrator.get(path))
    row.refresh_from_db()
    assert row.secret == old
    page = text_of(administrator.post(path))
    row.refresh_from_db()
    assert row.secret != old
    assert row.secret in page
    assert old not in page
    assert row.valid_secrets == [row.secret, old]
    assert actions() == ["renew_secret"]


def test_a_test_event_leads_to_its_delivery(administrator: Client):
    row = endpoint()
    assert administrator.get(f"{LIST}{row.pk}/test/").status_code == 405
    response = administrator.post(f"{LIST}{row.pk}/test/", follow=True)
    delivery = WebhookDelivery.objects.get()
    assert (delivery.event.type, delivery.endpoint, delivery.status) == ("webhook.test", row, "pending")
    assert response.redirect_chain == [(f"{DELIVERIES}{delivery.pk}/change/", 302)]
    assert "The test event is being sent, once." in text_of(response)
    assert actions() == ["send_test_event"]


def test_a_delivery_shows_its_attempts_and_is_sent_again(administrator: Client, alice: Member):
    endpoint()
    key = alice.device.pk
    events.emit(EventType.DEVICE_OFFLINE, [Subject(key, alice.patient.pk, {"id": key})])
    delivery = WebhookDelivery.objects.get()
    WebhookDelivery.objects.update(status="failed", attempts=13)
    WebhookAttempt.objects.create(
        delivery=delivery, number=13, status_code=503, problem="refused", excerpt="Sorry", duration_ms=1234
    )
    page = text_of(administrator.get(f"{DELIVERIES}{delivery.pk}/change/"))
    for words in ("Given up", "503", "1,234 ms", "Sorry", "device.offline", str(delivery.event_id), "Send again"):
        assert words in page
    form = {"action": "send_again", "_selected_action": delivery.pk, "index": 0}
    assert "1 event is sent again." in text_of(administrator.post(DELIVERIES, form, follow=True))
    delivery.refresh_from_db()
    assert (delivery.status, delivery.attempts, delivery.last_attempt) == ("pending", 13, 26)
    assert actions() == ["send_again"]


def test_an_auditor_sees_the_log_and_changes_nothing(client: Client, alice: Member):
    row, auditor = endpoint(), logged_in(client, "Auditor")
    events.emit_test(row)
    delivery = WebhookDelivery.objects.get()
    for path in (LIST, f"{LIST}{row.pk}/change/", DELIVERIES, f"{DELIVERIES}{delivery.pk}/change/"):
        page = text_of(auditor.get(path))
        assert "Send again" not in page
        assert "Send a test event" not in page
        assert row.secret not in page
    assert auditor.post(f"{LIST}{row.pk}/test/").status_code == 403
    assert auditor.post(f"{LIST}{row.pk}/renew-secret/").status_code == 403
    form = {"action": "send_again", "_selected_action": delivery.pk, "index": 0}
    auditor.post(DELIVERIES, form)
    assert actions() == []


def test_a_clinician_sees_neither(client: Client):
    user = logged_in(client, "Clinician")
    row = endpoint()
    for path in (LIST, f"{LIST}{row.pk}/change/", DELIVERIES):
        assert user.get(path).status_code in (302, 403)
