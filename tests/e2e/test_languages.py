"""The provider gets a language code that its model lists. A refused code costs a patient nothing but a second try."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import Member
from tests.e2e.device import Device
from tests.e2e.rows import accounts_of, in_database
from tests.sandbox import SandboxProcess
from tests.server import ServerProcess
from tests.sound import decode
from tests.waiting import eventually
from usage.models import Incident, ProviderState

TEXT = "It is good to see you today, shall we go outside?"
LANGUAGE_ERRORS: list[dict[str, Any]] = [
    {"status": 400, "form": "new", "code": "unsupported_language"},
    {"status": 400, "form": "legacy", "code": "language_not_supported"},
    {"status": 422, "form": "new", "code": "invalid_parameters", "message": "language_code: 'no' is not supported."},
    {"status": 422, "body": {"detail": [{"loc": ["body", "language_code"], "msg": "Input", "type": "enum"}]}},
    {"status": 400, "body": {"detail": "Unsupported language code."}},
]


def sent_codes(sandbox: SandboxProcess) -> list[str | None]:
    return [request["language_code"] for request in sandbox.requests()]


@pytest.mark.parametrize(
    ("language", "code"),
    [("nb", "no"), ("tl-PH", "fil"), ("in", "id"), ("pt-BR", "pt"), ("zh-Hant", "zh"), ("iw", None), ("km", None)],
)
async def test_the_language_is_sent_in_the_providers_code_or_not_at_all(
    server: ServerProcess, sandbox: SandboxProcess, member: Callable[..., Member], language: str, code: str | None
) -> None:
    sandbox.settings(strict_language=True)
    patient = await in_database(member, "Nora Nilsen", language=language)
    async with Device(server.ws, patient.token) as device:
        await device.start(greeting=False)
        assert (await device.speak(TEXT)).terminal["source"] == "live"
    assert sent_codes(sandbox) == [code]


async def test_the_list_of_models_decides_which_languages_are_sent(
    own_server: Callable[..., ServerProcess], sandbox: SandboxProcess, member: Callable[..., Member]
) -> None:
    listed = {"model_id": "eleven_flash_v2_5", "languages": [{"language_id": "en"}, {"language_id": "km"}]}
    sandbox.fault(kind="json", body=[listed], match={"path": "^/v1/models"})
    server = own_server()
    for language, code in (("nb", None), ("km", "km")):
        patient = await in_database(member, "Nora Nilsen", language=language)
        async with Device(server.ws, patient.token) as device:
            await device.start(greeting=False)

            async def spoken(device: Device = device) -> str | None:
                await device.speak(TEXT)
                return sent_codes(sandbox)[-1]

            await eventually(spoken, wanted=lambda sent, code=code: sent == code)


@pytest.mark.parametrize("error", LANGUAGE_ERRORS, ids=lambda error: str(error.get("code") or error["status"]))
async def test_a_refused_language_is_left_out_on_a_second_try_and_from_then_on(
    own_server: Callable[..., ServerProcess],
    sandbox: SandboxProcess,
    member: Callable[..., Member],
    error: dict[str, Any],
) -> None:
    server = own_server()
    patient = await in_database(member, "Nora Nilsen", language="nb")
    sandbox.fault(kind="error", **error, first=1)
    async with Device(server.ws, patient.token) as device:
        started = await device.start(greeting=False)
        first = await device.speak(TEXT)
        second = await device.speak("And this is spoken at once.")
        await device.end()
    assert [speech.terminal["source"] for speech in (first, second)] == ["live", "live"]
    assert decode(first.audio, "mp3_44100_128").seconds > 1
    assert device.notices == []
    assert sent_codes(sandbox) == ["no", None, None]
    accounts = await accounts_of(started["conversation"])
    assert accounts.outcomes(first.id) == [("live", "completed")]
    assert first.terminal["characters"] == len(TEXT)
    assert await in_database(Incident.objects.count) == 0
    assert await in_database(ProviderState.objects.filter(circuit="open").count) == 0


async def test_a_second_refusal_is_a_failure(
    own_server: Callable[..., ServerProcess], sandbox: SandboxProcess, member: Callable[..., Member]
) -> None:
    server = own_server()
    patient = await in_database(member, "Nora Nilsen", language="nb")
    sandbox.fault(kind="error", preset="unsupported_language", first=2)
    async with Device(server.ws, patient.token) as device:
        await device.start(greeting=False)
        assert (await device.speak(TEXT)).terminal["source"] == "offline"
        assert (await device.speak("And this is spoken by the provider.")).terminal["source"] == "live"
    assert sent_codes(sandbox) == ["no", None, None]

    async def reported() -> bool:
        return await in_database(Incident.objects.filter(kind="request").exists)

    await eventually(reported)
