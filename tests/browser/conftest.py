"""Fixtures for Chromium and for logged-in users."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.test import Client
from playwright.sync_api import Browser, BrowserContext, Page

from tests.browser.chromium import launched
from tests.server import ServerProcess

# A function, because the policy forbids to evaluate a string.
ALL_CHARTS_DRAWN = """() => [...document.querySelectorAll('canvas[data-chart]')].every(
    canvas => window.Chart && Chart.getChart(canvas))"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with launched() as browser:
        yield browser


@dataclass
class BrowserSession:
    """A logged-in user with a page.

    `problems` has console errors and warnings, failed requests, and requests to other hosts.
    """

    page: Page
    context: BrowserContext
    server: ServerProcess
    problems: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on(
            "console", lambda message: message.type in ("error", "warning") and self.problems.append(message.text)
        )
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("request", lambda request: self._record_foreign_request(request.url))

    def _record_foreign_request(self, url: str) -> None:
        if not url.startswith((self.server.url, "data:", "blob:")):
            self.problems.append(f"request to another host: {url}")

    def open(self, path: str = "/admin/") -> Page:
        self.page.goto(self.server.url + path)
        self.wait_for_charts()
        return self.page

    def wait_for_charts(self) -> None:
        """Wait until the page is loaded and its scripts have drawn all charts, if it has any.

        To be called after a click that opens another page: its heading is visible before its scripts run.
        """
        self.page.wait_for_load_state()
        self.page.wait_for_function(ALL_CHARTS_DRAWN)


@pytest.fixture
def log_in(chromium: Browser, server: ServerProcess) -> Iterator[Callable[..., BrowserSession]]:
    """Return a function that logs a user in and opens a page. The default user is a new administrator.

    Keyword arguments go to the browser context. `at` replaces the shared server, which caches the figures of past days.
    """
    contexts: list[BrowserContext] = []

    def open_session(user: User | None = None, at: ServerProcess = server, **options: object) -> BrowserSession:
        client = Client()
        client.force_login(user or User.objects.create_superuser(f"boss-{len(contexts)}"))
        context_options = {"viewport": {"width": 1280, "height": 900}, "reduced_motion": "reduce", **options}
        context = chromium.new_context(**context_options)
        name = settings.SESSION_COOKIE_NAME
        context.add_cookies([{"name": name, "value": client.cookies[name].value, "url": at.url}])
        contexts.append(context)
        return BrowserSession(context.new_page(), context, at)

    yield open_session
    for context in contexts:
        context.close()
