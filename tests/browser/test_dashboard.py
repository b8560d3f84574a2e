"""The dashboard as an administrator meets it: what is drawn, read, reached, printed and kept up to date."""

import csv
import os
from collections.abc import Callable
from dataclasses import astuple
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from playwright.sync_api import Page, Route, expect

from tests.browser.conftest import Reader
from tests.server import ServerProcess
from tests.voicecare.dashboard import history
from usage.models import Incident
from usage.reports import queries
from voicecare.patients.models import Patient

LogIn = Callable[..., Reader]

POLL_MS = 10_000
CHARTS = ["days", "months", "first-sound", "troubles", "patients", "voices"]
PHONE = {"width": 390, "height": 844}
OF_CHART = "name => Chart.getChart(document.querySelector(`[data-chart=chart-${name}-data]`))"
VALUES = f"name => ({OF_CHART})(name).data.datasets.map(dataset => [...dataset.data])"
COLOURS = f"name => ({OF_CHART})(name).data.datasets.map(dataset => dataset.backgroundColor)"
INKED = """name => {
    const canvas = document.querySelector(`[data-chart=chart-${name}-data]`);
    const bytes = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
    return bytes.filter(byte => byte).length / bytes.length;
}"""

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def cast(db: None) -> list[Patient]:
    patients = history.create_usage()
    history.create_current_state(patients)
    return patients


def days() -> list[queries.PeriodStats]:
    last = queries.today()
    return queries.daily_stats(last - timedelta(days=29), last)


def table(page: Page, name: str) -> list[list[str]]:
    card = page.locator(f"section[aria-labelledby=chart-{name}-title]")
    if not card.locator("details[open]").count():
        card.locator("summary").click()
    rows = card.locator("tbody tr")
    return [row.locator("th, td").all_inner_texts() for row in rows.all()]


def picture(page: Page, name: str) -> None:
    """For docs/images, where PICTURES names a folder: the page without the built-in lists below."""
    if folder := os.environ.get("PICTURES"):
        below = page.evaluate("document.querySelector('.board').getBoundingClientRect().bottom + scrollY")
        size = {"x": 0, "y": 0, "width": page.viewport_size["width"], "height": below}
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True, clip=size)


# Seen


def test_every_chart_is_drawn_from_this_server_alone_and_without_complaint(reader: LogIn, cast: list[Patient]):
    boss = reader()
    page = boss.open()
    assert page.locator("canvas").count() == len(CHARTS)
    for name in CHARTS:
        assert page.evaluate(INKED, name) > 0.02, name
    assert page.evaluate(VALUES, "days") == [[getattr(day, name) for day in days()] for name in _DRAWN]
    assert boss.complaints == []
    picture(page, "dashboard")


_DRAWN = ("live", "backup", "other", "saved")


def test_the_tables_say_what_the_figures_are(reader: LogIn, cast: list[Patient]):
    page = reader().open()
    newest_first = days()[::-1]
    said = [[_number(cell) for cell in row[1:]] for row in table(page, "days")]
    assert said == [[*(getattr(day, name) for name in (*_DRAWN, "characters", "credits"))] for day in newest_first]
    assert [row[0] for row in table(page, "days")] == [f"{day.start:%m/%d/%Y}" for day in newest_first]
    slow = [[_number(cell) for cell in row[1:]] for row in table(page, "first-sound")]
    assert slow == [[day.p50_ms, day.p95_ms, day.speeches] for day in newest_first]
    top = queries.top_patients(days()[0].start, days()[-1].start)
    names = {patient.pk: patient.name for patient in cast}
    expected = [[names.get(share.key, "No patient"), *astuple(share)[1:]] for share in top]
    assert [[row[0], *map(_number, row[1:])] for row in table(page, "patients")] == expected


def _number(cell: str) -> float | None:
    return None if cell == "–" else float(cell.replace(",", ""))


def test_numbers_and_dates_are_written_as_the_reader_does(reader: LogIn, cast: list[Patient]):
    page = reader(locale="de-DE").open()
    first, day = table(page, "days")[0], days()[-1]
    assert first[0] == f"{day.start:%d.%m.%Y}"
    assert first[1] == f"{day.live:,}".replace(",", ".")
    assert page.locator(".board").get_attribute("lang") == "en"


def test_a_bar_of_the_legend_is_hidden_and_shown(reader: LogIn, cast: list[Patient]):
    page = reader().open()
    button = page.locator("section[aria-labelledby=chart-days-title] .legend button").first
    shown = f"name => ({OF_CHART})(name).isDatasetVisible(0)"
    for pressed in ("false", "true"):
        button.click()
        expect(button).to_have_attribute("aria-pressed", pressed)
        assert page.evaluate(shown, "days") is (pressed == "true")


def test_dark_is_followed_at_once_and_paper_is_white(reader: LogIn, cast: list[Patient]):
    boss = reader(color_scheme="dark")
    page = boss.open()
    dark = page.evaluate(COLOURS, "days")
    picture(page, "dashboard-dark")
    page.locator(".theme-toggle:visible").click()
    page.wait_for_function(f"dark => JSON.stringify(({COLOURS})('days')) !== JSON.stringify(dark)", arg=dark)
    light = page.evaluate(COLOURS, "days")
    page.locator(".theme-toggle:visible").click()
    page.wait_for_function(f"dark => JSON.stringify(({COLOURS})('days')) === JSON.stringify(dark)", arg=dark)
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate(COLOURS, "days") == light
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert page.evaluate(COLOURS, "days") == dark
    assert boss.complaints == []


def test_a_telephone_needs_no_scrolling_to_the_side(reader: LogIn, cast: list[Patient]):
    phone = reader(viewport=PHONE, has_touch=True)
    for path in ("/admin/", f"/admin/patients/patient/{cast[0].pk}/usage/"):
        page = phone.open(path)
        picture(page, f"phone-{'patient' if 'patient' in path else 'dashboard'}")
        for summary in page.locator(".board summary").all():
            summary.click()
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], path
    assert phone.complaints == []


# Reached


def test_the_keyboard_reaches_everything_in_order(reader: LogIn, cast: list[Patient]):
    page = reader().open()
    wanted = page.evaluate(_REACHABLE)
    page.locator(".board a").first.focus()
    reached = []
    for _ in range(wanted):
        reached.append(page.evaluate("document.activeElement.outerHTML.slice(0, 120)"))
        assert page.evaluate("document.activeElement.closest('.board') !== null"), reached[-1]
        page.keyboard.press("Tab")
    assert not page.evaluate("document.activeElement.closest('.board') !== null")
    page.locator(".board summary").first.focus()
    page.keyboard.press("Enter")
    expect(page.locator(".chart-table").first).to_be_visible()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "chart-table"  # it scrolls


def test_a_screen_reader_is_told_what_each_part_is(reader: LogIn, cast: list[Patient]):
    page = reader().open()
    for name in CHARTS:
        canvas = page.locator(f"[data-chart=chart-{name}-data]")
        assert canvas.get_attribute("role") == "img"
        assert "table below" in (canvas.get_attribute("aria-label") or "")
    assert page.evaluate(_NAMELESS) == []
    assert page.evaluate(_TWICE) == []
    assert page.get_by_role("region", name="Open incidents").count() == 1
    assert page.get_by_role("img", name="Credits used: 78 %").count() == 1


_REACHABLE = (
    "[...document.querySelectorAll('.board :is(a, button, summary)')].filter(one => one.checkVisibility()).length"
)
_NAMELESS = """[...document.querySelectorAll('.board :is(a, button, summary)')].filter(
    one => !(one.textContent.trim() || one.ariaLabel)).map(one => one.outerHTML)"""
_TWICE = "[...document.querySelectorAll('[id]')].map(one => one.id).filter((id, place, all) => all.indexOf(id) < place)"


# Kept up to date


def polled(page: Page) -> list[str]:
    """What is asked for from now on, as a list that grows."""
    asked: list[str] = []
    page.on("request", lambda request: request.url.endswith("/live/") and asked.append(request.url))
    return asked


def test_a_new_incident_appears_without_a_reload(reader: LogIn, cast: list[Patient]):
    boss = reader()
    boss.page.clock.install()
    page = boss.open()
    page.evaluate("window.marked = true")
    page.locator(".incidents a").first.focus()
    Incident.objects.create(kind="provider_down", detail="It answers nobody.")
    page.clock.run_for(POLL_MS + 100)
    expect(page.locator(".incidents")).to_contain_text("The speech provider is down")
    expect(page.get_by_role("status")).to_have_text("3 open incidents, 3 devices connected, 1 voices being made")
    assert page.evaluate("document.activeElement.closest('.incidents') !== null")
    history.connect_device(cast[5])
    page.clock.run_for(POLL_MS + 100)
    expect(page.locator("section[aria-labelledby=devices-title]")).to_contain_text("Edith Sommer")
    assert page.evaluate("window.marked")
    assert boss.complaints == []


def test_nobody_is_asked_while_the_tab_is_hidden(reader: LogIn, cast: list[Patient]):
    boss = reader()
    boss.page.clock.install()
    page = boss.open()
    asked = polled(page)
    hide = "hidden => Object.defineProperty(document, 'hidden', {configurable: true, get: () => hidden})"
    page.evaluate(hide, True)
    page.clock.run_for(5 * POLL_MS)
    assert asked == []
    page.evaluate(hide, False)
    with page.expect_request("**/live/"):
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")


def test_it_stops_and_says_so_when_the_reader_is_logged_out(reader: LogIn, cast: list[Patient]):
    boss = reader()
    boss.page.clock.install()
    page = boss.open()
    boss.context.clear_cookies()
    page.clock.run_for(POLL_MS + 100)
    expect(page.get_by_text("You are logged out")).to_be_visible()
    expect(page.get_by_role("link", name="Log in again")).to_have_attribute("href", "/admin/login/?next=%2Fadmin%2F")
    asked = polled(page)
    page.clock.run_for(3 * POLL_MS)
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    assert asked == []
    assert boss.complaints == []


def test_a_server_that_does_not_answer_is_told_and_asked_again(reader: LogIn, cast: list[Patient]):
    boss = reader()
    boss.page.clock.install()
    page = boss.open()
    page.route("**/live/", lambda route: route.abort())
    page.clock.run_for(POLL_MS + 100)
    expect(page.get_by_text("The server does not answer")).to_be_visible()
    page.unroute("**/live/")
    page.clock.run_for(POLL_MS + 100)
    expect(page.get_by_text("The server does not answer")).to_be_hidden()


def test_a_policy_that_forbids_code_in_pages_and_other_hosts_changes_nothing(reader: LogIn, cast: list[Patient]):
    boss = reader()

    def forbid(route: Route) -> None:
        reply = route.fetch()
        headers = {**reply.headers, "content-security-policy": "default-src 'self'"}
        route.fulfill(response=reply, headers=headers)

    boss.page.route("**/admin/", forbid)
    page = boss.open()
    for name in CHARTS:
        assert page.evaluate(INKED, name) > 0.02, name
    assert boss.complaints == []


# Taken away, and led on


def test_what_a_chart_shows_is_downloaded(reader: LogIn, cast: list[Patient], tmp_path: Path):
    page = reader().open()
    with page.expect_download() as download:
        page.get_by_role("link", name="Characters by day as a CSV file").click()
    assert download.value.suggested_filename == "voicecare-days.csv"
    download.value.save_as(tmp_path / "days.csv")
    heading, *rows = csv.reader((tmp_path / "days.csv").read_text("utf-8-sig").splitlines())
    assert heading == ["Day", "Live", "Backup voice", "Made ahead", "Saved", "Billed characters", "Credits"]
    expected = [[day.start.isoformat(), *(str(getattr(day, name)) for name in _DRAWN)] for day in days()]
    assert [row[:5] for row in rows] == expected


def test_every_link_leads_somewhere(reader: LogIn, cast: list[Patient]):
    boss = reader()
    page = boss.open()
    links: Any = page.eval_on_selector_all(".board a", "links => links.map(link => link.getAttribute('href'))")
    groups = {href.partition("?")[0]: href for href in links if href.startswith("/admin/")}
    for href in groups.values():
        assert page.request.get(boss.server.url + href).status == 200, href


def test_a_patient_has_a_page_of_their_own(reader: LogIn, cast: list[Patient]):
    Patient.objects.filter(pk=cast[0].pk).update(monthly_character_budget=120_000)
    boss = reader()
    page = boss.open(f"/admin/patients/patient/{cast[0].pk}/change/")
    page.locator("#content-main").get_by_role("link", name="Usage").click()
    expect(page.get_by_role("heading", name="Usage of Margaret Ellis")).to_be_visible()
    last = queries.today()
    own = queries.daily_stats(last - timedelta(days=29), last, patient_id=cast[0].pk)
    assert page.evaluate(VALUES, "days") == [[getattr(day, name) for day in own] for name in _DRAWN]
    expect(page.get_by_role("img", name="Budget used")).to_be_visible()
    assert boss.complaints == []
    picture(page, "patient")


# Little to show


def test_an_empty_installation_invites(reader: LogIn, start_server: Callable[..., ServerProcess]):
    boss = reader(at=start_server())
    page = boss.open()
    expect(page.get_by_role("heading", name="Nothing has been said yet")).to_be_visible()
    expect(page.get_by_role("link", name="Add a patient")).to_be_visible()
    assert page.locator("canvas").count() == 0
    assert boss.complaints == []
    picture(page, "empty")


def test_who_may_see_little_sees_a_whole_page(reader: LogIn, cast: list[Patient]):
    user = User.objects.create_user("few", is_staff=True)
    nobody = reader(user).open()
    assert nobody.locator(".board section").count() == 0
    user.user_permissions.add(Permission.objects.get(codename="view_device"))
    some = reader(user)
    page = some.open()
    assert page.locator(".board section h2").all_inner_texts() == ["Devices connected 3"]
    assert "Margaret" not in page.content()
    assert some.complaints == []
