"""Speech in a REST response: streaming, accounts, the same fallbacks as on a device, and clients that disconnect."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any

import aiohttp
import pytest

from tests.clinicians import Clinician, clinician
from tests.conftest import OTHER_VOICE, Member, wait_until_provider_healthy
from tests.e2e.database import locked_database
from tests.e2e.provider import assert_sounds_like_requests
from tests.e2e.rows import in_database
from tests.sandbox import SandboxProcess
from tests.server import ServerProcess
from tests.sound import MIN_LOUDNESS, decode
from tests.waiting import PATIENCE_S, eventually
from tts.api.streaming import PREVIEW_TEXTS
from tts.models import Clip, Conversation, Utterance
from tts.recorder import FLUSH_INTERVAL_S
from tts.synthesis.response_speeches import MAX_SPEECHES_PER_USER
from usage.models import UsageEvent
from voicecare.audio.formats import DEVICE_FORMATS, FORMATS
from voicecare.audit.models import AuditEntry
from voicecare.patients.models import Voice

TEXT = "This is said to nobody in particular, so that a clinician hears how it sounds."
LONG = " ".join(f"This is sentence number {n} of a text that takes quite a while to say." for n in range(12))
RATE = 20_000  # bytes per second of a slow provider


class Caller:
    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self._http = http
        self._url = url

    def speech(self, **body: Any) -> Any:
        return self._http.post(f"{self._url}/api/v1/speech/", json=body)

    def preview(self, voice: Voice, query: str = "") -> Any:
        return self._http.get(f"{self._url}/api/v1/voices/{voice.pk}/preview/{query}")

    async def sound(self, **body: Any) -> bytes:
        async with self.speech(**body) as reply:
            assert reply.status == 200, await reply.text()
            return await reply.read()


@pytest.fixture
def carol(alice: Member, bob: Member) -> Clinician:
    return clinician("carol", alice.patient)


@pytest.fixture
async def caller(server: ServerProcess, sandbox: SandboxProcess, carol: Clinician) -> AsyncIterator[Caller]:
    headers = {"Authorization": f"Bearer {carol.token}", "Accept": "audio/*"}
    async with aiohttp.ClientSession(headers=headers) as http:
        yield Caller(http, server.url)
    await wait_until_written(server)


async def recorded_events(count: int) -> list[UsageEvent]:
    """Wait until the ledger has this many events and none is open. Return all events."""

    async def written() -> bool:
        events = await in_database(lambda: list(UsageEvent.objects.all()))
        return len(events) >= count and all(event.outcome != "unknown" for event in events)

    await eventually(written)
    return await in_database(lambda: list(UsageEvent.objects.order_by("started_at", "segment")))


async def wait_until_written(server: ServerProcess) -> None:
    """Wait until all rows of this test are written, so that none is written during the next test."""
    await asyncio.sleep(FLUSH_INTERVAL_S + 0.1)

    backlog = partial(asyncio.to_thread, server.gauge, "voicecare_recorder_backlog")
    await eventually(backlog, wanted=lambda left: not left)


async def wait_until_idle(sandbox: SandboxProcess) -> None:
    await eventually(lambda: asyncio.to_thread(sandbox.account), wanted=lambda now: not any(now["in_flight"].values()))


@pytest.mark.parametrize("name", DEVICE_FORMATS)
async def test_a_text_is_spoken_in_every_format(caller: Caller, sandbox: SandboxProcess, name: str) -> None:
    async with caller.speech(text=TEXT, format=name) as reply:
        audio = await reply.read()
        assert (reply.status, reply.content_type) == (200, FORMATS[name].mime)
        assert (reply.headers["Speech-Source"], reply.headers["Cache-Control"]) == ("live", "no-store")
    assert decode(audio, name).loudness > MIN_LOUDNESS
    await assert_sounds_like_requests(audio, sandbox, sandbox.requests(), name)


async def test_it_is_counted_and_no_text_is_kept(caller: Caller, alice: Member) -> None:
    voice = alice.patient.voice
    await caller.sound(text=TEXT, voice=str(voice.pk))
    (event,) = await recorded_events(1)
    assert (event.kind, event.outcome, event.characters) == ("preview", "completed", len(TEXT))
    assert (event.conversation, event.patient, event.voice) == (None, None, voice.pk)
    assert not await in_database(lambda: Utterance.objects.exists() or Conversation.objects.exists())


async def test_a_voice_clone_is_counted_for_its_patient(caller: Caller, alice: Member) -> None:
    clone = await in_database(
        Voice.objects.create, name="Daughter", provider_id=OTHER_VOICE[::-1], source="cloned", patient=alice.patient
    )
    await caller.sound(
        text=TEXT, voice=str(clone.pk)
    )  # the sandbox does not know this voice, so the default voice speaks
    events = await recorded_events(2)
    assert [(event.kind, event.outcome) for event in events] == [("preview", "failed"), ("preview", "completed")]
    assert {event.patient for event in events} == {alice.patient.pk}


async def test_the_first_bytes_come_while_the_provider_is_still_sending(
    caller: Caller, sandbox: SandboxProcess
) -> None:
    sandbox.fault(kind="slow", bytes_per_s=RATE)
    began = time.monotonic()
    async with caller.speech(text=TEXT) as reply:
        first = await reply.content.readany()
        first_s = time.monotonic() - began
        assert [request["outcome"] for request in await asyncio.to_thread(sandbox.requests)] == ["open"]
        size = len(first) + len(await reply.content.read())
    whole_s = time.monotonic() - began
    assert size > RATE
    assert whole_s > size / RATE * 0.8
    assert first_s < whole_s / 2


async def test_a_client_that_disconnects_ends_the_provider_request(caller: Caller, sandbox: SandboxProcess) -> None:
    sandbox.fault(kind="slow", bytes_per_s=RATE)
    async with caller.speech(text=LONG) as reply:
        await reply.content.readany()
        reply.close()
    await wait_until_idle(sandbox)
    (event,) = await recorded_events(1)
    assert event.outcome == "cancelled"
    assert 0 < event.characters < len(LONG)


async def test_a_client_that_disconnects_before_the_first_byte_ends_the_provider_request(
    caller: Caller, sandbox: SandboxProcess
) -> None:
    sandbox.fault(kind="slow_headers", seconds=1.2)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await caller.sound(text=LONG)
    await wait_until_idle(sandbox)
    await asyncio.sleep(1.5)
    assert len(await asyncio.to_thread(sandbox.requests)) == 1


async def test_clients_that_disconnect_before_their_speech_starts_do_not_count(
    caller: Caller, sandbox: SandboxProcess
) -> None:
    """Their requests still run in threads, where nothing can cancel them, and start speeches that nobody reads.

    A request that is not in a thread yet when its client disconnects starts no speech. So more clients follow, and they
    stay longer, until enough speeches were started.
    """
    requested = partial(asyncio.to_thread, sandbox.requests)
    stay_s = 0.5
    while len(await requested()) < MAX_SPEECHES_PER_USER:
        assert stay_s < PATIENCE_S
        async with locked_database():
            leaving = [asyncio.create_task(caller.sound(text=LONG)) for _ in range(MAX_SPEECHES_PER_USER)]
            await asyncio.sleep(stay_s)
            for request in leaving:
                request.cancel()
            await asyncio.gather(*leaving, return_exceptions=True)
            await asyncio.sleep(stay_s)
        await asyncio.sleep(stay_s)
        stay_s *= 2

    async def status() -> int:
        async with caller.speech(text=TEXT) as reply:
            await reply.read()
            return reply.status

    await eventually(status, wanted=lambda status: status == 200)
    await wait_until_idle(sandbox)


async def test_the_ledger_is_written_after_many_requests(caller: Caller) -> None:
    """Work that a speech starts for the whole process must not end with the thread of its request."""
    for number in range(3):
        await caller.sound(text=f"This is the request with the number {number}, and it is counted.")
        await recorded_events(number + 1)


async def test_a_failing_provider_leads_to_the_backup_voice(
    caller: Caller, sandbox: SandboxProcess, alice: Member
) -> None:
    sandbox.fault(kind="error", preset="internal_error", first=2)
    async with caller.speech(text=TEXT, voice=str(alice.patient.voice_id)) as reply:
        assert (reply.status, reply.headers["Speech-Source"]) == (200, "backup")
        assert decode(await reply.read(), "mp3_44100_128").loudness > MIN_LOUDNESS
    assert [event.kind for event in await recorded_events(3)] == ["preview"] * 3


async def test_a_refused_key_leads_to_the_offline_voice(caller: Caller, sandbox: SandboxProcess) -> None:
    sandbox.fault(kind="error", preset="invalid_api_key")
    async with caller.speech(text=TEXT) as reply:
        assert (reply.status, reply.headers["Speech-Source"]) == (200, "offline")
        assert decode(await reply.read(), "mp3_44100_128").loudness > MIN_LOUDNESS
    assert [event.kind for event in await recorded_events(2)] == ["preview", "offline"]


@pytest.fixture
def restore_quota_afterwards(server: ServerProcess, sandbox: SandboxProcess) -> Iterator[None]:
    yield
    sandbox.settings(characters_used=0)
    wait_until_provider_healthy(server)


async def test_an_exhausted_quota_leads_to_the_offline_voice_immediately(
    caller: Caller, sandbox: SandboxProcess, restore_quota_afterwards: None
) -> None:
    sandbox.settings(characters_used=100_000, character_limit=100_000)
    for _ in range(2):
        began = time.monotonic()
        async with caller.speech(text=TEXT) as reply:
            assert (reply.status, reply.headers["Speech-Source"]) == (200, "offline")
            await reply.content.readany()
            assert time.monotonic() - began < 5
            await reply.read()
    assert len(sandbox.requests()) == 1
    assert [(event.kind, event.outcome) for event in await recorded_events(3)] == [
        ("preview", "failed"),
        ("offline", "completed"),
        ("offline", "completed"),
    ]


async def test_a_rejected_text_is_a_json_error(caller: Caller, sandbox: SandboxProcess) -> None:
    sandbox.fault(kind="error", preset="invalid_text")
    async with caller.speech(text=TEXT) as reply:
        assert (reply.status, (await reply.json())["code"]) == (400, "text_rejected")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "text"),
        ({"text": ""}, "text"),
        ({"text": "  "}, "text"),
        ({"text": "x" * 5001}, "text"),
        ({"text": TEXT, "format": "flac"}, "format"),
        ({"text": TEXT, "format": None}, "format"),
        ({"text": TEXT, "voice": "x"}, "voice"),
        ({"text": TEXT, "voice": str(uuid.UUID(int=5))}, "voice"),
    ],
)
async def test_an_invalid_request_names_the_field(
    caller: Caller, sandbox: SandboxProcess, body: dict[str, Any], field: str
) -> None:
    async with caller.speech(**body) as reply:
        assert (reply.status, (await reply.json())["errors"][0]["field"]) == (400, field)
    assert sandbox.requests() == []


async def test_clones_of_other_teams_and_gone_voices_are_refused(
    caller: Caller, alice: Member, bob: Member, sandbox: SandboxProcess
) -> None:
    def create_voices() -> list[Voice]:
        theirs = Voice.objects.create(name="Son", provider_id="theirs", source="cloned", patient=bob.patient)
        gone = Voice.objects.create(
            name="Gone", provider_id="gone", source="cloned", patient=alice.patient, state="gone"
        )
        return [theirs, gone]

    for voice in await in_database(create_voices):
        async with caller.preview(voice) as reply:
            assert (reply.status, (await reply.json())["code"]) == (404, "not_found")
        async with caller.speech(text=TEXT, voice=str(voice.pk)) as reply:
            assert (reply.status, (await reply.json())["errors"][0]["field"]) == (400, "voice")
    assert sandbox.requests() == []


async def test_previews_are_in_the_audit_trail(caller: Caller, alice: Member) -> None:
    clone = await in_database(
        Voice.objects.create, name="Daughter", provider_id=OTHER_VOICE[::-1], source="cloned", patient=alice.patient
    )
    stock = alice.patient.voice
    for voice in (stock, clone):
        async with caller.preview(voice) as reply:
            assert reply.status in (200, 502, 503)
            await reply.read()
    entries = await in_database(
        lambda: list(AuditEntry.objects.order_by("pk").values_list("action", "source", "object_id", "patient_id"))
    )
    assert entries == [
        ("play_preview", "rest", str(stock.pk), None),
        ("play_preview", "rest", str(clone.pk), alice.patient.pk),
    ]


async def test_a_preview_is_billed_once(caller: Caller, phrases: None, sandbox: SandboxProcess, alice: Member) -> None:
    heard, sources = [], []
    for number in range(3):
        async with caller.preview(alice.patient.voice) as reply:
            assert (reply.status, reply.content_type) == (200, "audio/mpeg")
            sources.append(reply.headers["Speech-Source"])
            heard.append(await reply.read())
        if not number:
            await eventually(lambda: in_database(Clip.objects.filter(size__gt=0).exists))
    assert sources == ["live", "cache", "cache"]
    assert len(set(heard)) == 1
    assert [request["text"] for request in sandbox.requests()] == ["That's wonderful!"]
    assert [(event.kind, event.saved_characters) for event in await recorded_events(3)] == [
        ("preview", 0),
        ("cache", 17),
        ("cache", 17),
    ]


async def test_a_voice_whose_language_has_no_phrases_has_a_preview(caller: Caller, alice: Member) -> None:
    async with caller.preview(alice.patient.voice) as reply:
        assert reply.status == 200
        assert decode(await reply.read(), "mp3_44100_128").seconds > 1


async def test_concurrent_requests_respect_the_concurrency_limit(caller: Caller, sandbox: SandboxProcess) -> None:
    texts = [f"Many speak at once, and this is the one with the number {n}." for n in range(8)]
    sounds = await asyncio.gather(*(caller.sound(text=text) for text in texts))
    assert all(decode(audio, "mp3_44100_128").loudness > MIN_LOUDNESS for audio in sounds)
    assert {event.outcome for event in await recorded_events(8)} == {"completed"}


async def test_a_stock_voice_is_previewed_in_the_language_of_a_patient(
    caller: Caller, sandbox: SandboxProcess, alice: Member
) -> None:
    async with caller.preview(alice.patient.voice, "?language=de-AT") as reply:
        assert (reply.status, reply.headers["Speech-Source"]) == (200, "live")
    (request,) = sandbox.requests()
    assert (request["language_code"], request["text"]) == ("de", PREVIEW_TEXTS["de"])
    async with caller.preview(alice.patient.voice, "?language=xx") as reply:
        assert (reply.status, (await reply.json())["language"]) == (400, ["Not a known language."])


async def test_a_stock_voice_is_previewed_at_the_speech_rate_of_a_patient(
    caller: Caller, sandbox: SandboxProcess, alice: Member
) -> None:
    async with caller.preview(alice.patient.voice, "?speech_rate=0.85") as reply:
        assert (reply.status, reply.headers["Speech-Source"]) == (200, "live")
    (request,) = sandbox.requests()
    assert request["voice_settings"]["speed"] == 0.85
    for rate in ("0.5", "slow"):
        async with caller.preview(alice.patient.voice, f"?speech_rate={rate}") as reply:
            body = await reply.json()
            assert (reply.status, [error["field"] for error in body["errors"]]) == (400, ["speech_rate"])


async def test_a_preview_is_never_in_another_voice_of_the_provider(
    caller: Caller, sandbox: SandboxProcess, db: None
) -> None:
    """Whoever chooses a voice must not mistake the default voice for it."""
    voice = await in_database(Voice.objects.create, name="Antoni", provider_id="ErXwobaYiN019PkySvjV")
    sandbox.fault(kind="error", preset="paid_plan_required", match={"voice_id": voice.provider_id})
    async with caller.preview(voice) as reply:
        assert (reply.status, reply.headers["Speech-Source"]) == (200, "offline")
    assert [request["voice_id"] for request in sandbox.requests()] == [voice.provider_id]
