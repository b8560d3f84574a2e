"""An administrator compares the models of the account, measures one and listens to it."""

from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import BrowserSession
from tests.conftest import Member
from tests.server import ServerProcess
from usage.models import UsageEvent

pytestmark = [pytest.mark.django_db(transaction=True)]

LOADED = "[...document.querySelectorAll('audio')].every(audio => audio.duration > 1)"


def test_a_model_is_measured_and_heard(server: ServerProcess, log_in: Callable[..., BrowserSession], alice: Member):
    browser = log_in()
    page = browser.open()
    page.get_by_role("link", name="Model of all speech").click()
    expect(page.get_by_role("heading", name="Current model: eleven_flash_v2_5")).to_be_visible()
    page.get_by_role("link", name="Measure eleven_v3 and listen to it").click()
    expect(page.get_by_text("This is billed: 6 requests")).to_be_visible()
    assert not UsageEvent.objects.filter(kind="trial").exists()
    page.get_by_role("button", name="Yes, measure now").click()
    expect(page.locator("audio")).to_have_count(2, timeout=30_000)
    page.wait_for_function(LOADED)
    assert UsageEvent.objects.filter(kind="trial", outcome="completed").count() == 6
    assert browser.problems == []
