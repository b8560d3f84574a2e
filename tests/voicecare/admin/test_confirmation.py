"""Actions that disconnect somebody or cannot be undone ask first. Until then nothing is changed or recorded."""

import pytest
from django.test import Client
from django.urls import reverse

from tests.conftest import Member
from voicecare.audit.models import AuditEntry
from voicecare.patients.admin import ARCHIVING
from voicecare.patients.models import Device, Patient

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    ("model", "action", "done"),
    [
        (Patient, "archive", "2 patients archived."),
        (Device, "revoke", "2 devices revoked."),
        (Device, "renew_token", "Copy now."),
    ],
)
def test_an_action_asks_first(
    model: type[Patient] | type[Device], action: str, done: str, admin_client: Client, alice: Member, bob: Member
):
    before = list(model.objects.order_by("pk").values())
    url = reverse(f"admin:patients_{model._meta.model_name}_changelist")
    data = {"action": action, "_selected_action": [str(row["id"]) for row in before]}
    page = admin_client.post(url, data).content.decode()
    for row in model.objects.all():
        assert f"<li>{row}" in page
        assert f'name="_selected_action" value="{row.pk}"' in page
    assert f'name="action" value="{action}"' in page
    assert list(model.objects.order_by("pk").values()) == before
    assert not AuditEntry.objects.exists()
    assert done in admin_client.post(url, {**data, "confirmed": "Yes"}, follow=True).content.decode()
    assert AuditEntry.objects.filter(action=action).count() == 2


def test_all_rows_of_a_long_list_are_passed_on_by_a_mark(admin_client: Client, alice: Member):
    """A form with thousands of ids would be refused, so the page names the first rows and counts the others."""
    Patient.objects.bulk_create(Patient(name=f"Patient {number}", companion_name="C") for number in range(30))
    data = {"action": "archive", "_selected_action": [str(alice.patient.pk)], "select_across": "1"}
    url = reverse("admin:patients_patient_changelist")
    page = admin_client.post(url, data).content.decode()
    assert ARCHIVING.explanation in page
    assert page.count("_selected_action") == 1
    assert "and 11 more" in page
    assert 'name="select_across" value="1"' in page
    admin_client.post(url, {**data, "confirmed": "Yes"})
    assert not Patient.objects.filter(archived_at=None).exists()
