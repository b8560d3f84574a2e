"""Old texts are cleared, and all data of erased patients is deleted except for the ledger."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.contrib.contenttypes.models import ContentType
from django.utils import timezone
from pytest_django import Settings

from tests.conftest import Member
from tts.conversations import lifecycle, retention
from tts.models import Conversation, Utterance
from tts.outbox import leases
from usage.models import UsageEvent
from voicecare.patients import erasure
from voicecare.patients.models import Device, Patient, Voice

pytestmark = pytest.mark.django_db

Say = Callable[..., Utterance]


@pytest.fixture
def say(alice: Member) -> Say:
    """Returns a function that creates an utterance to Alice, received this many days ago."""

    def create(days_ago: float = 0, member: Member = alice, **fields: object) -> Utterance:
        at = timezone.now() - timedelta(days=days_ago)
        row = {"patient": member.patient, "origin": "server", "text": "Good morning", "state": "heard"}
        return Utterance.objects.create(**{**row, "received_at": at, **fields})

    return create


def texts() -> list[str]:
    return [row.text for row in Utterance.objects.order_by("received_at")]


@pytest.fixture(autouse=True)
def no_grace_period(settings: Settings) -> None:
    settings.ERASURE_GRACE_DAYS = 0


def erase(member: Member, *, settled: bool = True) -> None:
    erasure.start_erasure(member.patient.pk)
    if settled:
        Patient.objects.filter(pk=member.patient.pk).update(erased_at=timezone.now() - timedelta(hours=2))


def test_old_texts_are_cleared_and_their_rows_stay(say: Say, settings: Settings):
    settings.TEXT_RETENTION_DAYS = 10
    say(10.1, characters=12)
    say(9.9)
    assert retention.prune_texts() == 1
    assert texts() == ["", "Good morning"]
    assert Utterance.objects.earliest("received_at").characters == 12
    assert retention.prune_texts() == 0


def test_more_texts_than_one_batch_are_cleared(say: Say, settings: Settings, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(retention, "BATCH_SIZE", 2)
    for _ in range(5):
        say(1000)
    assert retention.prune_texts() == 5


@pytest.mark.parametrize(
    "fields",
    [
        {"state": "waiting"},
        {"state": "queued"},
        {"state": "spoken"},
        {"state": "queued", "origin": "device", "client_speech_id": "a", "conversation": True},
    ],
    ids=str,
)
def test_queued_and_unacknowledged_speech_keeps_its_text(fields: dict, say: Say, settings: Settings, alice: Member):
    settings.TEXT_RETENTION_DAYS = 0
    if fields.pop("conversation", False):
        fields["conversation_id"] = lifecycle.start(alice.device.pk, None).context.conversation_id
    say(1, **fields)
    assert retention.prune_texts() == 0


def test_names_and_texts_of_an_erased_patient_are_cleared_immediately(say: Say, alice: Member, bob: Member):
    say()
    say(state="waiting")
    say(member=bob)
    Patient.objects.filter(pk=alice.patient.pk).update(external_id="MRN-1")
    erase(alice, settled=False)
    assert retention.erase_patients() == 0
    assert sorted(texts()) == ["", "", "Good morning"]
    row = Patient.objects.get(pk=alice.patient.pk)
    assert (row.name, row.preferred_name, row.companion_name, row.external_id) == ("", "", "", None)
    assert Patient.objects.get(pk=bob.patient.pk).name == "Bob Baker"


def test_the_admin_change_log_loses_the_names(alice: Member, bob: Member):
    user = User.objects.create_user("root")
    patient_type = ContentType.objects.get_for_model(Patient)
    for member in (alice, bob):
        LogEntry.objects.create(
            user=user,
            content_type=patient_type,
            object_id=str(member.patient.pk),
            object_repr=str(member.patient),
            action_flag=2,
            change_message=f"Changed {member.patient}",
        )
    erase(alice, settled=False)
    retention.erase_patients()
    kept = LogEntry.objects.order_by("object_repr").values_list("object_repr", "change_message")
    assert list(kept) == [("", ""), ("Bob Baker", "Changed Bob Baker")]


def test_all_rows_are_deleted_and_the_ledger_stays(say: Say, alice: Member, bob: Member):
    for member in (alice, bob):
        conversation = lifecycle.start(member.device.pk, None).context.conversation_id
        lifecycle.end(conversation)
        say(member=member, conversation_id=conversation)
    UsageEvent.objects.create(
        source="00000000-0000-4000-8000-000000000001",
        segment=0,
        attempt=1,
        patient=alice.patient.pk,
        kind="live",
        outcome="completed",
        requested_characters=5,
        characters=5,
    )
    erase(alice)
    assert retention.erase_patients() == 1
    for model in (Conversation, Utterance, Device):
        assert {row.patient for row in model.objects.all()} == {bob.patient}
    assert list(Patient.objects.all()) == [bob.patient]
    assert UsageEvent.objects.get().characters == 5
    assert retention.erase_patients() == 0


@pytest.mark.parametrize("blocked_by", ["a conversation", "the settle time", "a voice clone"])
def test_an_erasure_waits_for_conversations_the_settle_time_and_voice_clones(blocked_by: str, say: Say, alice: Member):
    say()
    if blocked_by == "a conversation":
        lifecycle.start(alice.device.pk, None)
    if blocked_by == "a voice clone":
        Voice.objects.create(provider_id="v", name="Anna", source="cloned", patient=alice.patient)
    erase(alice, settled=blocked_by != "the settle time")
    assert retention.erase_patients() == 0
    assert Patient.objects.filter(pk=alice.patient.pk).exists()
    assert texts() == ([""] if blocked_by != "a voice clone" else [])


# The grace period


def test_nothing_is_removed_in_the_grace_period_and_everything_after_it(say: Say, alice: Member, settings: Settings):
    settings.ERASURE_GRACE_DAYS = 7
    say()
    erase(alice, settled=False)
    retention.erase_patients()
    assert (Patient.objects.get().name, texts()) == ("Alice Archer", ["Good morning"])
    Patient.objects.update(erases_at=timezone.now())  # the grace period ends
    retention.erase_patients()
    patient = Patient.objects.get()
    assert (patient.name, texts()) == ("", [""])
    assert patient.erased_at is not None


def test_an_erasure_is_undone_in_the_grace_period_only(say: Say, alice: Member, settings: Settings):
    settings.ERASURE_GRACE_DAYS = 7
    assert not erasure.undo_erasure(alice.patient.pk)
    erase(alice, settled=False)
    assert erasure.undo_erasure(alice.patient.pk)
    assert Patient.objects.remaining().get().is_active
    assert Device.objects.filter(revoked_at=None).count() == 0
    erase(alice, settled=False)
    Patient.objects.update(erases_at=timezone.now())
    assert not erasure.undo_erasure(alice.patient.pk)
    retention.erase_patients()
    assert not erasure.undo_erasure(alice.patient.pk)
    assert Patient.objects.get().name == ""


def test_an_erasure_that_an_older_version_has_started_goes_on_without_a_grace_period(say: Say, alice: Member):
    say()
    Patient.objects.update(erased_at=timezone.now())
    retention.erase_patients()
    assert (Patient.objects.get().name, texts()) == ("", [""])


def test_a_second_start_changes_nothing(alice: Member, settings: Settings):
    settings.ERASURE_GRACE_DAYS = 7
    first = erasure.start_erasure(alice.patient.pk)
    settings.ERASURE_GRACE_DAYS = 0
    assert erasure.start_erasure(alice.patient.pk) is None
    patient = Patient.objects.get()
    assert (patient.erases_at, patient.erased_at) == (first, None)


def test_texts_that_wait_end_when_the_grace_period_begins(say: Say, alice: Member, settings: Settings):
    settings.ERASURE_GRACE_DAYS = 7
    row = say(state="waiting")
    erase(alice, settled=False)
    leases.reap_expired()
    row.refresh_from_db()
    assert (row.state, row.text) == ("interrupted", "Good morning")
