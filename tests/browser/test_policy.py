"""The content security policy: all pages work under it, and injected scripts do not run."""

from collections.abc import Callable

import pytest
from django.urls import reverse
from playwright.sync_api import expect

from tests.browser.conftest import BrowserSession
from tests.conftest import Member

LogIn = Callable[..., BrowserSession]

pytestmark = pytest.mark.django_db(transaction=True)


def _pages(member: Member) -> list[str]:
    models = ("patients_patient", "patients_voice", "tts_conversation", "tts_phrase", "usage_incident", "auth_user")
    lists = [reverse(f"admin:{model}_changelist") for model in models]
    patient = reverse("admin:patients_patient_change", args=(member.patient.pk,))
    return ["/admin/", *lists, patient, reverse("admin:auth_user_add"), "/admin/password_change/"]


def test_admin_pages_work_under_the_policy(log_in: LogIn, alice: Member):
    boss = log_in()
    for path in _pages(alice):
        response = boss.page.goto(boss.server.url + path)
        assert response is not None
        assert response.ok, path
        assert "default-src 'self'" in response.headers["content-security-policy"]
        assert boss.problems == [], path


def test_the_login_page_works_under_the_policy(log_in: LogIn):
    visitor = log_in()
    visitor.context.clear_cookies()
    visitor.open("/admin/login/")
    expect(visitor.page.locator("#id_username")).to_be_visible()
    assert visitor.problems == []


def test_the_rest_docs_page_works_under_the_policy(log_in: LogIn):
    administrator = log_in()
    page = administrator.open("/api/docs/")
    expect(page.locator("h1")).to_contain_text("voicecare")
    expect(page.get_by_text("/api/v1/patients/").first).to_be_visible()
    assert administrator.problems == []


def test_an_injected_script_does_not_run(log_in: LogIn):
    """The injected elements simulate a template that does not escape a name."""
    boss = log_in()
    page = boss.open("/admin/")
    for injection in (
        "document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.ran = 1\">')",
        "document.body.append(Object.assign(document.createElement('script'), {text: 'window.ran = 1'}))",
    ):
        with page.expect_console_message(lambda message: "Content Security Policy" in message.text):
            page.evaluate(injection)
    assert page.evaluate("window.ran") is None
