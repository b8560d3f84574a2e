"""The log has no patient's name, no text and no token, even after errors."""

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress

import pytest

from tests.conftest import OTHER_VOICE, Member
from tests.e2e.database import missing_table
from tests.e2e.device import Device
from tests.sandbox import SandboxProcess
from tests.server import ServerProcess
from tts.models import Phrase
from voicecare_client import ConnectionClosed, HandshakeRefused

NAMES = ("Zebulon Quagmire", "Zebbie", "Companionella")
CANARY = "xylophone-canary"
FAULTS = (
    {"kind": "error", "preset": "internal_error", "first": 1},
    {"kind": "error", "preset": "invalid_text", "message": f"The text '{CANARY}' cannot be spoken.", "first": 1},
    {
        "kind": "error",
        "status": 422,
        "first": 1,
        "body": {"detail": [{"loc": ["body", "text"], "msg": CANARY, "type": "value_error", "input": CANARY}]},
    },
    {"kind": "error", "status": 400, "body": f"{{broken {CANARY}", "first": 1},
    {
        "kind": "error",
        "status": 401,
        "first": 1,
        "body": {"detail": {"status": "invalid_api_key", "message": f"{CANARY} {NAMES[0]}"}},
    },
    {"kind": "error", "preset": "voice_not_found", "message": CANARY, "first": 1},
    {"kind": "html", "body": f"<html>{CANARY}</html>", "first": 1},
    {"kind": "json", "body": {"detail": CANARY}, "first": 1},
    {"kind": "cut", "after_bytes": 1000, "first": 1},
    {"kind": "refuse", "first": 1},
    {"kind": "redirect", "location": f"http://127.0.0.1:9/{CANARY}", "first": 1},
    {"kind": "error", "preset": "internal_error", "first": 3},
)


@pytest.fixture
def zebulon(transactional_db: None, member: Callable[..., Member]) -> Member:
    Phrase.objects.create(kind="greeting", text="Hello {patient_name}, this is {ai_name}.")
    patient = member(NAMES[0], voice=OTHER_VOICE, preferred_name=NAMES[1])
    patient.patient.companion_name = NAMES[2]
    patient.patient.save()
    return patient


def test_a_server_says_where_it_listens(own_server: Callable[..., ServerProcess]):
    """With the options of the Procfile."""
    server = own_server("-v", "0", LOG_FORMAT="json")
    lines = [json.loads(line) for line in server.logged().splitlines()]
    assert [line["event"] for line in lines if line.get("logger") == "daphne.server"] == [
        f"Listening on TCP address 127.0.0.1:{server.port}"
    ]


async def test_no_patient_data_is_logged(
    own_server: Callable[..., ServerProcess], sandbox: SandboxProcess, zebulon: Member
) -> None:
    server = await asyncio.to_thread(own_server)
    for query in ("", f"?token={zebulon.token}"):
        with pytest.raises(HandshakeRefused):
            async with Device(server.ws + query, zebulon.token + "x"):
                pass
    async with Device(server.ws, zebulon.token) as device:
        await device.start()
        await device.wait_for("greeting")
        for number, fault in enumerate(FAULTS):
            sandbox.clear_faults()
            sandbox.fault(**fault)
            await device.speak(f"{NAMES[0]}, the {CANARY} number {number} is playing.", id=f"{CANARY}-{number}")
        for bad in (f"{{{CANARY}", f'{{"type": "{CANARY}"}}', f'{{"type": "speak", "id": "{CANARY}", "text": 5}}'):
            await device.error_for(bad)
        await device.send({"type": "speak", "id": "cut", "text": f"The {CANARY} is cut off in the middle of its tune."})
        await device.wait_for_audio("cut")
        device.drop_connection()
    async with Device(server.ws, zebulon.token) as device, missing_table("conversations"):
        await device.send({"type": "conversation.start", "resume": CANARY, "format": "pcm_16000"})
        await device.send({"type": "conversation.start"})
        with suppress(ConnectionClosed):
            await device.wait_closed()
    server.stop()

    logged = server.logged()
    assert "speech.request_failed" in logged
    prefix, _, secret = zebulon.token.partition(".")
    for canary in (*NAMES, "Zebulon", "Quagmire", CANARY, "canary", secret, prefix, "is playing", "Good to hear"):
        assert canary not in logged, next(line for line in logged.splitlines() if canary in line)
