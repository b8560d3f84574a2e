"""The admin is English and shows times in USAGE_TIME_ZONE, whatever the browser requests. The REST API is in UTC."""

import re
from datetime import UTC, datetime

import pytest
from django.contrib import admin
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from tests.clinicians import Clinician, clinician
from tests.conftest import Member
from tests.voicecare.dashboard import history
from tts.models import Utterance
from usage.models import Incident, ProviderState
from voicecare.patients.models import Device

pytestmark = [pytest.mark.django_db, pytest.mark.filterwarnings("ignore:No directory at:UserWarning")]

GERMAN = {"Accept-Language": "de-DE,de;q=0.9"}
NOON = datetime(2026, 7, 1, 12, 0, 7, tzinfo=UTC)
OTHER_ON_EACH_PAGE = re.compile(
    r'(csrfmiddlewaretoken" value|name="key" value)="[^"]+"|data:image[^"]+|<code.*?</code>'
)


@pytest.fixture
def staff(alice: Member) -> Clinician:
    history.create_usage(days=3)
    return clinician("ann", in_role="Auditor", is_staff=True)


def paths(member: Member) -> list[str]:
    names = [f"{model._meta.app_label}_{model._meta.model_name}" for model in admin.site._registry]
    patient = [reverse(f"admin:{name}", args=[member.patient.pk]) for name in ("patient-usage", "patient-say")]
    pages = [
        "/admin/",
        "/admin/health/",
        "/admin/two-factor/",
        "/admin/password_change/",
        "/admin/tts/phrase/coverage/",
    ]
    rows = [
        reverse("admin:patients_patient_change", args=[member.patient.pk]),
        reverse("admin:patients_device_change", args=[member.device.pk]),
    ]
    return [*pages, *patient, *rows, *(reverse(f"admin:{name}_changelist") for name in names)]


def test_every_page_is_the_same_in_every_browser(admin_client: Client, alice: Member):
    history.create_usage(days=3)
    ProviderState.objects.get_or_create()
    Incident.objects.create(kind="budget", key=str(alice.patient.pk))
    for path in paths(alice):
        english, german = (admin_client.get(path, headers=headers) for headers in ({}, GERMAN))
        assert (english.status_code, german.status_code) == (200, 200), path
        shown = [OTHER_ON_EACH_PAGE.sub("", answer.content.decode()) for answer in (english, german)]
        assert '<html lang="en' in shown[0], path
        if path not in ("/admin/", "/admin/health/"):  # these have ages and durations of this moment
            assert shown[0] == shown[1], path
        assert not re.search(r"\b(Abmelden|Willkommen|Hinzufügen|Suchen|Januar)\b", shown[1]), path


def test_forms_and_their_errors_are_english(admin_client: Client):
    answer = admin_client.post("/admin/patients/patient/add/", {}, headers=GERMAN)
    assert "This field is required." in answer.content.decode()


def test_times_have_seconds_and_the_zone_of_the_setting(admin_client: Client, alice: Member, settings):
    Incident.objects.create(kind="budget", key=str(alice.patient.pk))
    message = Utterance.objects.create(patient=alice.patient, text="Hello.", origin="server", state="waiting")
    Utterance.objects.update(received_at=NOON, expires_at=NOON)
    Device.objects.update(last_seen=NOON)
    type(alice.patient).objects.update(created_at=NOON)
    settings.USAGE_TIME_ZONE = "Europe/Berlin"
    for path in (
        reverse("admin:tts_utterance_change", args=[message.pk]),
        reverse("admin:patients_device_change", args=[alice.device.pk]),
        reverse("admin:patients_patient_change", args=[alice.patient.pk]),
    ):
        assert "2026-07-01 14:00:07 CEST" in admin_client.get(path).content.decode(), path


def test_rest_times_are_utc_also_after_an_admin_page(staff: Clinician, alice: Member, settings):
    settings.USAGE_TIME_ZONE = "Europe/Berlin"
    alice.patient.team.add(staff.user)
    Device.objects.update(last_seen=NOON)
    client = Client()
    client.force_login(User.objects.create_superuser("boss"))
    client.get("/admin/", headers=GERMAN)
    (device,) = staff.get(f"patients/{alice.patient.pk}/devices/")["results"]
    assert device["last_seen"] == "2026-07-01T12:00:07Z"


@pytest.mark.parametrize(
    "path", ["usage/daily/", "usage/monthly/", "usage/quota/", "patients/", "patients/x/", "voices/"]
)
def test_the_rest_api_ignores_the_language_of_the_browser(staff: Clinician, path: str):
    english, german = staff.call("GET", path), staff.call("GET", path, **GERMAN)
    assert (german.status_code, german.content) == (english.status_code, english.content)
    assert "Content-Language" not in german
    assert "Accept-Language" not in german.get("Vary", "")


def test_errors_of_the_rest_api_are_always_english(db: None):
    for headers in ({}, GERMAN):
        refused = Client().get("/api/v1/patients/", headers=headers)
        assert refused.json()["detail"] == "Authentication credentials were not provided."
