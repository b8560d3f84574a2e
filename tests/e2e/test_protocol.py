"""The device protocol (docs/protocol.md) over a real socket, with a well-behaved device."""

import asyncio
import uuid
from itertools import count
from typing import Any

import pytest
from django.utils import timezone

from tests.conftest import OTHER_VOICE, Member
from tests.e2e.device import Device, spoken_order
from tests.e2e.provider import repeat_requests
from tests.e2e.rows import accounts_of, in_database, wait_for_state
from tests.sandbox import SandboxProcess
from tests.server import ServerProcess
from tests.waiting import eventually
from tts.models import Conversation, Phrase
from voicecare.audio.formats import DEVICE_FORMATS
from voicecare.patients.models import Device as DeviceRow
from voicecare.patients.models import Patient
from voicecare_client import RequestRefused

TEXT = "Your tea is on the table beside the window."
LONG = "This sentence is spoken very slowly, so that there is time to do something else meanwhile."
SLOW: dict[str, Any] = {"kind": "slow", "bytes_per_s": 25_000, "match": {"text": "very slowly"}}
"""LONG takes three seconds as mp3_44100_128."""


# conversation.start and conversation.end


async def test_a_conversation_starts_with_the_default_format_and_the_patients_voice(
    server: ServerProcess, alice: Member
) -> None:
    async with Device(server.ws, alice.token) as device:
        started = await device.start()
        voice = alice.patient.voice
        assert started == {
            "type": "conversation.started",
            "conversation": started["conversation"],
            "companion": "Clara",
            "voice": {"id": str(voice.id), "name": voice.name, "source": "selected"},
            "format": "mp3_44100_128",
            "initiated": "device",
        }
        assert str(uuid.UUID(started["conversation"])) == started["conversation"]
        ended = await device.end()
        assert ended == {"type": "conversation.ended", "conversation": started["conversation"], "characters": 0}


async def test_a_patient_without_a_voice_gets_the_default_voice(server: ServerProcess, bob: Member) -> None:
    async with Device(server.ws, bob.token) as device:
        started = await device.start()
    assert started["voice"]["source"] == "default"


async def test_a_format_must_be_one_of_six(server: ServerProcess, alice: Member) -> None:
    async with Device(server.ws, alice.token) as device:
        for name in ("wav", "", "mp3_44100_192", "opus_48000_64", "MP3_44100_128"):
            refused = await device.request(type="conversation.start", format=name)
            assert (refused["type"], refused["code"]) == ("error", "unknown_format")
            assert all(known in refused["message"] for known in DEVICE_FORMATS)
        for name in DEVICE_FORMATS:
            started = await device.request(type="conversation.start", format=name)
            assert started["format"] == name
            await device.end()


async def test_a_connection_has_one_conversation_at_a_time(server: ServerProcess, alice: Member) -> None:
    async with Device(server.ws, alice.token) as device:
        first = await device.start(greeting=False)
        for again in ({}, {"resume": first["conversation"]}, {"format": "pcm_16000"}):
            refused = await device.request(type="conversation.start", **again)
            assert (refused["type"], refused["code"]) == ("error", "already_started")
        await device.end()
        second = await device.start(greeting=False)
        assert second["conversation"] != first["conversation"]


async def test_the_voice_is_resolved_once_for_the_whole_conversation(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    async with Device(server.ws, alice.token) as device:
        started = await device.start(greeting=False)
        await in_database(Patient.objects.filter(pk=alice.patient.pk).update, voice=None)
        await device.speak(TEXT)
        await device.end()
        following = await device.start(greeting=False)
        await device.speak(TEXT)
    assert started["voice"]["source"] == "selected"
    assert following["voice"]["source"] == "default"
    assert sandbox.requests()[0]["voice_id"] == OTHER_VOICE != sandbox.requests()[1]["voice_id"]


async def test_a_new_connection_may_start_another_conversation_before_resuming_the_first(
    server: ServerProcess, alice: Member
) -> None:
    async with Device(server.ws, alice.token) as device:
        first = await device.start(greeting=False)
    async with Device(server.ws, alice.token) as device:
        second = await device.start(greeting=False)
        assert second["conversation"] != first["conversation"]
        await device.speak(TEXT, id="say-1")
        await device.end()
        resumed = await device.start(resume=first["conversation"])
        assert resumed["conversation"] == first["conversation"]


# Resuming


def _end(conversation: str) -> None:
    Conversation.objects.filter(pk=conversation).update(ended_at=timezone.now())


async def test_only_unfinished_conversations_of_the_same_patient_are_resumed(
    server: ServerProcess, alice: Member, bob: Member
) -> None:
    async with Device(server.ws, bob.token) as stranger:
        foreign = (await stranger.start(greeting=False))["conversation"]
        async with Device(server.ws, alice.token) as device:
            ended = (await device.start(greeting=False))["conversation"]
            await device.end()
            late = (await device.start(greeting=False))["conversation"]
            await device.end()
            await in_database(_end, late)
            wrong = (
                foreign,
                ended,
                late,
                str(uuid.uuid4()),
                "",
                "nonsense",
                "'; DROP TABLE conversations",
                "a" * 5000,
                "{" + ended + "}",
                "0" * 32,
                "ｆ" * 32,
            )
            for resume in wrong:
                refused = await device.request(type="conversation.start", resume=resume)
                assert (refused["type"], refused["code"]) == ("error", "unknown_id"), resume
            await device.assert_nothing_pending()
            started = await device.start(greeting=False)  # the socket still works
            assert started["type"] == "conversation.started"
        await stranger.assert_nothing_pending()


async def test_a_dropped_conversation_is_resumed_as_it_was(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    """Voice, format, counter and used ids are kept, and there is no second greeting."""
    async with Device(server.ws, alice.token, format="pcm_16000") as device:
        started = await device.start(greeting=False)
        await device.speak(TEXT, id="one")
        device.drop_connection()
    await in_database(Patient.objects.filter(pk=alice.patient.pk).update, voice=None)
    async with Device(server.ws, alice.token) as device:
        resumed = await device.start(resume=started["conversation"])
        assert resumed == started
        duplicate = await device.request(type="speak", id="one", text=TEXT)
        assert (duplicate["code"], duplicate["id"]) == ("duplicate_id", "one")
        spoken = await device.speak(TEXT, id="two")
        assert spoken.frames[0]["format"] == "pcm_16000"
        assert await device.end() == {
            "type": "conversation.ended",
            "conversation": started["conversation"],
            "characters": 2 * len(TEXT),
        }
    assert {request["voice_id"] for request in sandbox.requests()} == {OTHER_VOICE}
    assert (await accounts_of(started["conversation"])).counter == 2 * len(TEXT)


async def test_a_speech_cut_by_a_dropped_connection_is_counted_in_an_immediate_resume(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    sandbox.fault(**SLOW)
    async with Device(server.ws, alice.token) as device:
        started = await device.start(greeting=False)
        await device.start_speech("broken", LONG)
        device.drop_connection()
        async with Device(server.ws, alice.token) as following:
            await following.start(resume=started["conversation"])
            duplicate = await following.request(type="speak", id="broken", text=TEXT)
            ended = await following.end()
    accounts = await accounts_of(started["conversation"])
    assert (duplicate["type"], duplicate.get("code")) == ("error", "duplicate_id")
    assert ended["characters"] == accounts.counter == accounts.ledger == len(LONG)
    assert accounts.utterance("broken").state == "interrupted"


async def test_ids_of_finished_speeches_are_kept_after_a_resume(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    """The connection is replaced immediately after the end of the speech, before its row was written."""
    async with Device(server.ws, alice.token) as device:
        started = await device.start(greeting=False)
        await device.speak(TEXT, id="one")
        async with Device(server.ws, alice.token) as following:
            await following.start(resume=started["conversation"])
            duplicate = await following.request(type="speak", id="one", text=TEXT)
            assert duplicate.get("code") == "duplicate_id"
            assert (await following.end())["characters"] == len(TEXT)


# The greeting


@pytest.fixture
def greeting(server: ServerProcess) -> str:
    """A greeting that no other test has put into the server's cache."""
    text = f"Hello {{patient_name}}, this is {{ai_name}}, your companion of today, number {uuid.uuid4().hex[:6]}."
    Phrase.objects.create(kind="greeting", text=text)
    return text.replace("{patient_name}", "Alice").replace("{ai_name}", "Clara")


@pytest.fixture
def preferred(alice: Member) -> Member:
    alice.patient.preferred_name = "Alice"
    alice.patient.save()
    return alice


async def test_a_greeting_is_spoken_first_and_then_comes_from_the_cache(
    server: ServerProcess, sandbox: SandboxProcess, greeting: str, preferred: Member
) -> None:
    async with Device(server.ws, preferred.token) as device:
        await device.start()
        spoken = await device.speak(TEXT, id="say")
        first = device.speeches["greeting"]
        assert spoken_order(device.received) == ["greeting", "say"]
        assert first.frames[0]["source"] == "live"
        assert (first.terminal["type"], first.terminal["characters"]) == ("speech.finished", len(greeting))
        assert "".join(request["text"] for request in sandbox.requests()[:-1]) == greeting
        assert spoken.terminal["source"] == "live"
        assert (await device.end())["characters"] == len(greeting) + len(TEXT)

        requests_before = len(sandbox.requests())
        started = await device.start(greeting=True)
        again = await device.wait_for("greeting")
        assert [again.frames[0]["source"], again.terminal["source"]] == ["cache", "cache"]
        assert again.terminal["characters"] == 0
        assert again.audio == first.audio
        assert len(sandbox.requests()) == requests_before
        assert (await device.end())["characters"] == 0
    accounts = await accounts_of(started["conversation"])
    assert accounts.counter == accounts.ledger == 0
    assert [(event.kind, event.saved_characters) for event in accounts.events] == [("cache", len(greeting))]


async def test_the_greeting_can_be_declined(
    server: ServerProcess, sandbox: SandboxProcess, greeting: str, alice: Member
) -> None:
    async with Device(server.ws, alice.token) as device:
        started = await device.start(greeting=False)
        await device.assert_nothing_pending()
        await device.speak(TEXT)
    assert "greeting" not in device.speeches
    async with Device(server.ws, alice.token) as device:
        await device.start(resume=started["conversation"])
        await device.assert_nothing_pending()
        await device.speak(TEXT, id="after")
    assert "greeting" not in device.speeches
    async with Device(server.ws, alice.token) as device:
        await device.start(resume=started["conversation"], greeting=True)
        assert (await device.wait_for("greeting")).terminal["type"] == "speech.finished"
        assert spoken_order(device.received) == ["greeting"]


async def test_a_greeting_can_be_interrupted(
    server: ServerProcess, sandbox: SandboxProcess, greeting: str, alice: Member
) -> None:
    sandbox.fault(kind="slow", bytes_per_s=8_000)
    for by_name in ({}, {"id": "greeting"}):
        async with Device(server.ws, alice.token) as device:
            await device.start()
            await device.wait_for_audio("greeting")
            await device.send({"type": "interrupt", **by_name})
            assert (await device.wait_for("greeting")).terminal["type"] == "speech.interrupted"
            await device.assert_nothing_pending()


# Speaking


async def test_several_speeches_wait_their_turn(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member, phrase: str
) -> None:
    texts = {
        "a": LONG,
        "b": "Yes.",
        "c": TEXT,
        "d": phrase,
        "e": "And now the weather. It is fine.",
        "f": "No.",
    }
    sandbox.fault(**{**SLOW, "bytes_per_s": 60_000})
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        for id, text in texts.items():
            await device.send({"type": "speak", "id": id, "text": text})
        for id in texts:
            assert (await device.wait_for(id)).terminal["type"] == "speech.finished"
    assert spoken_order(device.received) == list(texts)
    by_text = {request["text"]: request for request in sandbox.requests()}
    sandbox.clear_faults()
    for id in "abcf":
        assert device.speeches[id].audio == await repeat_requests(sandbox, [by_text[texts[id]]])


@pytest.fixture
def phrase(server: ServerProcess) -> str:
    """A known phrase that no other test has put into the server's cache."""
    text = f"That is wonderful number {uuid.uuid4().hex[:6]}!"
    Phrase.objects.create(text=text)
    return text


async def test_a_known_phrase_comes_from_the_cache(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member, phrase: str
) -> None:
    async with Device(server.ws, alice.token) as device:
        started = await device.start(greeting=False)
        first = await device.speak(phrase, id="first")
        assert (first.terminal["source"], first.terminal["characters"]) == ("live", len(phrase))
        numbers = count(1)

        async def from_the_cache() -> bool:  # it is stored in the background
            return (await device.speak(phrase, id=f"again-{next(numbers)}")).terminal["source"] == "cache"

        await eventually(from_the_cache)
        requests_before = len(sandbox.requests())
        cached = await device.speak(phrase, id="cached")
        assert cached.frames[0] | {"source": "cache"} == cached.frames[0]
        assert (cached.terminal["source"], cached.terminal["characters"]) == ("cache", 0)
        assert cached.audio == first.audio
        spaced = await device.speak(f"  {phrase.replace(' ', '   ')} ", id="spaced")
        assert spaced.terminal["source"] == "cache"
        mixed = await device.speak(f"{phrase} And that is something which nobody has said before.", id="mixed")
        assert mixed.frames[0]["source"] == "cache"
        assert mixed.terminal["source"] == "live"
        assert mixed.frames_of("speech.switched") == []  # the voice does not change
        assert mixed.audio.startswith(first.audio)
        requests = sandbox.requests()
        assert len(requests) == requests_before + 1
        assert phrase not in requests[-1]["text"]
        await device.end()
    accounts = await accounts_of(started["conversation"])
    assert accounts.counter == accounts.ledger == sandbox.account()["characters"]
    assert accounts.outcomes("cached") == [("cache", "completed")]


async def test_an_id_may_have_any_64_characters(server: ServerProcess, sandbox: SandboxProcess, alice: Member) -> None:
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        for id in ("x" * 64, "ü" * 64, "🙂" * 64, "say 1", "greeting ", "srv", "SRV-1", '"\\\n', "0", "null"):
            spoken = await device.speak("Yes.", id=id)
            assert spoken.terminal["type"] == "speech.finished", id
        ended = await device.end()
    assert len((await accounts_of(ended["conversation"])).utterances) == 10


@pytest.mark.parametrize(
    "text", ["…", "🙂🙂", "Ärger über Größe: 漢字, हिन्दी, العربية", "<break time='3s'/> [[h@'loU]]", "a"]
)
async def test_unusual_texts_can_be_spoken(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member, text: str
) -> None:
    async with Device(server.ws, alice.token) as device:
        started = await device.start(greeting=False)
        spoken = await device.speak(text, id="say")
        assert spoken.terminal["type"] == "speech.finished"
        await device.end()
    accounts = await accounts_of(started["conversation"])
    assert accounts.utterance("say").text == text
    assert accounts.counter == sandbox.account()["characters"]


# Text that is still being written


async def test_a_text_is_spoken_while_it_is_written(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    pieces = ["Good morning my dear, the night has been ", "very quiet and long. It ", "is eight o'clock now."]
    async with Device(server.ws, alice.token) as device:
        started = await device.start(greeting=False)
        for piece in pieces[:2]:
            await device.send({"type": "speak.delta", "id": "written", "text": piece})
        await device.wait_for_audio("written")  # speak.done was not sent
        late = await device.error_for('{"type": "speak", "id": "written", "text": "Something else."}')
        assert (late["code"], late["id"]) == ("duplicate_id", "written")
        await device.send({"type": "speak.delta", "id": "written", "text": pieces[2]})
        await device.send({"type": "speak.done", "id": "written"})
        spoken = await device.wait_for("written")
        refused = await device.request(type="speak.delta", id="written", text="More.")
        assert (refused["code"], refused["id"]) == ("duplicate_id", "written")
        await device.end()
    text = "".join(pieces)
    assert spoken_order(device.received) == ["written"]
    assert spoken.terminal["characters"] == len(text)
    assert [request["text"] for request in sandbox.requests()] == [
        "Good morning my dear, the night has been very quiet and long. ",
        "It is eight o'clock now.",
    ]
    assert (await accounts_of(started["conversation"])).utterance("written").text == text


async def test_a_complete_sentence_is_spoken_during_a_pause_of_the_writer(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        first, second = "Let me look for that in your calendar, my dear.", " You are free on Monday"
        await device.send({"type": "speak.delta", "id": "written", "text": first})
        await device.wait_for_audio("written")
        await device.send({"type": "speak.delta", "id": "written", "text": second})
        await device.send({"type": "speak.done", "id": "written"})
        await device.wait_for("written")
    assert [request["text"] for request in sandbox.requests()] == [first, second]


async def test_a_text_being_written_waits_for_its_turn_and_keeps_its_place(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        await device.send({"type": "speak.delta", "id": "first", "text": "It"})
        await device.send({"type": "speak", "id": "second", "text": "Yes."})
        await device.assert_nothing_pending()
        await device.send({"type": "speak.delta", "id": "first", "text": " is."})
        await device.send({"type": "speak.done", "id": "first"})
        await device.wait_for("second")
    assert spoken_order(device.received) == ["first", "second"]
    assert [request["text"] for request in sandbox.requests()] == ["It is.", "Yes."]


async def test_of_a_text_that_grows_too_long_the_accepted_part_is_spoken(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    sandbox.fault(kind="slow", bytes_per_s=30_000)
    piece = ("These are many words of one long text. " * 26)[:1000]
    async with Device(server.ws, alice.token) as device:
        started = await device.start(greeting=False)
        for _ in range(5):
            await device.send({"type": "speak.delta", "id": "long", "text": piece})
        await device.wait_for_audio("long")
        refused = await device.request(type="speak.delta", id="long", text="!")
        assert (refused["code"], refused["id"]) == ("too_long", "long")
        await device.send({"type": "speak.delta", "id": "long", "text": "!"})
        await device.assert_nothing_pending()  # later pieces are ignored
        heard = len(device.speeches["long"].chunks)
        while len(device.speeches["long"].chunks) == heard:
            await device.receive()  # and it continues
        await device.interrupt()
        await device.wait_for("long")
        await device.end()
    assert (await accounts_of(started["conversation"])).utterance("long").text == piece * 5


async def test_pieces_after_an_interrupt_are_ignored(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    sandbox.fault(**SLOW)
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        await device.send({"type": "speak.delta", "id": "written", "text": LONG + " And"})
        await device.wait_for_audio("written")
        await device.interrupt("written")
        await device.wait_for("written")
        await device.send({"type": "speak.delta", "id": "written", "text": " more."})
        await device.send({"type": "speak.done", "id": "written"})
        await device.assert_nothing_pending()
        spoken = await device.speak(TEXT, id="next")
        assert spoken.terminal["type"] == "speech.finished"


# Interrupts


async def test_an_interrupt_ends_the_playing_speech_immediately(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    sandbox.fault(**SLOW)
    async with Device(server.ws, alice.token) as device:
        started = await device.start(greeting=False)
        await device.start_speech("long", LONG)
        await device.interrupt()
        spoken = await device.wait_for("long")
        assert spoken.terminal == {
            "type": "speech.interrupted",
            "id": "long",
            "bytes": len(spoken.audio),
            "characters": len(LONG),
        }
        await device.interrupt()  # nothing is playing: no reply
        await device.interrupt("long")  # it has ended: no reply
        await device.assert_nothing_pending()
        following = await device.speak(TEXT, id="next")
        assert following.terminal["type"] == "speech.finished"
        await device.end()
    assert spoken_order(device.received) == ["long", "next"]
    await eventually(lambda: _outcome(sandbox, 0, "cancelled"))
    assert sandbox.requests()[0]["bytes_sent"] < 80_000
    accounts = await accounts_of(started["conversation"])
    assert accounts.utterance("long").state == "interrupted"
    assert accounts.outcomes("long") == [("live", "cancelled")]
    assert accounts.counter == len(LONG) + len(TEXT)


async def _outcome(sandbox: SandboxProcess, number: int, outcome: str) -> bool:
    return bool(sandbox.requests()[number]["outcome"] == outcome)


async def test_an_interrupt_stops_the_named_speech(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    sandbox.fault(**SLOW)
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        await device.start_speech("a", LONG)
        for id in ("b", "c"):
            await device.send({"type": "speak", "id": id, "text": TEXT})
        await device.interrupt("b")
        waiting = await device.wait_for("b")
        assert waiting.frames == [{"type": "speech.interrupted", "id": "b", "bytes": 0, "characters": 0}]
        assert not device.speeches["a"].is_done
        await device.interrupt("a")
        await device.wait_for("c")
        assert device.speeches["a"].terminal["type"] == "speech.interrupted"
        assert device.speeches["c"].terminal["type"] == "speech.finished"
    assert spoken_order(device.received) == ["a", "c"]
    assert [request["text"] for request in sandbox.requests()] == [LONG, TEXT]


async def test_an_interrupt_without_an_id_stops_all(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    sandbox.fault(**SLOW)
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        await device.start_speech("a", LONG)
        for id in ("b", "c"):
            await device.send({"type": "speak", "id": id, "text": TEXT})
        await device.interrupt()
        for id in ("a", "b", "c"):
            assert (await device.wait_for(id)).terminal["type"] == "speech.interrupted"
        spoken = await device.speak(TEXT, id="d")
        assert spoken.terminal["type"] == "speech.finished"
    assert spoken_order(device.received) == ["a", "d"]


async def test_the_end_of_a_conversation_ends_its_speeches_first(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    sandbox.fault(**SLOW)
    async with Device(server.ws, alice.token) as device:
        started = await device.start(greeting=False)
        await device.start_speech("a", LONG)
        for id in ("b", "c"):
            await device.send({"type": "speak", "id": id, "text": TEXT})
        ended = await device.end()
        events = [(frame["type"], frame.get("id")) for frame in device.received if isinstance(frame, dict)]
        assert sorted(events[-4:-1]) == [("speech.interrupted", id) for id in "abc"]
        assert events[-1] == ("conversation.ended", None)
        await device.assert_nothing_pending()
        assert (await device.request(type="speak", id="d", text=TEXT))["code"] == "no_conversation"
    accounts = await accounts_of(started["conversation"])
    assert ended["characters"] == accounts.counter == accounts.ledger == len(LONG)
    assert {utterance.state for utterance in accounts.utterances} == {"interrupted"}
    assert accounts.conversation.ended_at is not None


async def test_a_closed_connection_ends_its_speeches_but_not_its_conversation(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    sandbox.fault(**SLOW)
    async with Device(server.ws, alice.token) as device:
        started = await device.start(greeting=False)
        await device.start_speech("a", LONG)
        await device.send({"type": "speak", "id": "b", "text": TEXT})
        await device.assert_nothing_pending()
    for id in ("a", "b"):
        await wait_for_state(started["conversation"], id, "interrupted")
    accounts = await accounts_of(started["conversation"])
    assert accounts.conversation.ended_at is None
    assert accounts.counter == accounts.ledger == len(LONG)
    await eventually(lambda: _outcome(sandbox, 0, "cancelled"))


# Ping, progress, several devices


async def test_a_ping_is_answered_with_the_same_t(server: ServerProcess, alice: Member) -> None:
    async with Device(server.ws, alice.token) as device:
        for t in (0, -1, 1.5, 2**53, 10**30, "", "abc", "🙂"):
            assert await device.request(type="ping", t=t) == {"type": "pong", "t": t}
        assert await device.request(type="ping") == {"type": "pong"}
        await device.send_text('{"type": "speak", "type": "ping", "t": 1, "t": 2, "unknown": []}')
        assert await device.next_frame() == {"type": "pong", "t": 2}
        await device.send_text(' \n{"type":"ping"}\n ')
        assert await device.next_frame() == {"type": "pong"}


async def test_progress_and_ack_get_no_reply(server: ServerProcess, sandbox: SandboxProcess, alice: Member) -> None:
    sandbox.fault(**SLOW)
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        await device.start_speech("a", LONG)
        for ms in (0, 10, 5, 12.5, 10**9, 1e300):
            await device.send({"type": "progress", "id": "a", "ms": ms})
        await device.send({"type": "ack", "id": "a"})
        await device.assert_nothing_pending()
        spoken = await device.wait_for("a")
        assert spoken.terminal["type"] == "speech.finished"
        await device.send({"type": "progress", "id": "a", "ms": 20})
        await device.send({"type": "ack", "id": "a"})
        await device.assert_nothing_pending()


async def test_a_long_speech_is_requested_no_faster_than_it_is_played(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    """At most one segment is requested ahead. `progress` reports how far the device is."""
    text = "This is one of the many sentences of a story that takes a while. " * 8
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        await device.start_speech("story", text)
        await asyncio.sleep(1.0)
        await device.assert_nothing_pending()
        assert len(sandbox.requests()) == 2
        heard_ms = len(device.speeches["story"].audio) // 16
        await device.send({"type": "progress", "id": "story", "ms": heard_ms})
        await eventually(lambda: _has_requests(sandbox, device, 3))
        await device.interrupt()
        await device.wait_for("story")


async def _has_requests(sandbox: SandboxProcess, device: Device, requests: int) -> bool:
    await device.assert_nothing_pending()
    return len(sandbox.requests()) == requests


async def test_two_patients_get_only_their_own_speech(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member, bob: Member
) -> None:
    async with Device(server.ws, alice.token) as one, Device(server.ws, bob.token) as two:
        await asyncio.gather(one.start(greeting=False), two.start(greeting=False))
        alices, bobs = await asyncio.gather(
            one.speak("Alice, this is only for you and for nobody else.", id="same"),
            two.speak("Bob, this is only for you and for nobody else.", id="same"),
        )
    by_text = {request["text"].split(",")[0]: request for request in sandbox.requests()}
    assert alices.audio == await repeat_requests(sandbox, [by_text["Alice"]])
    assert bobs.audio == await repeat_requests(sandbox, [by_text["Bob"]])


async def test_two_devices_of_one_patient_are_served_at_the_same_time(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member, second_device: Member
) -> None:
    async with Device(server.ws, alice.token) as one, Device(server.ws, second_device.token) as two:
        first, second = await asyncio.gather(one.start(greeting=False), two.start(greeting=False))
        assert first["conversation"] != second["conversation"]
        spoken = await asyncio.gather(one.speak(TEXT), two.speak(TEXT))
        assert [one.terminal["type"] for one in spoken] == ["speech.finished"] * 2
        with pytest.raises(RequestRefused):
            await two.start(resume=first["conversation"])  # already started


@pytest.fixture
def second_device(alice: Member) -> Member:
    device, token = DeviceRow.objects.issue(alice.patient, "kitchen")
    return Member(alice.patient, device, token)


async def test_a_conversation_continues_on_the_device_that_resumed_it_last(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    _, token = await in_database(DeviceRow.objects.issue, alice.patient, "kitchen")
    text = "This is a long story that goes on and on, so that it is still being told. " * 6
    async with Device(server.ws, alice.token) as bedside, Device(server.ws, token) as kitchen:
        started = await bedside.start(greeting=False)
        await bedside.start_speech("story", text)
        resumed = await kitchen.start(resume=started["conversation"])
        assert resumed["conversation"] == started["conversation"]
        assert (await bedside.wait_for("story")).terminal["type"] == "speech.interrupted"
        await bedside.wait_for_frame("conversation.ended", conversation=started["conversation"])
        assert (await bedside.request(type="speak", id="more", text="Anybody?"))["code"] == "no_conversation"
        assert (await kitchen.speak("Here it goes on.")).terminal["type"] == "speech.finished"
        ended = await kitchen.end()
    account = await accounts_of(started["conversation"])
    assert ended["characters"] == account.counter == account.ledger
