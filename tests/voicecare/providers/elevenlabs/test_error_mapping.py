"""Every row of the vendor's error catalogue, old and new, in every form of body."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicecare.providers import errors as e
from voicecare.providers.elevenlabs.error_mapping import BODY_LIMIT, error_from_reply

SPOKEN = "Take your two blue tablets now, Margaret"


def new(kind: str, code: str, message: str = "m", **more: object) -> bytes:
    return json.dumps({"detail": {"type": kind, "code": code, "message": message, **more}}).encode()


def legacy(status: str, message: str = "m") -> bytes:
    return json.dumps({"detail": {"status": status, "message": message}}).encode()


CATALOGUE = [
    (400, "text_too_long", e.TextRefused),
    (400, "text_too_short", e.TextRefused),
    (400, "invalid_text", e.TextRefused),
    (400, "empty_text", e.TextRefused),
    (422, "text_too_long", e.TextRefused),
    (400, "invalid_parameters", e.RequestRefused),
    (400, "missing_required_field", e.RequestRefused),
    (400, "invalid_voice_settings", e.RequestRefused),
    (400, "invalid_voice_id", e.VoiceRefused),
    (400, "unsupported_model", e.RequestRefused),
    (400, "invalid_audio", e.RequestRefused),
    (400, "invalid_audio_format", e.RequestRefused),
    (400, "invalid_output_format", e.RequestRefused),
    (400, "audio_too_long", e.RequestRefused),
    (400, "audio_too_short", e.RequestRefused),
    (400, "invalid_file_type", e.RequestRefused),
    (400, "invalid_page_size", e.RequestRefused),
    (400, "invalid_cursor", e.RequestRefused),
    (400, "bad_request", e.RequestRefused),
    (400, "malformed_json", e.RequestRefused),
    (400, "invalid_content_type", e.RequestRefused),
    (400, "request_too_large", e.RequestRefused),
    (401, "invalid_api_key", e.AccessRefused),
    (401, "missing_api_key", e.AccessRefused),
    (401, "invalid_authorization_header", e.AccessRefused),
    (401, "unauthorized", e.AccessRefused),
    (401, "sign_in_required", e.AccessRefused),
    (402, "insufficient_credits", e.QuotaSpent),
    (402, "paid_plan_required", e.AccessRefused),
    (403, "forbidden", e.AccessRefused),
    (403, "insufficient_permissions", e.AccessRefused),
    (403, "workspace_access_denied", e.AccessRefused),
    (403, "feature_not_available", e.AccessRefused),
    (403, "subscription_required", e.AccessRefused),
    (403, "voice_access_denied", e.VoiceRefused),
    (403, "model_access_denied", e.AccessRefused),
    (404, "voice_not_found", e.VoiceRefused),
    (404, "sample_not_found", e.RequestRefused),
    (404, "model_not_found", e.RequestRefused),
    (404, "history_item_not_found", e.RequestRefused),
    (404, "pronunciation_dictionary_not_found", e.RequestRefused),
    (409, "conflict", e.RequestRefused),
    (409, "resource_already_exists", e.RequestRefused),
    (409, "voice_already_exists", e.RequestRefused),
    (409, "already_running", e.RequestRefused),
    (409, "already_processing", e.RequestRefused),
    (409, "concurrent_modification", e.RequestRefused),
    (429, "rate_limit_exceeded", e.Busy),
    (429, "concurrent_limit_exceeded", e.Busy),
    (429, "system_busy", e.Busy),
    (500, "internal_error", e.ServerFault),
    (503, "service_unavailable", e.ServerFault),
    (503, "maintenance", e.ServerFault),
]
LEGACY = [
    (401, "invalid_api_key", e.AccessRefused),
    (401, "needs_authorization", e.AccessRefused),
    (401, "missing_permissions", e.AccessRefused),
    (401, "quota_exceeded", e.QuotaSpent),
    (400, "quota_exceeded", e.QuotaSpent),
    (402, "quota_exceeded", e.QuotaSpent),
    (401, "detected_unusual_activity", e.AccessRefused),
    (402, "payment_required", e.AccessRefused),
    (400, "max_character_limit_exceeded", e.TextRefused),
    (400, "model_not_found", e.RequestRefused),
    (400, "invalid_voice_settings", e.RequestRefused),
    (404, "voice_not_found", e.VoiceRefused),
    (400, "voice_not_found", e.VoiceRefused),
    (401, "voice_not_found", e.VoiceRefused),
    (400, "voice_not_fine_tuned", e.VoiceRefused),
    (403, "voice_disabled", e.VoiceRefused),
    (400, "free_users_not_allowed", e.VoiceRefused),
    (400, "can_not_use_instant_voice_cloning", e.VoiceRefused),
    (400, "voice_limit_reached", e.RequestRefused),
    (403, "only_for_creator+", e.VoiceRefused),
    (429, "too_many_concurrent_requests", e.Busy),
    (429, "system_busy", e.Busy),
]


@pytest.mark.parametrize(("status", "code", "kind"), CATALOGUE)
def test_the_new_catalogue(status: int, code: str, kind: type[e.ProviderError]) -> None:
    error = error_from_reply(status, {}, new("any", code, status="legacy_word", request_id="ab12"))
    assert (type(error), error.code, error.status, error.request_id) == (kind, code, status, "ab12")


@pytest.mark.parametrize(("status", "code", "kind"), LEGACY)
def test_the_legacy_statuses(status: int, code: str, kind: type[e.ProviderError]) -> None:
    error = error_from_reply(status, {}, legacy(code))
    assert (type(error), error.code, error.status) == (kind, code, status)


def test_the_code_stands_above_the_status() -> None:
    error = error_from_reply(400, {}, new("validation_error", "voice_not_found", status="text_too_long"))
    assert (type(error), error.code) == (e.VoiceRefused, "voice_not_found")


@pytest.mark.parametrize(
    ("param", "kind"), [("text", e.TextRefused), ("voice_id", e.VoiceRefused), ("speed", e.RequestRefused)]
)
def test_a_parameter_that_is_named_decides(param: str, kind: type[e.ProviderError]) -> None:
    assert type(error_from_reply(400, {}, new("validation_error", "invalid_parameters", param=param))) is kind


def invalid(*loc: object) -> bytes:
    item = {"loc": list(loc), "msg": f"not good: {SPOKEN}", "type": "string_too_long", "input": SPOKEN}
    return json.dumps({"detail": [item]}).encode()


@pytest.mark.parametrize(
    ("loc", "kind"),
    [
        (("body", "text"), e.TextRefused),
        (("path", "voice_id"), e.VoiceRefused),
        (("body", "previous_text"), e.RequestRefused),
        (("body", "model_id"), e.RequestRefused),
        (("body", 17), e.RequestRefused),
        ((), e.RequestRefused),
    ],
)
def test_a_validation_list_is_judged_by_its_places(loc: tuple[object, ...], kind: type[e.ProviderError]) -> None:
    error = error_from_reply(422, {}, invalid(*loc))
    assert (type(error), error.code) == (kind, kind.code)


def test_a_validation_list_leaves_its_place_in_the_message() -> None:
    error = error_from_reply(422, {}, invalid("body", "model_id"))
    assert error.message == f"{e.RequestRefused.sentence} (body.model_id: string_too_long)"


BY_STATUS = [
    (301, e.RequestRefused),
    (307, e.RequestRefused),
    (400, e.RequestRefused),
    (401, e.AccessRefused),
    (402, e.AccessRefused),
    (403, e.AccessRefused),
    (404, e.RequestRefused),
    (405, e.RequestRefused),
    (408, e.ServerFault),
    (409, e.RequestRefused),
    (413, e.RequestRefused),
    (418, e.RequestRefused),
    (422, e.RequestRefused),
    (425, e.ServerFault),
    (429, e.Busy),
    (500, e.ServerFault),
    (502, e.ServerFault),
    (503, e.ServerFault),
    (504, e.ServerFault),
    (599, e.ServerFault),
]
SILENT_BODIES = [
    b"",
    b"null",
    b"{",
    b'{"detail":',
    b"\xff\xfe\x00",
    b"<html><body>502 Bad Gateway</body></html>",
    b'{"detail": "Method Not Allowed"}',
    b'{"detail": null}',
    b'{"detail": 7}',
    b'{"detail": {}}',
    b'{"detail": []}',
    b'{"detail": [null, 3, "x", []]}',
    b'{"detail": [{"loc": "text", "type": 7}]}',
    b'{"detail": {"code": 12, "status": ["quota_exceeded"], "message": {"a": 1}, "request_id": 5, "param": 9}}',
    b'{"detail": {"code": "not a word", "status": ""}}',
    b'{"error": "quota_exceeded"}',
    b'["quota_exceeded"]',
    b'"quota_exceeded"',
    b"[" * 60_000,
    b'{"detail": {"status": "quota_exceeded", "message": "' + b"x" * BODY_LIMIT + b'"}}',
]


@pytest.mark.parametrize("body", SILENT_BODIES, ids=range(len(SILENT_BODIES)))
def test_a_body_that_says_nothing_leaves_the_verdict_to_the_status(body: bytes) -> None:
    for status, kind in BY_STATUS:
        error = error_from_reply(status, {}, body)
        assert (type(error), error.status, error.request_id) == (kind, status, None)
        assert error.code == ("redirect" if status < 400 else kind.code)
        assert error.message.startswith(kind.sentence)


@given(st.integers(300, 599), st.binary(max_size=300))
def test_no_bytes_make_it_raise(status: int, body: bytes) -> None:
    assert isinstance(error_from_reply(status, {}, body), e.ProviderError)


WORDS = st.sampled_from(["detail", "code", "status", "message", "loc", "type", "param", "text", "request_id"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=5),
    max_leaves=20,
)


@given(st.integers(300, 599), JSON)
def test_no_json_makes_it_raise(status: int, reply: object) -> None:
    error = error_from_reply(status, {}, json.dumps({"detail": reply}).encode())
    assert isinstance(error, e.ProviderError)
    assert error.message


def test_ids_come_from_the_headers_before_the_body() -> None:
    headers = {"request-id": "from-header", "x-trace-id": "trace"}
    error = error_from_reply(500, headers, new("internal_error", "internal_error", request_id="from-body"))
    assert (error.request_id, error.trace_id) == ("from-header", "trace")


@pytest.mark.parametrize("status", [307, 400, 401, 403, 404, 409, 413, 422, 500, 503])
@pytest.mark.parametrize("make", [legacy, lambda code, message: new("t", code, message, input=message)])
@pytest.mark.parametrize("code", ["invalid_text", "invalid_parameters", "forbidden", "internal_error"])
def test_an_echo_of_the_text_does_not_reach_the_message(status: int, make: object, code: str) -> None:
    assert callable(make)
    error = error_from_reply(status, {}, make(code, f"Cannot speak: {SPOKEN}"))
    assert "Margaret" not in f"{error} {error!r} {error.as_body()}"


def test_an_echo_of_the_text_in_a_validation_list_does_not_reach_the_message() -> None:
    for loc in (("body", "text"), ("body", SPOKEN), (SPOKEN,)):
        assert "Margaret" not in str(error_from_reply(422, {}, invalid(*loc)))


def test_an_echo_of_the_key_does_not_reach_the_message() -> None:
    error = error_from_reply(401, {}, legacy("invalid_api_key", "Invalid API key sk_12345"))
    assert "sk_12345" not in str(error)


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (401, "quota_exceeded", "This request exceeds your quota of 10000. You have 5 credits remaining."),
        (429, "too_many_concurrent_requests", "Your plan allows 5 concurrent requests."),
        (401, "missing_permissions", "The API key you used is missing the permission user_read."),
        (400, "voice_limit_reached", "You have reached your maximum amount of custom voices (10 / 10)."),
    ],
)
def test_messages_about_numbers_and_permissions_are_kept(status: int, code: str, message: str) -> None:
    assert error_from_reply(status, {}, legacy(code, message)).message == message


def test_a_kept_message_is_one_short_printable_line() -> None:
    error = error_from_reply(429, {}, legacy("system_busy", "a\r\nb\x1b[31m" + "x" * 1000))
    assert error.message.isprintable()
    assert len(error.message) == 300
