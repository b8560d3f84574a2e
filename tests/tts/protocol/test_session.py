"""The session follows docs/protocol.md: every message type, every error code and every invalid input."""

import json
import subprocess
import sys
import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tts.examples import new_session, opened
from tests.tts.examples import speech as example
from tts.conversations.context import OpenConversation
from tts.protocol.commands import (
    AcknowledgeDelivery,
    CancelDelivery,
    CloseConnection,
    Command,
    DiscardAudio,
    DiscardSpeech,
    EndConversation,
    ReportPlayback,
    SendFrame,
    StartConversation,
    StartSpeech,
    StopSpeech,
)
from tts.protocol.messages import ProtocolError
from tts.protocol.session import Session
from tts.protocol.text_assembler import MAX_REJECTED_IDS
from tts.speech import Speech
from tts.states import UtteranceState
from voicecare.audio.formats import DEVICE_FORMATS

TYPES = {
    *("conversation.start", "conversation.end", "speak", "speak.delta", "speak.done"),
    *("interrupt", "ack", "progress", "ping"),
}
NO_TEXT = (None, True, 0, 1.5, [], {}, ["text"])


def test_the_protocol_needs_no_orm():
    program = "import sys, tts.protocol.session, tts.outbox.claim; sys.exit('django.db' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == 0


def open_session(*, characters_per_minute: int = 1_000_000, **conversation: Any) -> Session:
    """Return a session with an open conversation."""
    session = new_session(characters_per_minute)
    session.start_conversation(opened(**conversation))
    return session


def feed(session: Session, now: float = 0.0, /, **message: object) -> list[Command]:
    return session.text_frame(json.dumps(message), now)


def speak(session: Session, speech_id: str = "s1", text: str = "How are you?", now: float = 0.0) -> list[Command]:
    return feed(session, now, type="speak", id=speech_id, text=text)


def delta(session: Session, speech_id: str = "d1", text: str = "How are ", now: float = 0.0) -> list[Command]:
    return feed(session, now, type="speak.delta", id=speech_id, text=text)


def started(commands: list[Command]) -> list[str]:
    """Return the ids of the started speeches. There must be no other command."""
    assert all(isinstance(command, StartSpeech) for command in commands)
    return [command.speech.id for command in commands]


def playing(session: Session, speech_id: str = "s1", text: str = "How are you?") -> Speech:
    assert started(speak(session, speech_id, text)) == [speech_id]
    return start_next(session)


def start_next(session: Session) -> Speech:
    speech = session.queue.start_next()
    assert speech is not None
    return speech


def error(commands: list[Command]) -> dict[str, Any]:
    """Return the `error` frame, which must be the only command."""
    (reply,) = commands
    assert isinstance(reply, SendFrame)
    assert reply.frame["type"] == "error"
    assert set(reply.frame) <= {"type", "code", "message", "id"}
    json.dumps(reply.frame, ensure_ascii=False).encode()
    return reply.frame


def code(commands: list[Command]) -> str:
    return error(commands)["code"]


def waiting(session: Session) -> list[str]:
    return [speech.id for speech in session.queue.waiting]


# Frames


@pytest.mark.parametrize("frame", ["", "{", "[]", "null", '"ping"', "[" * 60_000, '{"a":' * 10_000, '{"t": NaN}'])
def test_a_frame_that_is_not_a_json_object_is_bad_json(frame: str):
    assert error(open_session().text_frame(frame, 0.0)) == {
        "type": "error",
        "code": "bad_json",
        "message": "A frame must be one JSON object.",
    }


def test_100000_nested_brackets_are_a_frame_that_is_too_large():
    assert open_session().text_frame("[" * 100_000, 0.0) == [CloseConnection(4009)]


@pytest.mark.parametrize(
    "message",
    [{}, {"id": "s1"}, *({"type": kind} for kind in (*NO_TEXT, "", "Speak", "speak ", "speech.started", "\ud800"))],
)
def test_an_unknown_type_is_a_bad_message_that_lists_the_known_types(message: dict):
    frame = error(feed(open_session(), **message))
    assert frame["code"] == "bad_message"
    assert all(kind in frame["message"] for kind in ("`type`", *TYPES))


def test_the_last_of_two_equal_keys_wins():
    assert open_session().text_frame('{"type": "speak", "t": 1, "type": "ping", "t": 2}', 0.0) == [
        SendFrame({"type": "pong", "t": 2})
    ]


def test_unknown_fields_are_ignored():
    assert feed(open_session(), type="ping", volume=11, nested={"a": [1e308]}) == [SendFrame({"type": "pong"})]


def test_a_number_too_large_for_a_float_is_an_error_only_where_it_is_read():
    assert open_session().text_frame('{"type": "ping", "x": 1e400}', 0.0) == [SendFrame({"type": "pong"})]
    assert code(open_session().text_frame('{"type": "ping", "t": 1e400}', 0.0)) == "bad_message"


@pytest.mark.parametrize("filling", ["x", "é", "🙂"])
def test_a_frame_of_64_kib_is_accepted_and_one_byte_more_closes_the_connection(filling: str):
    head, tail = '{"type": "ping", "x": "', '"}'
    room = 64 * 1024 - len(head) - len(tail)
    count, rest = divmod(room, len(filling.encode()))
    frame = head + filling * count + "x" * rest + tail
    assert len(frame.encode()) == 64 * 1024
    assert open_session().text_frame(frame, 0.0) == [SendFrame({"type": "pong"})]
    assert open_session().text_frame(frame + " ", 0.0) == [CloseConnection(4009)]


def test_a_binary_frame_is_rejected_and_changes_nothing():
    session = open_session()
    speech = playing(session)
    assert code(session.binary_frame()) == "unexpected_binary"
    assert session.queue.playing is speech


# Invalid fields

MINIMAL = {
    "conversation.start": {},
    "speak": {"id": "s1", "text": "Hello."},
    "speak.delta": {"id": "s1", "text": "Hello."},
    "speak.done": {"id": "s1"},
    "interrupt": {"id": "s1"},
    "ack": {"id": "s1"},
    "progress": {"id": "s1", "ms": 1},
}
WRONG: list[tuple[str, str, object]] = [
    *((kind, "id", value) for kind in ("speak", "speak.delta", "speak.done", "ack", "progress") for value in NO_TEXT),
    *((kind, "text", value) for kind in ("speak", "speak.delta") for value in NO_TEXT),
    *(("conversation.start", field, value) for field in ("format", "resume") for value in NO_TEXT[1:]),
    *(("conversation.start", "greeting", value) for value in (0, 1, "true", "", 1.0, [], {})),
    *(("interrupt", "id", value) for value in NO_TEXT[1:]),
    *(("progress", "ms", value) for value in (None, True, False, "5", "", -0.5, -1, -(10**30), [], {})),
    *(
        (kind, "id", value)
        for kind in MINIMAL
        if "id" in MINIMAL[kind]
        for value in ("", " ", "\t", "x" * 65, "🙂" * 65)
    ),
    *((kind, "id", "a\ud800") for kind in MINIMAL if "id" in MINIMAL[kind]),
    *((kind, "id", "a\0") for kind in MINIMAL if "id" in MINIMAL[kind]),
    *((kind, "id", value) for kind in ("speak", "speak.delta") for value in ("greeting", "srv-", "srv-1")),
    *(("speak", "text", value) for value in ("", " ", "\n\t ", "\u3000", "half \ud83d", "\udc00", "a\0b")),
    *(("speak.delta", "text", value) for value in ("", "x" * 1001, "\ude42 half", "half \ud83d half", "a\0b")),
    *(("conversation.start", field, "\ud800") for field in ("format", "resume")),
]


def session_ready_for(kind: str) -> Session:
    """Return a session that accepts a message of this type."""
    if kind == "conversation.start":
        return new_session(10_000)
    session = open_session()
    if kind not in ("speak", "speak.delta"):
        speak(session)
    return session


@pytest.mark.parametrize("kind", MINIMAL)
def test_the_smallest_message_of_each_type_is_accepted(kind: str):
    commands = feed(session_ready_for(kind), type=kind, **MINIMAL[kind])
    assert not any(isinstance(command, SendFrame | CloseConnection) for command in commands)


@pytest.mark.parametrize(("kind", "field", "value"), WRONG)
def test_a_bad_field_is_a_bad_message_that_names_the_field_and_changes_nothing(kind: str, field: str, value: object):
    session = session_ready_for(kind)
    before = waiting(session)
    frame = error(feed(session, type=kind, **{**MINIMAL[kind], field: value}))
    assert frame["code"] == "bad_message"
    assert f"`{field}`" in frame["message"]
    assert waiting(session) == before


@pytest.mark.parametrize(
    ("kind", "field"),
    [(kind, field) for kind in MINIMAL for field in MINIMAL[kind] if (kind, field) != ("interrupt", "id")],
)
def test_a_missing_field_is_a_bad_message_that_names_the_field(kind: str, field: str):
    message = {name: value for name, value in MINIMAL[kind].items() if name != field}
    frame = error(feed(session_ready_for(kind), type=kind, **message))
    assert frame["code"] == "bad_message"
    assert f"`{field}`" in frame["message"]


def test_an_error_about_a_speech_has_its_id():
    frame = error(feed(open_session(), type="speak", id="s1", text=5))
    assert frame["id"] == "s1"


@pytest.mark.parametrize("value", [True, False, [], {}, [1], "half \ud83d"])
def test_a_ping_with_a_t_that_cannot_be_returned_is_rejected(value: object):
    frame = error(feed(open_session(), type="ping", t=value))
    assert frame["code"] == "bad_message"
    assert "`t`" in frame["message"]


# ping


@pytest.mark.parametrize("t", [0, 1, -5, 1.5, 1e308, 10**300, "", "now", "🙂"])
def test_pong_returns_the_same_t(t: object):
    assert feed(new_session(), type="ping", t=t) == [SendFrame({"type": "pong", "t": t})]


@pytest.mark.parametrize("message", [{}, {"t": None}])
def test_a_ping_without_t_gets_a_pong_without_t(message: dict):
    assert feed(new_session(), type="ping", **message) == [SendFrame({"type": "pong"})]


# conversation.start


@pytest.mark.parametrize(
    ("fields", "start"),
    [
        ({}, StartConversation(None, None, None)),
        ({"format": None, "resume": None, "greeting": None}, StartConversation(None, None, None)),
        ({"format": "pcm_16000", "greeting": False}, StartConversation("pcm_16000", None, False)),
        ({"resume": "no uuid at all", "greeting": True}, StartConversation(None, "no uuid at all", True)),
        *(({"format": name}, StartConversation(name, None, None)) for name in DEVICE_FORMATS),
    ],
)
def test_a_start_is_passed_on_as_requested(fields: dict, start: StartConversation):
    assert feed(new_session(), type="conversation.start", **fields) == [start]


@pytest.mark.parametrize("ms", [500, 2400, 600_000])
def test_the_buffer_of_the_device_is_passed_on(ms: int):
    start = StartConversation(None, None, None, ms)
    assert feed(new_session(), type="conversation.start", buffer_ms=ms) == [start]


@pytest.mark.parametrize("ms", [0, 499, 600_001, -1, 2400.5, True, "2400", [], 10**400])
def test_an_impossible_buffer_is_rejected(ms: object):
    frame = error(feed(new_session(), type="conversation.start", buffer_ms=ms))
    assert frame["code"] == "bad_message"
    assert "`buffer_ms` must be a whole number from 500 to 600000." in frame["message"]


def test_an_interrupt_empties_the_buffer_of_a_device_that_has_named_its_size():
    session = open_session()
    session.start_conversation(replace(session.conversation, buffer_ms=2400))
    speech = playing(session)
    assert feed(session, type="interrupt") == [StopSpeech(), DiscardAudio(None)]
    assert feed(session, type="interrupt", id=speech.id)[-1] == DiscardAudio(speech.id)


def test_the_formats_are_those_of_the_protocol_with_the_default_first():
    assert DEVICE_FORMATS == (
        "mp3_44100_128",
        "mp3_22050_32",
        "pcm_16000",
        "pcm_22050",
        "pcm_24000",
        "ulaw_8000",
        "opus_48000_32",
    )


@pytest.mark.parametrize("name", ["", "mp3", "MP3_44100_128", "pcm_44100", "opus_48000_64"])
def test_an_unknown_format_is_rejected_with_a_list_of_all_formats(name: str):
    frame = error(feed(new_session(), type="conversation.start", format=name))
    assert frame["code"] == "unknown_format"
    assert all(known in frame["message"] for known in DEVICE_FORMATS)


def test_a_second_start_is_rejected_and_changes_nothing():
    session = open_session()
    speech = playing(session)
    assert code(feed(session, type="conversation.start")) == "already_started"
    assert session.queue.playing is speech


def test_another_conversation_may_start_after_the_first_has_ended():
    session = open_session()
    feed(session, type="conversation.end")
    session.finish_conversation()
    assert feed(session, type="conversation.start") == [StartConversation(None, None, None)]


def test_a_start_that_cannot_be_executed_is_an_error_and_another_may_follow():
    session = new_session()
    feed(session, type="conversation.start", resume="unknown")
    assert code(session.reject(ProtocolError("unknown_id", "There is none."))) == "unknown_id"
    assert feed(session, type="conversation.start") == [StartConversation(None, None, None)]


@pytest.mark.parametrize(
    "message",
    [
        {"type": "speak", "id": "s1", "text": "Hello."},
        {"type": "speak.delta", "id": "s1", "text": "Hello."},
        {"type": "speak.done", "id": "s1"},
        {"type": "interrupt"},
        {"type": "interrupt", "id": "s1"},
        {"type": "progress", "id": "s1", "ms": 1},
        {"type": "ack", "id": "s1"},
        {"type": "conversation.end"},
    ],
)
@pytest.mark.parametrize("session", [new_session(), "ended"], ids=["none yet", "ended"])
def test_without_a_conversation_most_messages_are_rejected(session: Session | str, message: dict):
    if not isinstance(session, Session):
        session = open_session()
        speak(session)
        session.queue.pop_pending()
        session.finish_conversation()
    assert code(feed(session, **message)) == "no_conversation"


# The greeting


def test_the_greeting_is_a_speech_with_the_id_greeting():
    session = open_session(greeting="Hello Alice.")
    speech = session.enqueue_greeting(0.0)
    assert speech is not None
    assert (speech.id, speech.origin, speech.text_stream.text) == ("greeting", "greeting", "Hello Alice.")
    assert session.queue.start_next() is speech


@pytest.mark.parametrize("greeting", [None, ""])
def test_a_language_without_a_greeting_has_no_greeting_speech(greeting: str | None):
    session = open_session(greeting=greeting)
    assert session.enqueue_greeting(0.0) is None
    assert not session.queue.waiting


def test_the_greeting_does_not_count_for_the_rate_limit():
    session = open_session(greeting="x" * 200, characters_per_minute=100)
    session.enqueue_greeting(0.0)
    assert started(speak(session, text="x" * 100)) == ["s1"]


@pytest.mark.parametrize("named", [{}, {"id": "greeting"}])
def test_the_greeting_can_be_interrupted(named: dict):
    session = open_session()
    session.enqueue_greeting(0.0)
    session.queue.start_next()
    assert feed(session, type="interrupt", **named) == [StopSpeech()]


def test_a_resumed_conversation_may_greet_again():
    session = open_session(used_ids=frozenset({"greeting"}))
    assert session.enqueue_greeting(0.0) is not None


# speak


def test_an_accepted_speech_waits_with_its_conversation_and_patient():
    session = open_session()
    assert started(speak(session, "s1", " Hello, Ünï 🙂 \n")) == ["s1"]
    (speech,) = session.queue.waiting
    context = session.require_conversation().context
    assert (speech.id, speech.text_stream.text, speech.text_stream.complete) == ("s1", " Hello, Ünï 🙂 \n", True)
    assert (speech.conversation_id, speech.patient_id) == (context.conversation_id, context.patient_id)
    assert (speech.origin, speech.progress.state, speech.progress.characters) == ("device", "waiting", 0)


@pytest.mark.parametrize("sign", ["x", "é", "🙂"])
def test_a_text_may_have_5000_characters_at_most(sign: str):
    session = open_session()
    assert started(session.text_frame(json.dumps({"type": "speak", "id": "s1", "text": sign * 5000}), 0.0)) == ["s1"]
    too_long = json.dumps({"type": "speak", "id": "s2", "text": sign * 5001}, ensure_ascii=False)
    frame = error(session.text_frame(too_long, 0.0))
    assert (frame["code"], frame["id"]) == ("too_long", "s2")


def test_speeches_play_one_at_a_time_in_the_order_of_their_arrival():
    session = open_session()
    for name in "abc":
        speak(session, name)
    heard = []
    while speech := session.queue.start_next():
        heard.append(speech.id)
        session.finish_speech(speech)
    assert heard == ["a", "b", "c"]
    assert session.queue.playing is None


@pytest.mark.parametrize(
    ("refused", "reason"),
    [
        (lambda session: feed(session, type="speak", id="s1", text=" "), "bad_message"),
        (lambda session: speak(session, "s1", "x" * 5001), "too_long"),
        (lambda session: speak(session, "s1", "x" * 1001), "rate_limited"),
    ],
)
def test_a_rejected_speech_does_not_use_up_its_id(refused, reason: str):
    session = open_session(characters_per_minute=1000)
    assert code(refused(session)) == reason
    assert started(speak(session, "s1", "x" * 1000)) == ["s1"]


# Each id is used once in a conversation


def _is_waiting(session: Session) -> None:
    speak(session, "used")


def _plays(session: Session) -> None:
    playing(session, "used")


def _has_ended(session: Session) -> None:
    session.finish_speech(playing(session, "used"))


def _was_interrupted(session: Session) -> None:
    speech = playing(session, "used")
    feed(session, type="interrupt")
    session.finish_speech(speech)


def _was_dropped(session: Session) -> None:
    speak(session, "used")
    for command in feed(session, type="interrupt", id="used"):
        assert isinstance(command, DiscardSpeech)
        session.finish_speech(command.speech)


def _was_written_and_is_complete(session: Session) -> None:
    delta(session, "used")
    feed(session, type="speak.done", id="used")


def _was_written_and_has_ended(session: Session) -> None:
    _was_written_and_is_complete(session)
    session.finish_speech(start_next(session))


def _was_written_interrupted_and_done(session: Session) -> None:
    delta(session, "used")
    _stop(session, start_next(session))
    feed(session, type="speak.done", id="used")


def _was_before_the_conversation_was_resumed(session: Session) -> None:
    session.start_conversation(opened(used_ids=frozenset({"used", "greeting"})))


def _stop(session: Session, speech: Speech) -> None:
    assert feed(session, type="interrupt") == [StopSpeech()]
    session.finish_speech(speech)


USED = [
    _is_waiting,
    _plays,
    _has_ended,
    _was_interrupted,
    _was_dropped,
    _was_written_and_is_complete,
    _was_written_and_has_ended,
    _was_written_interrupted_and_done,
    _was_before_the_conversation_was_resumed,
]


@pytest.mark.parametrize("again", [speak, delta])
@pytest.mark.parametrize("use", USED)
def test_an_id_is_used_once_in_a_conversation(use, again):
    session = open_session()
    use(session)
    before = (session.queue.playing, waiting(session))
    frame = error(again(session, "used", "Once more."))
    assert (frame["code"], frame["id"]) == ("duplicate_id", "used")
    assert (session.queue.playing, waiting(session)) == before


def test_the_id_of_an_incomplete_text_cannot_be_spoken():
    session = open_session()
    delta(session, "used")
    assert code(speak(session, "used")) == "duplicate_id"


def test_another_conversation_may_use_the_same_ids():
    session = open_session()
    _has_ended(session)
    session.finish_conversation()
    session.start_conversation(opened())
    assert started(speak(session, "used")) == ["used"]


def test_ids_that_differ_only_in_case_or_spaces_are_different():
    session = open_session()
    ids = ("a", "A", " a", "a ")
    assert [started(speak(session, speech_id)) for speech_id in ids] == [[speech_id] for speech_id in ids]


# At most 32 speeches wait


def fill_queue(session: Session) -> None:
    playing(session, "first")
    for number in range(32):
        assert started(speak(session, f"w{number}")) == [f"w{number}"]


@pytest.mark.parametrize("one_more", [speak, delta])
def test_the_33rd_waiting_speech_is_rejected(one_more):
    session = open_session()
    fill_queue(session)
    frame = error(one_more(session, "more"))
    assert (frame["code"], frame["id"]) == ("too_many", "more")
    assert len(session.queue.waiting) == 32


def test_a_rejected_speech_may_be_sent_again_when_the_queue_has_room():
    session = open_session()
    fill_queue(session)
    speak(session, "more")
    session.finish_speech(session.queue.playing)
    session.queue.start_next()
    assert started(speak(session, "more")) == ["more"]


def test_a_waiting_text_may_grow_while_the_queue_is_full():
    session = open_session()
    delta(session, "written")
    for number in range(31):
        speak(session, f"w{number}")
    assert delta(session, "written", "you?") == []


# Characters per minute


def test_over_the_rate_limit_nothing_is_accepted_for_a_minute():
    session = open_session(characters_per_minute=100)
    assert started(speak(session, "a", "x" * 60, 1000.0)) == ["a"]
    assert started(speak(session, "b", "x" * 40, 1030.0)) == ["b"]
    frame = error(speak(session, "c", "x", 1059.9))
    assert (frame["code"], frame["id"]) == ("rate_limited", "c")
    assert started(speak(session, "c", "x" * 60, 1060.0)) == ["c"]
    assert code(speak(session, "d", "x", 1089.9)) == "rate_limited"
    assert started(speak(session, "d", "x" * 40, 1090.0)) == ["d"]


def test_rejected_characters_do_not_count():
    session = open_session(characters_per_minute=100)
    for number in range(10):
        assert code(speak(session, f"r{number}", "x" * 101)) == "rate_limited"
    assert started(speak(session, "a", "x" * 100)) == ["a"]


def test_each_piece_counts_for_the_rate_limit():
    session = open_session(characters_per_minute=100)
    delta(session, "d1", "x" * 60, 0.0)
    assert delta(session, "d1", "z" * 40, 2.0) == []
    assert code(delta(session, "d2", "y", 59.0)) == "rate_limited"
    assert started(delta(session, "d3", "y" * 60, 60.0)) == ["d3"]
    assert session.queue.waiting[0].text_stream.text == "x" * 60 + "z" * 40


def test_the_rate_limit_applies_across_conversations():
    session = open_session(characters_per_minute=100)
    speak(session, "a", "x" * 100)
    session.queue.pop_pending()
    session.finish_conversation()
    session.start_conversation(opened())
    assert code(speak(session, "a", "x")) == "rate_limited"


# Incomplete texts


def test_pieces_make_one_speech():
    session = open_session()
    assert started(delta(session, "d1", "How ")) == ["d1"]
    assert delta(session, "d1", " ") == []
    assert delta(session, "d1", "are you?") == []
    (speech,) = session.queue.waiting
    assert (speech.id, speech.text_stream.text, speech.text_stream.complete) == ("d1", "How  are you?", False)
    assert feed(session, type="speak.done", id="d1") == []
    assert speech.text_stream.complete


def test_two_texts_can_be_written_at_the_same_time():
    session = open_session()
    for name, piece in (("a", "One "), ("b", "Two "), ("a", "three."), ("b", "four.")):
        delta(session, name, piece)
    assert [speech.text_stream.text for speech in session.queue.waiting] == ["One three.", "Two four."]


def test_a_text_may_grow_while_it_plays():
    session = open_session()
    delta(session, "d1", "How ")
    speech = start_next(session)
    assert delta(session, "d1", "are you?") == []
    assert speech.text_stream.text == "How are you?"


@pytest.mark.parametrize("sign", ["x", "🙂"])
def test_a_piece_may_have_1000_characters(sign: str):
    assert started(delta(open_session(), "d1", sign * 1000)) == ["d1"]


def write_text(session: Session, characters: int) -> Speech:
    for start in range(0, characters, 1000):
        delta(session, "d1", "x" * min(1000, characters - start))
    return session.queue.playing or session.queue.waiting[0]


def test_a_piece_beyond_5000_characters_is_too_long_and_the_text_before_it_is_spoken():
    session = open_session()
    speech = write_text(session, 5000)
    frame = error(delta(session, "d1", "y"))
    assert (frame["code"], frame["id"]) == ("too_long", "d1")
    assert (speech.text_stream.text, speech.text_stream.complete) == ("x" * 5000, True)
    assert waiting(session) == ["d1"]


@pytest.mark.parametrize("then", [5, 1000])
def test_pieces_after_one_that_was_too_long_are_ignored_until_done(then: int):
    session = open_session()
    write_text(session, 4990)
    assert code(delta(session, "d1", "y" * 11)) == "too_long"
    assert delta(session, "d1", "y" * then) == []
    assert feed(session, type="speak.done", id="d1") == []
    assert code(delta(session, "d1", "y" * then)) == "duplicate_id"


def test_exactly_5000_in_sum_are_accepted():
    session = open_session()
    write_text(session, 4990)
    assert delta(session, "d1", "y" * 10) == []


def test_a_piece_after_done_is_a_duplicate():
    session = open_session()
    delta(session)
    feed(session, type="speak.done", id="d1")
    assert code(delta(session)) == "duplicate_id"


def test_done_of_an_unknown_text_is_an_unknown_id():
    frame = error(feed(open_session(), type="speak.done", id="nobody"))
    assert (frame["code"], frame["id"]) == ("unknown_id", "nobody")


def test_done_twice_gets_no_reply():
    session = open_session()
    delta(session)
    assert feed(session, type="speak.done", id="d1") == feed(session, type="speak.done", id="d1") == []


@pytest.mark.parametrize("waits", [True, False])
def test_a_text_without_a_piece_for_60_s_is_complete(waits: bool):
    session = open_session()
    delta(session)
    if not waits:
        session.queue.start_next()
    now = time.monotonic()
    assert delta(session, now=now + 59) == []
    assert code(delta(session, now=now + 61)) == "duplicate_id"


def test_a_text_that_ended_by_timeout_accepts_no_more_pieces():
    session = open_session()
    delta(session)
    speech = start_next(session)
    speech.text_stream.finish()
    session.finish_speech(speech)
    assert code(delta(session)) == "duplicate_id"


@pytest.mark.parametrize("plays", [True, False])
def test_pieces_after_an_interrupt_are_ignored_without_a_reply(plays: bool):
    session = open_session()
    delta(session)
    speech = start_next(session) if plays else session.queue.waiting[0]
    feed(session, type="interrupt")
    session.finish_speech(speech)
    assert delta(session, text="are you?") == []
    assert speech.text_stream.text == "How are "
    assert feed(session, type="speak.done", id="d1") == []


def test_pieces_after_a_failure_are_ignored_without_a_reply():
    session = open_session()
    delta(session)
    speech = start_next(session)
    speech.progress.finished(UtteranceState.FAILED)
    session.finish_speech(speech)
    assert delta(session) == []
    assert not session.queue.waiting


# Refused pieces of a text

REFUSED_PIECES = [
    ("not\0 ", "bad_message"),
    ("not\ude42 ", "bad_message"),
    ("\ud83d not ", "bad_message"),
    (5, "bad_message"),
    (None, "bad_message"),
    (["not "], "bad_message"),
    ("not " * 251, "bad_message"),
    ("not " * 150, "rate_limited"),
]


@pytest.mark.parametrize("plays", [True, False])
@pytest.mark.parametrize(("piece", "refusal"), REFUSED_PIECES)
def test_a_text_ends_before_a_refused_piece(piece: object, refusal: str, plays: bool):
    session = open_session(characters_per_minute=500)
    assert started(delta(session, "d1", "You should ")) == ["d1"]
    speech = start_next(session) if plays else session.queue.waiting[0]
    frame = error(delta(session, "d1", piece))
    assert (frame["code"], frame["id"]) == (refusal, "d1")
    assert delta(session, "d1", "stand up. \ud83d") == delta(session, "d1", "\ude42") == []
    assert feed(session, type="speak.done", id="d1") == []
    assert (speech.text_stream.text, speech.text_stream.complete) == ("You should ", True)
    assert code(delta(session, "d1", "stand up.")) == "duplicate_id"


@pytest.mark.parametrize(("piece", "refusal"), REFUSED_PIECES)
def test_a_text_whose_first_piece_is_refused_does_not_begin(piece: object, refusal: str):
    session = open_session(characters_per_minute=500)
    assert code(delta(session, "d1", piece)) == refusal
    assert delta(session, "d1", "stand up.") == []
    assert feed(session, type="speak.done", id="d1") == []
    assert waiting(session) == []
    assert started(delta(session, "d1", "Stand up.")) == ["d1"]


def test_an_empty_piece_is_refused_and_leaves_no_gap():
    session = open_session()
    assert code(delta(session, "d1", "")) == "bad_message"
    assert started(delta(session, "d1", "You should ")) == ["d1"]
    assert code(delta(session, "d1", "")) == "bad_message"
    assert delta(session, "d1", "sit down.") == []
    assert session.queue.waiting[0].text_stream.text == "You should sit down."


@pytest.mark.parametrize(
    "frame",
    [
        '{"type": "speak.delta", "id": "d1", "text": "not',
        '{"type": "speak.delta", "id": "d1", "text": "not\n "}',
        '{"type": "speak.delta", "id": "d1", "text": not}',
        '{"type": "speak.delta", "text": "not "}',
        '{"type": "speak.delta", "id": 1, "text": "not "}',
        '{"type": "speak.delta", "id": "d1\\u0000", "text": "not "}',
    ],
)
def test_a_refused_piece_of_an_unknown_text_ends_every_text_that_is_being_written(frame: str):
    session = open_session()
    delta(session, "d1", "You should ")
    delta(session, "d2", "Good ")
    assert code(session.text_frame(frame, 0.0)) in ("bad_json", "bad_message")
    assert delta(session, "d1", "stand up.") == delta(session, "d2", "night.") == []
    assert [speech.text_stream.text for speech in session.queue.waiting] == ["You should ", "Good "]
    assert all(speech.text_stream.complete for speech in session.queue.waiting)
    assert started(delta(session, "d3", "Next.")) == ["d3"]


@pytest.mark.parametrize("frame", ["nonsense", '{"type": "progress", "id": "d1", "ms": NaN}', '{"type": "speak"}'])
def test_another_refused_frame_ends_no_text(frame: str):
    session = open_session()
    delta(session, "d1", "You should ")
    error(session.text_frame(frame, 0.0))
    assert delta(session, "d1", "sit down.") == []
    assert session.queue.waiting[0].text_stream.text == "You should sit down."


def test_a_device_that_invents_ids_does_not_fill_the_memory():
    session = open_session(characters_per_minute=1)
    for number in range(3000):
        assert code(delta(session, f"d{number}", "too much")) == "rate_limited"
        feed(session, type="ping")
    assert len(session._texts._rejected) == MAX_REJECTED_IDS


# Characters that are split between two pieces


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        (["Good morning \ud83d", "\ude42 dear."], "Good morning 🙂 dear."),
        (["\ud83d", "\ude42"], "🙂"),
        (["a\ud83d", "\ude42\ud83d", "\ude42b"], "a🙂🙂b"),
        (["𠀀 is \ud840", "\udc01 too"], "𠀀 is 𠀁 too"),
    ],
)
def test_two_halves_of_a_character_are_joined(pieces: list[str], text: str):
    session = open_session()
    replies = [delta(session, "d1", piece) for piece in pieces]
    assert started(replies[0]) == ["d1"]
    assert replies[1:] == [[]] * (len(pieces) - 1)
    assert feed(session, type="speak.done", id="d1") == []
    (speech,) = session.queue.waiting
    assert (speech.text_stream.text, speech.text_stream.complete) == (text, True)


def test_the_halves_of_two_texts_are_not_mixed():
    session = open_session()
    for name, piece in (("a", "A \ud83d"), ("b", "B \ud83e"), ("a", "\ude42"), ("b", "\udd70")):
        assert not any(isinstance(command, SendFrame) for command in delta(session, name, piece))
    assert [speech.text_stream.text for speech in session.queue.waiting] == ["A 🙂", "B 🥰"]


@pytest.mark.parametrize("following", ["morning.", "\ud83d", "\ud83d\ude42", " \ude42"])
def test_a_half_that_the_next_piece_does_not_complete_is_refused(following: str):
    session = open_session()
    delta(session, "d1", "Good \ud83d")
    assert code(delta(session, "d1", following)) == "bad_message"
    assert delta(session, "d1", " my dear.") == []
    (speech,) = session.queue.waiting
    assert (speech.text_stream.text, speech.text_stream.complete) == ("Good ", True)


def test_a_half_at_the_end_of_a_text_is_refused_and_the_rest_is_spoken():
    session = open_session()
    delta(session, "d1", "Good morning. \ud83d")
    frame = error(feed(session, type="speak.done", id="d1"))
    assert (frame["code"], frame["id"]) == ("bad_message", "d1")
    (speech,) = session.queue.waiting
    assert (speech.text_stream.text, speech.text_stream.complete) == ("Good morning. ", True)
    assert feed(session, type="speak.done", id="d1") == []


@pytest.mark.parametrize("text", ["\ud83d", "Good \ud83d", "\ude42 morning"])
def test_a_complete_text_with_half_a_character_is_refused(text: str):
    assert code(speak(open_session(), text=text)) == "bad_message"


# interrupt


def queue_up(session: Session) -> Speech:
    """Let `a` play and `b` and `c` wait. `z` has ended."""
    session.finish_speech(playing(session, "z"))
    speech = playing(session, "a")
    speak(session, "b")
    speak(session, "c")
    return speech


def interrupted(commands: list[Command]) -> list[str]:
    """Return "now" for StopSpeech and the ids of discarded speeches. There must be no other command."""
    assert all(isinstance(command, StopSpeech | DiscardSpeech) for command in commands)
    return ["now" if isinstance(command, StopSpeech) else command.speech.id for command in commands]


@pytest.mark.parametrize(
    ("named", "ended", "left"),
    [
        ({}, ["now", "b", "c"], []),
        ({"id": None}, ["now", "b", "c"], []),
        ({"id": "a"}, ["now"], ["b", "c"]),
        ({"id": "b"}, ["b"], ["c"]),
        ({"id": "c"}, ["c"], ["b"]),
        ({"id": "z"}, [], ["b", "c"]),
    ],
)
def test_an_interrupt_ends_the_speeches_it_applies_to(named: dict, ended: list[str], left: list[str]):
    session = open_session()
    queue_up(session)
    assert interrupted(feed(session, type="interrupt", **named)) == ended
    assert waiting(session) == left


def test_an_interrupt_of_an_unknown_id_is_an_error_and_changes_nothing():
    session = open_session()
    speech = queue_up(session)
    for unknown in ("nobody", "greeting"):
        frame = error(feed(session, type="interrupt", id=unknown))
        assert (frame["code"], frame["id"]) == ("unknown_id", unknown)
    assert session.queue.playing is speech
    assert waiting(session) == ["b", "c"]


@pytest.mark.parametrize("named", [{}, {"id": "z"}])
def test_an_interrupt_with_nothing_playing_gets_no_reply(named: dict):
    session = open_session()
    session.finish_speech(playing(session, "z"))
    assert feed(session, type="interrupt", **named) == []


def test_speech_from_before_a_resume_has_ended():
    session = open_session(used_ids=frozenset({"old"}))
    assert feed(session, type="interrupt", id="old") == []
    assert feed(session, type="ack", id="old") == []


def test_after_an_interrupt_new_speech_is_accepted():
    session = open_session()
    _stop(session, playing(session, "a"))
    assert playing(session, "b").id == "b"


# ack and progress


@pytest.mark.parametrize("kind", ["ack", "progress"])
def test_an_id_that_was_never_used_is_unknown(kind: str):
    frame = error(feed(open_session(), type=kind, id="nobody", ms=1))
    assert (frame["code"], frame["id"]) == ("unknown_id", "nobody")


def test_an_ack_of_the_devices_own_speech_gets_no_reply():
    session = open_session()
    queue_up(session)
    assert [feed(session, type="ack", id=name) for name in "abz"] == [[], [], []]


@pytest.mark.parametrize("ms", [0, 1, 500, 10**400])
def test_progress_of_the_playing_speech_is_reported(ms: int):
    session = open_session()
    playing(session)
    assert session.text_frame(f'{{"type": "progress", "id": "s1", "ms": {ms}}}', 0.0) == [ReportPlayback("s1", ms)]


@pytest.mark.parametrize("name", ["b", "z"])
def test_progress_of_another_speech_is_reported_too(name: str):
    """Playback lags behind: the speech may have ended."""
    session = open_session()
    queue_up(session)
    assert feed(session, type="progress", id=name, ms=5) == [ReportPlayback(name, 5)]


# conversation.end and the counter


def test_the_end_interrupts_everything_and_comes_last():
    session = open_session()
    speech = queue_up(session)
    *ended, last = feed(session, type="conversation.end")
    assert interrupted(ended) == ["now", "b", "c"]
    assert last == EndConversation()
    session.finish_speech(speech)
    conversation, _ = session.finish_conversation()
    assert conversation.context.conversation_id == speech.conversation_id


def test_the_greeting_ends_with_its_conversation():
    session = open_session()
    session.enqueue_greeting(0.0)
    assert [type(command) for command in feed(session, type="conversation.end")] == [DiscardSpeech, EndConversation]


def test_the_counter_of_a_resumed_conversation_continues():
    session = open_session(characters=40)
    for name, characters in (("a", 12), ("b", 0), ("c", 30)):
        speech = playing(session, name)
        speech.progress.billed(characters)
        session.finish_speech(speech)
    _, total = session.finish_conversation()
    assert total == 82


def test_an_incomplete_text_is_forgotten_with_its_conversation():
    session = open_session()
    delta(session, "d1")
    session.finish_speech(start_next(session))
    session.finish_conversation()
    session.start_conversation(opened())
    assert started(delta(session, "d1")) == ["d1"]


def test_all_waiting_speeches_are_returned_once_when_the_connection_ends():
    session = open_session()
    queue_up(session)
    assert [speech.id for speech in session.queue.pop_pending()] == ["b", "c"]
    assert session.queue.pop_pending() == []
    assert session.queue.start_next() is None


# Twenty errors in a row


def _bad_json(session: Session) -> list[Command]:
    return session.text_frame("{", 0.0)


def _bad_message(session: Session) -> list[Command]:
    return feed(session, type="speak")


def _too_long(session: Session) -> list[Command]:
    return speak(session, "long", "x" * 5001)


def _binary(session: Session) -> list[Command]:
    return session.binary_frame()


def _unknown(session: Session) -> list[Command]:
    return feed(session, type="interrupt", id="nobody")


def _already_started(session: Session) -> list[Command]:
    return feed(session, type="conversation.start")


def _unknown_format(session: Session) -> list[Command]:
    return feed(session, type="conversation.start", format="wav")


def _rate_limited(session: Session) -> list[Command]:
    return speak(session, "fast", "x" * 5000)


ERRORS = [
    _bad_json,
    _bad_message,
    _too_long,
    _binary,
    _unknown,
    _already_started,
    _unknown_format,
    _rate_limited,
]


def test_twenty_errors_in_a_row_of_any_kind_close_the_connection():
    session = open_session(characters_per_minute=4000)
    for number in range(19):
        error(ERRORS[number % len(ERRORS)](session))
    *answer, last = session.text_frame("{", 0.0)
    assert code(answer) == "bad_json"
    assert last == CloseConnection(4008)


@pytest.mark.parametrize(
    "accepted",
    [
        lambda session: feed(session, type="ping"),
        speak,
        lambda session: feed(session, type="interrupt"),
        lambda session: feed(session, type="conversation.end"),
    ],
)
def test_any_accepted_message_resets_the_error_count(accepted):
    session = open_session()
    for _ in range(19):
        error(_bad_json(session))
    accepted(session)
    for _ in range(19):
        error(_bad_json(session))
    assert _bad_json(session)[-1] == CloseConnection(4008)


def test_an_opened_conversation_resets_the_error_count():
    session = new_session()
    for _ in range(19):
        error(_bad_json(session))
    feed(session, type="conversation.start")
    session.start_conversation(opened())
    error(_bad_json(session))


def test_twenty_conversations_that_cannot_be_resumed_close_the_connection():
    session = new_session()
    for _ in range(19):
        assert feed(session, type="conversation.start", resume="nobody's") == [
            StartConversation(None, "nobody's", None)
        ]
        error(session.reject(ProtocolError("unknown_id", "There is none.")))
    feed(session, type="conversation.start", resume="nobody's")
    assert session.reject(ProtocolError("unknown_id", "There is none."))[-1] == CloseConnection(4008)


# Random frames

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=70),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
fields = st.sampled_from(["id", "text", "t", "ms", "format", "resume", "greeting"])
ids = st.sampled_from(["a", "b", "c"])
messages = st.one_of(
    st.builds(
        lambda kind, rest: {**rest, "type": kind}, st.sampled_from(sorted(TYPES)), st.dictionaries(fields, values)
    ),
    st.builds(
        lambda kind, name: {"type": kind, "id": name, "text": "Hello.", "ms": 5}, st.sampled_from(sorted(TYPES)), ids
    ),
)


@settings(max_examples=60)
@given(st.lists(st.one_of(messages.map(json.dumps), st.text(max_size=50)), max_size=15))
def test_random_frames_never_break_the_session_and_every_reply_can_be_sent(frames: list[str]):
    session = open_session()
    ended: set[str] = set()
    for frame in frames:
        for command in session.text_frame(frame, 0.0):
            if isinstance(command, SendFrame):
                json.dumps(command.frame, ensure_ascii=False, allow_nan=False).encode()
            elif isinstance(command, DiscardSpeech):
                assert command.speech.id not in ended
                ended.add(command.speech.id)
                session.finish_speech(command.speech)
            elif isinstance(command, EndConversation):
                return


# Texts with a rejected piece


def test_a_text_whose_first_piece_was_rejected_is_not_spoken():
    session = open_session()
    for number in range(33):
        speak(session, f"w{number}")
        if number == 0:
            session.queue.start_next()
    assert error(delta(session, "d1", "Do NOT "))["code"] == "too_many"
    session.queue.waiting.popleft()
    assert delta(session, "d1", "take the blue pills.") == []
    assert feed(session, type="speak.done", id="d1") == []
    assert "d1" not in [speech.id for speech in session.queue.waiting]


def test_a_text_ends_before_a_rejected_piece():
    session = open_session(characters_per_minute=30)
    delta(session, "d1", "Please take this: ")
    assert error(delta(session, "d1", "only one of the red pills, "))["code"] == "rate_limited"
    assert delta(session, "d1", "two of blue.") == []
    (spoken,) = session.queue.waiting
    assert (spoken.text_stream.text, spoken.text_stream.complete) == ("Please take this: ", True)


def test_pieces_after_too_long_do_not_count_as_errors():
    session = open_session()
    for _ in range(5):
        delta(session, "d1", "x" * 1000)
    assert error(delta(session, "d1", "x"))["code"] == "too_long"
    assert [delta(session, "d1", "x") for _ in range(50)] == [[]] * 50


# Deliveries and deferred speech

SERVERS = "srv-5b6c2a34-0000-4000-8000-000000000001"


def delivered(session: Session, speech_id: str = SERVERS) -> Speech:
    return session.start_delivery(example(speech_id, "It is time for your medicine.", origin="server"))


def test_an_ack_of_a_delivery_is_passed_on_also_without_a_conversation():
    assert feed(new_session(), type="ack", id=SERVERS) == [AcknowledgeDelivery(SERVERS)]
    assert feed(open_session(), type="ack", id="srv-1") == [AcknowledgeDelivery("srv-1")]


def test_an_ack_of_an_own_speech_changes_nothing():
    session = open_session()
    playing(session)
    assert feed(session, type="ack", id="s1") == []
    assert code(feed(session, type="ack", id="s2")) == "unknown_id"


def test_an_interrupt_without_an_id_does_not_stop_a_delivery():
    session = open_session()
    speech = delivered(session)
    speak(session, "own")
    dropped = feed(session, type="interrupt")
    assert [command.speech.id for command in dropped] == ["own"]
    assert session.queue.playing is speech


def test_an_interrupt_with_an_id_stops_the_delivery_that_plays():
    session = open_session()
    delivered(session)
    assert feed(session, type="interrupt", id=SERVERS) == [StopSpeech()]


def test_an_interrupt_of_a_delivery_that_does_not_play_is_passed_on():
    assert feed(open_session(), type="interrupt", id=SERVERS) == [CancelDelivery(SERVERS)]


def test_the_end_of_a_conversation_requeues_a_delivery():
    session = open_session()
    delivered(session)
    speak(session, "own")
    commands = feed(session, type="conversation.end")
    assert commands[0] == StopSpeech(requeue=True)
    assert isinstance(commands[1], DiscardSpeech)
    assert commands[2:] == [EndConversation()]


def test_progress_of_a_delivery_is_reported():
    session = open_session()
    delivered(session)
    assert feed(session, type="progress", id=SERVERS, ms=10) == [ReportPlayback(SERVERS, 10)]


def test_a_device_adopts_the_conversation_that_the_server_opened():
    session = open_session(initiated_by="server")
    session.characters = 7
    speech = delivered(session)
    assert feed(session, type="conversation.start") == [StartConversation(None, None, None)]
    taken = OpenConversation(replace(session.conversation.context, initiated_by="device"), frozenset(), 0)
    session.start_conversation(taken)
    assert (session.conversation, session.characters, session.queue.playing) == (taken, 7, speech)
    assert code(feed(session, type="conversation.start")) == "already_started"


def test_a_deferred_speech_counts_as_waiting_and_can_be_interrupted():
    session = open_session()
    for number in range(32):
        session.queue.defer(playing(session, f"s{number}"))
    assert code(speak(session, "one-more")) == "too_many"
    assert [command.speech.id for command in feed(session, type="interrupt", id="s3")] == ["s3"]
    assert len(feed(session, type="interrupt")) == 31


def test_the_hold_message_plays_first_and_is_not_the_devices_own_speech():
    session = open_session()
    speak(session, "waits")
    session.enqueue_hold_message("One moment, please.", 0.0)
    holding = start_next(session)
    assert holding.id.startswith("srv-")
    assert (holding.origin, holding.text_stream.text) == ("holding", "One moment, please.")
    assert [command.speech.id for command in feed(session, type="interrupt")] == ["waits"]
