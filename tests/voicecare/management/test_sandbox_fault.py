"""`manage.py sandbox_fault` and the buttons of the sandbox page."""

import asyncio
import re
import threading
from collections.abc import Callable
from io import StringIO

import pytest
import requests
from django.core.management import CommandError, call_command
from django.db import connection

from tests.conftest import DEFAULT_VOICE, OTHER_VOICE
from tests.sandbox import SandboxProcess
from tests.server import free_port
from usage.models import ProviderState
from voicecare.management.commands import sandbox_fault
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

SetFault = Callable[[str], str]


@pytest.fixture
def set_fault(settings, sandbox: SandboxProcess) -> SetFault:
    settings.ELEVENLABS_BASE_URL = sandbox.url

    def run(name: str) -> str:
        out = StringIO()
        call_command("sandbox_fault", name, stdout=out)
        return out.getvalue()

    return run


async def request_speech(url: str, voice: str = OTHER_VOICE) -> tuple[float, type[ProviderError] | None]:
    """Request one sentence. Returns the seconds to the first byte and the class of the error, if any."""
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
        ("no-voices", VoiceUnavailable),
        ("key", AuthorizationError),
    ],
)
@pytest.mark.django_db
def test_each_scenario_fails_until_it_is_switched_off(
    name: str, error: type[ProviderError], set_fault: SetFault, sandbox
) -> None:
    assert SCENARIOS[name].effect in set_fault(name)
    assert asyncio.run(request_speech(sandbox.url))[1] is error
    set_fault("off")
    assert asyncio.run(request_speech(sandbox.url))[1] is None


def test_the_default_voice_of_the_demo_can_be_deleted(set_fault: SetFault, sandbox: SandboxProcess) -> None:
    set_fault("default-gone")
    assert asyncio.run(request_speech(sandbox.url, DEFAULT_VOICE))[1] is VoiceUnavailable
    assert asyncio.run(request_speech(sandbox.url, OTHER_VOICE))[1] is None


def test_slow_speech_is_delayed_within_the_limit(set_fault: SetFault, sandbox: SandboxProcess) -> None:
    set_fault("slow")
    first, failed = asyncio.run(request_speech(sandbox.url))
    assert failed is None
    assert 1.1 < first < 1.5


def test_a_repeated_request_after_a_cut_is_complete(set_fault: SetFault, sandbox: SandboxProcess) -> None:
    set_fault("cut")
    assert [asyncio.run(request_speech(sandbox.url))[1] for _ in range(4)] == [
        ConnectionBroken,
        None,
        ConnectionBroken,
        None,
    ]


def test_the_default_voice_still_speaks_in_voice_gone(set_fault: SetFault, sandbox: SandboxProcess) -> None:
    set_fault("voice-gone")
    assert asyncio.run(request_speech(sandbox.url, DEFAULT_VOICE))[1] is None


def test_a_scenario_replaces_the_previous_one(set_fault: SetFault, sandbox: SandboxProcess) -> None:
    set_fault("quota")
    set_fault("slow")
    assert asyncio.run(request_speech(sandbox.url))[1] is None
    set_fault("down")
    assert sandbox.settings()["first_byte_ms"] < 1000


@pytest.mark.django_db
def test_off_restores_voices_that_exist_in_the_sandbox(set_fault: SetFault) -> None:
    Voice.objects.create(provider_id=OTHER_VOICE, name="Sarah", state=Voice.State.GONE)
    Voice.objects.create(provider_id="lost", name="Lost", state=Voice.State.GONE)
    Voice.objects.create(provider_id=DEFAULT_VOICE, name="Withdrawn", state=Voice.State.WITHDRAWN)
    set_fault("off")
    assert dict(Voice.objects.values_list("name", "state")) == {
        "Sarah": "usable",
        "Lost": "gone",
        "Withdrawn": "withdrawn",
    }


# Errors


def test_the_command_fails_with_the_real_provider(set_fault: SetFault, settings, sandbox: SandboxProcess) -> None:
    settings.USE_SANDBOX = False
    with pytest.raises(CommandError, match="real provider"):
        set_fault("down")
    assert sandbox.faults() == []


def test_the_command_fails_if_no_sandbox_runs(settings) -> None:
    settings.ELEVENLABS_BASE_URL = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(CommandError, match="make run"):
        call_command("sandbox_fault", "down")


@pytest.mark.django_db
def test_the_command_fails_if_another_server_runs_there(settings, live_server) -> None:
    settings.ELEVENLABS_BASE_URL = live_server.url
    with pytest.raises(CommandError, match="not the sandbox"):
        call_command("sandbox_fault", "down")


def test_the_error_for_an_unknown_name_lists_the_valid_names() -> None:
    with pytest.raises(CommandError, match="voice-gone"):
        call_command("sandbox_fault", "explode")


def test_the_help_describes_the_effect_of_each_scenario(capsys) -> None:
    with pytest.raises(SystemExit):
        call_command("sandbox_fault", "--help")
    output = capsys.readouterr().out
    assert all(scenario.effect in output for scenario in SCENARIOS.values())


# The page


@pytest.mark.parametrize("path", ["/", "/sandbox/"])
def test_the_page_has_a_button_for_each_scenario_and_no_external_links(path: str, sandbox: SandboxProcess) -> None:
    page = requests.get(sandbox.url + path, timeout=5).text
    assert re.findall(r'<button name="name" value="([^"]+)"', page) == list(SCENARIOS)
    assert "Active now: off." in page
    assert not re.search(r"(src|href|action)=\"?(https?:)?//", page)


def test_a_button_sets_the_scenario_and_shows_the_page(sandbox: SandboxProcess) -> None:
    expected = {"quota": "the quota is used up", "slow": "1200 ms", "key": "invalid_api_key", "off": "Active now: off."}
    for name, words in expected.items():
        reply = requests.post(f"{sandbox.url}/sandbox/scenario", data={"name": name}, timeout=5)
        assert reply.status_code == 200
        assert words in reply.text


def test_an_unknown_scenario_name_is_rejected(sandbox: SandboxProcess) -> None:
    reply = requests.post(f"{sandbox.url}/sandbox/scenario", data={"name": "explode"}, timeout=5)
    assert (reply.status_code, "voice-gone" in reply.json()["error"]) == (400, True)


# Off waits for the server


@pytest.mark.parametrize(
    ("state", "assumption"),
    [
        ({"quota": "spent"}, "the credits are used up"),
        ({"circuit": "open"}, "the provider does not answer"),
        ({"access": "key"}, "the provider refuses the API key"),
    ],
)
@pytest.mark.django_db(transaction=True)
def test_off_waits_until_the_server_has_noticed_it(set_fault: SetFault, state: dict[str, str], assumption: str) -> None:
    ProviderState.objects.create(pk=1, **state)
    assumed = {name: ProviderState._meta.get_field(name).get_default() for name in state}

    def recover() -> None:
        ProviderState.objects.update(**assumed)
        connection.close()

    threading.Timer(1, recover).start()
    lines = set_fault("off").splitlines()
    assert lines[1:] == [
        f"The server still assumes that {assumption}. Waiting until it has asked again ...",
        "The server knows that the provider works.",
    ]


@pytest.mark.django_db
def test_off_says_if_no_server_notices_it(set_fault: SetFault, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox_fault, "WAIT_S", 0.3)
    ProviderState.objects.create(pk=1, quota="spent")
    with pytest.raises(CommandError, match="Does `make run` run"):
        set_fault("off")
    ProviderState.objects.update(quota=ProviderState.Quota.AVAILABLE)
    assert set_fault("off").splitlines()[1:] == ["The server knows that the provider works."]
