"""The checklist of a new installation: each item is ticked by what it is about, and by nothing else."""

from collections.abc import Callable

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.core.cache import cache
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from tests.conftest import Member
from tts.models import Phrase
from usage.alerts import heartbeats
from usage.models import ProviderState
from voicecare.dashboard.checklist import checklist
from voicecare.dashboard.permissions import AdminPermissions
from voicecare.patients.models import Device, Patient, Voice

pytestmark = pytest.mark.django_db
BOSS = User(username="boss", is_superuser=True)


@pytest.fixture(autouse=True)
def real_provider(settings: Settings) -> None:
    settings.USE_SANDBOX = False
    settings.DEFAULT_VOICE_ID = ""
    settings.ADMIN_EMAILS = []
    settings.ALERT_WEBHOOK_URL = ""
    cache.clear()


def state() -> dict[str, bool]:
    """Whether each item is done. The name of an item that can vary is shortened."""
    names = {"The default voice is": "There is a default voice", "Alerts are sent": "Alerts reach somebody"}
    found = {}
    for item in checklist(AdminPermissions(BOSS)):
        name = next((short for start, short in names.items() if item.name.startswith(start)), item.name)
        found[name] = item.is_done
    return found


def read_a_voice() -> None:
    Voice.objects.create(provider_id="sarah", name="Sarah", read_at=timezone.now())


def connect() -> None:
    device, _ = Device.objects.issue(Patient.objects.create(name="Ada", companion_name="Clara"), "Tablet")
    device.register_connection()


def test_a_new_database_has_everything_to_do():
    assert state() == {
        "The provider accepts the API key": False,
        "The account's voices were read": False,
        "There is a default voice": False,
        "All languages of patients have a greeting": True,  # there is no patient yet
        "Alerts reach somebody": False,
        "Worker is running": False,
        "Beat is running": False,
        "There is a patient": False,
        "There is a device": False,
        "A device has connected": False,
    }


@pytest.mark.parametrize(
    ("name", "act"),
    [
        ("The provider accepts the API key", lambda: ProviderState.objects.create(polled_at=timezone.now())),
        ("The account's voices were read", read_a_voice),
        ("There is a default voice", read_a_voice),
        ("Worker is running", lambda: heartbeats.beat(heartbeats.WORKER)),
        ("Beat is running", lambda: heartbeats.beat(heartbeats.BEAT)),
        ("There is a patient", lambda: Patient.objects.create(name="Ada", companion_name="Clara")),
        ("There is a device", connect),
        ("A device has connected", connect),
    ],
)
def test_an_item_is_ticked_when_it_is_done(name: str, act: Callable[[], object]):
    assert not state()[name]
    act()
    assert state()[name]


def test_an_alert_address_ticks_the_alerts(settings: Settings):
    settings.ADMIN_EMAILS = ["a@example.org"]
    settings.ALERT_WEBHOOK_URL = "https://hook.example.org"
    assert state()["Alerts reach somebody"]
    assert "Alerts are sent by mail and webhook" in [item.name for item in checklist(AdminPermissions(BOSS))]


def test_a_refused_key_is_not_ticked_although_the_voices_were_read_before():
    read_a_voice()
    ProviderState.objects.create(polled_at=timezone.now(), access="key")
    item = next(item for item in checklist(AdminPermissions(BOSS)) if "API key" in item.name)
    assert not item.is_done
    assert "Check ELEVENLABS_API_KEY" in item.advice


def test_a_language_without_a_greeting_is_to_do(alice: Member):
    assert not state()["All languages of patients have a greeting"]
    Phrase.objects.create(kind="greeting", text="Hello {patient_name}.", language="en")
    assert state()["All languages of patients have a greeting"]


def test_a_user_sees_only_what_concerns_rows_that_the_user_may_view():
    assert checklist(AdminPermissions(AnonymousUser())) == []


def test_the_first_page_shows_the_list_until_everything_is_done(admin_client: Client):
    page = admin_client.get("/admin/").content.decode()
    assert "What the first speech needs" in page
    assert page.count('class="todo"') == 9
    assert page.count("Done:") == 1
    assert 'href="/admin/patients/patient/add/"' in page
