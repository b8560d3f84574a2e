"""The digests of texts in the ledger live for a month, and no longer than their patient."""

import uuid
from datetime import timedelta

import pytest
from django.utils import timezone

from tests.usage.test_models import create_event
from tts import tasks
from usage.ledger import text_digests
from usage.models import UsageEvent

pytestmark = pytest.mark.django_db


def digests() -> list[str]:
    return list(UsageEvent.objects.order_by("started_at").values_list("text_digest", flat=True))


def test_a_digest_lives_for_31_days_and_its_event_stays():
    for days in (40, 31.1, 30.9, 0):
        create_event(started_at=timezone.now() - timedelta(days=days), text_digest=f"{days}", credits=7)
    assert {event.text_digest for event in text_digests.recent_events()} == {"30.9", "0"}
    tasks.prune_texts()
    assert digests() == ["", "", "30.9", "0"]
    assert sum(UsageEvent.objects.values_list("credits", flat=True)) == 28
    assert text_digests.clear_old_digests() == 0


def test_more_digests_than_one_batch_are_cleared(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(text_digests, "BATCH_SIZE", 2)
    patient = uuid.uuid4()
    for _ in range(5):
        create_event(patient=patient, text_digest="a")
    create_event(patient=uuid.uuid4(), text_digest="a")
    assert text_digests.clear_patient_digests(patient) == 5
    assert sorted(digests()) == ["", "", "", "", "", "a"]
