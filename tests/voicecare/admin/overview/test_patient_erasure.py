"""An administrator erases a patient on a page that asks for the name, and undoes it in the grace period."""

from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.test import Client, override_settings
from django.utils import timezone

from tests.conftest import Member
from tests.roles import role
from voicecare.patients.models import Patient

pytestmark = [pytest.mark.django_db, pytest.mark.filterwarnings("ignore:No directory at:UserWarning")]

LIST = "/admin/patients/patient/"


def browser(name: str) -> Client:
    """Return the browser of a staff user with this role."""
    user = User.objects.create_user(f"user-{name}", is_staff=True)
    user.groups.add(role(name))
    client = Client()
    client.force_login(user)
    return client


def page(member: Member, name: str) -> str:
    return f"{LIST}{member.patient.pk}/{name}/"


def erase(client: Client, member: Member, typed: str):
    return client.post(page(member, "erase"), {"name": typed}, follow=True)


def test_the_page_of_a_patient_links_the_erasure(alice: Member):
    assert page(alice, "erase") in browser("Administrator").get(page(alice, "change")).content.decode()
    assert page(alice, "erase") not in browser("Clinician").get(page(alice, "change")).content.decode()


def test_a_patient_is_erased_after_the_grace_period_when_the_name_was_typed(alice: Member):
    administrator = browser("Administrator")
    assert "After 7 days" in administrator.get(page(alice, "erase")).content.decode()
    erase(administrator, alice, "Alice Archer")
    alice.patient.refresh_from_db()
    alice.device.refresh_from_db()
    assert alice.patient.erased_at is None
    assert timedelta(days=6) < alice.patient.erases_at - timezone.now() <= timedelta(days=7)
    assert alice.device.revoked_at is not None
    assert "To be erased on" in administrator.get(LIST).content.decode()


@override_settings(ERASURE_GRACE_DAYS=0)
def test_without_a_grace_period_the_page_says_so_and_the_removal_begins(alice: Member):
    administrator = browser("Administrator")
    assert "This cannot be undone." in administrator.get(page(alice, "erase")).content.decode()
    erase(administrator, alice, "Alice Archer")
    assert Patient.objects.get().erased_at is not None


@pytest.mark.parametrize("typed", ["", "alice archer", "Bob Baker", "Alice"])
def test_another_name_changes_nothing(typed: str, alice: Member):
    answer = erase(browser("Administrator"), alice, typed)
    assert answer.status_code == 200
    assert "errorlist" in answer.content.decode()
    assert Patient.objects.get().erases_at is None


def test_an_erasure_is_undone_and_the_devices_stay_revoked(alice: Member):
    administrator = browser("Administrator")
    erase(administrator, alice, "Alice Archer")
    waiting = administrator.get(page(alice, "change")).content.decode()
    assert "Undo the erasure" in waiting
    assert 'name="preferred_name"' not in waiting  # nothing of the patient can be changed
    answer = administrator.post(page(alice, "undo-erasure"), follow=True)
    assert "The patient is not erased." in answer.content.decode()
    alice.patient.refresh_from_db()
    alice.device.refresh_from_db()
    assert alice.patient.erases_at is None
    assert alice.device.revoked_at is not None


def test_an_erasure_whose_removal_has_begun_cannot_be_undone(alice: Member):
    Patient.objects.update(erases_at=timezone.now() - timedelta(hours=1))
    answer = browser("Administrator").post(page(alice, "undo-erasure"), follow=True)
    assert "It is too late" in answer.content.decode()
    assert Patient.objects.get().erases_at is not None


@pytest.mark.parametrize("name", ["Clinician", "Auditor"])
def test_other_roles_can_neither_erase_nor_undo_nor_see_who_is_to_be_erased(name: str, alice: Member):
    other = browser(name)
    assert erase(other, alice, "Alice Archer").status_code == 403
    assert Patient.objects.get().erases_at is None
    Patient.objects.update(erases_at=timezone.now() + timedelta(days=1))
    assert other.post(page(alice, "undo-erasure")).status_code == 403
    assert "Alice Archer" not in other.get(LIST).content.decode()
    assert other.get(page(alice, "change")).status_code == 302
    assert Patient.objects.get().erases_at is not None


def test_an_erasure_is_not_undone_by_a_link(alice: Member):
    assert browser("Administrator").get(page(alice, "undo-erasure")).status_code == 405
