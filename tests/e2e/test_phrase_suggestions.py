"""A text that is paid for again and again is suggested, becomes a phrase with one click, and then costs nothing."""

import asyncio
import re
import subprocess
from typing import Any

import requests
from django.contrib.auth.models import User
from django.test import Client

from tests.conftest import Member
from tests.e2e.device import Device
from tests.e2e.rows import accounts_of, in_database
from tests.sandbox import SandboxProcess
from tests.server import ServerProcess
from tests.waiting import eventually
from tts.models import Clip, Phrase
from usage.models import UsageEvent

TEXT = "It is time for your tablets, and for a glass of water."
TIMES = 7


def log_in(server: ServerProcess) -> requests.Session:
    """Return a session of an administrator in the server's admin."""
    client = Client()
    client.force_login(User.objects.create_superuser("boss"))
    session = requests.Session()
    session.cookies.set("sessionid", client.cookies["sessionid"].value)
    return session


def accept(session: requests.Session, server: ServerProcess) -> str:
    """Open the suggestions, the text of the only one, and make it a phrase. Return both pages."""
    suggestions = session.get(f"{server.url}/admin/tts/phrase/suggestions/", timeout=20)
    (link,) = re.findall(r'href="(/admin/tts/phrase/suggestions/[^"]+/)"', suggestions.text)
    shown = session.get(server.url + link, timeout=20)
    token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', shown.text)
    assert token is not None
    form = {"csrfmiddlewaretoken": token[1], "confirmed": "on"}
    session.cookies.set("csrftoken", token[1])  # the server's own cookie is for https only, as its PUBLIC_URL
    accepted = session.post(server.url + link, form, headers={"Referer": server.url}, timeout=20)
    assert accepted.status_code == 200
    return suggestions.text + shown.text


async def test_from_counting_to_a_speech_without_cost(
    web: ServerProcess, worker: "subprocess.Popen[bytes]", sandbox: SandboxProcess, alice: Member
) -> None:
    async with Device(web.ws, alice.token) as device:
        started = await device.start(greeting=False)
        spoken = [await device.speak(TEXT, id=f"s{number}") for number in range(TIMES)]
        await device.speak("This was said only once, so it is not a text to suggest.", id="once")
        await device.end()
    assert {one.terminal["characters"] for one in spoken} == {len(TEXT)}

    accounts = await accounts_of(started["conversation"])
    digests = [event.text_digest for event in accounts.events]
    assert len(set(digests)) == 2
    assert all(digests)
    assert digests.count(digests[0]) == TIMES

    session = await in_database(log_in, web)
    pages = await asyncio.to_thread(accept, session, web)
    assert f"{TIMES} times" in pages
    assert TEXT in pages
    assert "said to one patient only" in pages
    assert await in_database(lambda: Phrase.objects.get().text) == TEXT
    await eventually(lambda: in_database(Clip.objects.filter(size__gt=0).exists), 20)
    requested = len(sandbox.requests())

    async with Device(web.ws, alice.token) as device:
        again = await device.start(greeting=False)
        cached = await device.speak(TEXT, id="again")
        await device.end()
    assert (cached.terminal["source"], cached.terminal["characters"]) == ("cache", 0)
    assert len(sandbox.requests()) == requested
    (hit,) = (await accounts_of(again["conversation"])).events
    assert (hit.kind, hit.saved_characters, hit.text_digest) == ("cache", len(TEXT), digests[0])

    log: str = await asyncio.to_thread((web.data_dir / "server.log").read_text)
    metrics = await asyncio.to_thread(lambda: requests.get(f"{web.url}/metrics", timeout=20).text)
    for secret in ("tablets", digests[0]):
        assert secret not in log
        assert secret not in metrics


async def test_a_greeting_and_speech_for_a_clinician_have_no_digest(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    await in_database(Phrase.objects.create, kind="greeting", text="Good morning {patient_name}, it is me, {ai_name}.")
    async with Device(server.ws, alice.token) as device:
        started = await device.start()
        await device.wait_for("greeting")
        await device.end()

    def digests() -> list[Any]:
        events = UsageEvent.objects.filter(conversation=started["conversation"])
        return list(events.values_list("text_digest", flat=True))

    assert await eventually(lambda: in_database(digests), 5) == [""]
