"""The lists of the admin: nothing of them is beside the screen."""

from collections.abc import Callable

import pytest
from django.contrib import admin
from django.urls import reverse

from tests.browser.conftest import BrowserSession
from tests.browser.rows import create_rows

pytestmark = pytest.mark.django_db(transaction=True)

PHONE = {"width": 390, "height": 844}
# Words of the list that are cut, and whether the whole page is wider than the screen.
CUT = """() => [...document.querySelectorAll('#result_list, .results, #changelist-filter, .object-tools')]
    .filter(part => part.getBoundingClientRect().right > document.documentElement.clientWidth + 1
        || part.scrollWidth > part.clientWidth + 1)
    .map(part => `${part.id || part.className}: ${part.scrollWidth} in ${part.clientWidth}`)"""
# Times of the list, such as "2026-11-30 16:12:57 UTC", that take more than two lines.
BROKEN_TIMES = """() => [...document.querySelectorAll('#result_list tbody :is(td, th)')]
    .filter(cell => /^\\d{4}-\\d\\d-\\d\\d \\d\\d:\\d\\d:\\d\\d \\w+$/.test(cell.textContent.trim()))
    .filter(cell => {
        const text = document.createRange();
        text.selectNodeContents(cell);
        return new Set([...text.getClientRects()].map(line => Math.round(line.top))).size > 2;
    }).map(cell => cell.className)"""


def test_no_list_is_wider_than_the_screen(log_in: Callable[..., BrowserSession]):
    create_rows(30)
    session = log_in()
    cut = {}
    for model in admin.site._registry:
        path = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")
        session.page.set_viewport_size({"width": 1280, "height": 900})
        page = session.open(path)
        assert page.locator("#result_list, .paginator").count() > 0, path
        for size in ({"width": 1280, "height": 900}, PHONE):
            page.set_viewport_size(size)
            if problems := page.evaluate(CUT):
                cut[path, size["width"]] = problems
            if broken := page.evaluate(BROKEN_TIMES):
                cut[path, size["width"], "times"] = broken[:1]
    assert cut == {}
    assert session.problems == []
