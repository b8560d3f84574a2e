"""What the provider really gets: the golden texts, said with the lexicon of the patient. Transcripts do not change."""

import re
from base64 import b64decode
from collections.abc import Callable

import aiohttp
import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from tests.conftest import OTHER_VOICE, Member
from tests.e2e.device import Device, instant_playback
from tests.e2e.rows import in_database
from tests.sandbox import SandboxProcess
from tests.server import ServerProcess
from tests.sound import decode
from tests.tts.text.golden import LEXICON, golden
from tests.waiting import eventually
from tts.models import LexiconEntry, Phrase, Utterance
from voicecare.audit.models import AuditEntry


def enter_lexicon(member: Member) -> None:
    for one in LEXICON:
        LexiconEntry.objects.create(
            written=one.written, spoken=one.spoken, match_case=one.match_case, patient=member.patient
        )


@pytest.mark.parametrize("language", ["en", "de"])
async def test_the_provider_gets_the_golden_texts(
    language: str, server: ServerProcess, sandbox: SandboxProcess, member: Callable[..., Member]
) -> None:
    """In pieces and complete in turn. The characters of the frames are those that the provider bills."""
    sandbox.settings(first_byte_ms=0)
    patient = await in_database(member, "Alice", voice=OTHER_VOICE, language=language)
    await in_database(enter_lexicon, patient)
    pairs = golden(language)
    characters = 0
    async with Device(server.ws, patient.token, format="mp3_22050_32", timeout_s=30) as device:
        await device.start(greeting=False)
        for number, (written, _) in enumerate(pairs):
            async with instant_playback(device, f"s{number}"):
                if number % 2:
                    await device.send({"type": "speak.delta", "id": f"s{number}", "text": written[:7]})
                    await device.send({"type": "speak.delta", "id": f"s{number}", "text": written[7:]})
                    await device.send({"type": "speak.done", "id": f"s{number}"})
                    spoken = await device.wait_for(f"s{number}")
                else:
                    spoken = await device.speak(written, id=f"s{number}")
            characters += spoken.terminal["characters"]
    assert [request["text"] for request in sandbox.requests()] == [spoken for _, spoken in pairs]
    assert characters == sum(len(spoken) for _, spoken in pairs)


async def test_the_greeting_says_the_name_and_the_transcript_has_the_original(
    server: ServerProcess, sandbox: SandboxProcess, member: Callable[..., Member]
) -> None:
    siobhan = await in_database(member, "Siobhan", voice=OTHER_VOICE)
    await in_database(enter_lexicon, siobhan)
    await in_database(Phrase.objects.create, kind="greeting", text="Hello {patient_name}, it is 8:05 am.")
    async with Device(server.ws, siobhan.token) as device:
        await device.start()
        await device.wait_for("greeting")
        await device.speak("**Siobhan**, take 2 tablets.", id="a")
    said = [request["text"] for request in sandbox.requests()]
    assert said == ["Hello Shivawn, it is eight oh five a.m.", "Shivawn, take two tablets."]

    def transcript() -> list[str]:
        return list(Utterance.objects.order_by("received_at").values_list("text", flat=True))

    await eventually(
        lambda: in_database(transcript),
        wanted=lambda texts: texts == ["Hello Siobhan, it is 8:05 am.", "**Siobhan**, take 2 tablets."],
    )


async def test_listen_says_an_entry_before_it_is_saved(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    """In the patient's voice, with one request that the next Listen does not repeat, and with an entry in the audit."""

    def log_in() -> tuple[dict[str, str], str]:
        browser = Client()
        browser.force_login(User.objects.create_superuser("boss"))
        browser.get(reverse("admin:tts_lexiconentry_add"))
        cookies = {name: morsel.value for name, morsel in browser.cookies.items()}
        return cookies, cookies[settings.CSRF_COOKIE_NAME]

    cookies, token = await in_database(log_in)
    form = {"written": "Siobhan", "spoken": "Shivawn", "patient": str(alice.patient.pk), "csrfmiddlewaretoken": token}
    url = f"{server.url}{reverse('admin:tts_lexiconentry_listen')}"
    async with aiohttp.ClientSession(cookies=cookies, cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        for _ in range(2):
            async with session.post(url, data=form) as response:
                found = re.search('src="data:audio/mpeg;base64,([^"]+)"', await response.text())
                assert response.status == 200
                assert found is not None
                assert decode(b64decode(found[1]), "mp3_44100_128").seconds > 0.3
        async with session.post(url, data={**form, "spoken": "[laughs]"}) as response:
            assert response.status == 400
    (request,) = sandbox.requests()
    assert (request["text"], request["voice_id"]) == ("Shivawn", OTHER_VOICE)
    assert await in_database(LexiconEntry.objects.count) == 0
    assert await in_database(AuditEntry.objects.filter(action="speak", patient_id=alice.patient.pk).count) == 2
