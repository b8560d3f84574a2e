"""Pages of single rows: nothing covers the title, and every value can be read."""

from collections.abc import Callable

import pytest
from django.urls import reverse
from playwright.sync_api import expect

from tests.browser.conftest import BrowserSession
from tests.conftest import Member
from voicecare.patients.models import Clinic

pytestmark = pytest.mark.django_db(transaction=True)

PHONE = {"width": 390, "height": 844}
# Buttons of the page that lie over its title.
OVER_THE_TITLE = """() => {
    const range = document.createRange();
    const titles = [...document.querySelectorAll('#content > h1, #content > h2')].map(title => {
        range.selectNodeContents(title);
        return range.getBoundingClientRect();
    });
    return [...document.querySelectorAll('.object-tools li')].filter(button => {
        const box = button.getBoundingClientRect();
        return titles.some(title => box.left < title.right && box.right > title.left
            && box.top < title.bottom && box.bottom > title.top);
    }).map(button => button.innerText);
}"""
CUT_FIELDS = """() => [...document.querySelectorAll('input[type=number], input[type=text]')]
    .filter(field => field.value && field.scrollWidth > field.clientWidth)
    .map(field => `${field.name}: ${field.value}`)"""


def test_the_buttons_of_a_patient_do_not_cover_the_name(log_in: Callable[..., BrowserSession], alice: Member):
    alice.patient.name = "Margarethe Hohenstein-Kellermann of the second floor"
    alice.patient.save()
    page = log_in().open(reverse("admin:patients_patient_change", args=[alice.patient.pk]))
    assert page.locator(".object-tools li").count() > 6
    for size in ({"width": 1280, "height": 900}, PHONE):
        page.set_viewport_size(size)
        assert page.evaluate(OVER_THE_TITLE) == [], size


def test_a_budget_of_millions_fits_into_its_field(log_in: Callable[..., BrowserSession]):
    clinic = Clinic.objects.create(name="Ward 3", monthly_character_budget=20_000_000, daily_character_budget=600_000)
    page = log_in().open(reverse("admin:patients_clinic_change", args=[clinic.pk]))
    assert page.locator("#id_monthly_character_budget").input_value() == "20000000"
    assert page.evaluate(CUT_FIELDS) == []


@pytest.mark.parametrize("name", ["console", "clone"])
def test_no_button_can_be_pressed_before_its_script_runs(
    log_in: Callable[..., BrowserSession], alice: Member, name: str
):
    """A click would be lost, without a word."""
    session = log_in()
    scripts = "**/voicecare/console/**.js"
    session.context.route(scripts, lambda route: route.abort())
    page = session.open(reverse(f"console:{name}", args=[alice.patient.pk]))
    pressable = page.locator("#content button:visible:enabled")
    assert pressable.all_inner_texts() == []
    session.context.unroute(scripts)
    page.reload()
    expect(pressable).not_to_have_count(0)
