"""A changed entry of the lexicon makes exactly the clips anew that contain it, and drops no others."""

from typing import Any

import pytest

from tests.conftest import Member
from tests.sandbox import SandboxProcess
from tests.tts.cache.test_warmer import provider  # noqa: F401 - a fixture that is used automatically
from tts import tasks
from tts.models import Clip, LexiconEntry, Phrase

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def phrases() -> list[Phrase]:
    return [
        Phrase.objects.create(kind="greeting", text="Hello {patient_name}, this is {ai_name}."),
        Phrase.objects.create(kind="holding", text="One moment, please."),
        Phrase.objects.create(text="Metformin is a drug."),
        Phrase.objects.create(text="Metoprolol, too."),
    ]


def renew(sandbox: SandboxProcess) -> list[str]:
    """What the tasks request that a saved entry starts. Before them, there are as many requests as clips."""
    before = len(sandbox.requests())
    tasks.warm_due()
    tasks.remove_audio()
    return sorted(request["text"] for request in sandbox.requests()[before:])


def test_exactly_the_affected_clips_are_requested_again(alice: Member, bob: Member, sandbox: Any):
    greetings = ["Hello Alice Archer, this is Clara.", "Hello Bob Baker, this is Clara."]
    assert len(renew(sandbox)) == Clip.objects.count() == 2 + 2 * 3
    untouched = set(Clip.objects.exclude(phrase__text__contains="Metformin").values_list("digest", flat=True))

    entry = LexiconEntry.objects.create(written="Metformin", spoken="met for min")
    assert renew(sandbox) == ["met for min is a drug."] * 2
    assert untouched < set(Clip.objects.values_list("digest", flat=True))
    assert Clip.objects.count() == 8
    assert renew(sandbox) == []

    entry.spoken = "metformeen"
    entry.save()
    assert renew(sandbox) == ["metformeen is a drug."] * 2

    LexiconEntry.objects.create(written="metformin", spoken="my drug", patient=alice.patient)
    assert renew(sandbox) == ["my drug is a drug."]
    assert Clip.objects.count() == 9  # the voice of Alice may say it to others in the other way
    assert renew(sandbox) == []

    LexiconEntry.objects.create(written="Alice", spoken="Aleece", patient=alice.patient)
    assert renew(sandbox) == [greetings[0].replace("Alice", "Aleece")]
    LexiconEntry.objects.all().delete()
    assert renew(sandbox) == sorted([greetings[0], "Metformin is a drug.", "Metformin is a drug."])
    assert Clip.objects.count() == 8
    assert len({clip.phrase_id for clip in Clip.objects.filter(patient=None)}) == 3
