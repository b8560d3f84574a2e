"""The page with the token of a device, in a browser."""

from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import BrowserSession
from tests.conftest import Member
from voicecare.patients.models import Device

pytestmark = pytest.mark.django_db(transaction=True)


def test_the_token_can_be_copied_and_reloading_the_page_shows_the_device(
    log_in: Callable[..., BrowserSession], alice: Member
):
    session = log_in(permissions=["clipboard-read", "clipboard-write"])
    page = session.open(f"/admin/patients/device/add/?patient={alice.patient.pk}")
    page.get_by_role("textbox", name="Name").fill("Kitchen")
    page.get_by_role("button", name="Save", exact=True).click()
    token = page.locator("code.token").text_content()
    page.get_by_role("button", name="Copy the token").click()
    expect(page.get_by_role("status")).to_have_text("Copied")
    assert page.evaluate("() => navigator.clipboard.readText()") == token
    assert Device.objects.get(name="Kitchen").token_matches(token or "")
    page.reload()
    expect(page.get_by_role("link", name="Renew token")).to_be_visible()
    assert token not in page.content()
    assert Device.objects.filter(name="Kitchen").count() == 1
    assert session.problems == []
