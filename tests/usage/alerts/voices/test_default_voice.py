"""The incidents of the default voice: a takeover names both voices, and an account without voices is reported."""

from datetime import timedelta

import pytest
from django.utils import timezone
from pytest_django import Settings

from tests.conftest import Member
from usage.alerts import lost_voices
from usage.alerts.voices import default_voice
from usage.models import Incident
from voicecare.patients.models import DefaultVoice, Patient, Voice
from voicecare.providers.errors import Cause, VoiceUnavailable

pytestmark = pytest.mark.django_db(transaction=True)

PLAN = VoiceUnavailable(code="paid_plan_required", status=402, request_id="req-4711", cause=Cause.PLAN)


@pytest.fixture(autouse=True)
def unset(settings: Settings) -> None:
    settings.DEFAULT_VOICE_ID = ""


def voice(name: str, **fields: object) -> Voice:
    return Voice.objects.create(provider_id=f"id-{name}", name=name, **fields)


def open_incidents() -> list[tuple[str, str]]:
    return list(Incident.objects.filter(resolved_at=None).order_by("kind").values_list("kind", "key"))


def test_one_incident_names_the_former_and_the_new_default_voice(alice: Member):
    Voice.objects.all().delete()
    rachel, _ = voice("Rachel"), voice("Sarah")
    assert Voice.objects.default() == rachel
    Patient.objects.update(voice=rachel)
    lost_voices.mark_gone([rachel], "It no longer exists at the provider.")
    assert open_incidents() == [("default_voice", str(rachel.pk))]
    detail = Incident.objects.get().detail
    assert detail == (
        "The default voice was Rachel: It no longer exists at the provider. Now it is Sarah. "
        "Patients who have chosen Rachel for themselves: 1."
    )
    lost_voices.mark_gone([rachel], "It no longer exists at the provider.")
    assert Incident.objects.count() == 1
    lost_voices.restore(rachel)
    assert open_incidents() == []


def test_another_voice_than_the_default_voice_takes_nothing_over():
    voice("Rachel")
    sarah = voice("Sarah")
    assert Voice.objects.default().name == "Rachel"
    lost_voices.mark_gone([sarah], "It no longer exists at the provider.")
    assert Voice.objects.default().name == "Rachel"
    assert open_incidents() == []  # no patient has chosen it either


def test_a_default_voice_that_the_plan_does_not_include_is_replaced_but_not_gone():
    rachel, sarah = voice("Rachel"), voice("Sarah")
    assert Voice.objects.default() == rachel
    lost_voices.check_refused(rachel.pk, PLAN)
    rachel.refresh_from_db()
    assert (rachel.state, rachel.refusal) == ("usable", "refused")
    assert Voice.objects.default() == sarah
    assert open_incidents() == [("default_voice", str(rachel.pk))]
    lost_voices.check_refused(rachel.pk, PLAN)  # the refusal of another process
    assert open_incidents() == [("default_voice", str(rachel.pk))]


def test_the_takeover_is_settled_when_an_administrator_chooses(settings: Settings):
    rachel, sarah = voice("Rachel"), voice("Sarah")
    DefaultVoice.objects.create(voice=rachel, chosen_at=timezone.now() - timedelta(days=1))
    lost_voices.mark_gone([rachel], "It no longer exists at the provider.")
    default_voice.check()
    assert open_incidents() == [("default_voice", str(rachel.pk))]
    DefaultVoice.objects.filter(chosen_by="administrator").update(voice=sarah, chosen_at=timezone.now())
    default_voice.check()
    assert open_incidents() == []


def test_a_voice_of_the_other_workspace_takes_over_until_the_right_key_is_back(alice: Member):
    Voice.objects.all().delete()
    rachel = voice("Rachel")
    DefaultVoice.objects.create(voice=rachel, chosen_at=timezone.now() - timedelta(days=1))
    clones = [voice(f"Clone {number}", source="cloned", patient=alice.patient) for number in range(5)]
    hazel = voice("Hazel")  # of the other workspace
    lost_voices.mark_missing(lost_voices.Survey({}, missing=[rachel, *clones]))
    assert set(Voice.objects.values_list("state", flat=True)) == {"usable"}
    assert Voice.objects.default() == hazel
    assert open_incidents() == [("access", "workspace"), ("default_voice", str(rachel.pk))]
    rachel.refresh_from_db()
    lost_voices.restore(rachel)
    assert Voice.objects.default() == rachel
    assert open_incidents() == [("access", "workspace")]


@pytest.mark.parametrize("problem", [{"state": "gone"}, {"refusal": "refused"}])
def test_an_account_without_a_usable_voice_is_reported_until_it_has_one(problem: dict[str, str]):
    rachel = voice("Rachel")
    assert Voice.objects.default() == rachel
    Voice.objects.update(**problem)
    default_voice.report_takeovers({"": rachel}, [rachel], "It is gone.")
    assert open_incidents() == [("no_usable_voice", "")]
    voice("Sarah")
    default_voice.check()
    assert open_incidents() == []


def test_while_all_voices_are_refused_or_of_another_workspace_the_default_voice_is_missing():
    """With the key of another workspace no incident about the default voice is opened, but nothing can be spoken."""
    rachel, sarah = voice("Rachel"), voice("Sarah")
    assert Voice.objects.default() == rachel
    assert not default_voice.is_missing()
    Voice.objects.update(refusal="refused")
    assert default_voice.is_missing()
    Voice.objects.update(refusal="missing")
    default_voice.check()
    assert default_voice.is_missing()
    lost_voices.restore(sarah)
    assert not default_voice.is_missing()
    assert open_incidents() == []


def test_a_choice_for_another_language_does_not_settle_the_takeover():
    george, lily, daniel = voice("George"), voice("Lily"), voice("Daniel")
    earlier = timezone.now() - timedelta(days=1)
    DefaultVoice.objects.create(voice=george, language="de", chosen_at=earlier)
    DefaultVoice.objects.create(voice=lily, chosen_at=earlier)
    lost_voices.mark_gone([george], "It no longer exists at the provider.")
    assert Incident.objects.get().detail == (
        "The default voice for German was George: It no longer exists at the provider. Now it is Lily."
    )
    DefaultVoice.objects.create(voice=daniel, language="fr")
    default_voice.check()
    assert open_incidents() == [("default_voice", str(george.pk))]
    DefaultVoice.objects.filter(language="de").update(voice=daniel, chosen_at=timezone.now())
    default_voice.check()
    assert open_incidents() == []
