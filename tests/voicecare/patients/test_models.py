"""Patients, devices and voices: what a row knows about itself, and what the database refuses."""

import hashlib
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from django.db import IntegrityError, transaction
from django.db.models import ProtectedError

from tests.conftest import DEFAULT_VOICE, Member
from voicecare.patients.models import TOKEN_PREFIX_LENGTH, Device, Patient, Voice

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 1, 2, tzinfo=UTC)


def refused(model: type, **fields: object) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        model.objects.create(**fields)


# Voices


def test_the_default_voice_is_made_once():
    assert Voice.objects.default() == Voice.objects.default()
    voice = Voice.objects.get()
    assert (voice.provider_id, voice.source, voice.is_usable) == (DEFAULT_VOICE, "stock", True)


def test_the_default_voice_keeps_the_name_it_has():
    Voice.objects.create(provider_id=DEFAULT_VOICE, name="Rachel")
    assert Voice.objects.default().name == "Rachel"


@pytest.mark.parametrize(("state", "usable"), [("usable", True), ("gone", False), ("withdrawn", False)])
def test_a_voice_is_usable_in_one_state_only(state, usable):
    assert Voice.objects.create(provider_id="v", name="V", state=state).is_usable is usable


@pytest.mark.parametrize("fields", [{"state": "lost"}, {"source": "found"}, {"revision": -1}])
def test_the_database_refuses_a_voice(fields):
    refused(Voice, provider_id="v", name="V", **fields)


def test_a_stock_voice_belongs_to_nobody(alice: Member):
    refused(Voice, provider_id="v", name="V", patient=alice.patient)
    assert Voice.objects.create(provider_id="v", name="V", patient=alice.patient, source="cloned")


def test_a_provider_id_is_one_voice():
    Voice.objects.create(provider_id="v", name="V")
    refused(Voice, provider_id="v", name="W")


# Patients


@pytest.mark.parametrize("rate", ["0.69", "1.21"])
def test_the_database_refuses_a_speech_rate(rate):
    refused(Patient, name="A", companion_name="C", speech_rate=Decimal(rate))


@pytest.mark.parametrize("rate", ["0.70", "1.20"])
def test_the_bounds_of_a_speech_rate_are_speech_rates(rate):
    assert Patient.objects.create(name="A", companion_name="C", speech_rate=Decimal(rate))


@pytest.mark.parametrize(("preferred", "addressed"), [("", "Alice Archer"), ("Al", "Al")])
def test_how_a_patient_is_addressed(preferred, addressed):
    assert Patient(name="Alice Archer", preferred_name=preferred).form_of_address == addressed


@pytest.mark.parametrize(("fields", "active"), [({}, True), ({"archived_at": NOW}, False), ({"erased_at": NOW}, False)])
def test_an_archived_or_erased_patient_is_not_active(fields, active):
    assert Patient(**fields).is_active is active


def test_a_patient_with_a_device_cannot_be_deleted(alice: Member):
    with pytest.raises(ProtectedError):
        alice.patient.delete()


def test_a_patient_outlives_their_voice(alice: Member):
    alice.patient.voice.delete()
    alice.patient.refresh_from_db()
    assert alice.patient.voice is None


# Devices


def test_an_issued_token_is_long_random_and_not_kept(alice: Member, bob: Member):
    prefix, secret = alice.token.split(".")
    row = Device.objects.filter(pk=alice.device.pk).values().get()
    assert len(prefix) == TOKEN_PREFIX_LENGTH == len(row["token_prefix"])
    assert len(secret) >= 43  # 32 random bytes
    assert not [value for value in row.values() if secret in str(value)]
    assert row["token_digest"] == hashlib.sha256(alice.token.encode()).hexdigest()
    assert bob.token.split(".")[1] != secret


def test_a_token_matches_its_own_row_only(alice: Member, bob: Member):
    assert alice.device.token_matches(alice.token)
    assert not alice.device.token_matches(bob.token)
    assert not alice.device.token_matches("")


def test_a_renewed_token_is_not_saved_by_itself(alice: Member):
    renewed = alice.device.renew_token()
    assert alice.device.token_matches(renewed)
    assert not alice.device.token_matches(alice.token)
    assert Device.objects.get(pk=alice.device.pk).token_matches(alice.token)


def test_two_devices_never_share_a_prefix(alice: Member):
    refused(Device, patient=alice.patient, name="other", token_prefix=alice.device.token_prefix, token_digest="0" * 64)


@pytest.mark.parametrize("what", ["nothing", "revoked", "archived", "erased"])
def test_which_device_is_admitted(what, alice: Member):
    alice.device.revoked_at = NOW if what == "revoked" else None
    alice.device.patient.archived_at = NOW if what == "archived" else None
    alice.device.patient.erased_at = NOW if what == "erased" else None
    assert alice.device.can_connect is (what == "nothing")


def test_each_connection_has_the_next_epoch(alice: Member):
    stale = Device.objects.get(pk=alice.device.pk)
    assert [device.register_connection() for device in (alice.device, stale, alice.device)] == [
        1,
        2,
        3,
    ]
    row = Device.objects.get(pk=alice.device.pk)
    assert row.epoch == 3
    assert row.last_seen is not None
