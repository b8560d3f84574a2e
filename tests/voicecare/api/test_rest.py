"""What all REST calls have in common: authentication, errors, request bodies, pagination, and the schema."""

import json
import re
import time
from datetime import timedelta
from io import StringIO
from typing import Any

import psycopg
import pytest
from django.conf import settings as configured
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import InternalError, OperationalError
from django.test import Client
from django.urls import path as route
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from knox.models import AuthToken
from openapi_schema_validator import OAS30Validator
from rest_framework.request import Request
from rest_framework.views import APIView

from tests.clinicians import Clinician, clinician
from tests.conftest import Member
from voicecare.accounts import throttling
from voicecare.accounts.models import ApiToken
from voicecare.api.parsers import MAX_BYTES
from voicecare.patients.models import Patient

pytestmark = [pytest.mark.django_db, pytest.mark.filterwarnings("ignore:No directory at:UserWarning")]
PASSWORD = "correct horse battery"
WRONG = {"username": "carol", "password": "wrong"}


@pytest.fixture
def carol(settings) -> User:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    return User.objects.create_user("carol", password=PASSWORD)


def log_in(username: str = "carol", password: str = PASSWORD, **extra: Any) -> Any:
    body = {"username": username, "password": password}
    return Client().post("/api/v1/auth/token/", body, "application/json", **extra)


def get_patients(authorization: str | None) -> Any:
    headers = {} if authorization is None else {"Authorization": authorization}
    return Client().get("/api/v1/patients/", headers=headers)


# Authentication


def test_a_login_returns_a_token_for_all_other_calls(carol: User):
    response = log_in()
    assert response.status_code == 200
    assert set(response.json()) == {"token", "expires_at"}
    expires_at = parse_datetime(response.json()["expires_at"])
    assert timedelta(hours=11) < expires_at - timezone.now() <= timedelta(hours=12)
    assert get_patients(f"Bearer {response.json()['token']}").status_code == 200
    assert response.headers["Cache-Control"] == "no-store"


def test_only_the_digest_of_a_token_is_stored(carol: User):
    token = log_in().json()["token"]
    rows = [*AuthToken.objects.values(), *ApiToken.objects.values()]
    assert len(rows) == 2
    assert not [value for row in rows for value in row.values() if token in str(value)]


def test_a_logout_revokes_only_the_token_it_was_sent_with(carol: User):
    ours, other = (f"Bearer {log_in().json()['token']}" for _ in range(2))
    response = Client().post("/api/v1/auth/logout/", headers={"Authorization": ours})
    assert (response.status_code, response.content) == (204, b"")
    assert [get_patients(ours).status_code, get_patients(other).status_code] == [401, 200]


def test_an_expired_token_is_refused_and_deleted(carol: User):
    token = log_in().json()["token"]
    AuthToken.objects.update(expiry=timezone.now() - timedelta(seconds=1))
    assert get_patients(f"Bearer {token}").status_code == 401
    assert not AuthToken.objects.exists()


def test_an_inactive_user_is_refused(carol: User):
    token = log_in().json()["token"]
    User.objects.update(is_active=False)
    assert get_patients(f"Bearer {token}").status_code == 401
    assert log_in().status_code == 401


@pytest.mark.parametrize(
    "given",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer x",
        f"Bearer {'0' * 64}",
        "Bearer a b",
        "Bearer \xff\xfe",
        "Basic Y2E6Y2E=",
        f"Token {'0' * 64}",
        f"Bearer {'0' * 9000}",
        f"Bearer {'g' * 64}",
    ],
)
def test_missing_or_wrong_credentials_are_a_401(given: str | None):
    response = get_patients(given)
    assert (response.status_code, response.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert set(response.json()) == {"detail", "code"}
    assert response.json()["code"] in ("not_authenticated", "authentication_failed")


def test_a_device_token_is_not_valid_for_the_rest_api(alice: Member):
    assert get_patients(f"Bearer {alice.token}").status_code == 401


def test_an_admin_session_is_not_valid_for_the_rest_api(carol: User):
    client = Client()
    client.force_login(carol)
    assert client.get("/api/v1/patients/").status_code == 401


# Login throttling


def test_a_wrong_password_and_an_unknown_user_get_the_same_response(carol: User):
    wrong, unknown = log_in(password="wrong"), log_in("nobody", "wrong")
    assert (wrong.status_code, wrong.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert (
        wrong.json()
        == unknown.json()
        == {
            "detail": "The username or the password is wrong.",
            "code": "authentication_failed",
        }
    )


def test_after_too_many_failures_the_right_password_is_refused_too(carol: User):
    limit = throttling.MAX_FAILURES_PER_USERNAME
    assert [log_in(password="wrong").status_code for _ in range(limit)] == [401] * limit
    refused = log_in()
    assert (refused.status_code, refused.json()["code"]) == (429, "throttled")
    assert int(refused.headers["Retry-After"]) == throttling.WINDOW_S
    User.objects.create_user("dave", password=PASSWORD)
    assert log_in("dave").status_code == 200  # other users are not throttled


def test_too_many_failures_from_one_address_are_refused(carol: User, monkeypatch):
    monkeypatch.setattr(throttling, "MAX_FAILURES_PER_ADDRESS", 4)
    assert [log_in(f"user-{i}", "wrong").status_code for i in range(5)] == [401, 401, 401, 401, 429]
    assert log_in().status_code == 429
    assert log_in(REMOTE_ADDR="203.0.113.7").status_code == 200


def test_successful_logins_are_not_counted(carol: User):
    assert {log_in().status_code for _ in range(throttling.MAX_FAILURES_PER_ADDRESS + 2)} == {200}


def test_a_login_is_possible_again_after_the_window(carol: User, monkeypatch):
    monkeypatch.setattr(throttling, "WINDOW_S", 0.05)
    assert {log_in(password="wrong").status_code for _ in range(throttling.MAX_FAILURES_PER_USERNAME + 1)} <= {401, 429}
    time.sleep(0.06)
    assert log_in().status_code == 200


# Error format


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/api/v1/nothing/", 404, "not_found"),
        ("POST", "/api/v1/patients", 404, "not_found"),
        ("GET", "/api/", 404, "not_found"),
        ("GET", "/api", 404, "not_found"),
        ("GET", "/api/v2/patients/", 404, "not_found"),
        ("GET", "/api/v1/patients/not-a-uuid/", 404, "not_found"),
        ("GET", "/api/v1/utterances/5/", 404, "not_found"),
        ("GET", "/api/v1/auth/token/", 405, "method_not_allowed"),
        ("PUT", "/api/v1/auth/logout/", 405, "method_not_allowed"),
        ("POST", "/api/schema/", 405, "method_not_allowed"),
        ("POST", "/api/docs/", 405, "method_not_allowed"),
    ],
)
def test_an_unknown_url_or_method_returns_a_json_error(method: str, path: str, status: int, code: str):
    headers = {"Authorization": f"Bearer {clinician('carol').token}"}
    response = Client().generic(method, path, b"{}", "application/json", headers=headers)
    assert response.status_code == status
    assert "json" in response.headers["Content-Type"]
    assert (set(response.json()), response.json()["code"]) == ({"detail", "code"}, code)


def test_a_wrong_host_header_returns_a_json_error(settings):
    for settings.DEBUG in (True, False):
        response = Client().get("/api/v1/patients/", headers={"Host": "evil.example"})
        assert response.status_code == 400
        assert response.json() == {"detail": "Bad Request.", "code": "bad_request"}


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "invalid"),
        (b"{", 400, "parse_error"),
        (b"\xff\xfe{}", 400, "parse_error"),
        (b"[" * 100_000, 400, "parse_error"),
        (b'{"text": NaN}', 400, "parse_error"),
        (b'{"text": 1' + b"0" * 5000 + b"}", 400, "parse_error"),
        (b"[]", 400, "invalid"),
        (b'"text"', 400, "invalid"),
        (b"null", 400, "invalid"),
        (b"7", 400, "invalid"),
        (b'{"text": "' + b"a" * MAX_BYTES + b'"}', 413, "too_large"),
    ],
    ids=lambda value: value[:12] if isinstance(value, bytes) else None,
)
def test_an_invalid_body_is_refused(alice: Member, body: bytes, status: int, code: str | None):
    carol = clinician("carol", alice.patient)
    for path in (f"patients/{alice.patient.pk}/speak/", "patients/"):
        response = carol.call("POST", path, body)
        assert response.status_code == status
        assert (response.json().get("code") if code else None) == code


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "x", ""])
def test_another_content_type_is_a_415(kind: str):
    headers = {"Authorization": f"Bearer {clinician('carol').token}"}
    response = Client().generic("POST", "/api/v1/patients/", b"{}", kind, headers=headers)
    assert (response.status_code, response.json()["code"]) == (415, "unsupported_media_type")


def test_validation_errors_list_the_messages_of_each_field():
    response = clinician("carol").call("POST", "patients/", {"name": "", "speech_rate": 9})
    assert response.status_code == 400
    for name in ("name", "companion_name", "speech_rate"):
        assert all(isinstance(text, str) for text in response.json()[name])


class Broken(APIView):
    permission_classes = ()

    def get(self, request: Request, kind: str) -> None:
        message = "Failing row contains (Margaret " + "Ellis)"
        if kind == "standby":
            raise InternalError(message) from psycopg.errors.ReadOnlySqlTransaction(message)
        raise {"bug": RuntimeError, "database": OperationalError, "broken": InternalError}[kind](message)


urlpatterns = [route("api/v1/broken/<kind>/", Broken.as_view())]


@pytest.mark.urls(__name__)
@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [
        ("bug", 500, "internal_server_error"),
        ("broken", 500, "internal_server_error"),
        ("database", 503, "service_unavailable"),
        ("standby", 503, "service_unavailable"),
    ],
)
def test_an_unexpected_error_returns_json_and_does_not_leak_values(kind: str, status: int, code: str, caplog, capsys):
    response = Client().get(f"/api/v1/broken/{kind}/")
    assert (response.status_code, response.json()["code"]) == (status, code)
    content = capsys.readouterr()
    output = content.out + content.err + caplog.text
    assert "Error" in output
    assert __file__ in output
    assert "Margaret" not in output


# Pagination


@pytest.fixture
def thirty_patients() -> Clinician:
    patients = [Patient.objects.create(name=f"Patient {i:02}", companion_name="Clara") for i in range(30)]
    return clinician("carol", *patients)


def test_a_list_is_paginated(thirty_patients: Clinician):
    pages = [thirty_patients.get(f"patients/?page={page}&page_size=12") for page in (1, 2, 3)]
    assert [len(page["results"]) for page in pages] == [12, 12, 6]
    assert [row["name"] for page in pages for row in page["results"]] == [f"Patient {i:02}" for i in range(30)]
    assert {page["count"] for page in pages} == {30}


@pytest.mark.parametrize(("query", "rows"), [("", 25), ("page_size=100", 30), ("page_size=1000", 30)])
def test_the_page_size_has_a_default_and_a_maximum(thirty_patients: Clinician, query: str, rows: int):
    assert len(thirty_patients.get(f"patients/?{query}")["results"]) == rows


@pytest.mark.parametrize("page", ["0", "-1", "99", "x", "9" * 5000, "%00"])
def test_an_unknown_page_is_a_404(thirty_patients: Clinician, page: str):
    response = thirty_patients.call("GET", f"patients/?page={page}")
    assert (response.status_code, response.json()["code"]) == (404, "not_found")


# Schema


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return json.loads(Client().get("/api/schema/").content)


def test_the_schema_is_generated_without_warnings():
    call_command("spectacular", "--validate", "--fail-on-warn", stdout=StringIO())


def test_every_operation_documents_its_errors(schema: dict[str, Any]):
    calls = [(path, call) for path, methods in schema["paths"].items() for call in methods.values()]
    assert len(calls) >= 17
    for path, call in calls:
        assert "401" in call["responses"], path
        assert ("requestBody" in call) == ({"400", "413", "415"} <= set(call["responses"])), path


OPERATION_ID = re.compile(r"(list|get|create|update|delete|erase|revoke|rotate|retry|withdraw|export|sync|log)_[a-z_]+")
OTHER_OPERATION_IDS = {"speak_to_patient", "stream_speech", "preview_voice"}


def test_every_operation_has_a_summary_and_a_consistent_id(schema: dict[str, Any]):
    calls = [(method, path, call) for path, methods in schema["paths"].items() for method, call in methods.items()]
    ids = [call["operationId"] for *_, call in calls]
    assert len(set(ids)) == len(ids) >= 30
    for method, path, call in calls:
        name, summary = call["operationId"], call.get("summary", "")
        assert OPERATION_ID.fullmatch(name) or name in OTHER_OPERATION_IDS, (method, path, name)
        assert re.fullmatch(r"[A-Z][^.]{3,60}", summary), (method, path, summary)
        is_list = any(parameter["name"] == "page_size" for parameter in call.get("parameters", ()))
        assert name.startswith("list_") == is_list, (method, path, name)
        verbs = {"get": "list_ get_ export_ preview_", "patch": "update_", "delete": "delete_ erase_ revoke_ withdraw_"}
        assert method not in verbs or name.startswith(tuple(verbs[method].split())), (method, path, name)


def test_every_creating_call_takes_an_idempotency_key(schema: dict[str, Any]):
    """Other POSTs create nothing, or a login, whose token is new each time."""
    without = {"log_in", "log_out", "stream_speech", "retry_clone", "sync_voices"}
    for path, methods in schema["paths"].items():
        for method, call in methods.items():
            headers = {it["name"] for it in call.get("parameters", ()) if it["in"] == "header"}
            is_creating = method == "post" and call["operationId"] not in without
            assert ("Idempotency-Key" in headers) == is_creating, path
            assert "409" in call["responses"] or not is_creating, path


def test_no_field_has_the_name_of_a_key_of_every_error(schema: dict[str, Any]):
    """An invalid field would replace it."""
    fields = [
        (name, field)
        for name, described in schema["components"]["schemas"].items()
        if name.endswith("Request") and name != "InvalidRequest"
        for field in described["properties"]
    ]
    parameters = [
        (path, parameter["name"])
        for path, methods in schema["paths"].items()
        for call in methods.values()
        for parameter in call.get("parameters", ())
    ]
    assert [found for found in [*fields, *parameters] if found[1] in ("detail", "code", "errors")] == []


def test_every_400_has_the_same_shape(schema: dict[str, Any]):
    answers = [
        (path, call["responses"]["400"])
        for path, methods in schema["paths"].items()
        for call in methods.values()
        if "400" in call["responses"]
    ]
    assert len(answers) >= 18
    for path, answer in answers:
        reference = answer["content"]["application/json"]["schema"]["$ref"]
        assert reference == "#/components/schemas/InvalidRequest", path


def test_every_response_has_valid_examples(schema: dict[str, Any]):
    for path, methods in schema["paths"].items():
        for method, call in methods.items():
            for code, answer in call["responses"].items():
                content = answer.get("content", {}).get("application/json") if code.startswith("2") else None
                if content is not None:
                    assert content.get("examples"), (method, path, code)
                    for example in content["examples"].values():
                        response_schema = {**content["schema"], "components": schema["components"]}
                        OAS30Validator(_allow_null(response_schema)).validate(example["value"])


def _allow_null(schema: Any) -> Any:
    """Rewrite nullable references so that the validator accepts null.

    OpenAPI 3.0 writes a nullable reference as `nullable` with `allOf`. The validator would refuse null there.
    """
    if isinstance(schema, list):
        return [_allow_null(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("nullable") and "allOf" in schema:
        return {"anyOf": [*schema["allOf"], {"type": "object", "nullable": True, "maxProperties": 0}]}
    return {name: _allow_null(part) for name, part in schema.items()}


def test_every_request_body_has_an_example(schema: dict[str, Any]):
    calls = [(path, call) for path, methods in schema["paths"].items() for call in methods.values()]
    bodies = [(path, kind) for path, call in calls for kind in call.get("requestBody", {}).get("content", {}).values()]
    assert [path for path, body in bodies if not body.get("examples")] == []


def test_a_bearer_token_is_the_only_security_scheme(schema: dict[str, Any]):
    assert schema["components"]["securitySchemes"] == {"bearer": {"type": "http", "scheme": "bearer"}}


def test_real_responses_match_the_schema(schema: dict[str, Any], alice: Member):
    carol = clinician("carol", alice.patient)
    for path, name in [("patients/", "PaginatedPatientList"), (f"patients/{alice.patient.pk}/", "Patient")]:
        reference = {"$ref": f"#/components/schemas/{name}", "components": schema["components"]}
        OAS30Validator(reference).validate(carol.get(path))
    error = {"$ref": "#/components/schemas/Error", "components": schema["components"]}
    OAS30Validator(error).validate(carol.call("GET", "nothing/").json())
    invalid = {"$ref": "#/components/schemas/InvalidRequest", "components": schema["components"]}
    for body in ({"name": ""}, []):
        OAS30Validator(invalid).validate(carol.call("POST", "patients/", body).json())
    for path, name in [("conversations/?cursor=", "Conversation"), ("conversations/", "Conversation")]:
        reference = {"$ref": f"#/components/schemas/Paginated{name}List", "components": schema["components"]}
        OAS30Validator(reference).validate(carol.get(path))


def test_the_docs_page_requests_no_other_host():
    page, script = (Client().get(f"/api/docs/{query}").content.decode() for query in ("", "?script="))
    assert configured.STATIC_URL.lstrip("/") in page
    assert '"validatorUrl": null' in script
    for content in (page, script):
        assert "http://" not in content.replace("http://testserver", "")
        assert "https://" not in content


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS"])
def test_head_and_options_are_allowed(method: str):
    response = clinician("carol").call(method, "patients/")
    assert response.status_code == 200
