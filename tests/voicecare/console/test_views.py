"""The pages and calls of the device console: who may open it, its token, and the faults of the sandbox."""

import re
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django_otp.plugins.otp_totp.models import TOTPDevice
from pytest_django import Settings

from tests.conftest import Member
from tests.roles import role
from tests.sandbox import SandboxProcess
from tts.models import Conversation, Phrase
from voicecare.audit.models import AuditEntry
from voicecare.console import devices
from voicecare.patients.authentication import authenticate_device
from voicecare.patients.models import Device, Patient

pytestmark = pytest.mark.django_db
PAST = datetime(2020, 1, 1, tzinfo=UTC)


def logged_in(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def user_for(member: Member, **fields: Any) -> User:
    user = User.objects.create_user(f"clinician-{uuid.uuid4().hex[:8]}", **fields)
    user.patients.add(member.patient)  # type: ignore[attr-defined]
    return user


@pytest.fixture
def clinician(alice: Member) -> Client:
    """A clinician of Alice's team, who may not log in to the admin."""
    return logged_in(user_for(alice))


def page_of(member: Member) -> str:
    return reverse("console:console", args=[member.patient.pk])


def issue(client: Client, member: Member, **data: str) -> Any:
    return client.post(reverse("console:issue", args=[member.patient.pk]), data)


# Who may open it


def test_a_clinician_sees_the_own_patients_only(clinician: Client, alice: Member, bob: Member):
    page = clinician.get(reverse("console:patients")).content.decode()
    assert alice.patient.name in page
    assert bob.patient.name not in page
    assert clinician.get(page_of(alice)).status_code == 200
    for response in (clinician.get(page_of(bob)), issue(clinician, bob)):
        assert response.status_code == 404
    assert Device.objects.consoles().count() == 0


def test_patients_are_found_by_name(clinician: Client, alice: Member):
    address = reverse("console:patients")
    assert alice.patient.name in clinician.get(address, {"q": "archer"}).content.decode()
    assert alice.patient.name not in clinician.get(address, {"q": "nobody"}).content.decode()


@pytest.mark.parametrize("state", ["archived_at", "erases_at"])
def test_a_patient_who_cannot_be_spoken_to_has_no_console(state: str, clinician: Client, alice: Member):
    Patient.objects.filter(pk=alice.patient.pk).update(**{state: PAST})
    assert clinician.get(page_of(alice)).status_code == 404
    assert issue(clinician, alice).status_code == 404


def test_without_a_log_in_a_page_leads_to_it_and_a_call_says_so(alice: Member):
    response = Client().get(page_of(alice))
    assert response["Location"] == f"{reverse('console:log-in')}?next={page_of(alice)}"
    refused = issue(Client(), alice)
    assert (refused.status_code, refused.json()) == (403, {"code": "logged_out"})


def test_who_may_only_look_gets_no_console(alice: Member):
    auditor = User.objects.create_user("auditor", is_staff=True)
    auditor.groups.add(role("Auditor"))
    assert logged_in(auditor).get(page_of(alice)).status_code == 403
    refused = issue(logged_in(auditor), alice)
    assert (refused.status_code, refused.json()) == (403, {"code": "forbidden"})


def test_an_administrator_has_the_console_of_every_patient(admin_client: Client, alice: Member, bob: Member):
    for member in (alice, bob):
        assert admin_client.get(page_of(member)).status_code == 200


def test_a_session_without_the_second_factor_of_its_user_is_not_enough(alice: Member):
    user = user_for(alice)
    client = logged_in(user)
    TOTPDevice.objects.create(user=user, name="app")
    assert client.get(page_of(alice)).status_code == 302
    assert issue(client, alice).status_code == 403


def test_staff_who_must_set_up_a_second_factor_do_so_first(alice: Member, settings: Settings):
    settings.REQUIRE_TWO_FACTOR = "staff"
    client = logged_in(user_for(alice, is_staff=True))
    assert client.get(page_of(alice))["Location"] == reverse("admin:two-factor")
    assert issue(client, alice).status_code == 403


def test_a_clinician_who_is_not_staff_logs_in_and_out(alice: Member):
    user = user_for(alice)
    user.set_password("correct horse")
    user.save()
    client = Client()
    form = {"username": user.username, "password": "correct horse", "next": page_of(alice)}
    assert client.post(reverse("console:log-in"), {**form, "password": "wrong"}).status_code == 200
    assert client.post(reverse("console:log-in"), form)["Location"] == page_of(alice)
    assert client.get(page_of(alice)).status_code == 200
    client.post(reverse("console:log-out"))
    assert client.get(page_of(alice)).status_code == 302
    assert [*AuditEntry.objects.order_by("pk").values_list("action", flat=True)] == [
        "log_in_failed",
        "log_in",
        "log_out",
    ]


def test_the_log_in_asks_for_the_second_factor(alice: Member):
    user = user_for(alice)
    user.set_password("correct horse")
    user.save()
    TOTPDevice.objects.create(user=user, name="app")
    client = Client()
    response = client.post(reverse("console:log-in"), {"username": user.username, "password": "correct horse"})
    assert "code of your authenticator app" in response.content.decode()
    assert client.get(page_of(alice)).status_code == 302


# The token


def test_the_token_is_that_of_a_console_for_this_patient(clinician: Client, alice: Member):
    response = issue(clinician, alice)
    assert response.status_code == 201
    assert "no-store" in response["Cache-Control"]
    device = authenticate_device(response.json()["token"])
    assert device is not None
    assert (str(device.pk), device.patient, device.takes_messages) == (response.json()["device"], alice.patient, False)
    assert device.console_until is not None
    entry = AuditEntry.objects.get()
    assert (entry.action, entry.object_id, entry.patient_id) == ("add", str(device.pk), alice.patient.pk)
    assert response.json()["token"] not in str(entry.changes)


def test_a_console_takes_messages_if_the_page_says_so(clinician: Client, alice: Member):
    device = issue(clinician, alice, takes_messages="true").json()["device"]
    assert Device.objects.get(pk=device).takes_messages


def test_the_device_has_the_format_of_the_page(clinician: Client, alice: Member):
    device = issue(clinician, alice, format="pcm_24000").json()["device"]
    assert Device.objects.get(pk=device).format == "pcm_24000"
    assert issue(clinician, alice, format="wma").status_code == 400


def test_the_page_keeps_its_device_and_revokes_it(clinician: Client, alice: Member):
    issued = issue(clinician, alice).json()
    keep, revoke = (reverse(f"console:{name}", args=[issued["device"]]) for name in ("keep", "revoke"))
    assert clinician.post(keep).status_code == 204
    assert clinician.post(revoke).status_code == 204
    assert authenticate_device(issued["token"]) is None
    assert clinician.post(keep).status_code == 410
    assert clinician.post(revoke).status_code == 204
    assert [*AuditEntry.objects.order_by("pk").values_list("action", flat=True)] == ["add", "revoke"]


def test_a_patient_is_found_by_the_words_of_the_name_in_any_order(clinician: Client, alice: Member):
    pages = [clinician.get(reverse("console:patients"), {"q": words}) for words in ("archer ali", "archer bob")]
    assert [alice.patient.name in page.content.decode() for page in pages] == [True, False]


def test_a_logout_ends_the_pages_of_this_session_only(clinician: Client, alice: Member):
    colleague = logged_in(user_for(alice))
    ended, other = issue(clinician, alice).json()["device"], issue(colleague, alice).json()["device"]
    clinician.post(reverse("console:log-out"))
    open_devices = Device.objects.consoles().filter(revoked_at=None)
    assert {str(pk) for pk in open_devices.values_list("pk", flat=True)} == {other}
    assert Device.objects.get(pk=ended).revoked_at is not None
    assert [*AuditEntry.objects.order_by("pk").values_list("action", flat=True)] == ["add", "add", "revoke", "log_out"]


def test_a_logout_of_the_admin_ends_the_pages_of_this_session_too(alice: Member):
    client = logged_in(user_for(alice, is_staff=True))
    ended = issue(client, alice).json()["device"]
    client.post(reverse("admin:logout"))
    assert Device.objects.get(pk=ended).revoked_at is not None
    entries = AuditEntry.objects.order_by("pk").values_list("action", "source")
    assert [*entries] == [("add", "console"), ("revoke", "admin"), ("log_out", "admin")]


def test_nobody_keeps_or_revokes_other_devices(clinician: Client, alice: Member, bob: Member, admin_client: Client):
    others = issue(admin_client, bob).json()["device"]
    for device in (alice.device.pk, others):
        for name in ("keep", "revoke"):
            assert clinician.post(reverse(f"console:{name}", args=[device])).status_code == 404
    assert not Device.objects.exclude(revoked_at=None).exists()


def test_the_calls_need_the_token_against_forged_requests(alice: Member):
    client = Client(enforce_csrf_checks=True)
    client.force_login(user_for(alice))
    assert issue(client, alice).status_code == 403
    assert not Device.objects.consoles().exists()


def test_a_console_is_in_no_list_of_devices(admin_client: Client, alice: Member):
    issued = issue(admin_client, alice).json()["device"]
    Device.objects.filter(pk=issued).update(online_until=datetime(2099, 1, 1, tzinfo=UTC), last_seen=PAST)
    pages = [
        reverse("admin:patients_device_changelist"),
        reverse("admin:patients_patient_change", args=[alice.patient.pk]),
        reverse("admin:live"),
        reverse("admin:patients_patient_changelist"),
    ]
    for page in pages:
        html = admin_client.get(page).content.decode()
        assert "Device console of" not in html, page
        assert "Online</span>" not in html, page
    assert admin_client.get(reverse("admin:patients_device_change", args=[issued])).status_code == 302


def test_old_consoles_are_deleted_and_their_conversations_stay(clinician: Client, alice: Member):
    issued = issue(clinician, alice).json()["device"]
    conversation = Conversation.objects.create(
        patient=alice.patient, device_id=issued, voice_source="default", format="mp3_44100_128"
    )
    devices.delete_old()
    assert Device.objects.consoles().exists()
    Device.objects.filter(pk=issued).update(console_until=PAST)
    devices.delete_old()
    assert [*Device.objects.all()] == [alice.device]
    assert Conversation.objects.get(pk=conversation.pk).device is None


# The page


def test_the_page_has_the_phrases_of_the_patients_language(clinician: Client, alice: Member, phrases: None):
    Phrase.objects.create(text="Das ist schön!", language="de")
    page = clinician.get(page_of(alice)).content.decode()
    assert "Tell me more." in page
    assert "Das ist schön!" not in page
    assert "{patient_name}" not in page


def test_the_page_says_that_a_device_of_the_patient_is_connected(clinician: Client, alice: Member):
    assert "bedside" not in clinician.get(page_of(alice)).content.decode()
    Device.objects.update(online_until=datetime(2099, 1, 1, tzinfo=UTC))
    assert "bedside" in clinician.get(page_of(alice)).content.decode()


# Faults


@pytest.fixture
def at_sandbox(settings: Settings, sandbox: SandboxProcess) -> SandboxProcess:
    settings.ELEVENLABS_BASE_URL = sandbox.url
    return sandbox


def choose(client: Client, name: str) -> Any:
    return client.post(reverse("console:fault", args=[name]))


def test_a_button_makes_the_sandbox_fail(clinician: Client, at_sandbox: SandboxProcess):
    assert choose(clinician, "down").status_code == 204
    assert [fault["preset"] for fault in at_sandbox.faults()] == ["service_unavailable"]
    assert choose(clinician, "off").status_code == 204
    assert at_sandbox.faults() == []
    assert choose(clinician, "explode").status_code == 404


def test_without_a_sandbox_there_are_no_faults(
    clinician: Client, alice: Member, settings: Settings, at_sandbox: SandboxProcess
):
    assert "sandbox-faults" in clinician.get(page_of(alice)).content.decode()
    settings.USE_SANDBOX = False
    assert "sandbox-faults" not in clinician.get(page_of(alice)).content.decode()
    assert choose(clinician, "down").status_code == 404
    assert at_sandbox.faults() == []


def test_the_active_fault_is_shown_when_the_page_opens(clinician: Client, alice: Member, at_sandbox: SandboxProcess):
    def pressed() -> list[str]:
        page = clinician.get(page_of(alice)).content.decode()
        return re.findall(r'aria-pressed="true" data-fault="/console/faults/([\w-]+)/"', page)

    assert choose(clinician, "down").status_code == 204
    assert pressed() == ["down"]
    assert choose(clinician, "off").status_code == 204
    assert pressed() == ["off"]
    at_sandbox.fault(kind="stall_first")
    assert pressed() == []


def test_a_page_without_a_sandbox_that_answers_opens(
    clinician: Client, alice: Member, settings: Settings, unused_tcp_port_factory: Callable
):
    settings.ELEVENLABS_BASE_URL = f"http://127.0.0.1:{unused_tcp_port_factory()}"
    assert 'aria-pressed="true"' not in clinician.get(page_of(alice)).content.decode()


def test_a_sandbox_that_does_not_run_is_said(clinician: Client, settings: Settings, unused_tcp_port_factory: Callable):
    settings.ELEVENLABS_BASE_URL = f"http://127.0.0.1:{unused_tcp_port_factory()}"
    response = choose(clinician, "down")
    assert response.status_code == 502
    assert "does not run" in response.json()["message"]
