"""Frames and their fields are parsed or rejected."""

import json

import pytest

from tts.protocol import messages
from tts.protocol.messages import (
    ProtocolError,
    is_finite,
    optional_bool,
    optional_text,
    parse_json_object,
    require_client_id,
    require_id,
    require_text,
)


def refusal(read: object, *arguments: object) -> dict:
    with pytest.raises(ProtocolError) as refused:
        read(*arguments)
    return refused.value.frame


NO_OBJECT = {
    "empty": "",
    "blank": " ",
    "broken": '{"type": "ping"',
    "trailing comma": '{"type": "ping",}',
    "single quotes": "{'type': 'ping'}",
    "something behind it": '{"type": "ping"} x',
    "two objects": '{"type": "ping"}{"type": "ping"}',
    "a byte order mark": '\ufeff{"type": "ping"}',
    "a raw control character": '{"type": "pi\nng"}',
    "a list": '[{"type": "ping"}]',
    "a number": "1",
    "a text": '"ping"',
    "null": "null",
    "true": "true",
    "NaN": '{"type": "ping", "t": NaN}',
    "Infinity": '{"type": "ping", "t": Infinity}',
    "-Infinity": '{"type": "ping", "t": -Infinity}',
    "a number of 5000 digits": '{"type": "ping", "t": ' + "1" * 5000 + "}",
    "lists 100000 deep": "[" * 100_000,
    "lists 100000 deep, closed": "[" * 100_000 + "]" * 100_000,
    "objects 100000 deep": '{"a":' * 100_000,
    "objects 100000 deep, closed": '{"a":' * 100_000 + "1" + "}" * 100_000,
}


@pytest.mark.parametrize("frame", NO_OBJECT.values(), ids=NO_OBJECT.keys())
def test_a_frame_that_is_not_one_json_object_is_bad_json(frame: str):
    assert refusal(parse_json_object, frame)["code"] == "bad_json"


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ("{}", {}),
        (' \n{"type": "ping"}\t', {"type": "ping"}),
        ('{"type": "speak", "type": "ping"}', {"type": "ping"}),
        ('{"a": {"b": [1, 2.5, null, true]}}', {"a": {"b": [1, 2.5, None, True]}}),
        ('{"a": "\\ud83d\\ude42"}', {"a": "🙂"}),
        ('{"a": "\\u0000"}', {"a": "\0"}),
    ],
)
def test_an_object_is_parsed_and_the_last_duplicate_key_wins(frame: str, message: dict):
    assert parse_json_object(frame) == message


@pytest.mark.parametrize("value", [None, True, False, 0, 1.5, [], {}, ["text"], {"text": "text"}])
def test_a_value_of_another_type_is_rejected_and_the_message_names_the_field(value: object):
    assert "`text`" in refusal(require_text, {"text": value}, "text")["message"]


def test_a_missing_text_is_rejected():
    assert refusal(require_text, {}, "text")["code"] == "bad_message"


@pytest.mark.parametrize("value", ["\ud800", "Hello \ud83d", "\ude42\ud83d", "a\0b"])
def test_lone_surrogates_and_nul_are_rejected(value: str):
    """UTF-8 cannot encode a lone surrogate, and PostgreSQL cannot store NUL."""
    frame = refusal(require_text, {"text": value}, "text", "s1")
    assert (frame["code"], frame["id"]) == ("bad_message", "s1")
    assert "`text`" in frame["message"]


@pytest.mark.parametrize("value", ["", " ", "Hello", "🙂", "Ünïcode", "\u200b", "\ufffe"])
def test_every_other_text_is_returned_unchanged(value: str):
    assert require_text({"text": value}, "text") == value


@pytest.mark.parametrize(("message", "value"), [({}, None), ({"format": None}, None), ({"format": "x"}, "x")])
def test_an_optional_text_may_be_missing_or_null(message: dict, value: str | None):
    assert optional_text(message, "format") == value


@pytest.mark.parametrize("value", [False, 0, [], {}])
def test_an_optional_text_of_another_type_is_rejected(value: object):
    assert "`format`" in refusal(optional_text, {"format": value}, "format")["message"]


@pytest.mark.parametrize(
    ("message", "value"),
    [({}, None), ({"greeting": None}, None), ({"greeting": True}, True), ({"greeting": False}, False)],
)
def test_a_boolean_is_true_false_or_missing(message: dict, value: bool | None):
    assert optional_bool(message, "greeting") is value


@pytest.mark.parametrize("value", [0, 1, "true", "", [], {}, 1.0])
def test_a_boolean_of_another_type_is_rejected(value: object):
    assert "`greeting`" in refusal(optional_bool, {"greeting": value}, "greeting")["message"]


@pytest.mark.parametrize("speech_id", ["a", "x" * 64, "🙂" * 64, "0", "greetings", "Greeting", "srv", "SRV-1", " x "])
def test_an_id_has_1_to_64_characters(speech_id: str):
    assert require_id({"id": speech_id}) == require_client_id({"id": speech_id}) == speech_id


@pytest.mark.parametrize("speech_id", ["", " ", "\t\n", "x" * 65, "🙂" * 65, "x" * 60_000])
def test_an_empty_blank_or_long_id_is_rejected_and_not_repeated_in_the_error(speech_id: str):
    frame = refusal(require_id, {"id": speech_id})
    assert frame["code"] == "bad_message"
    assert "`id`" in frame["message"]
    assert "id" not in frame


@pytest.mark.parametrize("speech_id", ["greeting", "srv-", "srv-1", "srv-" + "x" * 60])
def test_a_device_may_name_server_ids_but_not_use_them_for_its_own_speech(speech_id: str):
    assert require_id({"id": speech_id}) == speech_id
    assert refusal(require_client_id, {"id": speech_id})["id"] == speech_id


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0, True), (-1.5, True), (10**400, True), ("inf", True), (float("inf"), False), (float("-inf"), False)],
)
def test_only_finite_numbers_are_finite(value: float | str, expected: bool):
    assert is_finite(value) is expected


def test_a_number_too_large_for_a_float_is_valid_json_but_not_finite():
    assert not is_finite(parse_json_object('{"t": 1e400}')["t"])


@pytest.mark.parametrize("speech_id", [None, "s1"])
def test_a_protocol_error_has_an_error_frame(speech_id: str | None):
    frame = ProtocolError("too_long", "`text` is too long.", speech_id).frame
    named = {} if speech_id is None else {"id": speech_id}
    assert frame == {"type": "error", "code": "too_long", "message": "`text` is too long."} | named
    assert json.loads(json.dumps(frame)) == frame


def test_the_close_codes_are_those_of_the_protocol():
    codes = {
        name: value for name, value in vars(messages).items() if name.startswith("CLOSE_") and isinstance(value, int)
    }
    assert codes == {
        "CLOSE_REPLACED": 4001,
        "CLOSE_REVOKED": 4003,
        "CLOSE_TOO_MANY_ERRORS": 4008,
        "CLOSE_FRAME_TOO_LARGE": 4009,
        "CLOSE_SHUTTING_DOWN": 4012,
    }
    assert messages.CLOSE_REASONS.keys() >= set(codes.values())
