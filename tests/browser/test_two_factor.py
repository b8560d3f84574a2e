"""A user sets up two-factor authentication and logs in with it."""

from collections.abc import Callable

import pytest
from django.contrib.auth.models import User
from playwright.sync_api import Page, expect

from tests.browser.conftest import BrowserSession
from tests.voicecare.accounts.authenticator import code_of

pytestmark = pytest.mark.django_db(transaction=True)
PASSWORD = "correct horse battery"


def log_out_and_in(page: Page, code: str) -> None:
    page.get_by_role("button", name="Log out").click()
    page.get_by_role("link", name="Log in again").click()
    page.locator("#id_username").fill("boss")
    page.locator("#id_password").fill(PASSWORD)
    page.get_by_label("Two-factor code:").fill(code)
    page.get_by_role("button", name="Log in").click()


def test_set_up_log_in_with_a_code_and_with_a_recovery_code(log_in: Callable[..., BrowserSession]):
    boss = log_in(User.objects.create_superuser("boss", password=PASSWORD))
    page = boss.open()
    page.get_by_role("link", name="Two-factor authentication").click()
    qr_code = page.get_by_role("img", name="QR code")
    expect(qr_code).to_be_visible()
    assert qr_code.evaluate("image => image.complete && image.naturalWidth > 100")
    secret = page.locator("code.secret").inner_text()
    page.get_by_label("Code").fill(code_of(secret))
    page.get_by_role("button", name="Turn on").click()
    expect(page.get_by_role("heading", name="Your recovery codes")).to_be_visible()
    recovery_code = page.locator(".recovery-codes code").first.inner_text()

    log_out_and_in(page, code_of(secret, 1))  # the present code is used; one of the next half minute is valid
    expect(page.get_by_role("heading", name="Dashboard")).to_be_visible()
    log_out_and_in(page, recovery_code)
    expect(page.get_by_role("heading", name="Dashboard")).to_be_visible()
    log_out_and_in(page, recovery_code)
    expect(page.get_by_text("The code is wrong or was used before.")).to_be_visible()
    assert boss.problems == []
