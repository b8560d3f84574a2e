"""`manage.py sandbox_fault`: each name has the sandbox fail as it says, the next takes its place, `off` heals all."""

import asyncio
import re
from collections.abc import Callable
from io import StringIO

import pytest
import requests
from django.core.management import CommandError, call_command

from tests.conftest import DEFAULT_VOICE, OTHER_VOICE
from tests.sandbox import SandboxProcess
from tests.server import free_port
from voicecare.patients.models import Voice
from voicecare.providers.elevenlabs.client import SpeechClient
from voicecare.providers.elevenlabs.requests import SpeechRequest
from voicecare.providers.elevenlabs.sandbox.scenarios import SCENARIOS
from voicecare.providers.errors import (
    AuthorizationError,
    ConnectionBroken,
    NoFirstByte,
    ProviderError,
    QuotaExceeded,
    RateLimited,
    ServerError,
    VoiceUnavailable,
)

Order = Callable[[str], str]


@pytest.fixture
def order(settings, sandbox: SandboxProcess) -> Order:
    settings.ELEVENLABS_BASE_URL = sandbox.url

    def run(name: str) -> str:
        out = StringIO()
        call_command("sandbox_fault", name, stdout=out)
        return out.getvalue()

    return run


async def ask(url: str, voice: str = OTHER_VOICE) -> tuple[float, type[ProviderError] | None]:
    """Seconds to the first byte, and what one request for a sentence then comes to."""
    client = SpeechClient(url, "sandbox")
    await client.open()
    request = SpeechRequest(voice, "Good morning, did you sleep well?", "eleven_flash_v2_5", "mp3_44100_128")
    loop, first, failed = asyncio.get_running_loop(), 0.0, None
    began = loop.time()
    try:
        async with client.speak(request, first_byte_s=2, stall_s=2) as reply:
            async for _ in reply:
                first = first or loop.time() - began
    except ProviderError as error:
        failed = type(error)
    finally:
        await client.close()
    return first, failed


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("quota", QuotaExceeded),
        ("busy", RateLimited),
        ("down", ServerError),
        ("silent", NoFirstByte),
        ("cut", ConnectionBroken),
        ("voice-gone", VoiceUnavailable),
        ("key", AuthorizationError),
    ],
)
@pytest.mark.django_db
def test_each_fails_as_it_says_until_it_is_off(name: str, error: type[ProviderError], order: Order, sandbox) -> None:
    assert SCENARIOS[name].effect in order(name)
    assert asyncio.run(ask(sandbox.url))[1] is error
    order("off")
    assert asyncio.run(ask(sandbox.url))[1] is None


def test_slow_is_late_and_within_the_limit(order: Order, sandbox: SandboxProcess) -> None:
    order("slow")
    first, failed = asyncio.run(ask(sandbox.url))
    assert failed is None
    assert 1.1 < first < 1.5


def test_after_a_cut_the_repeated_request_is_whole(order: Order, sandbox: SandboxProcess) -> None:
    order("cut")
    assert [asyncio.run(ask(sandbox.url))[1] for _ in range(4)] == [ConnectionBroken, None, ConnectionBroken, None]


def test_with_a_voice_gone_the_default_one_speaks(order: Order, sandbox: SandboxProcess) -> None:
    order("voice-gone")
    assert asyncio.run(ask(sandbox.url, DEFAULT_VOICE))[1] is None


def test_the_next_one_takes_the_place_of_the_former(order: Order, sandbox: SandboxProcess) -> None:
    order("quota")
    order("slow")
    assert asyncio.run(ask(sandbox.url))[1] is None
    order("down")
    assert sandbox.settings()["first_byte_ms"] < 1000


@pytest.mark.django_db
def test_off_makes_usable_again_what_the_sandbox_has(order: Order) -> None:
    Voice.objects.create(provider_id=OTHER_VOICE, name="Sarah", state=Voice.State.GONE)
    Voice.objects.create(provider_id="lost", name="Lost", state=Voice.State.GONE)
    Voice.objects.create(provider_id=DEFAULT_VOICE, name="Withdrawn", state=Voice.State.WITHDRAWN)
    order("off")
    assert dict(Voice.objects.values_list("name", "state")) == {
        "Sarah": "usable",
        "Lost": "gone",
        "Withdrawn": "withdrawn",
    }


# Where it cannot be


def test_it_refuses_where_the_real_provider_is_in_use(order: Order, settings, sandbox: SandboxProcess) -> None:
    settings.USE_SANDBOX = False
    with pytest.raises(CommandError, match="real provider"):
        order("down")
    assert sandbox.faults() == []


def test_it_says_so_where_no_sandbox_runs(settings) -> None:
    settings.ELEVENLABS_BASE_URL = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(CommandError, match="make run"):
        call_command("sandbox_fault", "down")


@pytest.mark.django_db
def test_it_says_so_where_something_else_listens(settings, live_server) -> None:
    settings.ELEVENLABS_BASE_URL = live_server.url
    with pytest.raises(CommandError, match="not the sandbox"):
        call_command("sandbox_fault", "down")


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(CommandError, match="voice-gone"):
        call_command("sandbox_fault", "explode")


def test_the_help_tells_of_each_what_one_hears(capsys) -> None:
    with pytest.raises(SystemExit):
        call_command("sandbox_fault", "--help")
    told = capsys.readouterr().out
    assert all(scenario.effect in told for scenario in SCENARIOS.values())


# The page's buttons


@pytest.mark.parametrize("path", ["/", "/sandbox/"])
def test_the_page_has_a_button_for_each_and_asks_no_other_host(path: str, sandbox: SandboxProcess) -> None:
    page = requests.get(sandbox.url + path, timeout=5).text
    assert re.findall(r'<button name="name" value="([^"]+)"', page) == list(SCENARIOS)
    assert "Active now: off." in page
    assert not re.search(r"(src|href|action)=\"?(https?:)?//", page)


def test_a_button_does_it_and_shows_the_page_again(sandbox: SandboxProcess) -> None:
    told = {"quota": "the quota is used up", "slow": "1200 ms", "key": "invalid_api_key", "off": "Active now: off."}
    for name, words in told.items():
        reply = requests.post(f"{sandbox.url}/sandbox/scenario", data={"name": name}, timeout=5)
        assert reply.status_code == 200
        assert words in reply.text


def test_an_unknown_button_is_refused(sandbox: SandboxProcess) -> None:
    reply = requests.post(f"{sandbox.url}/sandbox/scenario", data={"name": "explode"}, timeout=5)
    assert (reply.status_code, "voice-gone" in reply.json()["error"]) == (400, True)
