"""An administrator creates an API token for a service, copies it and revokes it."""

import time
from collections.abc import Callable

import pytest
import requests
from django.contrib.auth.models import User
from playwright.sync_api import Route, expect

from tests.browser.conftest import BrowserSession
from tests.roles import role
from tests.server import ServerProcess

pytestmark = pytest.mark.django_db(transaction=True)


def rest_status(server: ServerProcess, token: str) -> int:
    headers = {"Authorization": f"Bearer {token}"}
    return requests.get(f"{server.url}/api/v1/patients/", headers=headers, timeout=30).status_code


def load_late(route: Route) -> None:
    """Delays the script, as a slow network does. A click before it runs would do nothing."""
    time.sleep(1)
    route.continue_()


def test_a_token_is_created_copied_and_revoked(log_in: Callable[..., BrowserSession]):
    User.objects.create_user("ward-screens").groups.add(role("Auditor"))
    boss = log_in()
    boss.context.grant_permissions(["clipboard-read", "clipboard-write"])
    boss.context.route("**/copy*.js", load_late)
    page = boss.open("/admin/accounts/apitoken/add/")
    page.get_by_label("Name:").fill("Ward screens")
    page.get_by_label("Owner:").select_option("ward-screens")
    page.get_by_role("button", name="Save", exact=True).click()
    page.get_by_role("button", name="Copy the token").click()
    expect(page.get_by_role("status")).to_have_text("Copied")
    token = page.evaluate("() => navigator.clipboard.readText()")
    assert rest_status(boss.server, token) == 200
    code = page.locator("#token")
    assert code.bounding_box()["height"] < 60  # one line
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
    page.reload()  # shows the page of the token, and creates no second one
    expect(page.get_by_text("Valid", exact=True)).to_be_visible()
    assert token not in page.content()
    page.get_by_role("button", name="Revoke …").click()
    page.get_by_role("button", name="Yes, revoke").click()
    expect(page.get_by_text("1 token revoked.")).to_be_visible()
    assert rest_status(boss.server, token) == 401
    assert boss.problems == []
