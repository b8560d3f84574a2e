"""Which clinic an incident is about."""

import pytest

from tests.conftest import Member
from usage.alerts import recipients
from usage.models import Incident
from voicecare.patients.models import Clinic, Patient, Voice

pytestmark = pytest.mark.django_db


@pytest.fixture
def ward(alice: Member) -> Clinic:
    ward = Clinic.objects.create(name="Ward 3", alert_emails="ward@example.org\nnight@example.org")
    Patient.objects.filter(pk=alice.patient.pk).update(clinic=ward)
    return ward


def addresses(kind: str, key: object = "") -> list[str]:
    return recipients.addresses_for(Incident.objects.create(kind=kind, key=str(key)))


def test_the_clinic_gets_alerts_about_itself_its_patients_and_their_clones(ward: Clinic, alice: Member):
    clone = Voice.objects.create(name="Anna", provider_id="anna", source="cloned", patient=alice.patient)
    for kind, key in (("budget", ward.pk), ("budget", alice.patient.pk), ("voice", clone.pk)):
        assert addresses(kind, key) == ["ward@example.org", "night@example.org"]


def test_incidents_about_others_concern_no_clinic(ward: Clinic, bob: Member):
    voice = Voice.objects.get(pk=Patient.objects.get(clinic=ward).voice_id)
    others = (("budget", bob.patient.pk), ("voice", voice.pk), ("voice", ""), ("voice", "refused"), ("quota", ""))
    for kind, key in (*others, ("drift", "2026-11-30")):
        assert addresses(kind, key) == []


def test_a_clinic_without_addresses_gets_no_alerts(ward: Clinic):
    Clinic.objects.update(alert_emails="")
    assert addresses("budget", ward.pk) == []
