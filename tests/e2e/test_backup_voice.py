"""When the provider fails, the speech continues in the default voice and the device gets a notice."""

from collections.abc import Callable
from typing import Any

import pytest
from pytest_django import Settings

from cloning.voices import audit
from tests.conftest import DEFAULT_VOICE, OTHER_VOICE, Member
from tests.e2e.device import Device, spoken_order
from tests.e2e.provider import clone_voice, delete_voice, repeat_requests
from tests.e2e.rows import accounts_of, in_database
from tests.sandbox import SandboxProcess
from tests.server import ServerProcess
from tests.sound import decode
from tests.waiting import eventually
from usage.models import Incident
from voicecare.patients.models import Patient, Voice

TEXT = "The doctor will be with you in about ten minutes, please stay in bed."
NOTICE = {"type": "notice", "code": "backup_voice", "message": "Temporary voice issue, using backup voice"}

ONE_FAILURE = {
    "server error": {"kind": "error", "preset": "internal_error"},
    "error of the gateway": {"kind": "error", "preset": "bad_gateway_html"},
    "no connection": {"kind": "refuse"},
    "no first byte": {"kind": "stall_first"},
    "empty body": {"kind": "empty"},
    "HTML page": {"kind": "html"},
    "cut": {"kind": "cut", "after_bytes": 1500},
    "reset": {"kind": "cut_reset", "after_bytes": 1500},
    "stalled": {"kind": "stall_middle", "after_bytes": 1500},
}


async def warm_sandbox(
    server: ServerProcess, sandbox: SandboxProcess, member: Member, text: str, format_name: str
) -> None:
    """Have the sandbox speak the text once, so that it stores the audio. New audio may differ in a few samples."""
    async with Device(server.ws, member.token, format=format_name) as device:
        await device.start(greeting=False)
        await device.speak(text)
        await device.end()
    sandbox.reset()


def requested_voices(sandbox: SandboxProcess) -> list[str]:
    return [request["voice_id"] for request in sandbox.requests()]


@pytest.mark.parametrize("fault", ONE_FAILURE.values(), ids=ONE_FAILURE.keys())
async def test_one_failure_is_retried_immediately_in_the_same_voice(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member, fault: dict[str, Any]
) -> None:
    await warm_sandbox(server, sandbox, alice, TEXT, "mp3_44100_128")
    sandbox.fault(**fault, first=1)
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        spoken = await device.speak(TEXT)
        await device.assert_nothing_pending()
    assert [frame["type"] for frame in spoken.frames] == ["speech.started", "speech.finished"]
    assert [frame["source"] for frame in spoken.frames] == ["live", "live"]
    assert device.notices == []
    assert requested_voices(sandbox) == [OTHER_VOICE, OTHER_VOICE]
    whole = await repeat_requests(sandbox, sandbox.requests()[1:2])
    cut, repeated = spoken.audio[: -len(whole)], spoken.audio[-len(whole) :]
    assert repeated == whole  # from its beginning
    sent = sandbox.requests()[0]["bytes_sent"] if fault["kind"] != "html" else 0
    assert cut[:sent] == whole[:sent]
    assert not any(cut[sent:])  # filled with zero bytes
    assert decode(spoken.audio, "mp3_44100_128").seconds > 1


async def test_two_failures_lead_to_the_default_voice_with_a_notice(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    sandbox.fault(kind="error", preset="internal_error", headers={"request-id": "req-first-4711"}, first=1)
    sandbox.fault(kind="error", preset="service_unavailable", headers={"request-id": "req-second-4712"}, first=1)
    async with Device(server.ws, alice.token) as device:
        started = await device.start(greeting=False)
        spoken = await device.speak(TEXT)
        following = await device.speak("That was the default voice, and this is yours again.")
        await device.end()

    default = await in_database(Voice.objects.default)
    announced, notice, finished = spoken.frames
    assert announced == {
        "type": "speech.started",
        "id": spoken.id,
        "source": "backup",
        "voice": default.name,
        "format": "mp3_44100_128",
    }
    assert notice == NOTICE
    assert (finished["type"], finished["source"], finished["characters"]) == ("speech.finished", "backup", len(TEXT))
    assert device.notices == [NOTICE]
    assert following.frames[0]["source"] == "live"
    assert following.frames[0]["voice"] == started["voice"]["name"]

    requests = sandbox.requests()
    assert [request["voice_id"] for request in requests] == [OTHER_VOICE, OTHER_VOICE, DEFAULT_VOICE, OTHER_VOICE]
    assert spoken.audio == await repeat_requests(sandbox, requests[2:3])
    accounts = await accounts_of(started["conversation"])
    assert accounts.outcomes(spoken.id) == [("live", "failed"), ("retry", "failed"), ("backup", "completed")]
    assert accounts.utterance(spoken.id).source == "backup"
    logged = [line for line in server.logged().splitlines() if "speech.request_failed" in line]
    assert any("req-first-4711" in line for line in logged)
    assert any("req-second-4712" in line and "status=503" in line for line in logged)


async def test_a_conversation_in_the_default_voice_makes_the_third_try_in_it(
    server: ServerProcess, sandbox: SandboxProcess, bob: Member
) -> None:
    sandbox.fault(kind="error", preset="internal_error", first=2)
    async with Device(server.ws, bob.token) as device:
        started = await device.start(greeting=False)
        assert started["voice"]["source"] == "default"
        spoken = await device.speak(TEXT)
    assert spoken.frames[0]["source"] == "backup"
    assert spoken.frames[0]["voice"] == started["voice"]["name"]
    assert spoken.frames[1] == NOTICE
    assert spoken.terminal["source"] == "backup"
    assert requested_voices(sandbox) == [DEFAULT_VOICE] * 3


async def test_a_speech_that_fails_in_the_middle_continues_in_the_default_voice(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    """Finished segments are not repeated, no segment is left out, and the notice comes once."""
    first = "Here is the first sentence, which goes well from its beginning to its end. "
    text = first + "Then comes the second, which breaks off and must be spoken again, all of it."
    await warm_sandbox(server, sandbox, alice, text, "pcm_16000")
    sandbox.fault(kind="cut", after_bytes=2001, match={"text": "^Then"}, first=1)
    sandbox.fault(kind="error", preset="internal_error", match={"text": "^Then"}, first=1)
    async with Device(server.ws, alice.token, format="pcm_16000") as device:
        await device.start(greeting=False)
        spoken = await device.speak(text)
    assert [frame["type"] for frame in spoken.frames] == [
        "speech.started",
        "speech.switched",
        "notice",
        "speech.finished",
    ]
    assert [spoken.frames[0]["source"], spoken.frames[1]["source"], spoken.terminal["source"]] == [
        "live",
        "backup",
        "backup",
    ]
    requests = sandbox.requests()
    assert [request["voice_id"] for request in requests] == [OTHER_VOICE] * 3 + [DEFAULT_VOICE]
    whole = await repeat_requests(sandbox, [requests[0]])
    again = await repeat_requests(sandbox, [requests[1]])
    backup = await repeat_requests(sandbox, [requests[3]])
    assert spoken.audio == whole + again[:2001] + bytes(1) + backup  # a cut sample is filled with a zero byte
    billed = len(first) + 2 * len(requests[1]["text"])
    assert spoken.terminal["characters"] == billed == sum(r["characters"] for r in requests if r["billed"])


async def test_the_offline_voice_speaks_after_three_failures(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member, circuit_closed_after: None
) -> None:
    sandbox.fault(kind="error", preset="internal_error", first=3)
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        spoken = await device.speak(TEXT)
        assert [frame["type"] for frame in spoken.frames] == ["speech.started", "notice", "speech.finished"]
        assert [spoken.frames[0]["source"], spoken.terminal["source"]] == ["offline", "offline"]
        assert spoken.frames[1] == NOTICE
        assert spoken.terminal["characters"] == 0
        assert decode(spoken.audio, "mp3_44100_128").seconds > 1
        ended = await device.end()
    assert ended["characters"] == 0


async def test_a_deleted_voice_is_replaced_by_the_default_voice_immediately(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    voice_id = await clone_voice(sandbox)
    voice = await in_database(_give_clone, alice.patient, voice_id)
    async with Device(server.ws, alice.token) as device:
        started = await device.start(greeting=False)
        assert started["voice"] == {"id": str(voice.id), "name": voice.name, "source": "cloned"}
        before = await device.speak("This is spoken in the voice of somebody you know.")
        assert before.terminal["source"] == "live"
        await delete_voice(sandbox, voice_id)
        spoken = await device.speak(TEXT)
        assert [spoken.frames[0]["source"], spoken.terminal["source"]] == ["backup", "backup"]
        assert spoken.frames[1] == NOTICE
        assert requested_voices(sandbox) == [voice_id, voice_id, DEFAULT_VOICE]

        async def reported() -> bool:
            return await in_database(_is_reported, voice)

        await eventually(reported)
        await device.end()
        restarted = await device.start(greeting=False)
    assert restarted["voice"]["source"] == "default"


@pytest.mark.parametrize(
    "fault",
    [
        {"preset": "paid_plan_required"},
        {"status": 402, "form": "legacy", "code": "payment_required", "message": "You cannot use library voices."},
    ],
    ids=["new", "legacy"],
)
async def test_a_voice_that_needs_a_paid_plan_is_replaced_by_the_default_voice_immediately(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member, fault: dict[str, Any]
) -> None:
    sandbox.fault(kind="error", **fault, match={"voice_id": OTHER_VOICE})
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        spoken = await device.speak(TEXT)
    assert [spoken.frames[0]["source"], spoken.terminal["source"]] == ["backup", "backup"]
    assert spoken.frames[1] == NOTICE
    assert requested_voices(sandbox) == [OTHER_VOICE, DEFAULT_VOICE]

    async def reported() -> list[str]:
        return await in_database(lambda: list(Incident.objects.values_list("kind", flat=True)))

    assert await eventually(reported) == ["voice"]


REFUSALS: dict[str, dict[str, Any]] = {
    "clones not in the plan": {"status": 403, "form": "legacy", "code": "ivc_not_permitted"},
    "clones not allowed": {"preset": "can_not_use_instant_voice_cloning"},
    "free plan": {"status": 400, "form": "legacy", "code": "free_users_not_allowed"},
    "professional voice": {"preset": "only_for_creator+"},
    "library voice": {"preset": "paid_plan_required"},
    "no access": {"preset": "voice_access_denied"},
    "not found by mistake": {"preset": "voice_not_found"},
}


@pytest.mark.parametrize("fault", REFUSALS.values(), ids=REFUSALS)
async def test_one_refusal_does_not_take_the_voice_from_the_patient(
    own_server: Callable[..., ServerProcess], sandbox: SandboxProcess, alice: Member, fault: dict[str, Any]
) -> None:
    server = own_server()
    voice = await in_database(_give_clone, alice.patient, await clone_voice(sandbox))
    sandbox.fault(kind="error", **fault, match={"voice_id": voice.provider_id}, first=1)
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        spoken = await device.speak(TEXT)
        assert spoken.terminal["source"] == "backup"
        assert device.notices == [NOTICE]

        async def reported() -> int:
            return await in_database(Incident.objects.filter(kind="voice", resolved_at=None).count)

        assert await eventually(reported) == 1
        following = await device.speak("This is spoken in the voice of somebody you know.")
        assert following.terminal["source"] == "live"
        await device.end()
        restarted = await device.start(greeting=False)
        assert restarted["voice"]["source"] == "cloned"
    assert await in_database(Voice.objects.filter(state=Voice.State.GONE).count) == 0


async def test_a_voice_that_exists_again_speaks_in_the_next_conversation(
    own_server: Callable[..., ServerProcess], sandbox: SandboxProcess, alice: Member, settings: Settings
) -> None:
    server = own_server()
    settings.ELEVENLABS_BASE_URL = sandbox.url
    voice = await in_database(_give_clone, alice.patient, await clone_voice(sandbox))
    hidden = {"path": f"/{voice.provider_id}(/|$)"}
    sandbox.fault(kind="error", preset="voice_not_found", match=hidden)
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        assert (await device.speak(TEXT)).terminal["source"] == "backup"

        async def marked() -> bool:
            return await in_database(_is_reported, voice)

        await eventually(marked)
        await device.end()
        assert (await device.start(greeting=False))["voice"]["source"] == "default"
        await device.end()
        sandbox.clear_faults()
        await in_database(audit.audit_voices)
        assert (await device.start(greeting=False))["voice"]["id"] == str(voice.id)
        assert (await device.speak(TEXT)).terminal["source"] == "live"
    assert requested_voices(sandbox)[-1] == voice.provider_id
    assert await in_database(Incident.objects.filter(resolved_at=None).count) == 0


def _give_clone(patient: Patient, voice_id: str) -> Voice:
    voice = Voice.objects.create(provider_id=voice_id, name="Her daughter", source="cloned", patient=patient)
    Patient.objects.filter(pk=patient.pk).update(voice=voice)
    return voice


def _is_reported(voice: Voice) -> bool:
    gone = Voice.objects.filter(pk=voice.pk, state=Voice.State.GONE).exists()
    return gone and Incident.objects.filter(kind="voice", key=str(voice.pk), resolved_at=None).count() == 1


async def test_a_rejected_text_is_not_retried(server: ServerProcess, sandbox: SandboxProcess, alice: Member) -> None:
    sandbox.fault(kind="error", preset="invalid_text", first=1)
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        refused = await device.speak(TEXT)
        following = await device.speak("The next one is spoken as if nothing had happened.")
    assert [frame["type"] for frame in refused.frames] == ["speech.failed"]
    assert refused.terminal["code"] == "text_rejected"
    assert refused.terminal["message"]
    assert following.terminal["source"] == "live"
    assert len(sandbox.requests()) == 2
    assert spoken_order(device.received) == [following.id]
