"""Lists: cursors that stay correct while rows are inserted, sizes of pages, and unknown parameters."""

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest
from django.db import connection
from django.db.models import F
from django.test.utils import CaptureQueriesContext

from cloning.models import CloneJob
from tests.clinicians import Clinician, clinician
from tests.conftest import Member
from tts.models import Conversation, Utterance
from usage.models import DailyUsage
from voicecare.patients.models import Voice

pytestmark = pytest.mark.django_db
NOON = datetime(2026, 11, 23, 12, 0, 0, 123456, UTC)
LISTS = ("conversations", "utterances", "clones", "daily usage", "monthly usage", "usage by patient")


@pytest.fixture
def carol(alice: Member) -> Clinician:
    return clinician("carol", alice.patient)


class GrowingList:
    """A list of the API with a function that inserts a row `minutes` after noon."""

    def __init__(self, kind: str, member: Member) -> None:
        self._kind, self._member = kind, member
        self._number = 0
        self.conversation = self._conversation(0) if kind == "utterances" else None
        month = "from=2026-01-01&to=2027-12-31"
        self.path = {
            "conversations": "conversations/?",
            "utterances": f"conversations/{self.conversation and self.conversation.pk}/utterances/?",
            "clones": f"patients/{member.patient.pk}/clones/?",
            "daily usage": f"usage/daily/?{month}&",
            "monthly usage": f"usage/monthly/?{month}&",
            "usage by patient": f"usage/daily/?{month}&group=model&",
        }[kind]

    def insert(self, minutes: int) -> None:
        self._number += 1
        at, patient = NOON + timedelta(minutes=minutes), self._member.patient
        if self._kind == "conversations":
            self._conversation(minutes)
        elif self._kind == "utterances":
            Utterance.objects.create(
                patient=patient, conversation=self.conversation, client_speech_id=f"say-{self._number}",
                origin="device", state="spoken", received_at=at,
            )  # fmt: skip
        elif self._kind == "clones":
            CloneJob.objects.create(
                patient=patient, name="Anna", status="failed", consent_by="Anna", error_code="interrupted",
                sample_digest=str(self._number), created_at=at,
            )  # fmt: skip
        else:
            day = date(2026, 1, 1) + timedelta(days=minutes * (31 if "monthly" in self._kind else 1))
            ids = {"patient": patient.pk, "voice": Voice.objects.default().pk, "kind": "live"}
            model = f"model-{self._number}" if "patient" in self._kind else "eleven_flash_v2_5"
            sums = {"characters": F("characters") + 1} if self._number else {}
            row, _ = DailyUsage.objects.get_or_create(day=day, model=model, **ids)
            DailyUsage.objects.filter(pk=row.pk).update(**sums)

    def _conversation(self, minutes: int) -> Conversation:
        return Conversation.objects.create(
            patient=self._member.patient, voice=Voice.objects.default(), voice_source="default",
            format="mp3_44100_128", started_at=NOON + timedelta(minutes=minutes),
        )  # fmt: skip


@pytest.fixture(params=LISTS)
def growing(request: pytest.FixtureRequest, alice: Member) -> GrowingList:
    return GrowingList(request.param, alice)


def key_of(row: dict[str, Any]) -> str:
    return str([row.get(name) for name in ("id", "date", "month", "model")])


def pages(caller: Clinician, path: str, size: int) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of each page, by cursor."""
    cursor: str | None = ""
    while cursor is not None:
        page = caller.get(f"{path}cursor={quote(cursor)}&page_size={size}")
        assert (page["count"], page["previous"]) == (None, None)
        assert (page["next"] is None) == (page["next_cursor"] is None)
        yield page["results"]
        cursor = page["next_cursor"]


def test_cursors_return_the_same_rows_as_pages(carol: Clinician, growing: GrowingList):
    for minutes in range(7):
        growing.insert(minutes)
    whole = carol.get(f"{growing.path}page_size=100")
    assert whole["count"] == len(whole["results"]) == 7
    for size in (1, 2, 3, 7, 8):
        found = [row for page in pages(carol, growing.path, size) for row in page]
        assert found == whole["results"], size


def test_no_row_is_lost_or_repeated_while_rows_are_inserted(carol: Clinician, growing: GrowingList):
    """Rows are inserted before, within and after the pages that have been read, also with equal times."""
    for minutes in range(0, 20, 2):
        growing.insert(minutes)
    before = {key_of(row) for row in carol.get(f"{growing.path}page_size=100")["results"]}
    seen: list[str] = []
    for number, page in enumerate(pages(carol, growing.path, 3)):
        seen += [key_of(row) for row in page]
        for minutes in (0, number, 2 * number, 19, 20 + number):
            growing.insert(minutes)
        assert number < 40
    assert len(seen) == len(set(seen))
    assert before <= set(seen)


def test_rows_with_equal_times_are_on_one_page_each(carol: Clinician, alice: Member):
    for kind in ("conversations", "utterances", "clones"):
        growing = GrowingList(kind, alice)
        for _ in range(7):
            growing.insert(5)
        found = [key_of(row) for page in pages(carol, growing.path, 2) for row in page]
        assert len(found) == len(set(found)) >= 7


def test_a_page_by_number_names_the_cursor_of_the_next(carol: Clinician, growing: GrowingList):
    for minutes in range(5):
        growing.insert(minutes)
    first = carol.get(f"{growing.path}page_size=2")
    second = carol.get(f"{growing.path}page_size=2&cursor={quote(first['next_cursor'])}")
    assert second["results"] == carol.get(f"{growing.path}page_size=2&page=2")["results"]
    assert carol.get(f"{growing.path}page_size=2&page=3")["next_cursor"] is None


def test_the_next_address_is_that_of_the_next_page(carol: Clinician, growing: GrowingList):
    for minutes in range(3):
        growing.insert(minutes)
    first = carol.get(f"{growing.path}cursor=&page_size=2")
    path = first["next"].removeprefix("http://testserver/api/v1/")
    assert len(carol.get(path)["results"]) == 1


def test_filters_apply_to_every_page(carol: Clinician, alice: Member):
    growing = GrowingList("conversations", alice)
    for minutes in range(6):
        growing.insert(minutes)
    start = quote((NOON + timedelta(minutes=2)).isoformat())
    found = [row for page in pages(carol, f"conversations/?from={start}&ordering=started_at&", 2) for row in page]
    assert [row["started_at"][14:16] for row in found] == ["02", "03", "04", "05"]


def test_a_cursor_does_not_count_the_rows(carol: Clinician, growing: GrowingList):
    growing.insert(1)
    with CaptureQueriesContext(connection) as queries:
        carol.get(f"{growing.path}cursor=")
    assert not [query for query in queries if "COUNT(*)" in query["sql"]]


@pytest.mark.parametrize("cursor", ["x", "WyJ4Il0:1vPq3Y:abc", "%00", "9" * 5000, "a:b:c"])
def test_an_invalid_cursor_is_refused(carol: Clinician, growing: GrowingList, cursor: str):
    response = carol.call("GET", f"{growing.path}cursor={cursor}")
    assert (response.status_code, response.json()["errors"][0]["code"]) == (400, "invalid_cursor")


def test_a_cursor_of_another_list_or_order_is_refused(carol: Clinician, alice: Member):
    conversations = GrowingList("conversations", alice)
    for minutes in range(3):
        conversations.insert(minutes)
    cursor = quote(carol.get("conversations/?page_size=1")["next_cursor"])
    for path in (f"patients/{alice.patient.pk}/clones/?", "conversations/?ordering=started_at&"):
        response = carol.call("GET", f"{path}cursor={cursor}")
        assert (response.status_code, response.json()["errors"][0]["code"]) == (400, "invalid_cursor")


def test_a_cursor_and_a_page_number_exclude_each_other(carol: Clinician, growing: GrowingList):
    response = carol.call("GET", f"{growing.path}cursor=&page=1")
    assert (response.status_code, response.json()["errors"][0]["field"]) == (400, "cursor")


@pytest.mark.parametrize("size", ["0", "-1", "abc", "", "1.5", "%00", "١", "9" * 5000])
@pytest.mark.parametrize("path", ["patients/?", "conversations/?", "conversations/?cursor=&"])
def test_an_invalid_page_size_is_refused(carol: Clinician, path: str, size: str):
    response = carol.call("GET", f"{path}page_size={size}")
    assert response.status_code == 400
    assert [(error["field"], error["code"]) for error in response.json()["errors"]] == [("page_size", "invalid")]


# Parameters


@pytest.fixture
def lists(alice: Member) -> Callable[[], list[str]]:
    conversation = GrowingList("utterances", alice).conversation
    patient = f"patients/{alice.patient.pk}"
    return lambda: [
        "patients/",
        "clinics/",
        "voices/",
        f"{patient}/devices/",
        f"{patient}/clones/",
        "conversations/",
        f"conversations/{conversation and conversation.pk}/utterances/",
        "usage/daily/",
        "usage/monthly/",
        "pronunciations/",
    ]


@pytest.mark.parametrize("name", ["nam", "PATIENT", "order", "sort", "format"])
def test_every_list_refuses_unknown_parameters(carol: Clinician, lists: Callable[[], list[str]], name: str):
    for path in lists():
        response = carol.call("GET", f"{path}?{name}=1")
        assert response.status_code == 400, path
        (error,) = response.json()["errors"]
        assert (error["field"], error["code"]) == (name, "unknown_parameter"), path
        assert "page_size" in error["detail"]


def test_the_preview_refuses_unknown_parameters(carol: Clinician):
    response = carol.call("GET", f"voices/{Voice.objects.default().pk}/preview/?speed=1.1")
    assert (response.status_code, response.json()["errors"][0]["code"]) == (400, "unknown_parameter")


def test_the_lists_have_filters(carol: Clinician, alice: Member):
    for kind in ("conversations", "clones"):
        GrowingList(kind, alice).insert(1)
    own = Voice.objects.create(name="Anna", provider_id="x", source="cloned", patient=alice.patient, state="gone")
    patient = f"patients/{alice.patient.pk}"
    for path, rows in {
        f"{patient}/devices/?revoked=false": 1,
        f"{patient}/devices/?revoked=true": 0,
        f"{patient}/clones/?status=failed": 1,
        f"{patient}/clones/?status=ready": 0,
        f"voices/?source=cloned&patient={alice.patient.pk}": 1,
        f"voices/?state=gone&source={own.source}": 1,
        "voices/?source=stock&state=gone": 0,
        f"conversations/?device={alice.device.pk}": 0,
    }.items():
        assert len(carol.get(path)["results"]) == rows, path
    for path in (f"{patient}/clones/?status=done", "voices/?state=x", f"{patient}/devices/?revoked=maybe"):
        assert carol.call("GET", path).status_code == 400, path
