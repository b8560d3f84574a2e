"""Bad input over a real socket: a clear error comes, the socket stays open, and the playing speech is not disturbed."""

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from tests.conftest import Member
from tests.e2e.device import Device, speak_frame, spoken_order
from tests.e2e.provider import repeat_requests
from tests.e2e.rows import accounts_of, wait_for_state
from tests.sandbox import SandboxProcess
from tests.server import ServerProcess
from voicecare_client import ConnectionClosed

LONG = "This sentence is spoken very slowly, so that there is time to do something else meanwhile."
SLOW: dict[str, Any] = {"kind": "slow", "bytes_per_s": 25_000, "match": {"text": "very slowly"}}
KIB_64 = 64 * 1024


def frame(kind: str, **fields: Any) -> str:
    return json.dumps({"type": kind, **fields})


NOT_JSON_OBJECTS = [
    "",
    " ",
    "{",
    "}",
    "nonsense",
    "[]",
    "null",
    "true",
    "12",
    '"ping"',
    '{"type": "ping"',
    "{'type': 'ping'}",
    '{"type": "ping"} {"type": "ping"}',
    '{"type": "ping", "t": NaN}',
    '{"type": "ping", "t": -Infinity}',
    '{"type": "ping",}',
    "\ufeff" + '{"type": "ping"}',
    "[" * 60_000,
    '{"t":' * 12_000,
    '{"t": ' + "9" * 5000 + "}",
]
"""Text frames that are not a JSON object: `bad_json`."""

BAD_MESSAGES = [
    ("{}", "type"),
    (frame("dance"), "type"),
    (frame("SPEAK"), "type"),
    (frame("conversation.started"), "type"),
    ('{"type": null}', "type"),
    ('{"type": ["speak"]}', "type"),
    ('{"type": {"a": 1}}', "type"),
    ('{"type": "\\ud800"}', "type"),
    (frame("speak"), "id"),
    (frame("speak", text="Yes."), "id"),
    (frame("speak", id=None, text="Yes."), "id"),
    (frame("speak", id=5, text="Yes."), "id"),
    (frame("speak", id="", text="Yes."), "id"),
    (frame("speak", id="  ", text="Yes."), "id"),
    (frame("speak", id="x" * 65, text="Yes."), "id"),
    (frame("speak", id="greeting", text="Yes."), "id"),
    (frame("speak", id="srv-1", text="Yes."), "id"),
    (frame("speak", id="srv-", text="Yes."), "id"),
    ('{"type": "speak", "id": "half \\ud83d", "text": "Yes."}', "id"),
    ('{"type": "speak", "id": "null \\u0000", "text": "Yes."}', "id"),
    (frame("speak", id="bad"), "text"),
    (frame("speak", id="bad", text=None), "text"),
    (frame("speak", id="bad", text=5), "text"),
    (frame("speak", id="bad", text=["Yes."]), "text"),
    (frame("speak", id="bad", text=""), "text"),
    (frame("speak", id="bad", text=" \n\t\u3000"), "text"),
    ('{"type": "speak", "id": "bad", "text": "half a smile \\ud83d"}', "text"),
    ('{"type": "speak", "id": "bad", "text": "null \\u0000"}', "text"),
    (frame("speak.delta", id="bad"), "text"),
    (frame("speak.delta", id="bad", text=""), "text"),
    (frame("speak.delta", id="bad", text="x" * 1001), "text"),
    (frame("speak.delta", id="greeting", text="Yes."), "id"),
    (frame("speak.delta", id="srv-7", text="Yes."), "id"),
    (frame("speak.delta", text="Yes."), "id"),
    (frame("speak.done"), "id"),
    (frame("speak.done", id=7), "id"),
    (frame("interrupt", id=7), "id"),
    (frame("interrupt", id=""), "id"),
    (frame("ack"), "id"),
    (frame("ack", id=[]), "id"),
    (frame("progress", ms=1), "id"),
    (frame("progress", id="playing"), "ms"),
    (frame("progress", id="playing", ms=-1), "ms"),
    (frame("progress", id="playing", ms="1"), "ms"),
    (frame("progress", id="playing", ms=True), "ms"),
    (frame("progress", id="playing", ms=-0.5), "ms"),
    ('{"type": "progress", "id": "playing", "ms": 1e400}', "ms"),
    (frame("conversation.start", format=5), "format"),
    (frame("conversation.start", resume=5), "resume"),
    (frame("conversation.start", greeting="yes"), "greeting"),
    (frame("conversation.start", greeting=1), "greeting"),
    (frame("ping", t=True), "t"),
    (frame("ping", t=[]), "t"),
    (frame("ping", t={}), "t"),
    ('{"type": "ping", "t": 1e400}', "t"),
    ('{"type": "ping", "t": "\\udfff"}', "t"),
]
"""Frames, each with the field that the message of `bad_message` must name."""

OTHERS = [
    (frame("speak", id="bad", text="x" * 5001), "too_long"),
    (frame("speak", id="bad", text="🙂" * 5001), "too_long"),
    (frame("speak", id="playing", text="Yes."), "duplicate_id"),
    (frame("speak.delta", id="playing", text="Yes."), "duplicate_id"),
    (frame("speak.done", id="never"), "unknown_id"),
    (frame("interrupt", id="never"), "unknown_id"),
    (frame("interrupt", id="srv-12"), "unknown_id"),
    (frame("ack", id="never"), "unknown_id"),
    (frame("progress", id="never", ms=1), "unknown_id"),
    (frame("conversation.start", format="wav"), "unknown_format"),
    (frame("conversation.start"), "already_started"),
]


async def error_for_frame(device: Device, text: str, times: list[int]) -> dict[str, Any]:
    """Return the error for this frame. A ping now and then avoids twenty errors in a row."""
    times[0] += 1
    if times[0] % 15 == 0:
        await device.assert_nothing_pending()
    error = await device.error_for(text)
    assert isinstance(error["message"], str)
    assert error["message"]
    assert set(error) <= {"type", "code", "message", "id"}
    return error


async def test_a_refused_message_does_not_disturb_the_playing_speech(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    sandbox.fault(**{**SLOW, "bytes_per_s": 12_000})  # long enough for all messages, even on a busy machine
    times = [0]
    async with Device(server.ws, alice.token) as device:
        started = await device.start(greeting=False)
        await device.start_speech("playing", LONG)
        for text in NOT_JSON_OBJECTS:
            assert (await error_for_frame(device, text, times))["code"] == "bad_json", text[:80]
        for text, field in BAD_MESSAGES:
            error = await error_for_frame(device, text, times)
            assert error["code"] == "bad_message", text[:80]
            assert f"`{field}`" in error["message"], (text[:80], error)
        for text, code in OTHERS:
            assert (await error_for_frame(device, text, times))["code"] == code, text[:80]
        for data in (b"", b"\0", b"RIFF" * 100):
            await device.assert_nothing_pending()
            await device.send_binary(data)
            assert (await device.next_frame())["code"] == "unexpected_binary"
        assert not device.speeches["playing"].is_done
        spoken = await device.wait_for("playing")
        assert [one["type"] for one in spoken.frames] == ["speech.started", "speech.finished"]
        following = await device.speak("The socket is none the worse for it.", id="after")
        assert following.terminal["type"] == "speech.finished"
        ended = await device.end()
    sandbox.clear_faults()
    assert spoken_order(device.received) == ["playing", "after"]
    assert spoken.audio == await repeat_requests(sandbox, sandbox.requests()[:1])
    accounts = await accounts_of(started["conversation"])
    assert len(accounts.utterances) == 2
    assert ended["characters"] == accounts.counter


async def test_an_error_names_the_speech_that_it_belongs_to(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        await device.speak("Yes.", id="used")
        for text in (
            frame("speak", id="this", text=""),
            frame("speak", id="this", text="x" * 5001),
            frame("speak.done", id="this"),
            frame("speak.delta", id="this", text="x" * 1001),
        ):
            assert (await device.error_for(text))["id"] == "this"
        assert (await device.error_for(speak_frame("used", "Yes.")))["id"] == "used"
        spoken = await device.speak("Yes.", id="this")  # a refused id was not used
        assert spoken.terminal["type"] == "speech.finished"


async def test_nothing_is_spoken_without_a_conversation(server: ServerProcess, alice: Member) -> None:
    async with Device(server.ws, alice.token) as device:
        for text in (
            frame("speak", id="a", text="Yes."),
            frame("speak.delta", id="a", text="Yes."),
            frame("speak.done", id="a"),
            frame("interrupt"),
            frame("interrupt", id="a"),
            frame("conversation.end"),
            frame("progress", id="a", ms=1),
        ):
            assert (await device.error_for(text))["code"] == "no_conversation", text
        await device.assert_nothing_pending()


# Limits


async def test_a_speech_may_have_5000_characters_of_any_byte_length(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    """Characters are code points: 15,000 bytes of kanji are 5,000 characters."""
    sandbox.fault(kind="slow", bytes_per_s=8_000)
    text = "話" * 5000
    async with Device(server.ws, alice.token) as device:
        started = await device.start(greeting=False)
        await device.send_text(json.dumps({"type": "speak", "id": "long", "text": text}, ensure_ascii=False))
        await device.assert_nothing_pending()
        await device.interrupt()
        assert (await device.wait_for("long")).terminal["type"] == "speech.interrupted"
        await device.end()
    assert (await accounts_of(started["conversation"])).utterance("long").text == text


async def test_at_most_32_speeches_wait(server: ServerProcess, sandbox: SandboxProcess, alice: Member) -> None:
    sandbox.fault(**{**SLOW, "bytes_per_s": 12_000})
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        await device.start_speech("playing", LONG)
        for number in range(32):
            await device.send({"type": "speak", "id": f"wait-{number}", "text": "Yes."})
        await device.assert_nothing_pending()
        for kind in ("speak", "speak.delta"):
            error = await device.error_for(frame(kind, id="more", text="Yes."))
            assert (error["code"], error["id"]) == ("too_many", "more")
        await device.interrupt("wait-7")
        await device.wait_for("wait-7")
        await device.send({"type": "speak", "id": "more", "text": "Yes."})  # there is a free place again
        await device.assert_nothing_pending()
        assert (await device.error_for(speak_frame("still more", "Yes.")))["code"] == "too_many"
        assert not device.speeches["playing"].is_done
        await device.interrupt()
        await device.wait_for("more")
    assert device.types().count("speech.interrupted") == 34


@pytest.fixture
def strict_server(own_server: Callable[..., ServerProcess]) -> ServerProcess:
    return own_server(DEVICE_CHARACTERS_PER_MINUTE=100)


async def test_a_device_may_not_exceed_its_characters_per_minute(
    strict_server: ServerProcess, server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    sandbox.fault(**SLOW)
    assert len(LONG) == 90
    async with Device(strict_server.ws, alice.token) as device:
        await device.start(greeting=False)
        await device.start_speech("playing", LONG)
        error = await device.error_for(speak_frame("more", "Eleven ch.."))
        assert (error["code"], error["id"]) == ("rate_limited", "more")
        await device.send({"type": "speak.delta", "id": "written", "text": "Eight ch"})
        error = await device.error_for(frame("speak.delta", id="written", text="abc"))
        assert (error["code"], error["id"]) == ("rate_limited", "written")
        await device.send({"type": "speak.delta", "id": "written", "text": "."})
        await device.send({"type": "speak.done", "id": "written"})
        assert (await device.wait_for("written")).terminal["type"] == "speech.finished"
        assert device.speeches["playing"].terminal["type"] == "speech.finished"
    assert [request["text"] for request in sandbox.requests()] == [LONG, "Eight ch"]  # no text with a gap in it


# Refused pieces of a text


@pytest.mark.parametrize(
    "refused",
    [
        '{"type": "speak.delta", "id": "written", "text": "not\\u0000 "}',
        '{"type": "speak.delta", "id": "written", "text": "not\\ude42 "}',
        '{"type": "speak.delta", "id": "written", "text": 5}',
        '{"type": "speak.delta", "id": "written"}',
        '{"type": "speak.delta", "id": 5, "text": "not "}',
        '{"type": "speak.delta", "id": "written", "text": "not\n"}',
        frame("speak.delta", id="written", text="not " * 251),
    ],
)
async def test_a_text_ends_before_a_refused_piece(
    refused: str, server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        await device.send_text(frame("speak.delta", id="written", text="You should "))
        await device.error_for(refused)
        await device.send_text(frame("speak.delta", id="written", text="stand up."))
        await device.send_text(frame("speak.done", id="written"))
        assert (await device.wait_for("written")).terminal["type"] == "speech.finished"
        await device.assert_nothing_pending()
    assert [request["text"] for request in sandbox.requests()] == ["You should "]


async def test_the_halves_of_a_character_in_two_pieces_are_joined(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        await device.send_text('{"type": "speak.delta", "id": "written", "text": "Good morning \\ud835"}')
        await device.send_text('{"type": "speak.delta", "id": "written", "text": "\\udd18 my dear."}')
        await device.send_text(frame("speak.done", id="written"))
        assert (await device.wait_for("written")).terminal["type"] == "speech.finished"
        await device.assert_nothing_pending()
    assert [request["text"] for request in sandbox.requests()] == ["Good morning 𝔘 my dear."]


# Twenty errors in a row


async def test_twenty_errors_in_a_row_close_the_socket(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    sandbox.fault(**SLOW)
    async with Device(server.ws, alice.token) as device:
        started = await device.start(greeting=False)
        await device.start_speech("playing", LONG)
        for number in range(20):
            if number % 3:
                await device.send_text("nonsense")
            else:
                await device.send_binary(b"nonsense")
            assert (await device.next_frame())["type"] == "error"
        assert await device.wait_closed() == 4008
        assert device.speeches["playing"].terminal["type"] == "speech.interrupted"
    await wait_for_state(started["conversation"], "playing", "interrupted")


@pytest.mark.parametrize(
    "accepted",
    ['{"type": "ping"}', '{"type": "interrupt"}', '{"type": "conversation.end"}'],
    ids=["ping", "interrupt", "end"],
)
async def test_any_accepted_message_resets_the_error_count(server: ServerProcess, alice: Member, accepted: str) -> None:
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        for _ in range(19):
            await device.error_for("nonsense")
        await device.send_text(accepted)
        for number in range(19):
            await device.send_text("nonsense")
            assert (await device.wait_for_frame("error"))["code"] == "bad_json", number
        await device.assert_nothing_pending()


async def test_refused_conversation_starts_count_as_errors(server: ServerProcess, alice: Member) -> None:
    async with Device(server.ws, alice.token) as device:
        for _ in range(20):
            assert (await device.request(type="conversation.start", resume="nonsense"))["code"] == "unknown_id"
        assert await device.wait_closed() == 4008


async def test_a_flood_of_valid_messages_is_answered(server: ServerProcess, alice: Member) -> None:
    async with Device(server.ws, alice.token) as device:
        for number in range(1000):
            await device.send({"type": "ping", "t": number})
        for number in range(1000):
            assert await device.next_frame() == {"type": "pong", "t": number}


# Frames that are too large


def sized_ping(size: int) -> str:
    empty = len(frame("ping", t=""))
    return frame("ping", t="x" * (size - empty))


async def test_a_frame_of_64_kib_is_accepted(server: ServerProcess, alice: Member) -> None:
    async with Device(server.ws, alice.token) as device:
        await device.send_text(sized_ping(KIB_64))
        assert (await device.next_frame())["type"] == "pong"


@pytest.mark.parametrize(
    "text",
    [sized_ping(KIB_64 + 1), "[" * 100_000, '{"type": "ping", "t": "' + "ü" * 33_000 + '"}', "x" * 1_000_000],
    ids=["one byte more", "deep", "two-byte characters", "just below 1 MiB"],
)
async def test_a_frame_over_64_kib_closes_the_socket(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member, text: str
) -> None:
    sandbox.fault(**SLOW)
    async with Device(server.ws, alice.token) as device:
        started = await device.start(greeting=False)
        await device.start_speech("playing", LONG)
        await device.send_text(text)
        assert await device.wait_closed() == 4009
        assert device.speeches["playing"].terminal["type"] == "speech.interrupted"
    await wait_for_state(started["conversation"], "playing", "interrupted")


async def assert_dropped(device: Device) -> None:
    """Assert that the connection ends without a close code of voicecare."""
    code = await device.wait_closed()
    assert code is None or code < 4000


async def test_a_frame_over_1_mib_drops_the_connection(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    sandbox.fault(**SLOW)
    for data in ("x" * (2**20 + 1), b"x" * 3_000_000):
        async with Device(server.ws, alice.token) as device:
            started = await device.start(greeting=False)
            await device.start_speech("playing", LONG)
            with suppress(ConnectionClosed, ConnectionError):  # the server need not read all of it
                await (device.send_text(data) if isinstance(data, str) else device.send_binary(data))
            await assert_dropped(device)
        await wait_for_state(started["conversation"], "playing", "interrupted")


async def test_invalid_utf8_drops_the_connection(server: ServerProcess, sandbox: SandboxProcess, alice: Member) -> None:
    sandbox.fault(**SLOW)
    async with Device(server.ws, alice.token) as device:
        started = await device.start(greeting=False)
        await device.start_speech("playing", LONG)
        await device.send_raw_text_bytes(b'{"type": "ping", "t": "\xff\xfe"}')
        await assert_dropped(device)
    await wait_for_state(started["conversation"], "playing", "interrupted")
    async with Device(server.ws, alice.token) as device:
        resumed = await device.start(resume=started["conversation"])
        assert resumed["conversation"] == started["conversation"]
