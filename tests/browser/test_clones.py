"""The page of a voice clone in the admin: its audio players are visible, on a phone too."""

from collections.abc import Callable
from typing import Any

import pytest

from cloning.models import CloneJob
from tests.browser.conftest import BrowserSession
from tests.conftest import Member
from voicecare.patients.models import Voice

pytestmark = pytest.mark.django_db(transaction=True)

PHONE = {"viewport": {"width": 390, "height": 844}}
DARK = {"color_scheme": "dark"}


@pytest.fixture
def ready_clone(alice: Member) -> CloneJob:
    voice = Voice.objects.create(name="Anna", provider_id="anna", source="cloned", patient=alice.patient)
    return CloneJob.objects.create(
        patient=alice.patient,
        name="Anna",
        status="ready",
        voice=voice,
        sample="a-recording",
        sample_digest="d",
        content_type="audio/mpeg",
        consent_by="Anna Archer",
        consent_wording="2026-11",
    )


@pytest.mark.parametrize("options", [{}, PHONE, DARK], ids=["desk", "phone", "dark"])
def test_the_players_of_the_recording_and_of_the_voice_are_visible(
    log_in: Callable[..., BrowserSession], ready_clone: CloneJob, options: dict[str, Any]
):
    page = log_in(**options).open(f"/admin/cloning/clonejob/{ready_clone.pk}/change/")
    players = [player.bounding_box() for player in page.locator("audio").all()]
    width = page.viewport_size["width"]
    assert len(players) == 2
    assert all(box["width"] > 250 and box["x"] + box["width"] <= width for box in players)
    page.wait_for_function("width => document.documentElement.scrollWidth <= width", arg=width)
