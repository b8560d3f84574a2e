"""Webhook endpoints over REST: who may do what, the secret that is shown once, and the audit trail."""

from typing import Any

import pytest
from django.utils import timezone

from tests.clinicians import Clinician, clinician
from tests.conftest import Member
from tests.roles import give_permissions
from voicecare.audit.models import AuditEntry
from voicecare.patients.models import Clinic, Patient
from voicecare.webhooks import events
from voicecare.webhooks.events import Subject
from voicecare.webhooks.models import EventType, WebhookAttempt, WebhookDelivery, WebhookEndpoint

pytestmark = pytest.mark.django_db

URL = "https://records.example.org/hooks"
ALL = [f"webhooks.{act}_webhookendpoint" for act in ("view", "add", "change", "delete")]


@pytest.fixture
def administrator(db: None) -> Clinician:
    return clinician("administrator", in_role="Administrator", is_staff=True)


@pytest.fixture
def ward_manager(db: None) -> Clinician:
    """A user with all permissions of endpoints who sees the patients of one ward only."""
    manager = clinician("manager")
    give_permissions(manager.user, *ALL, "webhooks.view_webhookdelivery")
    Clinic.objects.create(name="Ward 3").members.add(manager.user)
    return manager


def create(caller: Clinician, **fields: Any) -> Any:
    return caller.call("POST", "webhooks/", {"url": URL, **fields})


def test_the_secret_is_shown_once(administrator: Clinician):
    response = create(administrator, description="Records", events=["utterance.heard", "clone.ready"])
    body = response.json()
    assert response.status_code == 201
    row = WebhookEndpoint.objects.get()
    assert (body["secret"], body["secret"][:6]) == (row.secret, "whsec_")
    assert body["events"] == ["clone.ready", "utterance.heard"]
    shown = administrator.get(f"webhooks/{row.pk}/")
    assert shown == {name: value for name, value in body.items() if name != "secret"}
    assert administrator.get("webhooks/")["results"] == [shown]


def test_a_rotation_shows_the_new_secret_and_keeps_the_old_one_for_a_day(administrator: Clinician):
    created = create(administrator).json()
    key, old = created["id"], created["secret"]
    body = administrator.call("POST", f"webhooks/{key}/rotate/").json()
    row = WebhookEndpoint.objects.get()
    assert body["secret"] != old
    assert row.valid_secrets == [body["secret"], old]


def test_a_repeated_call_with_the_same_key_creates_nothing_again(administrator: Clinician):
    first = administrator.call("POST", "webhooks/", {"url": URL}, Idempotency_Key="once")
    again = administrator.call("POST", "webhooks/", {"url": URL}, Idempotency_Key="once")
    assert (again.status_code, again.json()["code"]) == (409, "secret_already_shown")
    assert again.json()["id"] == first.json()["id"] == str(WebhookEndpoint.objects.get().pk)


def test_every_write_leaves_one_entry_without_the_url_or_secret(administrator: Clinician):
    key = create(administrator).json()["id"]
    administrator.call("PATCH", f"webhooks/{key}/", {"enabled": False, "url": f"{URL}/2"})
    administrator.call("POST", f"webhooks/{key}/rotate/")
    administrator.call("DELETE", f"webhooks/{key}/")
    entries = AuditEntry.objects.filter(object_type="webhooks.webhookendpoint").order_by("pk")
    assert [entry.action for entry in entries] == ["add", "change", "renew_secret", "delete"]
    assert entries[1].changes == {"enabled": [True, False], "url": None}
    assert {entry.object_id for entry in entries} == {key}
    assert "example" not in str([entry.changes for entry in entries])
    assert "whsec" not in str([entry.changes for entry in entries])
    assert not WebhookEndpoint.objects.exists()


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"url": "http://records.example.org/"}, "url"),
        ({"url": "https://127.0.0.1/"}, "url"),
        ({"url": "https://u:p@records.example.org/"}, "url"),
        ({"url": ""}, "url"),
        ({"events": ["patient.sneezed"]}, "events"),
        ({"events": ["webhook.test"]}, "events"),
        ({"clinic": "00000000-0000-4000-8000-000000000000"}, "clinic"),
    ],
)
def test_invalid_values_are_refused(administrator: Clinician, settings: Any, fields: dict[str, Any], name: str):
    settings.WEBHOOK_ALLOW_PRIVATE = False
    response = create(administrator, **fields)
    assert response.status_code == 400
    assert name in response.json()
    assert not WebhookEndpoint.objects.exists()


def test_clinicians_may_not_see_endpoints(administrator: Clinician, alice: Member):
    key = create(administrator).json()["id"]
    carol = clinician("carol", alice.patient)
    for method, path in (("GET", ""), ("POST", ""), ("PATCH", f"{key}/"), ("DELETE", f"{key}/")):
        assert carol.call(method, f"webhooks/{path}", {}).status_code == 403
    assert carol.call("GET", f"webhooks/{key}/deliveries/").status_code == 403


def test_who_does_not_see_all_patients_manages_endpoints_of_their_clinics(
    administrator: Clinician, ward_manager: Clinician
):
    ward, other = Clinic.objects.get(), Clinic.objects.create(name="Ward 4")
    foreign = create(administrator).json()["id"]
    assert "clinic" in create(ward_manager).json()
    assert create(ward_manager, clinic=str(other.pk)).status_code == 400
    own = create(ward_manager, clinic=str(ward.pk)).json()["id"]
    assert [row["id"] for row in ward_manager.get("webhooks/")["results"]] == [own]
    for method, path in (("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "rotate/"), ("GET", "deliveries/")):
        assert ward_manager.call(method, f"webhooks/{foreign}/{path}", {}).status_code == 404
    assert ward_manager.call("PATCH", f"webhooks/{own}/", {"clinic": None}).status_code == 400
    assert ward_manager.call("PATCH", f"webhooks/{own}/", {"enabled": False}).status_code == 200


def test_the_log_of_deliveries(administrator: Clinician, alice: Member):
    key = create(administrator).json()["id"]
    for number in range(3):
        device = alice.device.pk
        events.emit(EventType.DEVICE_OFFLINE, [Subject(device, alice.patient.pk, {"id": device, "number": number})])
    row = WebhookDelivery.objects.first()
    assert row is not None
    WebhookDelivery.objects.filter(pk=row.pk).update(status="delivered", ended_at=timezone.now())
    WebhookAttempt.objects.create(delivery=row, number=1, status_code=204, duration_ms=12)
    page = administrator.get(f"webhooks/{key}/deliveries/")
    assert page["count"] == 3
    (delivered,) = administrator.get(f"webhooks/{key}/deliveries/?status=delivered")["results"]
    assert (delivered["type"], delivered["object"]) == ("device.offline", str(alice.device.pk))
    assert (delivered["patient"], delivered["next_attempt_at"]) == (str(alice.patient.pk), None)
    assert [(one["number"], one["status_code"]) for one in delivered["attempts"]] == [(1, 204)]
    assert administrator.get(f"webhooks/{key}/deliveries/?type=clone.ready")["count"] == 0
    assert administrator.call("GET", f"webhooks/{key}/deliveries/?stat=x").status_code == 400
    Patient.objects.update(erases_at=timezone.now())
    give_permissions(administrator.user)
    administrator.user.groups.get().permissions.remove(
        *administrator.user.groups.get().permissions.filter(codename="erase_patient")
    )
    assert administrator.get(f"webhooks/{key}/deliveries/")["count"] == 0
