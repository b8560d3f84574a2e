"""The body of a 400: a code for the whole request and one for each field, and the messages by field as before."""

from typing import Any

import pytest
from rest_framework.exceptions import ErrorDetail, ValidationError

from tests.clinicians import Clinician, clinician
from tests.conftest import Member
from voicecare.api.errors import exception_handler
from voicecare.patients.models import Patient

pytestmark = pytest.mark.django_db


@pytest.fixture
def carol(alice: Member) -> Clinician:
    return clinician("carol", alice.patient)


def codes(response: Any) -> dict[str, str]:
    assert response.status_code == 400, response.content
    return {error["field"]: error["code"] for error in response.json()["errors"]}


def test_every_invalid_field_has_a_code(carol: Clinician):
    response = carol.call("POST", "patients/", {"name": "", "speech_rate": 9, "clinic": "x", "archived": "maybe"})
    assert codes(response) == {
        "name": "blank",
        "companion_name": "required",
        "speech_rate": "max_value",
        "clinic": "invalid",
        "archived": "invalid",
    }
    body = response.json()
    assert (body["code"], body["name"]) == ("invalid", ["This field may not be blank."])
    assert set(body) == {*codes(response), "detail", "code", "errors"}
    assert "name: This field may not be blank." in body["detail"]
    assert {error["detail"] for error in body["errors"]} == {text for name in codes(response) for text in body[name]}


def test_the_codes_of_our_own_checks(carol: Clinician, alice: Member):
    Patient.objects.filter(pk=alice.patient.pk).update(external_id="MRN-1")
    made = {"name": "Zoe Zimmer", "companion_name": "Clara"}
    unknown = "00000000-0000-4000-8000-000000000000"
    for values, found in [
        ({"external_id": "MRN-1"}, {"external_id": "unique"}),
        ({"language": "qq"}, {"language": "unknown_language"}),
        ({"voice": unknown}, {"voice": "does_not_exist"}),
        ({"backup_policy": "own_voice_only"}, {"backup_policy": "voice_needed"}),
    ]:
        assert codes(carol.call("POST", "patients/", {**made, **values})) == found
    assert codes(carol.call("GET", "usage/daily/?from=2026-11-02&to=2026-11-01")) == {"from": "after_end"}
    assert codes(carol.call("GET", "usage/daily/?from=1999-01-01")) == {"from": "range"}
    assert codes(carol.call("GET", "patients/?nam=x&sort=y")) == dict.fromkeys(("nam", "sort"), "unknown_parameter")


def test_an_error_of_the_whole_request_has_no_fields(carol: Clinician):
    for body, code in [(b"[]", "invalid"), (b"{", "parse_error")]:
        response = carol.call("POST", "patients/", body)
        assert (response.status_code, set(response.json()), response.json()["code"]) == (400, {"detail", "code"}, code)


def test_errors_of_nested_fields_have_a_path():
    nested = ValidationError({"events": {0: [ErrorDetail("Unknown.", "invalid_choice")]}, "url": ["Too long."]})
    body = exception_handler(nested, {}).data
    assert body["errors"] == [
        {"field": "events.0", "code": "invalid_choice", "detail": "Unknown."},
        {"field": "url", "code": "invalid", "detail": "Too long."},
    ]
