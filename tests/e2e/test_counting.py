"""The conversation's counter, the ledger and the provider's own account agree."""

from functools import partial
from typing import Any

import pytest
from django.db.models import Sum

from tests.conftest import Member
from tests.e2e.device import Device
from tests.e2e.rows import accounts_of, in_database
from tests.sandbox import SandboxProcess
from tests.server import ServerProcess
from tests.waiting import eventually
from tts.models import Phrase
from usage.models import DailyUsage

LONG = "This sentence is spoken very slowly, so that there is time to do something else meanwhile."
SLOW: dict[str, Any] = {"kind": "slow", "bytes_per_s": 25_000, "match": {"text": "very slowly"}}
PHRASE = "Counting is what counts!"


@pytest.fixture
def phrase(server: ServerProcess) -> str:
    Phrase.objects.create(text=PHRASE)
    return PHRASE


async def test_every_kind_of_speech_is_counted_once(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member, phrase: str
) -> None:
    sandbox.fault(**SLOW)
    sandbox.fault(kind="error", preset="internal_error", match={"text": "^One error"}, first=1)
    sandbox.fault(kind="error", preset="internal_error", match={"text": "^Two errors"}, first=2)
    sandbox.fault(kind="cut", after_bytes=3000, match={"text": "^Cut"}, first=1)
    sandbox.fault(kind="empty", match={"text": "^Nothing"}, first=1)
    sandbox.fault(kind="error", preset="invalid_text", match={"text": "^Refused"}, first=1)
    texts = {
        "plain": "This one is simply spoken.",
        "unicode": "Ärger über 𝔘 und 漢字 zählt nach Zeichen.",
        "phrase": PHRASE,
        "one": "One error, then it is spoken in the same voice.",
        "two": "Two errors, then it is spoken in another voice.",
        "cut": "Cut in the middle, it is spoken and billed again.",
        "empty": "Nothing came, though it was billed; then it came.",
        "refused": "Refused by the provider, and never billed.",
        "two segments": "This is the first of two segments, and is billed. This is the second of them, and is billed.",
    }
    async with Device(server.ws, alice.token) as device:
        started = await device.start(greeting=False)
        spoken = {id: await device.speak(text, id=id) for id, text in texts.items()}
        for number in range(3):
            await device.start_speech(f"interrupted {number}", LONG)
            await device.interrupt()
            spoken[f"interrupted {number}"] = await device.wait_for(f"interrupted {number}")
        await device.send({"type": "speak", "id": "waiting a", "text": LONG})
        await device.send({"type": "speak", "id": "waiting b", "text": "This one never has its turn."})
        await device.wait_for_audio("waiting a")
        await device.interrupt("waiting b")
        spoken["waiting b"] = await device.wait_for("waiting b")
        await device.interrupt()
        spoken["waiting a"] = await device.wait_for("waiting a")
        for number in range(2):
            spoken[f"phrase {number}"] = await device.speak(PHRASE, id=f"phrase {number}")
        ended = await device.end()

    expected = {id: len(text) for id, text in texts.items()}
    expected |= {"cut": 2 * len(texts["cut"]), "empty": 2 * len(texts["empty"])}
    expected |= {id: len(LONG) for id in ("interrupted 0", "interrupted 1", "interrupted 2", "waiting a")}
    expected |= {"waiting b": 0, "phrase 0": 0, "phrase 1": 0}
    del expected["refused"]
    reported = {id: one.terminal["characters"] for id, one in spoken.items() if one.terminal["type"] != "speech.failed"}
    # Another test run may have cached the phrase.
    expected["phrase"] = reported["phrase"] if reported["phrase"] in (0, len(PHRASE)) else -1
    assert reported == expected

    accounts, account = await accounts_of(started["conversation"]), sandbox.account()
    total = sum(reported.values())
    assert ended["characters"] == accounts.counter == accounts.ledger == account["characters"] == total
    assert sum(event.credits for event in accounts.events) == account["credits"]
    billed = [request["request_id"] for request in sandbox.requests() if request["billed"]]
    assert sorted(event.request_id for event in accounts.events if event.characters) == sorted(billed)
    assert len({(event.source, event.segment, event.attempt) for event in accounts.events}) == len(accounts.events)
    for utterance in accounts.utterances:
        own = sum(event.characters for event in accounts.events if event.source == utterance.id)
        assert utterance.characters == own == reported.get(utterance.client_speech_id, 0)
    assert accounts.outcomes("refused") == [("live", "failed")]
    assert accounts.outcomes("two") == [("live", "failed"), ("retry", "failed"), ("backup", "completed")]
    assert accounts.outcomes("cut") == [("live", "failed"), ("retry", "completed")]
    assert accounts.outcomes("waiting b") == []
    assert accounts.outcomes("phrase 0") == [("cache", "completed")]
    assert {event.saved_characters for event in accounts.events if event.kind == "cache"} == {len(PHRASE)}

    heard = [utterance.id for utterance in accounts.utterances if utterance.bytes_sent]
    opening = [event for event in accounts.events if event.first_chunk_ms is not None]
    assert sorted(event.source for event in opening) == sorted(heard)  # each speech has one first audio
    assert {(event.segment, event.kind) for event in opening} == {
        (0, "live"),
        (0, "retry"),
        (0, "backup"),
        (0, "cache"),
    }
    sums = await in_database(
        lambda: DailyUsage.objects.aggregate(Sum("characters"), Sum("events"), Sum("saved_characters"))
    )
    assert sums["characters__sum"] == total
    assert sums["events__sum"] == len(accounts.events)
    assert sums["saved_characters__sum"] == sum(event.saved_characters for event in accounts.events)


async def test_a_request_without_a_response_is_unknown_and_counts_nothing(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    sandbox.fault(kind="stall_first", match={"text": "^Interrupted"})
    sandbox.fault(kind="stall_first", match={"text": "^Timed out"}, first=1)
    async with Device(server.ws, alice.token) as device:
        started = await device.start(greeting=False)
        await device.send({"type": "speak", "id": "stopped", "text": "Interrupted before anything was heard."})
        await device.assert_nothing_pending()
        await eventually(sandbox.requests)
        await device.interrupt()
        stopped = await device.wait_for("stopped")
        assert stopped.frames == [{"type": "speech.interrupted", "id": "stopped", "bytes": 0, "characters": 0}]
        late = await device.speak("Timed out at first and then spoken.", id="late")
        ended = await device.end()
    accounts = await accounts_of(started["conversation"])
    assert accounts.outcomes("stopped") == [("live", "unknown")]
    assert accounts.outcomes("late") == [("live", "unknown"), ("retry", "completed")]
    assert [event.credits for event in accounts.events if event.outcome == "unknown"] == [0, 0]
    assert [request["billed"] for request in sandbox.requests()] == [False, False, True]
    characters = late.terminal["characters"]
    assert characters == ended["characters"] == accounts.counter == accounts.ledger == sandbox.account()["characters"]


async def counted(conversation: str, sandbox: SandboxProcess) -> bool:
    return (await accounts_of(conversation)).counter == sandbox.account()["characters"]


async def test_the_counter_continues_over_several_connections(
    server: ServerProcess, second_server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    """The connections are to different servers. The database adds, so no sum is overwritten."""
    conversation = None
    for number, place in enumerate((server, second_server, server)):
        async with Device(place.ws, alice.token) as device:
            started = await device.start(greeting=False, resume=conversation)
            conversation = started["conversation"]
            await device.speak("Twenty characters ..", id=f"say {number}")
            await eventually(partial(counted, conversation, sandbox))  # at most 200 ms behind
            if number == 2:
                ended = await device.end()
    accounts = await accounts_of(conversation or "")
    assert ended["characters"] == accounts.counter == accounts.ledger == sandbox.account()["characters"] == 60
