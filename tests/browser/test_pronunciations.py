"""How a pronunciation is listened to before it is saved, in Chromium."""

from collections.abc import Callable

from django.urls import reverse

from tests.browser.conftest import BrowserSession
from tests.waiting import until
from tts.models import LexiconEntry


def test_listen_plays_the_entry_in_a_new_tab(log_in: Callable[..., BrowserSession]):
    session = log_in()
    page = session.page
    page.goto(session.server.url + reverse("admin:tts_lexiconentry_add"))
    page.get_by_label("Written form").fill("Siobhan")
    page.get_by_label("Spoken form").fill("Shivawn")
    with page.expect_popup() as opened:
        page.get_by_role("button", name="Listen").click()
    audio = opened.value.locator("audio")
    until(lambda: (audio.evaluate("audio => audio.duration") or 0) > 0.3)
    assert LexiconEntry.objects.count() == 0
