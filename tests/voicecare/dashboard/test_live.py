"""What goes on at this moment, of everybody and of one patient."""

from datetime import timedelta

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.utils import timezone

from cloning.models import CloneJob
from tests.voicecare.dashboard import history
from usage.models import Incident
from voicecare.dashboard.live import MAX_ROWS, LiveStatus, RowSummary
from voicecare.dashboard.permissions import AdminPermissions
from voicecare.patients.models import Device, Patient

pytestmark = pytest.mark.django_db


@pytest.fixture
def cast(db: None) -> list[Patient]:
    patients = history.write(days=1)
    history.at_this_moment(patients)
    return patients


def live(patient: Patient | None = None) -> LiveStatus:
    return LiveStatus(AdminPermissions(User(username="boss", is_superuser=True)), patient)


def shown(listed: RowSummary | None) -> RowSummary:
    assert listed is not None
    return listed


def test_it_lists_what_is_open_connected_and_being_made(cast):
    assert [incident.kind for incident in shown(live().incidents).rows] == ["slow", "quota_low"]
    assert [device.patient.name for device in shown(live().devices).rows] == [patient.name for patient in cast[:3]]
    assert [job.name for job in shown(live().clones).rows] == ["Lucia, her granddaughter"]


def test_what_is_over_is_not_listed(cast):
    now = timezone.now()
    Incident.objects.update(resolved_at=now)
    Device.objects.update(online_until=now - timedelta(seconds=1))
    CloneJob.objects.update(status="failed", error_code="x")
    for listed in (live().incidents, live().devices, live().clones):
        assert (shown(listed).rows, shown(listed).total, shown(listed).more) == ([], 0, 0)


def test_many_are_counted_and_some_are_shown(cast):
    for _ in range(MAX_ROWS):
        history.connect(cast[0])
    listed = shown(live().devices)
    assert (len(listed.rows), listed.total, listed.more) == (MAX_ROWS, MAX_ROWS + 3, 3)


def test_of_a_patient_it_lists_what_is_theirs(cast):
    Incident.objects.create(kind="budget", key=str(cast[0].pk))
    own = live(cast[0])
    assert [incident.kind for incident in shown(own.incidents).rows] == ["budget"]
    assert [device.patient_id for device in shown(own.devices).rows] == [cast[0].pk]
    assert shown(own.clones).total == 0
    assert str(cast[0].pk) in shown(own.devices).url


def test_nobody_is_shown_nothing(cast):
    nothing = LiveStatus(AdminPermissions(AnonymousUser()))
    assert not nothing.is_visible
    assert (nothing.incidents, nothing.devices, nothing.clones) == (None, None, None)
