"""Models of patients, devices and voices: their methods and their database constraints."""

import hashlib
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from django.db import IntegrityError, transaction
from django.db.models import ProtectedError
from django.utils import timezone

from tests.conftest import DEFAULT_VOICE, Member
from voicecare.patients.authentication import authenticate_device
from voicecare.patients.models import TOKEN_PREFIX_LENGTH, Device, Patient, Voice
from voicecare.patients.models.device import REFUSAL_INTERVAL

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 1, 2, tzinfo=UTC)


def assert_create_fails(model: type, **fields: object) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        model.objects.create(**fields)


# Voices


def test_the_default_voice_is_created_once():
    assert Voice.objects.default() == Voice.objects.default()
    voice = Voice.objects.get()
    assert (voice.provider_id, voice.source, voice.is_usable) == (DEFAULT_VOICE, "stock", True)


def test_an_existing_default_voice_keeps_its_name():
    Voice.objects.create(provider_id=DEFAULT_VOICE, name="Rachel")
    assert Voice.objects.default().name == "Rachel"


@pytest.mark.parametrize(("state", "usable"), [("usable", True), ("gone", False), ("withdrawn", False)])
def test_a_voice_is_usable_only_in_the_state_usable(state, usable):
    assert Voice.objects.create(provider_id="v", name="V", state=state).is_usable is usable


@pytest.mark.parametrize("fields", [{"state": "lost"}, {"source": "found"}, {"revision": -1}])
def test_the_database_refuses_invalid_values_of_a_voice(fields):
    assert_create_fails(Voice, provider_id="v", name="V", **fields)


def test_a_stock_voice_cannot_have_a_patient(alice: Member):
    assert_create_fails(Voice, provider_id="v", name="V", patient=alice.patient)
    assert Voice.objects.create(provider_id="v", name="V", patient=alice.patient, source="cloned")


def test_a_provider_id_is_unique():
    Voice.objects.create(provider_id="v", name="V")
    assert_create_fails(Voice, provider_id="v", name="W")


# Patients


@pytest.mark.parametrize("rate", ["0.69", "1.21"])
def test_the_database_refuses_a_speech_rate_out_of_range(rate):
    assert_create_fails(Patient, name="A", companion_name="C", speech_rate=Decimal(rate))


@pytest.mark.parametrize("rate", ["0.70", "1.20"])
def test_the_bounds_of_the_speech_rate_are_valid(rate):
    assert Patient.objects.create(name="A", companion_name="C", speech_rate=Decimal(rate))


@pytest.mark.parametrize(("preferred", "addressed"), [("", "Alice Archer"), ("Al", "Al")])
def test_a_patient_is_addressed_by_the_preferred_name_if_there_is_one(preferred, addressed):
    assert Patient(name="Alice Archer", preferred_name=preferred).form_of_address == addressed


@pytest.mark.parametrize(("fields", "active"), [({}, True), ({"archived_at": NOW}, False), ({"erased_at": NOW}, False)])
def test_an_archived_or_erased_patient_is_not_active(fields, active):
    assert Patient(**fields).is_active is active


def test_a_patient_with_a_device_cannot_be_deleted(alice: Member):
    with pytest.raises(ProtectedError):
        alice.patient.delete()


def test_a_patient_remains_when_their_voice_is_deleted(alice: Member):
    alice.patient.voice.delete()
    alice.patient.refresh_from_db()
    assert alice.patient.voice is None


# Devices


def test_an_issued_token_is_long_and_random_and_only_its_digest_is_stored(alice: Member, bob: Member):
    prefix, secret = alice.token.split(".")
    row = Device.objects.filter(pk=alice.device.pk).values().get()
    assert len(prefix) == TOKEN_PREFIX_LENGTH == len(row["token_prefix"])
    assert len(secret) >= 43  # 32 random bytes
    assert not [value for value in row.values() if secret in str(value)]
    assert row["token_digest"] == hashlib.sha256(alice.token.encode()).hexdigest()
    assert bob.token.split(".")[1] != secret


def test_a_token_matches_only_its_own_device(alice: Member, bob: Member):
    assert alice.device.token_matches(alice.token)
    assert not alice.device.token_matches(bob.token)
    assert not alice.device.token_matches("")


def test_renewing_a_token_does_not_save_the_device(alice: Member):
    renewed = alice.device.renew_token()
    assert alice.device.token_matches(renewed)
    assert not alice.device.token_matches(alice.token)
    assert Device.objects.get(pk=alice.device.pk).token_matches(alice.token)


def test_the_token_prefix_is_unique(alice: Member):
    assert_create_fails(
        Device, patient=alice.patient, name="other", token_prefix=alice.device.token_prefix, token_digest="0" * 64
    )


@pytest.mark.parametrize("status", ["nothing", "revoked", "archived", "erased"])
def test_a_device_can_connect_unless_it_is_revoked_or_its_patient_is_inactive(status, alice: Member):
    alice.device.revoked_at = NOW if status == "revoked" else None
    alice.device.patient.archived_at = NOW if status == "archived" else None
    alice.device.patient.erased_at = NOW if status == "erased" else None
    assert alice.device.can_connect is (status == "nothing")


def test_a_refusal_is_recorded_at_most_once_in_an_interval(alice: Member):
    device = alice.device

    def refused_at(reason: str) -> datetime | None:
        device.record_refusal(reason)
        device.refresh_from_db()
        assert device.refusal == reason
        return device.refused_at

    first = refused_at("inactive_patient")
    assert first is not None
    assert refused_at("inactive_patient") == first
    assert refused_at("revoked_device") != first  # another reason is recorded immediately
    old = timezone.now() - 2 * REFUSAL_INTERVAL
    Device.objects.update(refused_at=old)
    assert refused_at("revoked_device") > old


def test_each_connection_gets_the_next_epoch(alice: Member):
    stale = Device.objects.get(pk=alice.device.pk)
    assert [device.register_connection() for device in (alice.device, stale, alice.device)] == [
        1,
        2,
        3,
    ]
    row = Device.objects.get(pk=alice.device.pk)
    assert row.epoch == 3
    assert row.last_seen is not None


# The device console


def test_the_token_of_a_console_expires(alice: Member):
    console, token = Device.objects.issue_console(alice.patient, "console", takes_messages=False)
    assert authenticate_device(token) == console
    assert Device.objects.filter(pk=console.pk).keep_console()
    Device.objects.filter(pk=console.pk).update(console_until=NOW)
    assert authenticate_device(token) is None
    assert not Device.objects.filter(pk=console.pk).keep_console()
    assert authenticate_device(alice.token) == alice.device


def test_a_revoked_console_cannot_be_kept(alice: Member):
    console, _ = Device.objects.issue_console(alice.patient, "console", takes_messages=False)
    Device.objects.filter(pk=console.pk).update(revoked_at=NOW)
    assert not Device.objects.filter(pk=console.pk).keep_console()


def test_a_device_at_the_bedside_is_no_console(alice: Member):
    assert not Device.objects.filter(pk=alice.device.pk).keep_console()
    console, _ = Device.objects.issue_console(alice.patient, "console", takes_messages=False)
    assert list(Device.objects.bedside()) == [alice.device]
    assert list(Device.objects.consoles()) == [console]
    assert set(Device.objects.connectable()) == {alice.device, console}
