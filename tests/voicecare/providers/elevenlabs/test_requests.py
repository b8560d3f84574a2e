"""The speech request, the metadata of a response, and the detection of audio."""

import json
from dataclasses import replace
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicecare.providers.elevenlabs.requests import (
    Endpoint,
    ResponseMetadata,
    SpeechRequest,
    looks_like_audio,
    path_segment,
    printable_id,
    request_headers,
)
from voicecare.providers.errors import VoiceUnavailable

PLAIN = SpeechRequest("JBFqnCBsd6RMkjVDRZzb", "Good morning.", "eleven_flash_v2_5", "mp3_44100_128")


def body(request: SpeechRequest) -> dict[str, object]:
    decoded = json.loads(request.body())
    assert isinstance(decoded, dict)
    return decoded


def test_a_plain_request_only_sends_text_and_model() -> None:
    assert PLAIN.path() == "/v1/text-to-speech/JBFqnCBsd6RMkjVDRZzb/stream?output_format=mp3_44100_128"
    assert body(PLAIN) == {"text": "Good morning.", "model_id": "eleven_flash_v2_5"}


def test_zero_retention_is_a_query_parameter() -> None:
    request = replace(PLAIN, zero_retention=True)
    assert urlsplit(request.path()).query == "output_format=mp3_44100_128&enable_logging=false"
    assert body(request) == body(PLAIN)


def test_the_language_is_sent_if_there_is_one() -> None:
    assert body(replace(PLAIN, language_code="es"))["language_code"] == "es"
    assert body(replace(PLAIN, language_code=None)) == body(PLAIN)


@pytest.mark.parametrize(("speed", "settings"), [(None, None), (1.0, None), (0.8, {"speed": 0.8})])
def test_voice_settings_are_only_sent_for_a_changed_speed(speed: float | None, settings: object) -> None:
    assert body(replace(PLAIN, speed=speed)).get("voice_settings") == settings


def test_a_dialogue_has_its_voice_in_the_body_and_one_line() -> None:
    request = replace(PLAIN, endpoint=Endpoint.TEXT_TO_DIALOGUE, language_code="de", speed=0.8, zero_retention=True)
    assert request.path() == "/v1/text-to-dialogue/stream?output_format=mp3_44100_128&enable_logging=false"
    line = {"text": "Good morning.", "voice_id": "JBFqnCBsd6RMkjVDRZzb"}
    assert body(request) == {"inputs": [line], "model_id": "eleven_flash_v2_5", "language_code": "de"}


def test_empty_context_is_left_out() -> None:
    assert body(replace(PLAIN, previous_text="", next_text=None)) == body(PLAIN)


@given(st.text(min_size=1), st.text(), st.text())
def test_any_text_is_sent_unchanged(text: str, before: str, after: str) -> None:
    sent = body(replace(PLAIN, text=text, previous_text=before, next_text=after))
    assert (sent["text"], sent.get("previous_text", ""), sent.get("next_text", "")) == (text, before, after)


def test_text_is_sent_as_utf8_not_as_escapes() -> None:
    assert "¡Buenos días, señor Müller! 😀".encode() in replace(PLAIN, text="¡Buenos días, señor Müller! 😀").body()


def test_the_representation_shows_no_text() -> None:
    shown = repr(replace(PLAIN, text="secret-a", previous_text="secret-b", next_text="secret-c"))
    assert "secret" not in shown
    assert PLAIN.voice_id in shown


@pytest.mark.parametrize(
    ("value", "segment"),
    [
        ("JBFqnCBsd6RMkjVDRZzb", "JBFqnCBsd6RMkjVDRZzb"),
        ("a/b", "a%2Fb"),
        ("..", "%2E%2E"),
        (".", "%2E"),
        ("../../user", "..%2F..%2Fuser"),
        ("a?b=c", "a%3Fb%3Dc"),
        ("a#b", "a%23b"),
        ("a%2Fb", "a%252Fb"),
        ("ä 😀", "%C3%A4%20%F0%9F%98%80"),
        ("a\r\nX: y", "a%0D%0AX%3A%20y"),
        ("v.1", "v.1"),
    ],
)
def test_any_id_stays_in_its_path_segment(value: str, segment: str) -> None:
    assert path_segment(value) == segment
    assert replace(PLAIN, voice_id=value).path().startswith(f"/v1/text-to-speech/{segment}/stream?")


@given(st.text(min_size=1))
def test_a_segment_decodes_to_the_id_and_is_never_a_dot_segment(value: str) -> None:
    segment = path_segment(value)
    assert unquote(segment) == value
    assert segment not in {".", ".."}
    assert not set(segment) & set("/?#\\ ")


def test_an_empty_voice_id_is_rejected() -> None:
    for endpoint in Endpoint:
        with pytest.raises(VoiceUnavailable) as caught:
            replace(PLAIN, voice_id="", endpoint=endpoint).path()
        assert caught.value.code == "invalid_voice_id"


def test_the_headers_have_the_key_and_request_no_compression() -> None:
    headers = request_headers("sk_1")
    assert headers["xi-api-key"] == "sk_1"
    assert headers["Accept-Encoding"] == "identity"


@pytest.mark.parametrize("key", ["sk_1\n", "sk\r\nX-Evil: 1", "sk_ä", "sk\x00"])
def test_a_key_that_is_invalid_in_a_header_is_rejected_and_not_shown(key: str) -> None:
    with pytest.raises(ValueError, match="cannot be sent in a header") as caught:
        request_headers(key)
    assert key not in str(caught.value)


def test_metadata_comes_from_the_headers() -> None:
    headers = {
        "request-id": "q1w2e3",
        "x-trace-id": "ab12",
        "character-cost": "5378",
        "current-concurrent-requests": "0",
        "maximum-concurrent-requests": "10",
        "x-region": "europe-west4",
    }
    assert ResponseMetadata.from_headers(headers) == ResponseMetadata("q1w2e3", "ab12", 5378, 0, 10, "europe-west4")


def test_metadata_without_headers_is_empty() -> None:
    assert ResponseMetadata.from_headers({}) == ResponseMetadata(None, None, None, None, None)


@pytest.mark.parametrize("value", ["", "abc", "-1", "1.5", "1e9", " 7", "0x1", "1_000", "٣", "²", "9" * 16, "nan"])
def test_invalid_numbers_are_none(value: str) -> None:
    assert ResponseMetadata.from_headers({"character-cost": value}).character_cost is None


@pytest.mark.parametrize(
    ("value", "kept"), [("ab", "ab"), ("", None), (None, None), (7, None), ("a\nb", None), ("x" * 500, "x" * 128)]
)
def test_an_id_is_printable_and_short(value: object, kept: str | None) -> None:
    assert printable_id(value) == kept


MP3 = b"\xff\xfb\x90\x64" + bytes(400)
ID3 = b"ID3\x04\x00\x00\x00\x00\x00\x00" + MP3
SILENT_PCM = bytes(512)
JSON_LIKE_PCM = b'{"' + b"\x00\x01\xf0\xff" * 100


@pytest.mark.parametrize(
    ("content_type", "first"),
    [
        ("audio/mpeg", MP3),
        ("audio/mpeg", ID3),
        ("audio/mpeg", b"\xff"),
        ("audio/pcm", SILENT_PCM),
        ("application/octet-stream", SILENT_PCM),
        ("", SILENT_PCM),
        ("", JSON_LIKE_PCM),
        ("audio/basic", b"<\x7f\xff\xff" * 20),
        ("audio/basic", b"{\xff\xff\xff" * 20),
        ("audio/ogg; codecs=opus", b"OggS\x00\x02" + bytes(60)),
        ("audio/L16;rate=16000", b"[\x00]\x00" * 30),
    ],
)
def test_audio_of_every_kind_is_accepted(content_type: str, first: bytes) -> None:
    assert looks_like_audio(content_type, first)


@pytest.mark.parametrize(
    ("content_type", "first"),
    [
        ("audio/mpeg", b""),
        ("text/html", MP3),
        ("text/html; charset=utf-8", MP3),
        ("TEXT/HTML", MP3),
        ("text/plain", b"upstream error"),
        ("application/json", MP3),
        ("application/problem+json", MP3),
        ("application/xml", MP3),
        ("application/xhtml+xml", MP3),
        ("audio/mpeg", b"<!DOCTYPE html><html>"),
        ("audio/mpeg", b"\r\n  <html lang=en>"),
        ("", b'<?xml version="1.0"?>'),
        ("audio/mpeg", b'{"detail":{"status":"quota_exceeded"}}'),
        ("audio/mpeg", b'{\n  "detail": []}'),
        ("", b'["no"]'),
        ("", b"{}"),
    ],
)
def test_other_content_is_not_accepted_as_audio(content_type: str, first: bytes) -> None:
    assert not looks_like_audio(content_type, first)
