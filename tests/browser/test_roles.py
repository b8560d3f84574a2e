"""A day of each role: an administrator, a clinician and an auditor do their usual work in a browser."""

import re
from collections.abc import Callable

import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from playwright.sync_api import Page, expect

from tests.browser.conftest import BrowserSession
from tests.conftest import Member
from tests.roles import role
from tts.models import Utterance
from usage.alerts import incidents
from usage.models import Incident
from voicecare.audit.models import AuditEntry
from voicecare.patients.models import Device, Patient

pytestmark = pytest.mark.django_db(transaction=True)
LogIn = Callable[..., BrowserSession]
CHANGING = re.compile("^(Save|Add|Delete|Erase|Archive|Run|Say|New|Revoke)")


def user(name: str, in_role: str) -> User:
    made = User.objects.create_user(name, is_staff=True)
    made.groups.add(role(in_role))
    return made


def follow(page: Page, name: str) -> None:
    """Follow the first link with this name."""
    page.get_by_role("link", name=name, exact=True).first.click()
    page.wait_for_load_state()


def actions(name: str) -> list[str]:
    """What the audit trail says that the user did, from first to last."""
    return list(AuditEntry.objects.filter(user_name=name).order_by("pk").values_list("action", flat=True))


def test_an_administrator_admits_a_patient_and_takes_care_of_an_incident(log_in: LogIn):
    incidents.open_incident(Incident.Kind.ACCESS, detail="The key was refused.")
    session = log_in(user("ada", "Administrator"))
    page = session.open("/admin/patients/patient/add/")
    page.get_by_label("Name:", exact=True).fill("Nora Nilsson")
    page.get_by_label("Companion name:").fill("Clara")
    page.get_by_role("button", name="Save and continue editing").click()
    patient = Patient.objects.get(name="Nora Nilsson")

    session.open(f"/admin/patients/device/add/?patient={patient.pk}")
    page.get_by_label("Name:").fill("Bedside")
    page.get_by_role("button", name="Save", exact=True).click()
    token = page.locator("code.token").text_content() or ""
    assert Device.objects.get(patient=patient).token_matches(token)

    session.open("/admin/usage/incident/")
    page.locator("#result_list tbody a").first.click()
    page.get_by_label("Note for the timeline").fill("I have asked the provider.")
    page.get_by_role("button", name="Acknowledge").click()
    expect(page.locator(".timeline")).to_contain_text("I have asked the provider.")
    expect(page.locator(".timeline")).to_contain_text("by ada")
    expect(page.get_by_role("button", name="Mark as resolved")).to_have_count(0)
    incident = Incident.objects.get()
    assert (incident.acknowledged_by, incident.resolved_at) == ("ada", None)
    assert [action for action in actions("ada") if action != "view"] == ["add", "add", "acknowledge"]
    assert session.problems == []


def test_a_clinician_speaks_to_a_patient_of_the_team_and_sees_no_other(
    log_in: LogIn, alice: Member, member: Callable[..., Member]
):
    other = member("Otto Other").patient
    carl = user("carl", "Clinician")
    alice.patient.team.add(carl)
    session = log_in(carl)
    page = session.open("/admin/patients/patient/")
    expect(page.locator("#result_list")).to_contain_text(alice.patient.name)
    expect(page.locator("#result_list")).not_to_contain_text(other.name)
    follow(page, alice.patient.name)
    follow(page, "Say …")
    page.get_by_label("Text:").fill("Your daughter visits you at three.")
    page.get_by_role("button", name="Say", exact=True).click()
    expect(page.get_by_text("The text is spoken as soon as one connects")).to_be_visible()
    message = Utterance.objects.get()
    assert (message.patient, message.text) == (alice.patient, "Your daughter visits you at three.")
    session.open(f"/admin/patients/patient/{alice.patient.pk}/change/")
    expect(page.get_by_role("link", name="Erase …")).to_have_count(0)
    assert session.problems == []
    answer = page.goto(f"{session.server.url}/admin/patients/patient/{other.pk}/change/")
    assert answer is not None
    assert answer.url.endswith("/admin/")  # as for a patient that does not exist
    assert other.name not in page.content()


def test_an_auditor_finds_who_read_what_and_can_change_nothing(log_in: LogIn, alice: Member):
    Utterance.objects.create(
        patient=alice.patient, client_speech_id="s1", origin="server", text="Good morning.", state="heard",
        received_at=timezone.now(),
    )  # fmt: skip
    log_in(User.objects.create_superuser("boss")).open(f"/admin/tts/utterance/{Utterance.objects.get().pk}/change/")
    session = log_in(user("olga", "Auditor"))
    page = session.open("/admin/audit/auditentry/")
    page.get_by_role("searchbox").fill("boss")
    page.get_by_role("button", name="Search").click()
    expect(page.locator("#result_list tbody tr")).to_have_count(1)
    expect(page.locator("#result_list")).to_contain_text(alice.patient.name)
    with page.expect_download() as download:
        page.get_by_role("link", name="Export as CSV").click()
    assert "boss" in download.value.path().read_text()
    for path in (f"patients/patient/{alice.patient.pk}/change/", "auth/user/", "usage/price/"):
        session.open(f"/admin/{path}")
        expect(page.get_by_role("button", name=CHANGING)).to_have_count(0)
        expect(page.get_by_role("link", name=CHANGING)).to_have_count(0)
    assert session.problems == []
