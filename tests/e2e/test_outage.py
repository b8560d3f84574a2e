"""A provider that is down: all processes use the offline voice until a probe succeeds."""

import asyncio
import uuid
from collections.abc import Callable

import pytest

from tests.conftest import Member
from tests.e2e.device import Device
from tests.e2e.rows import in_database
from tests.sandbox import SandboxProcess
from tests.server import ServerProcess
from tests.sound import MIN_LOUDNESS, decode
from tests.waiting import eventually
from tts.models import Phrase
from usage.alerts import impact
from usage.models import Incident, ProviderState, UsageEvent
from voicecare.audio.formats import DEVICE_FORMATS

pytestmark = pytest.mark.usefixtures("circuit_closed_after")

TEXT = "This is said while nobody at the provider is listening."


async def open_the_circuit(device: Device, sandbox: SandboxProcess, **fault: object) -> None:
    sandbox.fault(**(fault or {"kind": "error", "preset": "service_unavailable", "match": {"path": "."}}))
    spoken = await device.speak("The first text of the outage pays for all the others.")
    assert spoken.terminal["source"] == "offline"
    await circuit_is("open")  # a probe may have to confirm the outage first


async def circuit_is(state: str) -> None:
    rows = ProviderState.objects.filter(pk=1).values_list("circuit", flat=True)
    await eventually(lambda: in_database(rows.first), 12, wanted=lambda found: found == state)


async def test_after_a_whole_fallback_chain_has_failed_no_speech_waits_for_the_provider(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        await open_the_circuit(device, sandbox)
        requests_before = len(sandbox.requests())
        spoken = await device.speak(TEXT)
        assert [frame["type"] for frame in spoken.frames] == ["speech.started", "notice", "speech.finished"]
        assert (spoken.terminal["source"], spoken.terminal["characters"]) == ("offline", 0)
        assert decode(spoken.audio, "mp3_44100_128").loudness > MIN_LOUDNESS
        assert len(sandbox.requests()) == requests_before


@pytest.mark.parametrize("format_name", DEVICE_FORMATS)
async def test_the_offline_voice_speaks_every_format(
    format_name: str, server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    async with Device(server.ws, alice.token, format=format_name) as device:
        await device.start(greeting=False)
        await open_the_circuit(device, sandbox)
        sound = decode((await device.speak(TEXT)).audio, format_name)
    assert sound.seconds > 1.5
    assert sound.loudness > MIN_LOUDNESS


async def test_the_timeouts_of_a_silent_provider_are_paid_only_once(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        await open_the_circuit(device, sandbox, kind="stall_first", match={"path": "."})
        requests_before = len(sandbox.requests())
        assert (await device.speak(TEXT)).terminal["source"] == "offline"
        await device.end()
    unanswered = UsageEvent.objects.exclude(outcome="completed").values_list("kind", "outcome")
    assert sorted(await in_database(lambda: list(unanswered))) == [
        ("backup", "unknown"),
        ("live", "unknown"),
        ("retry", "unknown"),
    ]
    assert len(sandbox.requests()) == requests_before


async def test_devices_return_to_the_real_voice_without_reconnecting(
    server: ServerProcess, second_server: ServerProcess, sandbox: SandboxProcess, alice: Member, bob: Member
) -> None:
    async with Device(server.ws, alice.token) as here, Device(second_server.ws, bob.token) as there:
        await here.start(greeting=False)
        await there.start(greeting=False)
        await open_the_circuit(here, sandbox)
        await wait_for_circuit_gauge(second_server)
        requests_before = len(sandbox.requests())
        assert (await there.speak(TEXT)).terminal["source"] == "offline"
        assert len(sandbox.requests()) == requests_before
        sandbox.clear_faults()
        await circuit_is("closed")
        await wait_for_circuit_gauge(server, 0)
        await wait_for_circuit_gauge(second_server, 0)
        assert (await here.speak(TEXT)).terminal["source"] == "live"
        assert (await there.speak(TEXT)).terminal["source"] == "live"


async def wait_for_circuit_gauge(server: ServerProcess, state: float = 1) -> None:
    await eventually(lambda: server.gauge("voicecare_circuit_open"), wanted=lambda found: found == state)


async def test_an_outage_is_one_incident_that_lists_the_affected_patients(
    server: ServerProcess, second_server: ServerProcess, sandbox: SandboxProcess, alice: Member, bob: Member
) -> None:
    async with Device(server.ws, alice.token) as here, Device(second_server.ws, bob.token) as there:
        await here.start(greeting=False)
        await there.start(greeting=False)
        sandbox.fault(kind="error", preset="service_unavailable", match={"path": "."})
        await here.speak(TEXT)
        await there.speak(TEXT)
        sandbox.clear_faults()
        await circuit_is("closed")
    incident = await in_database(Incident.objects.get)
    assert (incident.kind, incident.resolved_at is not None) == ("provider_down", True)

    async def affected() -> set[tuple[uuid.UUID, str]]:
        rows = await in_database(lambda: list(impact.substituted_segments(incident)))
        return {(row["patient"], row["kind"]) for row in rows}

    both = {(alice.patient.id, "offline"), (bob.patient.id, "offline")}
    await eventually(affected, wanted=lambda found: found >= both)  # the row is written after the speech


async def test_the_probe_makes_a_free_call_first_and_then_generates_a_phrase_for_the_cache(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member, phrases: None
) -> None:
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        await open_the_circuit(device, sandbox)
        requests_before = len(sandbox.requests())
        await circuit_is("open")
        sandbox.clear_faults()
        await circuit_is("closed")
        probes = sandbox.requests()[requests_before:]
    assert len(probes) == 1
    common = await in_database(lambda: list(Phrase.objects.filter(kind="common").values_list("text", flat=True)))
    assert probes[0]["text"] in common
    probe_events = UsageEvent.objects.filter(kind="probe", outcome="completed", characters=len(probes[0]["text"]))

    async def is_recorded() -> bool:
        return await in_database(probe_events.exists)

    await eventually(is_recorded)


async def test_the_circuit_stays_open_while_only_the_free_call_works(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member, phrases: None
) -> None:
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        await open_the_circuit(device, sandbox, kind="error", preset="service_unavailable")
        await circuit_is("open")

        async def probed() -> bool:
            return await in_database(ProviderState.objects.filter(pk=1, circuit="open", probes__gte=1).exists)

        await eventually(probed, within_s=10)
        assert (await device.speak(TEXT)).terminal["source"] == "offline"


async def test_known_phrases_still_play_in_the_patients_own_voice(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member, phrases: None
) -> None:
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        assert (await device.speak("Tell me more.")).terminal["source"] == "live"
        await open_the_circuit(device, sandbox)
        assert (await device.speak("Tell me more.")).terminal["source"] == "cache"


async def test_a_single_failing_text_does_not_open_the_circuit(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member, bob: Member
) -> None:
    sandbox.fault(kind="stall_headers", match={"text": "struck"})
    async with Device(server.ws, alice.token) as failing, Device(server.ws, bob.token) as other:
        await failing.start(greeting=False)
        await other.start(greeting=False)
        await failing.send({"type": "speak", "id": "struck", "text": "This text is struck by a fault every time."})

        async def is_over() -> bool:
            assert (await other.speak("Everything else is answered.")).terminal["source"] == "live"
            await failing.request(type="ping")
            return failing.speeches["struck"].is_done

        await eventually(is_over)
    assert failing.speeches["struck"].terminal["source"] == "offline"
    assert not await in_database(ProviderState.objects.filter(circuit="open").exists)


async def test_a_killed_offline_voice_is_restarted_within_one_segment(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member, kill_espeak: Callable[[ServerProcess], int]
) -> None:
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        await open_the_circuit(device, sandbox)
        text = " ".join(f"Sentence number {number} of a text that is spoken offline." for number in range(6))
        await device.start_speech("long", text)
        assert kill_espeak(server) == 1
        spoken = await device.wait_for("long")
    assert (spoken.terminal["type"], spoken.terminal["source"]) == ("speech.finished", "offline")
    assert decode(spoken.audio, "mp3_44100_128").seconds > 12


async def test_an_endless_stream_is_cut_and_the_offline_voice_continues(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    sandbox.fault(kind="endless", first=1)
    async with Device(server.ws, alice.token, format="mp3_22050_32") as device:
        await device.start(greeting=False)
        spoken = await device.speak("This sentence is short and has an end.")
    assert spoken.terminal["source"] == "offline"
    assert len(spoken.audio) < 600_000
    incident = await eventually(lambda: in_database(Incident.objects.first))  # it is written after the speech
    assert incident is not None
    assert incident.kind == "request"
    assert "endless_audio" in incident.detail


async def test_a_very_slow_stream_is_a_stall_and_the_sentence_is_repeated(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    sandbox.fault(kind="drip", first=1)
    text = "This sentence comes byte by byte, and nobody can hear it."
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        spoken = await device.speak(text)
    assert (spoken.terminal["type"], spoken.terminal["source"]) == ("speech.finished", "live")
    assert spoken.terminal["characters"] == 2 * len(text)
    slow_request, _ = await asyncio.to_thread(sandbox.wait_until_idle)
    assert f"request_id={slow_request['request_id']}" in server.logged()


async def test_an_incident_is_opened_when_a_patient_hears_nothing(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member, kill_espeak: Callable[[ServerProcess], int]
) -> None:
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        sandbox.fault(kind="error", preset="invalid_api_key")
        await device.send({"type": "speak", "id": "mute", "text": "Nobody will hear this sentence to its end. " * 8})

        async def has_ended() -> bool:
            kill_espeak(server)
            await device.request(type="ping")
            return device.speeches["mute"].is_done

        await eventually(has_ended)
        assert device.speeches["mute"].terminal["code"] == "no_voice"
        assert b"speech.no_voice" in server.log.read_bytes()

        async def incident_exists() -> bool:
            return await in_database(Incident.objects.filter(kind="no_voice").exists)

        await eventually(incident_exists)
        spoken = await device.speak("And the next sentence is spoken again.")
        assert spoken.terminal["source"] == "offline"


async def test_a_refused_probe_closes_the_circuit(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        sandbox.fault(kind="error", preset="service_unavailable", first=4)  # the chain of one text, and the probe
        sandbox.fault(kind="error", preset="missing_permissions", match={"path": "^/v1/models"})
        assert (await device.speak("This opens the circuit.")).terminal["source"] == "offline"
        await circuit_is("open")
        await circuit_is("closed")
        await wait_for_circuit_gauge(server, 0)
        assert (await device.speak(TEXT)).terminal["source"] == "live"


async def test_one_fault_in_the_backup_voice_is_retried_and_does_not_open_the_circuit(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    sandbox.fault(kind="error", preset="voice_not_found", match={"text": "first"}, first=1)
    sandbox.fault(kind="error", preset="service_unavailable", match={"text": "second"}, first=1)
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        spoken = await device.speak(
            "The first sentence finds that its voice is gone. The second sentence fails once in the other voice."
        )
    assert (spoken.terminal["type"], spoken.terminal["source"]) == ("speech.finished", "backup")
    assert not await in_database(ProviderState.objects.filter(circuit="open").exists)
