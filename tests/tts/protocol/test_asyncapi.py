"""docs/asyncapi.yaml is a valid AsyncAPI document, and says the same as the code and docs/protocol.md.

The devices of the end-to-end tests check every frame that they receive (tests/e2e/device.py).
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator, ValidationError

from tests.asyncapi import (
    DOCUMENT,
    FROM_DEVICE,
    TO_DEVICE,
    check_frame_from_device,
    check_frame_to_device,
    message_names,
)
from tests.tts.examples import new_session, opened
from tts.protocol import messages, refusals
from tts.protocol.commands import SendFrame
from tts.protocol.session import _HANDLERS
from voicecare.audio.formats import DEVICE_FORMATS

ROOT = Path(__file__).resolve().parents[3]
SCHEMA = json.loads((ROOT / "tests/asyncapi/schema-3.0.0.json").read_text())
PAGE = (ROOT / "docs/protocol.md").read_text()


def enum_of(*path: str) -> list[str]:
    found: Any = DOCUMENT["components"]
    for name in path:
        found = found[name]
    return list(found["enum"])


def test_the_document_is_valid_asyncapi():
    Draft7Validator(SCHEMA).validate(DOCUMENT)
    broken = {**DOCUMENT, "operations": {"toDevice": {"action": "shout"}}}
    assert not Draft7Validator(SCHEMA).is_valid(broken)


def test_every_message_belongs_to_one_direction():
    names = [*message_names(FROM_DEVICE), *message_names(TO_DEVICE)]
    assert (
        sorted(names)
        == sorted(DOCUMENT["components"]["messages"])
        == sorted(DOCUMENT["channels"]["device"]["messages"])
    )


def test_the_frames_of_a_device_are_those_that_the_server_reads():
    assert sorted(message_names(FROM_DEVICE)) == sorted(_HANDLERS)


def test_the_codes_and_formats_are_those_of_the_server():
    payloads = ("messages", "speech.failed", "payload", "properties", "code")
    assert sorted(enum_of(*payloads)) == sorted(messages.FAILURE_MESSAGES)
    assert enum_of("schemas", "format") == list(DEVICE_FORMATS)
    errors = set(enum_of("messages", "error", "payload", "properties", "code"))
    assert {refusal.code for refusal in refusals.REFUSALS} <= errors
    source = "\n".join(path.read_text() for path in (ROOT / "tts").rglob("*.py"))
    raised = set(re.findall(r'ProtocolError\(\s*"(\w+)"', source))
    assert raised <= errors
    documented = set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE))
    assert errors <= documented


def examples() -> list[tuple[str, dict[str, Any]]]:
    """Return the frames in docs/protocol.md that are complete: `>` for those of a device, `<` for the others.

    A frame in a block of JSON stands under the heading of its message. In the transcripts an arrow is in front of it.
    """
    found: list[tuple[str, dict[str, Any]]] = []
    device_types = message_names(FROM_DEVICE)
    for block in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL):
        decoder, rest = json.JSONDecoder(), block.strip()
        while rest:
            frame, end = decoder.raw_decode(rest)
            found.append((">" if frame["type"] in device_types else "<", frame))
            rest = rest[end:].lstrip()
    for arrow, text in re.findall(r"^(-->|<--) (\{.*?\})$", PAGE, re.MULTILINE):
        if "..." not in text:
            found.append((arrow[0] if arrow == "<--" else ">", json.loads(text)))
    return found


def test_every_example_of_the_protocol_page_is_described():
    found = examples()
    assert len(found) > 35
    for direction, frame in found:
        (check_frame_from_device if direction == ">" else check_frame_to_device)(frame)
    assert {frame["type"] for _, frame in found} == {*message_names(FROM_DEVICE), *message_names(TO_DEVICE)} - {"audio"}


@pytest.mark.parametrize(
    "frame",
    [
        {"type": "conversation.start", "format": "opus"},
        {"type": "conversation.start", "greeting": "yes"},
        {"type": "conversation.start", "buffer_ms": 499},
        {"type": "conversation.start", "buffer_ms": 600_001},
        {"type": "conversation.start", "buffer_ms": 2400.5},
        {"type": "conversation.start", "buffer_ms": "2400"},
        {"type": "speak", "id": "a"},
        {"type": "speak", "id": "", "text": "Good morning."},
        {"type": "speak", "id": "x" * 65, "text": "Good morning."},
        {"type": "speak", "id": "greeting", "text": "Good morning."},
        {"type": "speak", "id": "srv-1", "text": "Good morning."},
        {"type": "speak", "id": "a", "text": " "},
        {"type": "speak", "id": "a", "text": "x" * 5001},
        {"type": "speak.delta", "id": "a", "text": ""},
        {"type": "speak.delta", "id": "a", "text": "x" * 1001},
        {"type": "speak.done"},
        {"type": "interrupt", "id": ""},
        {"type": "ack"},
        {"type": "progress", "id": "a1", "ms": -1},
        {"type": "progress", "id": "a1", "ms": "1"},
        {"type": "ping", "t": True},
    ],
    ids=str,
)
def test_a_frame_that_the_document_does_not_allow_is_refused_by_the_server(frame: dict[str, Any]):
    with pytest.raises(ValidationError):
        check_frame_from_device(frame)
    session = new_session(1_000_000)
    if frame["type"] != "conversation.start":
        session.start_conversation(opened())
        session.text_frame('{"type": "speak", "id": "a1", "text": "Good morning."}', 0.0)
    [reply] = session.text_frame(json.dumps(frame), 0.0)
    assert isinstance(reply, SendFrame)
    assert reply.frame["type"] == "error"
    check_frame_to_device(reply.frame)


@pytest.mark.parametrize("change", [{"extra": 1}, {"bytes": -1}, {"bytes": "1"}, {"source": "radio"}, {"id": None}])
def test_the_check_of_frames_finds_mistakes(change: dict[str, Any]):
    frame = {
        "type": "speech.finished",
        "id": "a1",
        "source": "live",
        "first_chunk_ms": 1.5,
        "bytes": 4,
        "characters": 3,
    }
    check_frame_to_device(frame)
    with pytest.raises(ValidationError):
        check_frame_to_device({**frame, **change})


def test_the_check_of_frames_finds_unknown_types_and_wrong_directions():
    for frame_type in ("speech.paused", "ping"):
        with pytest.raises(AssertionError):
            check_frame_to_device({"type": frame_type})
    with pytest.raises(AssertionError):
        check_frame_from_device({"type": "pong"})
