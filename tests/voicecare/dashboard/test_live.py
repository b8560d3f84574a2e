"""The live status of all patients and of one patient."""

import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.test import Client
from django.utils import timezone

from cloning.models import CloneJob
from tests.voicecare.dashboard import history
from usage.models import Incident
from voicecare.dashboard.live import MAX_ROWS, LiveStatus, RowSummary
from voicecare.dashboard.permissions import AdminPermissions
from voicecare.patients.models import Clinic, Device, Patient, Voice

pytestmark = pytest.mark.django_db


@pytest.fixture
def patients(db: None) -> list[Patient]:
    created = history.create_usage(days=1)
    history.create_current_state(created)
    return created


def live(patient: Patient | None = None, clinic: Clinic | None = None) -> LiveStatus:
    return LiveStatus(AdminPermissions(User(username="boss", is_superuser=True)), patient, clinic)


def visible(summary: RowSummary | None) -> RowSummary:
    assert summary is not None
    return summary


def test_open_incidents_online_devices_and_running_clone_jobs_are_listed(patients):
    assert [incident.kind for incident in visible(live().incidents).rows] == ["slow", "quota_low"]
    assert [device.patient.name for device in visible(live().devices).rows] == [
        patient.name for patient in patients[:3]
    ]
    assert [job.name for job in visible(live().clones).rows] == ["Lucia, her granddaughter"]


def test_resolved_incidents_offline_devices_and_ended_clone_jobs_are_not_listed(patients):
    now = timezone.now()
    Incident.objects.update(resolved_at=now)
    Device.objects.update(online_until=now - timedelta(seconds=1))
    CloneJob.objects.update(status="failed", error_code="x")
    for summary in (live().incidents, live().devices, live().clones):
        assert (visible(summary).rows, visible(summary).total, visible(summary).more) == ([], 0, 0)


def test_a_long_list_shows_the_first_rows_and_the_total(patients):
    for _ in range(MAX_ROWS):
        history.connect_device(patients[0])
    summary = visible(live().devices)
    assert (len(summary.rows), summary.total, summary.more) == (MAX_ROWS, MAX_ROWS + 3, 3)


def test_the_status_of_a_patient_lists_only_their_rows(patients):
    Incident.objects.create(kind="budget", key=str(patients[0].pk))
    own = live(patients[0])
    assert [incident.kind for incident in visible(own.incidents).rows] == ["budget"]
    assert [device.patient_id for device in visible(own.devices).rows] == [patients[0].pk]
    assert visible(own.clones).total == 0
    assert str(patients[0].pk) in visible(own.devices).url


def test_the_status_of_a_clinic_has_no_incident_about_another_clinic(
    patients, client: Client, monkeypatch: pytest.MonkeyPatch
):
    ward, other = [Clinic.objects.create(name=name) for name in ("Ward 3", "Ward 4")]
    inside, outside, homeless = patients[:3]
    Patient.objects.filter(pk=inside.pk).update(clinic=ward)
    Patient.objects.filter(pk=outside.pk).update(clinic=other)
    rows: list[Any] = [ward, other, inside, outside, homeless]
    stock, own_clone, other_clone = [
        Voice.objects.create(
            provider_id=uuid.uuid4().hex, name="V", source="cloned" if owner else "stock", patient=owner
        )
        for owner in (None, inside, outside)
    ]
    rows += [stock, own_clone, other_clone]
    Incident.objects.all().delete()
    for row in rows:
        Incident.objects.create(kind="voice" if isinstance(row, Voice) else "budget", key=str(row.pk))
    for kind, key in (("voice", ""), ("voice", "refused"), ("slow", ""), ("voice_ending", "2026-12-31")):
        Incident.objects.create(kind=kind, key=key)
    own = [str(row.pk) for row in (ward, inside, stock, own_clone)]
    monkeypatch.setattr("voicecare.dashboard.live.MAX_ROWS", 20)
    keys = [incident.key for incident in visible(live(clinic=ward).incidents).rows]
    assert sorted(keys) == sorted([*own, "", "", "refused", "2026-12-31"])
    assert visible(live().incidents).total == len(rows) + 4
    client.force_login(User.objects.create_superuser("boss"))
    page = client.get(f"/admin/live/?clinic={ward.pk}").content.decode()
    assert "Those about Ward 3, its patients or the whole service." in page


def test_an_anonymous_user_sees_no_status(patients):
    status = LiveStatus(AdminPermissions(AnonymousUser()))
    assert not status.is_visible
    assert (status.incidents, status.devices, status.clones) == (None, None, None)
