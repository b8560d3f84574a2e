"""The content security policy: no page needs what it forbids, and what it forbids does not run."""

from collections.abc import Callable

import pytest
from django.urls import reverse
from playwright.sync_api import expect

from tests.browser.conftest import Reader
from tests.conftest import Member

LogIn = Callable[..., Reader]

pytestmark = pytest.mark.django_db(transaction=True)


def _pages(member: Member) -> list[str]:
    models = ("patients_patient", "patients_voice", "tts_conversation", "tts_phrase", "usage_incident", "auth_user")
    lists = [reverse(f"admin:{model}_changelist") for model in models]
    patient = reverse("admin:patients_patient_change", args=(member.patient.pk,))
    return ["/admin/", *lists, patient, reverse("admin:auth_user_add"), "/admin/password_change/"]


def test_no_page_of_the_admin_needs_what_is_forbidden(reader: LogIn, alice: Member):
    boss = reader()
    for path in _pages(alice):
        response = boss.page.goto(boss.server.url + path)
        assert response is not None
        assert response.ok, path
        assert "default-src 'self'" in response.headers["content-security-policy"]
        assert boss.complaints == [], path


def test_the_log_in_needs_nothing_forbidden(reader: LogIn):
    stranger = reader()
    stranger.context.clear_cookies()
    stranger.open("/admin/login/")
    expect(stranger.page.locator("#id_username")).to_be_visible()
    assert stranger.complaints == []


def test_the_pages_of_the_rest_api_are_drawn(reader: LogIn):
    somebody = reader()
    page = somebody.open("/api/docs/")
    expect(page.locator("h1")).to_contain_text("voicecare")
    expect(page.get_by_text("/api/v1/patients/").first).to_be_visible()
    assert somebody.complaints == []


def test_a_script_that_gets_into_a_page_does_not_run(reader: LogIn):
    """As if a template had forgotten to escape a name."""
    boss = reader()
    page = boss.open("/admin/")
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.ran = 1\">')")
    page.evaluate("document.body.append(Object.assign(document.createElement('script'), {text: 'window.ran = 1'}))")
    page.wait_for_timeout(300)
    assert page.evaluate("window.ran") is None
    assert any("Content Security Policy" in said for said in boss.complaints)
