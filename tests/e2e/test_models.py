"""Every model of the provider speaks, is billed exactly, and performs audio tags or never gets them."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from tests.conftest import Member
from tests.e2e.device import Device
from tests.e2e.rows import accounts_of, in_database
from tests.sandbox import SandboxProcess
from tests.server import ServerProcess
from tests.tts.text.test_tags import TAGS
from voicecare.providers.elevenlabs.sandbox.account.models import MODELS

MODEL_IDS = list(MODELS)
EXPRESSIVE = [model.model_id for model in MODELS.values() if model.is_expressive]
TEXT = "It is good to see you today, shall we go outside? "
TAGGED = "[laughs] That was a good one [1], tell me another. [short pause] Or shall I tell you one of mine?"
PLAIN = "That was a good one [1], tell me another. Or shall I tell you one of mine?"
ERROR: dict[str, Any] = {"kind": "error", "preset": "internal_error"}


def spoken_texts(sandbox: SandboxProcess) -> list[str]:
    """The texts of the requests that the provider has accepted."""
    return [request["text"] for request in sandbox.requests() if request["status"] == 200]


def has_tag(texts: Iterable[str]) -> bool:
    return any(tag in text for text in texts for tag in TAGS)


@pytest.mark.parametrize("model", MODEL_IDS)
async def test_each_model_speaks_and_each_account_agrees_with_the_provider(
    own_server: Callable[..., ServerProcess], sandbox: SandboxProcess, member: Callable[..., Member], model: str
) -> None:
    """Also after errors, cuts and interrupts. Only one request finds out the endpoint."""
    sandbox.fault(kind="error", preset="internal_error", match={"text": "^Two errors"}, first=2)
    sandbox.fault(kind="cut", after_bytes=3000, match={"text": "^Cut"}, first=1)
    sandbox.fault(kind="slow", bytes_per_s=25_000, match={"text": "very slowly"})
    server = own_server(ELEVENLABS_MODEL_ID=model)
    patient = await in_database(member, "Nora Nilsen", language="de", speech_rate="0.80")
    async with Device(server.ws, patient.token) as device:
        started = await device.start(greeting=False)
        for text in (TEXT * 2, "Two errors, then it is spoken in another voice.", "Cut in the middle, and once more."):
            assert (await device.speak(text)).terminal["type"] == "speech.finished"
        await device.start_speech("interrupted", "This sentence is spoken very slowly, so there is time to interrupt.")
        await device.interrupt()
        await device.wait_for("interrupted")
        ended = await device.end()
    accounts, account = await accounts_of(started["conversation"]), sandbox.account()
    assert ended["characters"] == accounts.counter == accounts.ledger == account["characters"]
    assert sum(event.credits for event in accounts.events) == account["credits"]
    assert {event.model for event in accounts.events} == {model}
    expressive = model in EXPRESSIVE
    sent = sandbox.requests()
    assert {request["voice_settings"] is None for request in sent} == {expressive}
    assert [request["status"] for request in sent].count(400) == (model == "eleven_v4_turbo")


@pytest.mark.parametrize(("model", "accepted"), [("eleven_v4", "speech"), ("eleven_v4_turbo", "dialogue")])
async def test_the_endpoint_of_a_model_is_found_once(
    own_server: Callable[..., ServerProcess],
    sandbox: SandboxProcess,
    member: Callable[..., Member],
    model: str,
    accepted: str,
) -> None:
    sandbox.settings(newer_models=accepted)
    server = own_server(ELEVENLABS_MODEL_ID=model)
    patient = await in_database(member, "Nora Nilsen")
    async with Device(server.ws, patient.token) as device:
        await device.start(greeting=False)
        for _ in range(3):
            assert (await device.speak(TEXT)).terminal["source"] == "live"
    statuses = [(request["status"], "dialogue" in request["path"]) for request in sandbox.requests()]
    first = accepted == "speech"
    assert statuses == [(400, first), *[(200, not first)] * 3]


@pytest.mark.usefixtures("circuit_closed_after")
@pytest.mark.parametrize("model", ["eleven_flash_v2_5", *EXPRESSIVE])
async def test_tags_are_sent_to_models_that_perform_them_only(
    own_server: Callable[..., ServerProcess], sandbox: SandboxProcess, member: Callable[..., Member], model: str
) -> None:
    """The backup voice, the offline voice, the transcript and the log have none, and each is counted as it was sent."""
    server = own_server(ELEVENLABS_MODEL_ID=model, LOG_LEVEL="debug")
    patient = await in_database(member, "Nora Nilsen")
    async with Device(server.ws, patient.token) as device:
        started = await device.start(greeting=False)
        assert (await device.speak(TAGGED, id="live")).terminal["source"] == "live"
        live = spoken_texts(sandbox)
        sandbox.fault(**ERROR, first=2)
        assert (await device.speak(TAGGED, id="backup")).terminal["source"] == "backup"
        backup = spoken_texts(sandbox)[len(live) :]
        sandbox.fault(**ERROR)
        offline = (await device.speak(TAGGED, id="offline")).terminal
        assert offline["source"] == "offline"
        assert offline["characters"] == 0
        assert (await device.speak("[laughs]", id="alone")).terminal["characters"] == 0
        ended = await device.end()
    assert "".join(live) == (TAGGED if model in EXPRESSIVE else PLAIN)
    assert "".join(backup) == PLAIN
    accounts = await accounts_of(started["conversation"])
    assert {accounts.utterance(id).text for id in ("live", "backup", "offline")} == {PLAIN}
    assert accounts.utterance("alone").text == ""
    assert ended["characters"] == accounts.ledger == sandbox.account()["characters"] == len("".join([*live, *backup]))
    saved = sum(event.saved_characters for event in accounts.events)
    assert saved == len(PLAIN)
    assert not has_tag([server.log.read_text(errors="replace")])
