"""All codes of the provider's old and new error catalogues, in every form of the body."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicecare.providers import errors as e
from voicecare.providers.elevenlabs.error_mapping import MAX_BODY_BYTES, error_from_response
from voicecare.providers.errors import Cause

SPOKEN = "Take your two blue tablets now, Margaret"


def new(kind: str, code: str, message: str = "m", **more: object) -> bytes:
    return json.dumps({"detail": {"type": kind, "code": code, "message": message, **more}}).encode()


def legacy(status: str, message: str = "m") -> bytes:
    return json.dumps({"detail": {"status": status, "message": message}}).encode()


CATALOGUE = [
    (400, "text_too_long", e.TextRejected),
    (400, "text_too_short", e.TextRejected),
    (400, "invalid_text", e.TextRejected),
    (400, "empty_text", e.TextRejected),
    (422, "text_too_long", e.TextRejected),
    (400, "invalid_parameters", e.BadRequest),
    (400, "missing_required_field", e.BadRequest),
    (400, "invalid_voice_settings", e.BadRequest),
    (400, "invalid_voice_id", e.VoiceUnavailable),
    (400, "unsupported_model", e.BadRequest),
    (400, "invalid_audio", e.BadRequest),
    (400, "invalid_audio_format", e.BadRequest),
    (400, "invalid_output_format", e.BadRequest),
    (400, "audio_too_long", e.BadRequest),
    (400, "audio_too_short", e.BadRequest),
    (400, "invalid_file_type", e.BadRequest),
    (400, "invalid_page_size", e.BadRequest),
    (400, "invalid_cursor", e.BadRequest),
    (400, "bad_request", e.BadRequest),
    (400, "malformed_json", e.BadRequest),
    (400, "invalid_content_type", e.BadRequest),
    (400, "request_too_large", e.BadRequest),
    (401, "invalid_api_key", e.AuthorizationError),
    (401, "missing_api_key", e.AuthorizationError),
    (401, "invalid_authorization_header", e.AuthorizationError),
    (401, "unauthorized", e.AuthorizationError),
    (401, "sign_in_required", e.AuthorizationError),
    (402, "insufficient_credits", e.QuotaExceeded),
    (402, "paid_plan_required", e.AuthorizationError),
    (403, "forbidden", e.AuthorizationError),
    (403, "insufficient_permissions", e.AuthorizationError),
    (403, "workspace_access_denied", e.AuthorizationError),
    (403, "feature_not_available", e.AuthorizationError),
    (403, "subscription_required", e.AuthorizationError),
    (403, "voice_access_denied", e.VoiceUnavailable),
    (403, "model_access_denied", e.AuthorizationError),
    (404, "voice_not_found", e.VoiceUnavailable),
    (404, "sample_not_found", e.BadRequest),
    (404, "model_not_found", e.BadRequest),
    (404, "history_item_not_found", e.BadRequest),
    (404, "pronunciation_dictionary_not_found", e.BadRequest),
    (409, "conflict", e.BadRequest),
    (409, "resource_already_exists", e.BadRequest),
    (409, "voice_already_exists", e.BadRequest),
    (409, "already_running", e.BadRequest),
    (409, "already_processing", e.BadRequest),
    (409, "concurrent_modification", e.BadRequest),
    (429, "rate_limit_exceeded", e.RateLimited),
    (429, "concurrent_limit_exceeded", e.RateLimited),
    (429, "system_busy", e.RateLimited),
    (500, "internal_error", e.ServerError),
    (503, "service_unavailable", e.ServerError),
    (503, "maintenance", e.ServerError),
]
LEGACY = [
    (401, "invalid_api_key", e.AuthorizationError),
    (401, "needs_authorization", e.AuthorizationError),
    (401, "missing_permissions", e.AuthorizationError),
    (401, "quota_exceeded", e.QuotaExceeded),
    (400, "quota_exceeded", e.QuotaExceeded),
    (402, "quota_exceeded", e.QuotaExceeded),
    (401, "detected_unusual_activity", e.AuthorizationError),
    (402, "payment_required", e.AuthorizationError),
    (400, "max_character_limit_exceeded", e.TextRejected),
    (400, "model_not_found", e.BadRequest),
    (400, "invalid_voice_settings", e.BadRequest),
    (404, "voice_not_found", e.VoiceUnavailable),
    (400, "voice_not_found", e.VoiceUnavailable),
    (401, "voice_not_found", e.VoiceUnavailable),
    (400, "voice_not_fine_tuned", e.VoiceUnavailable),
    (403, "voice_disabled", e.VoiceUnavailable),
    (400, "free_users_not_allowed", e.VoiceUnavailable),
    (400, "can_not_use_instant_voice_cloning", e.VoiceUnavailable),
    (400, "voice_limit_reached", e.BadRequest),
    (403, "only_for_creator+", e.VoiceUnavailable),
    (429, "too_many_concurrent_requests", e.RateLimited),
    (429, "system_busy", e.RateLimited),
]


@pytest.mark.parametrize(("status", "code", "kind"), CATALOGUE)
def test_codes_of_the_new_catalogue(status: int, code: str, kind: type[e.ProviderError]) -> None:
    error = error_from_response(status, {}, new("any", code, status="legacy_word", request_id="ab12"))
    assert (type(error), error.code, error.status, error.request_id) == (kind, code, status, "ab12")


@pytest.mark.parametrize(("status", "code", "kind"), LEGACY)
def test_legacy_statuses(status: int, code: str, kind: type[e.ProviderError]) -> None:
    error = error_from_response(status, {}, legacy(code))
    assert (type(error), error.code, error.status) == (kind, code, status)


LIBRARY = "Free users cannot use library voices via the API. Please upgrade your subscription to use this voice."


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (new("payment_required", "paid_plan_required", LIBRARY, status="payment_required"), e.VoiceUnavailable),
        (legacy("paid_plan_required"), e.VoiceUnavailable),
        (legacy("payment_required", LIBRARY), e.VoiceUnavailable),
        (legacy("payment_required", "Your last invoice is not paid."), e.AuthorizationError),
        (new("payment_required", "insufficient_credits", LIBRARY), e.QuotaExceeded),
        (b"", e.AuthorizationError),
    ],
)
def test_a_plan_without_the_voice_refuses_the_voice(body: bytes, kind: type[e.ProviderError]) -> None:
    assert type(error_from_response(402, {}, body, for_speech=True)) is kind
    other = error_from_response(402, {}, body)  # a request of the account, such as a new clone
    assert type(other) is (e.QuotaExceeded if kind is e.QuotaExceeded else e.AuthorizationError)


def test_the_code_has_priority_over_the_status() -> None:
    error = error_from_response(400, {}, new("validation_error", "voice_not_found", status="text_too_long"))
    assert (type(error), error.code) == (e.VoiceUnavailable, "voice_not_found")


@pytest.mark.parametrize(
    ("param", "kind"), [("text", e.TextRejected), ("voice_id", e.VoiceUnavailable), ("speed", e.BadRequest)]
)
def test_a_named_parameter_decides(param: str, kind: type[e.ProviderError]) -> None:
    assert type(error_from_response(400, {}, new("validation_error", "invalid_parameters", param=param))) is kind


@pytest.mark.parametrize(
    ("status", "code", "cause"),
    [
        (404, "voice_not_found", e.Cause.VOICE_MISSING),
        (400, "voice_not_found", e.Cause.VOICE_MISSING),
        (400, "invalid_voice_id", e.Cause.VOICE_MISSING),
        (400, "invalid_uid", e.Cause.VOICE_MISSING),
        (401, "voice_not_found", None),
        (403, "voice_not_found", None),
        (403, "voice_access_denied", None),
        (400, "voice_not_fine_tuned", None),
        (403, "famous_voice_not_permitted", None),
        (403, "only_for_creator+", e.Cause.PLAN),
        (400, "free_users_not_allowed", e.Cause.PLAN),
        (403, "ivc_not_permitted", e.Cause.PLAN),
        (400, "can_not_use_instant_voice_cloning", e.Cause.PLAN),
        (400, "unsupported_language", e.Cause.LANGUAGE),
        (422, "invalid_language_code", e.Cause.LANGUAGE),
        (400, "invalid_parameters", None),
        (404, "model_not_found", e.Cause.MODEL),
        (401, "invalid_api_key", e.Cause.KEY),
        (401, "needs_authorization", e.Cause.KEY),
        (401, "missing_permissions", None),
        (401, "detected_unusual_activity", None),
        (403, "unauthorized", None),
        (500, "voice_not_found", None),
    ],
)
def test_the_cause_says_what_a_refusal_is_about(status: int, code: str, cause: e.Cause | None) -> None:
    for body in (new("any", code), legacy(code)):
        assert error_from_response(status, {}, body).cause is cause


@pytest.mark.parametrize(
    ("status", "body", "cause"),
    [
        (404, b'{"detail": "Not Found"}', None),
        (404, b"<html>Not Found</html>", None),
        (404, b'{"detail": {"code": "not_found", "param": "voice_id"}}', e.Cause.VOICE_MISSING),
        (422, b'{"detail": [{"loc": ["path", "voice_id"], "type": "string"}]}', None),
        (422, b'{"detail": [{"loc": ["body", "language_code"], "type": "enum"}]}', e.Cause.LANGUAGE),
        (400, b'{"detail": {"code": "bad_request", "param": "language_code"}}', e.Cause.LANGUAGE),
        (
            400,
            b'{"detail": {"status": "bad_request", "message": "The model does not support the language."}}',
            e.Cause.LANGUAGE,
        ),
        (400, b'{"detail": "Language xx is not supported"}', e.Cause.LANGUAGE),
        (422, b'{"detail": [{"loc": ["body", "text"], "type": "enum"}]}', None),
    ],
)
def test_the_cause_in_every_form_of_the_body(status: int, body: bytes, cause: e.Cause | None) -> None:
    assert error_from_response(status, {}, body).cause is cause


def invalid(*loc: object) -> bytes:
    item = {"loc": list(loc), "msg": f"not good: {SPOKEN}", "type": "string_too_long", "input": SPOKEN}
    return json.dumps({"detail": [item]}).encode()


@pytest.mark.parametrize(
    ("loc", "kind"),
    [
        (("body", "text"), e.TextRejected),
        (("path", "voice_id"), e.VoiceUnavailable),
        (("body", "previous_text"), e.BadRequest),
        (("body", "model_id"), e.BadRequest),
        (("body", 17), e.BadRequest),
        ((), e.BadRequest),
    ],
)
def test_validation_errors_are_classified_by_their_location(
    loc: tuple[object, ...], kind: type[e.ProviderError]
) -> None:
    error = error_from_response(422, {}, invalid(*loc))
    assert (type(error), error.code) == (kind, kind.code)


def test_the_message_has_the_location_of_a_validation_error() -> None:
    error = error_from_response(422, {}, invalid("body", "model_id"))
    assert error.message == f"{e.BadRequest.default_message} (body.model_id: string_too_long)"


BY_STATUS = [
    (301, e.BadRequest),
    (307, e.BadRequest),
    (400, e.BadRequest),
    (401, e.AuthorizationError),
    (402, e.AuthorizationError),
    (403, e.AuthorizationError),
    (404, e.BadRequest),
    (405, e.BadRequest),
    (408, e.ServerError),
    (409, e.BadRequest),
    (413, e.BadRequest),
    (418, e.BadRequest),
    (422, e.BadRequest),
    (425, e.ServerError),
    (429, e.RateLimited),
    (500, e.ServerError),
    (502, e.ServerError),
    (503, e.ServerError),
    (504, e.ServerError),
    (599, e.ServerError),
]
BODIES_WITHOUT_INFORMATION = [
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
    b'{"detail": {"status": "quota_exceeded", "message": "' + b"x" * MAX_BODY_BYTES + b'"}}',
]


@pytest.mark.parametrize("body", BODIES_WITHOUT_INFORMATION, ids=range(len(BODIES_WITHOUT_INFORMATION)))
def test_the_http_status_decides_without_a_usable_body(body: bytes) -> None:
    for status, kind in BY_STATUS:
        error = error_from_response(status, {}, body)
        assert (type(error), error.status, error.request_id) == (kind, status, None)
        assert error.code == ("redirect" if status < 400 else kind.code)
        assert error.message.startswith(kind.default_message)


@given(st.integers(300, 599), st.binary(max_size=300))
def test_any_bytes_give_a_provider_error(status: int, body: bytes) -> None:
    assert isinstance(error_from_response(status, {}, body), e.ProviderError)


WORDS = st.sampled_from(["detail", "code", "status", "message", "loc", "type", "param", "text", "request_id"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=5),
    max_leaves=20,
)


@given(st.integers(300, 599), JSON)
def test_any_json_gives_a_provider_error(status: int, reply: object) -> None:
    error = error_from_response(status, {}, json.dumps({"detail": reply}).encode())
    assert isinstance(error, e.ProviderError)
    assert error.message


def test_ids_in_the_headers_have_priority_over_the_body() -> None:
    headers = {"request-id": "from-header", "x-trace-id": "trace"}
    error = error_from_response(500, headers, new("internal_error", "internal_error", request_id="from-body"))
    assert (error.request_id, error.trace_id) == ("from-header", "trace")


@pytest.mark.parametrize("status", [307, 400, 401, 403, 404, 409, 413, 422, 500, 503])
@pytest.mark.parametrize("make", [legacy, lambda code, message: new("t", code, message, input=message)])
@pytest.mark.parametrize("code", ["invalid_text", "invalid_parameters", "forbidden", "internal_error"])
def test_a_text_in_the_response_is_not_in_the_message(status: int, make: object, code: str) -> None:
    assert callable(make)
    error = error_from_response(status, {}, make(code, f"Cannot speak: {SPOKEN}"))
    assert "Margaret" not in f"{error} {error!r} {error.as_body()}"


def test_a_text_in_a_validation_error_is_not_in_the_message() -> None:
    for loc in (("body", "text"), ("body", SPOKEN), (SPOKEN,)):
        assert "Margaret" not in str(error_from_response(422, {}, invalid(*loc)))


def test_a_key_in_the_response_is_not_in_the_message() -> None:
    error = error_from_response(401, {}, legacy("invalid_api_key", "Invalid API key sk_12345"))
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
    assert error_from_response(status, {}, legacy(code, message)).message == message


def test_a_message_is_cut_to_one_printable_line() -> None:
    error = error_from_response(429, {}, legacy("system_busy", "a\r\nb\x1b[31m" + "x" * 1000))
    assert error.message.isprintable()
    assert len(error.message) == 300


@pytest.mark.parametrize(
    ("status", "detail", "cause"),
    [
        (400, {"code": "unsupported_model", "message": "m"}, Cause.MODEL),
        (400, {"status": "model_not_found", "message": "m"}, Cause.MODEL),
        (403, {"code": "model_access_denied", "message": "m"}, Cause.MODEL),
        (422, [{"loc": ["body", "model_id"], "msg": "m", "type": "enum"}], Cause.MODEL),
        (400, {"code": "invalid_parameters", "message": "m", "param": "previous_text"}, Cause.CONTEXT),
        (422, [{"loc": ["body", "next_text"], "msg": "m", "type": "string_type"}], Cause.CONTEXT),
        (500, {"code": "model_not_ready", "message": "m"}, None),
        (400, {"code": "invalid_parameters", "message": "m"}, None),
    ],
)
def test_a_refused_part_of_a_request_is_named(status: int, detail: object, cause: Cause | None) -> None:
    error = error_from_response(status, {}, json.dumps({"detail": detail}).encode(), for_speech=True)
    assert error.cause is cause
