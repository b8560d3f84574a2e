"""The page about the model of all speech, over HTTP, with the sandbox as the provider."""

import base64
import html
import re
from collections import Counter
from collections.abc import Callable

import pytest
from django.contrib.auth.models import User
from django.core.cache import cache
from django.test import Client
from django.urls import reverse
from django.utils.html import strip_tags
from pytest_django import Settings

from tests.conftest import DEFAULT_VOICE, Member
from tests.roles import role
from tests.sandbox import SandboxProcess
from tts.synthesis.model_trial import TEXT
from usage.models import ProviderState, UsageEvent
from usage.reports import queries
from voicecare.admin.speech_models import RUNNING
from voicecare.audit.models import AuditEntry
from voicecare.patients.models import Voice

pytestmark = [pytest.mark.django_db, pytest.mark.filterwarnings("ignore:No directory at:UserWarning")]

URL = reverse("admin:models")
MODELS = {"path": "^/v1/models"}


def listed(model_id: str, **fields: object) -> dict[str, object]:
    return {"model_id": model_id, "can_do_text_to_speech": True, **fields}


@pytest.fixture(autouse=True)
def provider(settings: Settings, sandbox: SandboxProcess) -> SandboxProcess:
    settings.ELEVENLABS_BASE_URL, settings.ELEVENLABS_API_KEY = sandbox.url, "sk_right"
    settings.ELEVENLABS_MODEL_ID = "eleven_flash_v2_5"
    return sandbox


def words(client: Client, url: str, *, confirmed: bool = False) -> str:
    response = client.post(url, {"confirmed": "Yes"}, follow=True) if confirmed else client.get(url, follow=True)
    assert response.status_code == 200
    return " ".join(html.unescape(strip_tags(response.content.decode().replace("<", " <"))).split())


def text(client: Client) -> str:
    return words(client, URL)


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


def trial_url(model: str) -> str:
    return reverse("admin:models-trial", query={"model": model})


@pytest.fixture
def voice(transactional_db: None) -> Voice:
    Voice.objects.get_or_create(provider_id=DEFAULT_VOICE, defaults={"name": "Rachel"})
    found = Voice.objects.default("en")
    assert found is not None
    return found


CHARACTERS = len(TEXT)


@pytest.mark.django_db(transaction=True)
def test_a_trial_says_what_it_costs_and_sends_nothing_first(
    admin_client: Client, voice: Voice, provider: SandboxProcess
):
    asked = words(admin_client, trial_url("eleven_v3"))
    assert f"This is billed: 6 requests with {6 * CHARACTERS} characters together, about" in asked
    assert "Yes" not in text(admin_client)
    assert not UsageEvent.objects.exists()
    assert not AuditEntry.objects.exists()
    assert not [one for one in provider.requests() if one["path"] != "/v1/models"]


@pytest.mark.django_db(transaction=True)
def test_a_trial_is_measured_heard_and_balanced(admin_client: Client, voice: Voice, provider: SandboxProcess):
    billed_before = provider.account()["credits"]
    response = admin_client.post(trial_url("eleven_v3"), {"confirmed": "Yes"})
    page = response.content.decode()
    samples = [base64.b64decode(found) for found in re.findall(r'src="data:audio/mpeg;base64,([^"]+)"', page)]
    assert len(samples) == 2
    assert all(len(sample) > 16_000 for sample in samples)  # more than a second of 128 kbit/s
    assert page.count("the median of") == 2
    assert "no-store" in response["Cache-Control"]
    events = UsageEvent.objects.all()
    assert Counter((event.kind, event.outcome, event.model, event.characters) for event in events) == {
        ("trial", "completed", "eleven_flash_v2_5", CHARACTERS): 3,
        ("trial", "completed", "eleven_v3", CHARACTERS): 3,
    }
    assert sum(event.credits for event in events) == provider.account()["credits"] - billed_before
    today = queries.daily_stats(queries.today(), queries.today())[0]
    assert (today.other, today.characters, today.live) == (6 * CHARACTERS, 6 * CHARACTERS, 0)
    (entry,) = AuditEntry.objects.all()
    assert entry.action == "try_model"


@pytest.mark.django_db(transaction=True)
def test_a_model_that_is_refused_is_said_and_the_other_is_measured(
    admin_client: Client, voice: Voice, provider: SandboxProcess
):
    provider.fault(kind="json", body=[listed("eleven_flash_v2_5"), listed("eleven_gone")], match=MODELS)
    page = words(admin_client, trial_url("eleven_gone"), confirmed=True)
    assert "eleven_gone First audio unknown Billed 0 characters, 0 credits" in page
    assert page.count("the median of") == 1


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("eleven_flash_v2_5", "it is the current one."),
        ("eleven_gone", "The account has no such model for speech any longer"),
        ("", "The account has no such model for speech any longer"),
        ("../../v1/voices", "The account has no such model for speech any longer"),
    ],
)
def test_a_model_that_is_no_candidate_is_not_tried(admin_client: Client, model: str, reason: str):
    shown = words(admin_client, trial_url(model), confirmed=True)
    assert "No model was tried." in shown
    assert reason in shown
    assert not UsageEvent.objects.exists()
    assert not AuditEntry.objects.exists()


def test_without_credits_or_a_provider_nothing_is_tried(admin_client: Client, member: Callable[..., Member]):
    member()
    ProviderState.objects.update_or_create(pk=1, defaults={"quota": "spent"})
    assert "The credits of the provider are used up." in words(admin_client, trial_url("eleven_v3"), confirmed=True)
    ProviderState.objects.update(quota="available", circuit="open")
    assert "The provider does not work at the moment." in words(admin_client, trial_url("eleven_v3"), confirmed=True)
    assert not UsageEvent.objects.exists()


def test_only_one_trial_runs_at_a_time(admin_client: Client, member: Callable[..., Member]):
    member()
    cache.add(RUNNING, "", 60)
    assert "Another trial is running." in words(admin_client, trial_url("eleven_v3"), confirmed=True)
    assert not UsageEvent.objects.exists()


@pytest.mark.parametrize("name", ["Clinician", "Auditor"])
def test_only_administrators_may_try_a_model(name: str):
    client = staff(name)
    assert client.get(trial_url("eleven_v3")).status_code == 403
    assert client.post(trial_url("eleven_v3"), {"confirmed": "Yes"}).status_code == 403
    assert not UsageEvent.objects.exists()
