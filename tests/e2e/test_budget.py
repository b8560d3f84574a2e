"""Monthly budgets: concurrent speeches never exceed the budget, and cached phrases always play."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from django.db import connection
from django.db.models import Sum

from tests.clinicians import Clinician, clinician
from tests.conftest import Member
from tests.e2e.database import locked_database
from tests.e2e.device import Device
from tests.e2e.rows import in_database
from tests.sandbox import SandboxProcess
from tests.server import ServerProcess
from tests.waiting import eventually
from tts.models import Conversation, Phrase, Utterance
from usage.models import BudgetMonth, ClinicBudget, DailyUsage, Incident, UsageEvent
from voicecare.patients.models import Clinic, Patient
from voicecare.patients.models import Device as Row

SENTENCE = "There is room for ten of these sentences."
CONCURRENT, ROOM = 50, 10
BUDGET = ROOM * len(SENTENCE)
PHRASE = "Whatever it costs, this is said."


@pytest.fixture
def alice(alice: Member) -> Member:
    budget(alice, BUDGET)
    return alice


def budget(member: Member, characters: int | None) -> None:
    Patient.objects.filter(pk=member.patient.pk).update(monthly_character_budget=characters)


async def wait_until_settled(used: int) -> None:
    """Wait until all accounts have this number and nothing is reserved."""
    wanted = {"days": used, "events": used, "talks": used, "months": [(used, 0)]}
    await eventually(lambda: in_database(_accounts), wanted=lambda seen: seen == wanted)


def _accounts() -> dict[str, Any]:
    return {
        "days": _sum(DailyUsage, "characters"),
        "events": _sum(UsageEvent, "characters"),
        "talks": _sum(Conversation, "tts_characters_used"),
        "months": list(BudgetMonth.objects.values_list("used", "reserved")),
    }


def _sum(model: Any, column: str) -> int:
    return model.objects.aggregate(total=Sum(column))["total"] or 0


async def test_of_fifty_concurrent_speeches_only_those_within_the_budget_are_spoken(
    server: ServerProcess, second_server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    """Fifty devices of one patient are connected to two web processes."""
    tokens = await in_database(lambda: [Row.objects.issue(alice.patient, f"d{n}")[1] for n in range(CONCURRENT)])
    places = (server.ws, second_server.ws)
    async with AsyncExitStack() as stack:
        devices = [
            await stack.enter_async_context(Device(places[n % 2], token, timeout_s=15))
            for n, token in enumerate(tokens)
        ]
        for device in devices:
            await device.start(greeting=False)
        speeches = await asyncio.gather(*(device.speak(SENTENCE) for device in devices))
    ends = [
        (spoken.terminal["type"], spoken.terminal.get("code", spoken.terminal.get("source"))) for spoken in speeches
    ]
    assert ends.count(("speech.finished", "live")) == ROOM
    assert ends.count(("speech.failed", "over_budget")) == CONCURRENT - ROOM
    assert sandbox.account()["characters"] == BUDGET
    await wait_until_settled(BUDGET)
    incident = await in_database(Incident.objects.get)
    assert (incident.kind, incident.key) == ("budget", str(alice.patient.pk))


async def test_of_fifty_rest_requests_only_those_within_the_budget_are_spoken(
    server: ServerProcess, second_server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    carol = await in_database(clinician, "carol", alice.patient)
    ids = await in_database(request_over_rest, carol, alice)
    async with Device(server.ws, alice.token) as device:
        for key in ids:
            spoken = await device.wait_for(f"srv-{key}")
            if spoken.terminal["type"] == "speech.finished":
                await device.send({"type": "ack", "id": spoken.id})
        await eventually(
            lambda: in_database(states), wanted=lambda seen: set(seen) == {("heard", ""), ("failed", "over_budget")}
        )
    assert (await in_database(states)).count(("heard", "")) == ROOM
    assert sandbox.account()["characters"] == BUDGET
    await wait_until_settled(BUDGET)
    answer = await in_database(carol.get, f"utterances/{ids[-1]}/")
    assert (answer["status"], answer["code"]) == ("failed", "over_budget")


async def test_of_many_concurrent_speeches_of_a_clinic_only_those_within_its_budget_are_spoken(
    server: ServerProcess, second_server: ServerProcess, sandbox: SandboxProcess, member: Callable[..., Member]
) -> None:
    """Fifty patients of one clinic say four sentences each, over two web processes. One has a smaller budget.

    On SQLite they are twelve, because its one writer makes fifty devices wait for minutes. Also with twelve a
    reservation may take longer than DATABASE_TIMEOUT_S on a busy machine. The offline voice speaks then.
    """
    patients, room = (50, 60) if connection.vendor == "postgresql" else (12, 15)

    def create() -> list[str]:
        ward = Clinic.objects.create(name="Ward 3", daily_character_budget=room * len(SENTENCE))
        members = [member(f"P {number}", clinic=ward) for number in range(patients)]
        budget(members[0], 0)
        return [one.token for one in members]

    tokens = await in_database(create)
    async with AsyncExitStack() as stack:
        devices = [
            await stack.enter_async_context(Device((server.ws, second_server.ws)[n % 2], token, timeout_s=60))
            for n, token in enumerate(tokens)
        ]
        for device in devices:
            await device.start(greeting=False)

        async def speak_four(device: Device) -> list[str]:
            speeches = [await device.speak(SENTENCE) for _ in range(4)]
            return [str(spoken.terminal.get("source", spoken.terminal.get("code"))) for spoken in speeches]

        ends = [end for four in await asyncio.gather(*map(speak_four, devices)) for end in four]
    spoken, refused, offline = (ends.count(end) for end in ("live", "over_budget", "offline"))
    assert spoken + refused + offline == 4 * patients
    assert spoken <= room
    if connection.vendor == "postgresql":
        assert (spoken, offline) == (room, 0)
    used = spoken * len(SENTENCE)
    assert sandbox.account()["characters"] == used
    await eventually(
        lambda: in_database(lambda: set(ClinicBudget.objects.values_list("used", "reserved"))),
        wanted=lambda seen: seen == {(used, 0)},
    )
    found = await in_database(lambda: list(Incident.objects.order_by("detail").values_list("kind", "detail")))
    assert ("budget", f"Clinic Ward 3: the daily budget of {used:,} characters.") in found
    assert len(found) == 2


def request_over_rest(carol: Clinician, alice: Member) -> list[str]:
    responses = [
        carol.call("POST", f"patients/{alice.patient.pk}/speak/", {"text": SENTENCE}) for _ in range(CONCURRENT)
    ]
    return [response.json()["id"] for response in responses]


def states() -> list[tuple[str, str]]:
    return list(Utterance.objects.values_list("state", "code"))


async def test_over_budget_cached_phrases_play_and_other_text_fails(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    await in_database(Phrase.objects.create, text=PHRASE)
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        await device.speak(PHRASE, id="made")
        await in_database(budget, alice, len(PHRASE) + 5)

        async def cached() -> bool:
            return (await device.speak(PHRASE)).terminal.get("source") == "cache"

        await eventually(cached)
        mixed = await device.speak(f"{PHRASE} This is more than there is room for.", id="mixed")
        again = await device.speak(PHRASE, id="again")
    assert mixed.chunks
    assert (mixed.terminal["type"], mixed.terminal["code"]) == ("speech.failed", "over_budget")
    assert again.terminal["source"] == "cache"
    await wait_until_settled(len(PHRASE))


async def test_a_text_that_does_not_fit_as_a_whole_is_not_started(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        refused = await device.speak(" ".join([SENTENCE] * (ROOM + 1)))
        fits = await device.speak(" ".join([SENTENCE] * 2))
    assert refused.terminal["code"] == "over_budget"
    assert not refused.chunks
    assert fits.terminal["characters"] == sandbox.account()["characters"] == 2 * len(SENTENCE) + 1
    await wait_until_settled(2 * len(SENTENCE) + 1)


async def test_a_text_that_is_being_written_is_spoken_as_far_as_it_fits(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    await in_database(budget, alice, 2 * (len(SENTENCE) + 1))
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        for piece in range(4):
            await device.send({"type": "speak.delta", "id": "w", "text": f"{SENTENCE} "})
            if piece == 1:
                await device.wait_for_audio("w")
        await device.send({"type": "speak.done", "id": "w"})
        spoken = await device.wait_for("w")
    assert (spoken.terminal["type"], spoken.terminal["code"]) == ("speech.failed", "over_budget")
    assert len(sandbox.requests()) == 2
    await wait_until_settled(sandbox.account()["characters"])


async def test_the_greeting_counts_against_the_budget(
    server: ServerProcess, sandbox: SandboxProcess, member: Callable[..., Member], phrases: None
) -> None:
    greta = await in_database(member, "Greta")  # whom no other test has greeted, so the server has no clip
    await in_database(budget, greta, 5)
    async with Device(server.ws, greta.token) as device:
        await device.start()
        greeting = await device.wait_for("greeting")
    assert (greeting.terminal["type"], greeting.terminal["code"]) == ("speech.failed", "over_budget")
    assert sandbox.requests() == []


@pytest.mark.parametrize("end", ["interrupt", "cut", "conversation.end"])
async def test_a_stopped_speech_returns_its_unused_reservation(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member, end: str
) -> None:
    sandbox.fault(kind="slow", bytes_per_s=20_000)
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        await device.start_speech("long", " ".join([SENTENCE] * (ROOM - 1)))
        assert (await in_database(BudgetMonth.objects.get)).reserved == (len(SENTENCE) + 1) * (ROOM - 1) - 1
        device.drop_connection() if end == "cut" else await device.send({"type": end})
        await eventually(lambda: in_database(reserved), wanted=lambda left: left == 0)
    await wait_until_settled(sandbox.account()["characters"])


def reserved() -> int:
    return BudgetMonth.objects.get().reserved


async def test_a_retry_counts_against_the_budget(server: ServerProcess, sandbox: SandboxProcess, alice: Member) -> None:
    sandbox.fault(kind="cut", after_bytes=3000, first=1)
    await in_database(budget, alice, 2 * len(SENTENCE) - 1)
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        cut = await device.speak(SENTENCE, id="cut")
        await in_database(budget, alice, 3 * len(SENTENCE))
        sandbox.fault(kind="cut", after_bytes=3000, first=1)
        again = await device.speak(SENTENCE, id="again")
    assert cut.terminal["code"] == "over_budget"
    assert again.terminal["type"] == "speech.finished"
    assert again.terminal["characters"] == 2 * len(SENTENCE)
    await wait_until_settled(3 * len(SENTENCE))


async def test_the_offline_voice_needs_no_budget(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member, circuit_closed_after: None
) -> None:
    sandbox.fault(kind="error", preset="internal_error")
    await in_database(budget, alice, len(SENTENCE))
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        for _ in range(3):
            assert (await device.speak(SENTENCE)).terminal["source"] == "offline"
            # The reservation is released after the end of a speech, in the background.
            await eventually(lambda: in_database(reserved), wanted=lambda left: left == 0)


async def test_while_the_database_does_not_answer_the_offline_voice_speaks(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    """No reservation, no request, because the budget could be exceeded. The patient still hears every word."""
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        async with locked_database():
            spoken = await device.speak(f"{SENTENCE} {SENTENCE}")
        assert (spoken.terminal["type"], spoken.terminal["source"]) == ("speech.finished", "offline")
        assert sandbox.requests() == []
        await wait_until_settled(0)
        assert (await device.speak(SENTENCE)).terminal["source"] == "live"
    await wait_until_settled(len(SENTENCE))


async def test_nothing_is_reserved_without_a_budget(
    server: ServerProcess, sandbox: SandboxProcess, member: Callable[..., Member]
) -> None:
    bob = await in_database(member, "Bob Baker")
    async with Device(server.ws, bob.token) as device:
        await device.start(greeting=False)
        await device.speak(SENTENCE)
    assert not await in_database(BudgetMonth.objects.exists)
