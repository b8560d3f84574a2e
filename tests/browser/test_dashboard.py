"""The dashboard in a browser: charts, tables, accessibility, printing, live updates, downloads and links."""

import csv
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from playwright.sync_api import Page, Route, expect

from tests.browser.conftest import BrowserSession
from tests.server import ServerProcess
from tests.voicecare.dashboard import history
from tts.models import Phrase
from usage.models import Incident
from usage.reports import queries
from voicecare.patients.models import Patient

LogIn = Callable[..., BrowserSession]

POLL_MS = 10_000
CHARTS = ["days", "months", "first-sound", "troubles", "patients", "voices"]
PHONE = {"width": 390, "height": 844}
OF_CHART = "name => Chart.getChart(document.querySelector(`[data-chart=chart-${name}-data]`))"
VALUES = f"name => ({OF_CHART})(name).data.datasets.map(dataset => [...dataset.data])"
COLOURS = f"name => ({OF_CHART})(name).data.datasets.map(dataset => dataset.backgroundColor)"
FITS = "width => document.documentElement.scrollWidth <= width"
PAINTED_SHARE = """name => {
    const canvas = document.querySelector(`[data-chart=chart-${name}-data]`);
    const bytes = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
    return bytes.filter(byte => byte).length / bytes.length;
}"""

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def patients(db: None) -> list[Patient]:
    created = history.create_usage()
    history.create_current_state(created)
    Phrase.objects.create(kind="greeting", text="Hello {patient_name}.")  # a usual installation has one
    return created


def days() -> list[queries.PeriodStats]:
    last = queries.today()
    return queries.daily_stats(last - timedelta(days=29), last)


def table(page: Page, name: str) -> list[list[str]]:
    card = page.locator(f"section[aria-labelledby=chart-{name}-title]")
    if not card.locator("details[open]").count():
        card.locator("summary").click()
    rows = card.locator("tbody tr")
    return [row.locator("th, td").all_inner_texts() for row in rows.all()]


def save_screenshot(page: Page, name: str) -> None:
    """Save a screenshot for docs/images if the variable PICTURES names a folder.

    The screenshot ends above the built-in lists of the admin.
    """
    if folder := os.environ.get("PICTURES"):
        below = page.evaluate("document.querySelector('.board').getBoundingClientRect().bottom + scrollY")
        size = {"x": 0, "y": 0, "width": page.viewport_size["width"], "height": below}
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True, clip=size)


# Charts and tables


def test_every_chart_is_drawn_without_errors_or_requests_to_other_hosts(log_in: LogIn, patients: list[Patient]):
    boss = log_in()
    page = boss.open()
    assert page.locator("canvas").count() == len(CHARTS)
    for name in CHARTS:
        page.wait_for_function(f"name => ({PAINTED_SHARE})(name) > 0.02", arg=name)
    assert page.evaluate(VALUES, "days") == [[getattr(day, name) for day in days()] for name in PLOTTED]
    assert boss.problems == []
    save_screenshot(page, "dashboard")


PLOTTED = ("live", "backup", "other", "saved")


def test_the_tables_show_the_figures(log_in: LogIn, patients: list[Patient]):
    page = log_in().open()
    newest_first = days()[::-1]
    values = [[_number(cell) for cell in row[1:]] for row in table(page, "days")]
    assert values == [[*(getattr(day, name) for name in (*PLOTTED, "characters", "credits"))] for day in newest_first]
    assert [row[0] for row in table(page, "days")] == [f"{day.start:%Y-%m-%d}" for day in newest_first]
    latency_values = [[_number(cell) for cell in row[1:]] for row in table(page, "first-sound")]
    assert latency_values == [[day.p50_ms, day.p95_ms, day.speeches] for day in newest_first]
    top = queries.top_shares("patient", days()[0].start, days()[-1].start)
    names = {patient.pk: patient.name for patient in patients}
    expected = [[names.get(share.key, "No patient"), share.characters, share.saved] for share in top]
    assert [[row[0], *map(_number, row[1:])] for row in table(page, "patients")] == expected


def _number(cell: str) -> float | None:
    return None if cell == "–" else float(cell.replace(",", ""))


def test_numbers_and_dates_are_the_same_in_every_browser(log_in: LogIn, patients: list[Patient]):
    page = log_in(locale="de-DE").open()
    first, day = table(page, "days")[0], days()[-1]
    assert first[0] == f"{day.start:%Y-%m-%d}"
    assert first[1] == f"{day.live:,}"
    assert page.locator("html").get_attribute("lang") == "en"


def test_a_legend_button_hides_and_shows_its_data(log_in: LogIn, patients: list[Patient]):
    page = log_in().open()
    button = page.locator("section[aria-labelledby=chart-days-title] .legend button").first
    shown = f"name => ({OF_CHART})(name).isDatasetVisible(0)"
    for pressed in ("false", "true"):
        button.click()
        expect(button).to_have_attribute("aria-pressed", pressed)
        assert page.evaluate(shown, "days") is (pressed == "true")


def test_charts_follow_the_theme_immediately_and_print_in_light_colours(log_in: LogIn, patients: list[Patient]):
    boss = log_in(color_scheme="dark")
    page = boss.open()
    dark = page.evaluate(COLOURS, "days")
    save_screenshot(page, "dashboard-dark")
    page.locator(".theme-toggle:visible").click()
    page.wait_for_function(f"dark => JSON.stringify(({COLOURS})('days')) !== JSON.stringify(dark)", arg=dark)
    light = page.evaluate(COLOURS, "days")
    page.locator(".theme-toggle:visible").click()
    page.wait_for_function(f"dark => JSON.stringify(({COLOURS})('days')) === JSON.stringify(dark)", arg=dark)
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate(COLOURS, "days") == light
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert page.evaluate(COLOURS, "days") == dark
    assert boss.problems == []


def test_pages_fit_the_width_of_a_phone(log_in: LogIn, patients: list[Patient]):
    phone = log_in(viewport=PHONE, has_touch=True)
    for path in ("/admin/", f"/admin/patients/patient/{patients[0].pk}/usage/"):
        page = phone.open(path)
        save_screenshot(page, f"phone-{'patient' if 'patient' in path else 'dashboard'}")
        for summary in page.locator(".board summary").all():
            summary.click()
        page.wait_for_function(FITS, arg=PHONE["width"])  # charts follow the size of their cards a moment later
    assert phone.problems == []


# Accessibility


def test_the_keyboard_reaches_every_control_in_order(log_in: LogIn, patients: list[Patient]):
    page = log_in().open()
    control_count = page.evaluate(COUNT_CONTROLS)
    page.locator(".board a").first.focus()
    reached = 0
    for _ in range(control_count + STOPS_OF_DATES):
        assert page.evaluate("document.activeElement.closest('.board') !== null"), reached
        reached += page.evaluate("!document.activeElement.matches('input[type=date]')")
        page.keyboard.press("Tab")
        if not page.evaluate("document.activeElement.closest('.board') !== null"):
            break
    assert not page.evaluate("document.activeElement.closest('.board') !== null")
    assert reached == control_count
    page.locator(".board summary").first.focus()
    page.keyboard.press("Enter")
    expect(page.locator(".chart-table").first).to_be_visible()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "chart-table"  # focusable, because it scrolls


def test_every_part_has_a_name_for_screen_readers(log_in: LogIn, patients: list[Patient]):
    page = log_in().open()
    for name in CHARTS:
        canvas = page.locator(f"[data-chart=chart-{name}-data]")
        assert canvas.get_attribute("role") == "img"
        assert "table below" in (canvas.get_attribute("aria-label") or "")
    assert page.evaluate(UNNAMED_CONTROLS) == []
    assert page.evaluate(DUPLICATE_IDS) == []
    assert page.get_by_role("region", name="Open incidents").count() == 1
    assert page.get_by_role("img", name="Credits used: 78 %").count() == 1


STOPS_OF_DATES = 8  # of two inputs: the month, the day, the year and the calendar of each
COUNT_CONTROLS = (
    "[...document.querySelectorAll('.board :is(a, button, summary)')].filter(one => one.checkVisibility()).length"
)
UNNAMED_CONTROLS = """[...document.querySelectorAll('.board :is(a, button, summary)')].filter(
    one => !(one.textContent.trim() || one.ariaLabel)).map(one => one.outerHTML)"""
DUPLICATE_IDS = (
    "[...document.querySelectorAll('[id]')].map(one => one.id).filter((id, place, all) => all.indexOf(id) < place)"
)


# Live updates


def live_requests(page: Page) -> list[str]:
    """Return a list that grows with each later request for the live status."""
    requested: list[str] = []
    page.on("request", lambda request: request.url.endswith("/live/") and requested.append(request.url))
    return requested


def test_a_new_incident_appears_without_a_reload(log_in: LogIn, patients: list[Patient]):
    boss = log_in()
    boss.page.clock.install()
    page = boss.open()
    page.evaluate("window.marked = true")
    page.locator(".incidents a").first.focus()
    Incident.objects.create(kind="provider_down", detail="It answers nobody.")
    page.clock.run_for(POLL_MS + 100)
    expect(page.locator(".incidents")).to_contain_text("The speech provider is down")
    expect(page.get_by_role("status")).to_have_text("3 open incidents, 3 devices connected, 1 clones in progress")
    assert page.evaluate("document.activeElement.closest('.incidents') !== null")
    history.connect_device(patients[5])
    page.clock.run_for(POLL_MS + 100)
    expect(page.locator("section[aria-labelledby=devices-title]")).to_contain_text("Edith Sommer")
    assert page.evaluate("window.marked")
    assert boss.problems == []


def test_a_hidden_tab_sends_no_requests(log_in: LogIn, patients: list[Patient]):
    boss = log_in()
    boss.page.clock.install()
    page = boss.open()
    requested = live_requests(page)
    hide = "hidden => Object.defineProperty(document, 'hidden', {configurable: true, get: () => hidden})"
    page.evaluate(hide, True)
    page.clock.run_for(5 * POLL_MS)
    assert requested == []
    page.evaluate(hide, False)
    with page.expect_request("**/live/"):
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")


def test_updates_stop_with_a_message_after_a_logout(log_in: LogIn, patients: list[Patient]):
    boss = log_in()
    boss.page.clock.install()
    page = boss.open()
    boss.context.clear_cookies()
    page.clock.run_for(POLL_MS + 100)
    expect(page.get_by_text("You are logged out")).to_be_visible()
    expect(page.get_by_role("link", name="Log in again")).to_have_attribute("href", "/admin/login/?next=%2Fadmin%2F")
    requested = live_requests(page)
    page.clock.run_for(3 * POLL_MS)
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    assert requested == []
    assert boss.problems == []


def test_an_unreachable_server_is_reported_and_polled_again(log_in: LogIn, patients: list[Patient]):
    boss = log_in()
    boss.page.clock.install()
    page = boss.open()
    page.route("**/live/", lambda route: route.abort())
    page.clock.run_for(POLL_MS + 100)
    expect(page.get_by_text("The server does not answer")).to_be_visible()
    page.unroute("**/live/")
    page.clock.run_for(POLL_MS + 100)
    expect(page.get_by_text("The server does not answer")).to_be_hidden()


def test_charts_are_drawn_under_a_strict_content_security_policy(log_in: LogIn, patients: list[Patient]):
    boss = log_in()

    def forbid(route: Route) -> None:
        reply = route.fetch()
        headers = {**reply.headers, "content-security-policy": "default-src 'self'"}
        route.fulfill(response=reply, headers=headers)

    boss.page.route("**/admin/", forbid)
    page = boss.open()
    for name in CHARTS:
        page.wait_for_function(f"name => ({PAINTED_SHARE})(name) > 0.02", arg=name)
    assert boss.problems == []


# Downloads and links


def test_a_chart_is_downloaded_as_a_csv_file(log_in: LogIn, patients: list[Patient], tmp_path: Path):
    page = log_in().open()
    with page.expect_download() as download:
        page.get_by_role("link", name="Characters by day as a CSV file").click()
    assert download.value.suggested_filename == "voicecare-days.csv"
    download.value.save_as(tmp_path / "days.csv")
    heading, *rows = csv.reader((tmp_path / "days.csv").read_text("utf-8-sig").splitlines())
    assert heading == ["Day", "Live", "Backup voice", "Pre-generated", "Saved", "Billed characters", "Credits"]
    expected = [[day.start.isoformat(), *(str(getattr(day, name)) for name in PLOTTED)] for day in days()]
    assert [row[:5] for row in rows] == expected


def test_every_link_opens_a_page(log_in: LogIn, patients: list[Patient]):
    boss = log_in()
    page = boss.open()
    links: Any = page.eval_on_selector_all(".board a", "links => links.map(link => link.getAttribute('href'))")
    groups = {href.partition("?")[0]: href for href in links if href.startswith("/admin/")}
    for href in groups.values():
        assert page.request.get(boss.server.url + href).status == 200, href


def test_a_patient_has_a_usage_page(log_in: LogIn, patients: list[Patient]):
    Patient.objects.filter(pk=patients[0].pk).update(monthly_character_budget=120_000)
    boss = log_in()
    page = boss.open(f"/admin/patients/patient/{patients[0].pk}/change/")
    page.locator("#content-main").get_by_role("link", name="Usage").click()
    expect(page.get_by_role("heading", name="Usage of Margaret Ellis")).to_be_visible()
    boss.wait_for_charts()
    last = queries.today()
    own = queries.daily_stats(last - timedelta(days=29), last, patient_id=patients[0].pk)
    assert page.evaluate(VALUES, "days") == [[getattr(day, name) for day in own] for name in PLOTTED]
    expect(page.get_by_role("img", name="Budget used")).to_be_visible()
    assert boss.problems == []
    save_screenshot(page, "patient")


# Little or no data


def test_an_empty_installation_shows_the_first_step(log_in: LogIn, start_server: Callable[..., ServerProcess]):
    boss = log_in(at=start_server())
    page = boss.open()
    expect(page.get_by_role("heading", name="No speech yet")).to_be_visible()
    expect(page.get_by_role("link", name="Add a patient")).to_be_visible()
    assert page.locator("canvas").count() == 0
    assert boss.problems == []
    save_screenshot(page, "empty")


def test_a_user_with_few_permissions_sees_only_the_permitted_parts(log_in: LogIn, patients: list[Patient]):
    user = User.objects.create_user("few", is_staff=True)
    without_permission = log_in(user).open()
    assert without_permission.locator(".board section").count() == 0
    seen = Permission.objects.filter(codename__in=["view_device", "view_all_patients"])
    user.user_permissions.add(*seen)
    with_permission = log_in(user)
    page = with_permission.open()
    assert page.locator(".board section h2").all_inner_texts() == ["Devices connected 3"]
    assert "Margaret" not in page.content()
    assert with_permission.problems == []


# Ranges


def test_a_range_is_chosen_by_keyboard_and_the_figures_and_the_csv_file_follow_it(
    log_in: LogIn, patients: list[Patient]
):
    boss = log_in()
    page = boss.open()
    first, last = queries.today() - timedelta(days=45), queries.today() - timedelta(days=41)
    page.locator("input[name=from]").focus()
    page.keyboard.type(f"{first:%m%d%Y}")
    page.keyboard.press("Tab")
    page.locator("input[name=to]").focus()
    page.keyboard.type(f"{last:%m%d%Y}")
    with page.expect_navigation():
        page.keyboard.press("Enter")
    boss.wait_for_charts()
    stats = queries.range_stats(first, last)
    expect(page.locator("#range-title")).to_have_text(f"{first:%Y-%m-%d} to {last:%Y-%m-%d}")
    expect(page.locator("[data-range=characters]")).to_contain_text(f"{stats.total.characters:,} characters")
    assert page.evaluate(VALUES, "days") == [[getattr(day, name) for day in stats.days] for name in PLOTTED]
    with page.expect_download() as download:
        page.locator("section[aria-labelledby=chart-days-title]").get_by_text("CSV").click()
    lines = list(csv.reader(Path(download.value.path()).read_text(encoding="utf-8-sig").splitlines()))
    assert [line[0] for line in lines[1:]] == [day.start.isoformat() for day in stats.days]
    page.get_by_role("link", name="Last 7 days").focus()
    with page.expect_navigation():
        page.keyboard.press("Enter")
    boss.wait_for_charts()
    week = queries.range_stats(queries.today() - timedelta(days=6), queries.today())
    assert page.evaluate(VALUES, "days")[0] == [day.live for day in week.days]
    expect(page.locator(".range-choices [aria-current]")).to_have_text("Last 7 days")
    assert boss.problems == []
