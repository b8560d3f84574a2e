"""The page about the model of all speech, over HTTP, with the sandbox as the provider."""

import html
from collections.abc import Callable

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils.html import strip_tags
from pytest_django import Settings

from tests.conftest import Member
from tests.roles import role
from tests.sandbox import SandboxProcess

pytestmark = [pytest.mark.django_db, pytest.mark.filterwarnings("ignore:No directory at:UserWarning")]

URL = reverse("admin:speech-models")
MODELS = {"path": "^/v1/models"}


def listed(model_id: str, **fields: object) -> dict[str, object]:
    return {"model_id": model_id, "can_do_text_to_speech": True, **fields}


@pytest.fixture(autouse=True)
def provider(settings: Settings, sandbox: SandboxProcess) -> SandboxProcess:
    settings.ELEVENLABS_BASE_URL, settings.ELEVENLABS_API_KEY = sandbox.url, "sk_right"
    settings.ELEVENLABS_MODEL_ID = "eleven_flash_v2_5"
    return sandbox


def text(client: Client) -> str:
    response = client.get(URL)
    assert response.status_code == 200
    return " ".join(html.unescape(strip_tags(response.content.decode().replace("<", " <"))).split())


def staff(in_role: str) -> Client:
    user = User.objects.create_user(in_role, is_staff=True)
    user.groups.add(role(in_role))
    client = Client()
    client.force_login(user)
    return client


def test_the_page_compares_the_models_of_the_account(admin_client: Client, member: Callable[..., Member]):
    member("Nora Nilsen", language="nb", speech_rate="0.80")
    shown = text(admin_client)
    assert (
        "Current model: eleven_flash_v2_5 Price 0.5 credits per character Languages 32 Longest text 40,000 characters"
        in shown
    )
    assert "It suits the languages and speech rates of all patients." in shown
    assert "eleven_v3 Price 1 credit per character, 2 times the current price" in shown
    assert "Longest text 5,000 characters Speech rate no Audio tags yes" in shown
    assert "What would be lost: The speech rate of 1 patient is ignored." in shown
    assert "eleven_turbo_v2_5 Price 0.5 credits per character, as now" in shown
    assert "Nilsen" not in shown


@pytest.mark.parametrize("name", ["Clinician", "Auditor"])
def test_only_administrators_get_the_page_and_its_link(name: str):
    client = staff(name)
    assert client.get(URL).status_code == 403
    assert URL not in client.get(reverse("admin:index")).content.decode()


def test_an_administrator_gets_the_page_and_its_link():
    client = staff("Administrator")
    assert "Current model" in text(client)
    assert URL in client.get(reverse("admin:index")).content.decode()


def test_a_list_that_may_not_be_read_is_said(admin_client: Client, provider: SandboxProcess):
    provider.fault(kind="error", preset="missing_permissions", match=MODELS)
    shown = text(admin_client)
    assert "The provider does not let the API key read the list of models (" in shown
    assert "Current model: eleven_flash_v2_5 Price 0.5 credits" in shown


@pytest.mark.parametrize("body", [{"models": []}, [{"name": "no id"}], "none"])
def test_a_list_that_is_none_is_said(admin_client: Client, provider: SandboxProcess, body: object):
    provider.fault(kind="json", body=body, match=MODELS)
    assert "The list of models cannot be read now (" in text(admin_client)


def test_a_provider_that_is_down_is_said(admin_client: Client, settings: Settings):
    settings.ELEVENLABS_BASE_URL = "http://127.0.0.1:1"
    assert "The list of models cannot be read now (" in text(admin_client)


def test_an_empty_list_is_said(admin_client: Client, provider: SandboxProcess):
    provider.fault(kind="json", body="[]", match=MODELS)
    assert "The provider's list of models is empty. Other models are not shown" in text(admin_client)


def test_a_huge_list_is_cut(admin_client: Client, provider: SandboxProcess):
    provider.fault(kind="json", body=[listed(f"eleven_x{number:04}") for number in range(3000)], match=MODELS)
    shown = text(admin_client)
    assert "eleven_x0049" in shown
    assert "eleven_x0050" not in shown
    assert "950 more models of the account are not shown." in shown


def test_a_current_model_that_was_renamed_is_said(admin_client: Client, provider: SandboxProcess):
    provider.fault(kind="json", body=[listed("eleven_flash_v2_6")], match=MODELS)
    shown = text(admin_client)
    assert "The provider does not list eleven_flash_v2_5. It may have been removed or renamed." in shown
    assert "eleven_flash_v2_6 Price 0.5 credits per character, as now" in shown  # as the family of its name


def test_changed_prices_and_limits_are_shown_at_once(admin_client: Client, provider: SandboxProcess):
    text(admin_client)
    rates = {"character_cost_multiplier": 3}
    short = listed("eleven_v3", maximum_text_length_per_request=200, model_rates=rates)
    provider.fault(kind="json", body=[listed("eleven_flash_v2_5"), short], match=MODELS)
    shown = text(admin_client)
    assert "3 credits per character, 6 times the current price" in shown
    assert "It cannot be chosen. It takes 200 characters in a request. 300 are needed." in shown


def test_an_id_with_markup_is_not_shown(admin_client: Client, provider: SandboxProcess):
    provider.fault(kind="json", body=[listed("<script>alert(1)</script>")], match=MODELS)
    assert "1 more model of the account is not shown." in text(admin_client)
    assert b"<script>alert" not in admin_client.get(URL).content
