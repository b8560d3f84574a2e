"""The admin uses the number and date formats of the browser. The REST API uses one format for all clients."""

import pytest
from django.contrib.auth.models import User
from django.test import Client

from tests.clinicians import Clinician, clinician
from tests.conftest import Member
from tests.voicecare.dashboard import history

pytestmark = [pytest.mark.django_db, pytest.mark.filterwarnings("ignore:No directory at:UserWarning")]

GERMAN = {"Accept-Language": "de-DE,de;q=0.9"}


@pytest.fixture
def staff(alice: Member) -> Clinician:
    history.create_usage(days=3)
    return clinician("ann", in_role="Auditor", is_staff=True)


def test_the_admin_is_in_the_language_of_the_browser(admin_client: Client):
    assert admin_client.get("/admin/", headers=GERMAN)["Content-Language"] == "de"
    assert 'data-locale="en"' in admin_client.get("/admin/").content.decode()
    assert 'data-locale="de"' in admin_client.get("/admin/", headers=GERMAN).content.decode()


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


def test_an_admin_page_does_not_change_the_language_of_later_rest_calls(staff: Clinician):
    client = Client()
    client.force_login(User.objects.create_superuser("boss"))
    before = staff.get("usage/daily/")
    client.get("/admin/", headers=GERMAN)
    assert staff.get("usage/daily/") == before
    assert all(isinstance(row["date"], str) and row["date"][4] == "-" for row in before["results"])
