"""Property tests of the REST schema (schemathesis): no request gives a 5xx or an undocumented response.

The number of examples is limited. The tests use a real server, because an in-process client does not show streaming.
"""

import json
import uuid
from collections.abc import Callable
from io import BytesIO
from typing import Any

import pytest
import schemathesis
from django.contrib.auth.models import User
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.core.parameters import ParameterLocation
from schemathesis.schemas import APIOperation

from cloning.models import CloneJob
from tests.conftest import Member
from tests.server import ServerProcess
from tts.models import Conversation, LexiconEntry, Utterance
from voicecare.accounts import tokens
from voicecare.patients.models import Device, Patient, Voice

EXAMPLES = 8
TIMEOUT_S = 30

# A request that fits the schema may still be refused: an unknown voice, or a recording that is not audio.
SKIPPED_CHECKS = ("positive_data_acceptance",)
BODY = ParameterLocation.BODY


@pytest.fixture
def rows(alice: Member, bob: Member) -> Callable[[str], list[str]]:
    """Return a function that creates the rows for a path and returns their ids."""

    def create(path: str) -> list[str]:
        resource = path.removeprefix("/api/v1/").partition("/")[0]
        return [str(row.pk) for row in _create_rows(resource, alice)]

    return create


def _create_rows(resource: str, member: Member) -> list[Any]:
    patient = member.patient
    match resource:
        case "patients":
            return [Patient.objects.create(name="Zoe Zimmer", companion_name="Clara"), patient]
        case "devices":
            return [Device.objects.issue(patient, "Bathroom")[0]]
        case "voices":
            return [Voice.objects.default()]
        case "clones":
            return [_create_clone(patient, status) for status in ("pending", "failed", "withdrawn")]
        case "conversations":
            return [_create_conversation(member)]
        case "pronunciations":
            return [LexiconEntry.objects.create(written=uuid.uuid4().hex, spoken="Zoey", patient=patient)]
        case "utterances":
            return [Utterance.objects.create(patient=patient, origin="server", text="Lunch.", state="waiting")]
    return []


def _create_clone(patient: Patient, status: str) -> CloneJob:
    return CloneJob.objects.create(
        patient=patient,
        name="Anna",
        status=status,
        consent_by="Anna Archer",
        sample_digest=uuid.uuid4().hex,
        error_code="interrupted" if status == "failed" else "",
        content_type="audio/mpeg",
        consent_wording="2026-11",
    )


def _create_conversation(member: Member) -> Conversation:
    return Conversation.objects.create(
        patient=member.patient, voice=Voice.objects.default(), voice_source="default", format="mp3_44100_128"
    )


def _operations(schema: Any) -> list[APIOperation]:
    return [result.ok() for result in schema.get_all_operations()]


def _checks(case: Case) -> list[Any]:
    """Return the checks for a case. An invalid request must be refused only if its body is the invalid part.

    The test replaces invalid credentials and ids by valid ones before the call.
    """
    invalid_parts = {part for part, component in case.meta.components.items() if component.mode.is_negative}
    body_is_invalid = BODY in invalid_parts and not _has_outer_whitespace(case.body)
    skipped = SKIPPED_CHECKS if body_is_invalid else (*SKIPPED_CHECKS, "negative_data_rejection")
    checks = schemathesis.checks.CHECKS.get_all()
    assert len(checks) > 10
    return [check for check in checks if check.__name__ not in skipped]


def _has_outer_whitespace(body: Any) -> bool:
    """The server strips outer whitespace first, so it accepts a text that is too long only because of it."""
    return isinstance(body, dict) and any(isinstance(text, str) and text != text.strip() for text in body.values())


@pytest.mark.timeout(180)
def test_every_operation_of_the_schema(server: ServerProcess, rows: Callable[[str], list[str]]):
    boss = User.objects.create_user("boss", is_staff=True)
    schema = schemathesis.openapi.from_file(BytesIO(server.get("/api/schema/")[1]))
    operations = _operations(schema)
    assert len(operations) >= 25
    counts = [_run_operation(operation, server, boss, rows(operation.path)) for operation in operations]
    assert sum(counts) >= len(operations) * 4
    assert "rest.failed" not in server.logged()


def _run_operation(operation: APIOperation, server: ServerProcess, user: User, ids: list[str]) -> int:
    """Run the cases of an operation and return their number. A logout revokes its token, so each call has its own."""
    count = 0

    @seed(20261123)
    @settings(max_examples=EXAMPLES, phases=[Phase.explicit, Phase.generate], suppress_health_check=list(HealthCheck))
    @given(_cases(operation), st.integers(0, 3))
    def run(case: Case, choice: int) -> None:
        nonlocal count
        count += 1
        if ids and "id" in (case.path_parameters or {}) and choice:
            case.path_parameters["id"] = ids[choice % len(ids)]
        headers = {"Authorization": f"Bearer {tokens.issue_for_log_in(user, None)[1]}"}
        response = case.call(base_url=server.url, headers=headers, timeout=TIMEOUT_S)
        case.validate_response(response, checks=_checks(case), headers=headers)

    run()
    return count


def _cases(operation: APIOperation) -> st.SearchStrategy[Case]:
    return st.one_of(*(operation.as_strategy(generation_mode=mode) for mode in GenerationMode))


def test_the_schema_is_json_with_unique_operation_ids(server: ServerProcess):
    paths = json.loads(server.get("/api/schema/")[1])["paths"]
    names = [call["operationId"] for methods in paths.values() for call in methods.values()]
    assert len(names) == len(set(names)) >= 25
