"""Which patients an incident affected, and what they heard."""

import uuid
from datetime import timedelta

import pytest
from django.utils import timezone

from tests.usage.test_models import event
from usage.alerts import impact
from usage.models import Incident

pytestmark = pytest.mark.django_db


def test_who_heard_what_instead_is_counted_for_the_time_that_it_lasted():
    patient, now = uuid.uuid4(), timezone.now()
    for minutes in (-10, 1, 2, 60):
        event(kind="offline", patient=patient, started_at=now + timedelta(minutes=minutes))
    event(kind="live", patient=patient, started_at=now + timedelta(minutes=1))
    lasted = Incident.objects.create(kind="quota", opened_at=now, resolved_at=now + timedelta(minutes=5))
    assert list(impact.substituted_segments(lasted)) == [{"patient": patient, "kind": "offline", "segments": 2}]
