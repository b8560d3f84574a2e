"""Which patients an incident affected, and what they heard."""

import uuid
from datetime import timedelta

import pytest
from django.utils import timezone

from tests.usage.test_models import create_event
from usage.alerts import impact
from usage.models import Incident

pytestmark = pytest.mark.django_db


def test_substituted_segments_are_counted_during_the_incident():
    patient, now = uuid.uuid4(), timezone.now()
    for minutes in (-10, 1, 2, 60):
        create_event(kind="offline", patient=patient, started_at=now + timedelta(minutes=minutes))
    create_event(kind="live", patient=patient, started_at=now + timedelta(minutes=1))
    incident = Incident.objects.create(kind="quota", opened_at=now, resolved_at=now + timedelta(minutes=5))
    assert list(impact.substituted_segments(incident)) == [{"patient": patient, "kind": "offline", "segments": 2}]
