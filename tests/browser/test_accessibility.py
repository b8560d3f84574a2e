"""axe-core finds nothing on any page of the admin and of the device console: light, dark, and on a phone.

The pages are those of the URL configuration, so a new page is checked without a change here.
"""

from collections.abc import Callable, Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.contrib import admin
from django.contrib.auth.models import Group, User
from django.contrib.auth.tokens import default_token_generator
from django.db.models import Model
from django.urls import reverse
from django.utils.http import urlsafe_base64_encode
from django_otp.plugins.otp_totp.models import TOTPDevice
from playwright.sync_api import Page

from cloning.models import CloneJob
from tests.browser.conftest import BrowserSession
from tests.browser.rows import create_rows
from tests.server import ServerProcess
from tests.voicecare.every_url import every_address
from tts.models import LexiconEntry
from usage.models import Price

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(1200)]

DESK, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
COLOR_RULES = {"runOnly": ["color-contrast", "link-in-text-block"]}  # the rules that depend on colors
VIEWS = (("light", DESK, {}), ("dark", DESK, COLOR_RULES), ("light", PHONE, {}))
OF_DJANGO = (
    ".select2",  # the choice with a search: names neither its list nor its search field
    ".search-label-icon",  # an icon of the choice of several rows
    ".vDateField",  # a date and a time share one label
    ".vTimeField",
    ".inline-group thead th",  # the columns of the buttons have no heading
)
"""Widgets of Django's admin, whose faults cannot be mended from outside."""

RULES = {"rules": {"label-title-only": {"enabled": False}}}  # the label of the search field is Django's icon
NO_PAGES = (
    "history",
    "None",
    "live",
    "patient-live",
    "jsi18n",
    "autocomplete",
    "logout",
    "tts_phrase_coverage_progress",
)
PAGES = 60  # at least; a list that is much shorter has lost pages


class Inspection:
    """What axe-core has found, one line for each rule, page and view."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.found: list[str] = []
        self.pages: list[str] = []

    def look_at(self, name: str) -> None:
        self.pages.append(name)
        for scheme, size, rules in VIEWS:
            self.page.emulate_media(color_scheme=scheme)
            self.page.set_viewport_size(size)
            options = {"resultTypes": ["violations"], **(rules or RULES)}
            result = Axe().run(self.page, context={"exclude": [[name] for name in OF_DJANGO]}, options=options)
            for violation in result.response["violations"]:
                nodes = [node["html"][:200] for node in violation["nodes"]]
                self.found.append(
                    f"{name}, {scheme}, {size['width']} px: {violation['id']} in {len(nodes)}: {nodes[:3]}"
                )


@pytest.fixture(scope="module")
def mailing_server(
    start_server: Callable[..., ServerProcess], tmp_path_factory: pytest.TempPathFactory
) -> ServerProcess:
    """A server with a mail server, so it has the pages that reset a password."""
    return start_server(EMAIL_URL=f"file://{tmp_path_factory.mktemp('mail')}")


def one_of_each() -> list[Model]:
    """A row of each model of the admin."""
    Group.objects.create(name="Night shift")
    TOTPDevice.objects.create(user=User.objects.create_user("somebody"), key="00" * 20)
    LexiconEntry.objects.create(written="Siobhan", spoken="Shivawn", note="The patient has said so.")
    Price.objects.create(model="", valid_from="2026-11-01", per_1000_credits=1)
    rows = [model._base_manager.first() for model in admin.site._registry]
    return [row for row in rows if row is not None]


def addresses(rows: list[Model]) -> Iterator[tuple[str, str]]:
    """The name and the path of each page, with the first row that it can show."""
    paths: dict[str, str] = {}
    for address in every_address(rows):
        name = address.name.removeprefix("admin:")
        if address.path.startswith(("/admin/", "/console/")) and not name.endswith(NO_PAGES):
            paths.setdefault(name, address.path)
    yield from paths.items()


def test_all_pages(log_in: Callable[..., BrowserSession], mailing_server: ServerProcess, server: ServerProcess):
    boss = log_in(at=mailing_server)
    page, inspection = boss.page, Inspection(boss.page)
    boss.open()
    inspection.look_at("the dashboard of a new installation")
    create_rows(12)
    for name, path in addresses(one_of_each()):
        url = mailing_server.url + path
        response = page.request.get(url, max_redirects=0)
        if response.status != 200 or not response.headers["content-type"].startswith("text/html"):
            continue  # nobody may open it, it only accepts POST, or it is a file
        page.goto(url)
        boss.wait_for_charts()
        inspection.look_at(name)
        if name.endswith("_add"):
            page.locator(".submit-row input[type=submit]").first.click()
            page.wait_for_load_state()
            inspection.look_at(f"{name}, sent empty")
    for job in CloneJob.objects.filter(status="ready")[:1]:
        page.goto(f"{mailing_server.url}{reverse('admin:cloning_clonejob_change', args=[job.pk])}")
        page.get_by_role("button", name="Withdraw …").click()
        page.get_by_role("button", name="Yes, withdraw").wait_for()
        inspection.look_at("withdraw a clone")
    user = User.objects.get(username="somebody")
    link = reverse("admin:password-reset-confirm", args=[urlsafe_base64_encode(str(user.pk).encode())])
    page.goto(f"{mailing_server.url}{link}?token={default_token_generator.make_token(user)}")
    inspection.look_at("set a new password")
    boss.context.clear_cookies()
    boss.open("/admin/")
    inspection.look_at("log in")
    page.get_by_role("button", name="Log in").click()
    page.locator("#id_username").fill("nobody")
    page.locator("#id_password").fill("wrong")
    page.get_by_role("button", name="Log in").click()
    page.locator(".errornote").wait_for()
    inspection.look_at("log in with a wrong password")
    assert inspection.found == [], "\n".join(inspection.found)
    assert len(inspection.pages) > PAGES, inspection.pages
