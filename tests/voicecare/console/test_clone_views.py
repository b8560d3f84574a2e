"""The page that makes a voice clone, and its calls: who may open it, what it shows, and the choice of a voice."""

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from cloning.models import CloneJob
from tests.conftest import Member
from tests.roles import role
from tests.voicecare.console.test_views import logged_in, user_for
from tts.models import Phrase
from voicecare.audit.models import AuditEntry
from voicecare.console.passages import PASSAGES, passage_for
from voicecare.patients.models import Patient, Voice

pytestmark = pytest.mark.django_db


@pytest.fixture
def clinician(alice: Member) -> Client:
    """A clinician of Alice's team, who may not log in to the admin."""
    return logged_in(user_for(alice))


@pytest.fixture
def clone() -> Callable[..., CloneJob]:
    """Creates a clone of a patient, which is ready and waits for the choice."""

    def make(member: Member, **fields: Any) -> CloneJob:
        voice = Voice.objects.create(name="Anna", provider_id="anna", source="cloned", patient=member.patient)
        ready = {"status": "ready", "voice": voice, "use_when_ready": False, "sample_digest": uuid.uuid4().hex}
        consent = {"consent_by": "Anna Archer", "consent_wording": "2026-11"}
        return CloneJob.objects.create(patient=member.patient, name="Anna", **{**ready, **consent, **fields})

    return make


def page_of(member: Member) -> str:
    return reverse("console:clone", args=[member.patient.pk])


def voice_of(member: Member) -> Voice | None:
    return Patient.objects.get(pk=member.patient.pk).voice


# Who may open it


def test_a_clinician_sees_the_own_patients_only(
    clinician: Client, alice: Member, bob: Member, clone: Callable[..., CloneJob]
):
    page = clinician.get(reverse("console:clone-patients")).content.decode()
    assert page_of(alice) in page
    assert bob.patient.name not in page
    assert clinician.get(page_of(alice)).status_code == 200
    assert clinician.get(page_of(bob)).status_code == 404
    foreign = clone(bob)
    for name, method in (("clone-status", "get"), ("clone-status", "delete"), ("retry-clone", "post")):
        assert getattr(clinician, method)(reverse(f"console:{name}", args=[foreign.pk])).status_code == 404
    for name in ("use-clone", "revert-clone"):
        assert clinician.post(reverse(f"console:{name}", args=[foreign.pk])).status_code == 404
    for name in ("check-recording", "make-clone"):
        assert clinician.post(reverse(f"console:{name}", args=[bob.patient.pk])).status_code == 404
    assert voice_of(bob) != foreign.voice


def test_the_list_of_the_device_console_leads_to_it(clinician: Client, alice: Member):
    assert page_of(alice) in clinician.get(reverse("console:patients")).content.decode()


def test_who_may_only_look_makes_no_clone(alice: Member, clone: Callable[..., CloneJob]):
    auditor = User.objects.create_user("auditor", is_staff=True)
    auditor.groups.add(role("Auditor"))
    client, job = logged_in(auditor), clone(alice)
    assert client.get(page_of(alice)).status_code == 403
    refused = client.post(reverse("console:use-clone", args=[job.pk]))
    assert (refused.status_code, refused.json()) == (403, {"code": "forbidden"})


def test_without_a_log_in_a_page_leads_to_it_and_a_call_says_so(alice: Member, clone: Callable[..., CloneJob]):
    assert Client().get(page_of(alice))["Location"] == f"{reverse('console:log-in')}?next={page_of(alice)}"
    refused = Client().get(reverse("console:clone-status", args=[clone(alice).pk]))
    assert (refused.status_code, refused.json()) == (403, {"code": "logged_out"})


def test_a_call_needs_the_token_of_the_page(alice: Member, clone: Callable[..., CloneJob]):
    """Otherwise another page in the same browser could choose the voice."""
    client, job = Client(enforce_csrf_checks=True), clone(alice)
    client.force_login(user_for(alice))
    assert client.post(reverse("console:use-clone", args=[job.pk])).status_code == 403
    assert client.delete(reverse("console:clone-status", args=[job.pk])).status_code == 403
    assert client.post(reverse("console:make-clone", args=[alice.patient.pk])).status_code == 403
    assert voice_of(alice) != job.voice


# The page


def test_a_clone_that_waits_for_a_choice_is_shown_again(
    clinician: Client, alice: Member, clone: Callable[..., CloneJob]
):
    decided = clone(alice, use_when_ready=True)
    assert 'data-job=""' in clinician.get(page_of(alice)).content.decode()
    CloneJob.objects.filter(pk=decided.pk).update(use_when_ready=False)
    assert f'data-job="{decided.pk}"' in clinician.get(page_of(alice)).content.decode()


@pytest.mark.parametrize(("tag", "language"), [("de-AT", "de"), ("nl", "nl"), ("cy", "en"), ("tlh", "en")])
def test_the_passage_is_in_the_language_of_the_patient(tag: str, language: str, clinician: Client, alice: Member):
    Patient.objects.filter(pk=alice.patient.pk).update(language=tag)
    page = clinician.get(page_of(alice)).content.decode()
    assert f'<div class="clone-passage" lang="{language}">' in page
    assert ("There is no text in the language of the patient" in page) is (language != tag[:2])


def test_each_language_with_a_greeting_has_a_passage_of_a_minute():
    greetings = Phrase.objects.filter(kind="greeting").values_list("language", flat=True)
    assert set(PASSAGES) >= {*greetings, "en", "de"}
    assert len(PASSAGES) >= 7
    for language in PASSAGES:
        _, passage = passage_for(language)
        assert len(passage.split()) >= 140, language  # fast readers read 140 words a minute aloud
        assert len(passage.split("\n\n")) == 3


# The choice


def test_the_chosen_voice_is_heard_and_the_choice_can_be_undone(
    clinician: Client, alice: Member, clone: Callable[..., CloneJob]
):
    before, job = voice_of(alice), clone(alice)
    assert voice_of(alice) == before
    assert clinician.post(reverse("console:use-clone", args=[job.pk])).status_code == 204
    assert voice_of(alice) == job.voice
    assert clinician.post(reverse("console:revert-clone", args=[job.pk])).status_code == 204
    assert voice_of(alice) == before
    again = clinician.post(reverse("console:revert-clone", args=[job.pk]))
    assert (again.status_code, again.json()["code"]) == (409, "not_used")
    actions = AuditEntry.objects.filter(object_id=str(job.pk)).order_by("pk").values_list("action", flat=True)
    assert list(actions) == ["use_clone", "revert"]


def test_a_clone_that_is_not_ready_cannot_be_chosen(clinician: Client, alice: Member, clone: Callable[..., CloneJob]):
    before, job = voice_of(alice), clone(alice, status="pending", voice=None)
    refused = clinician.post(reverse("console:use-clone", args=[job.pk]))
    assert (refused.status_code, refused.json()["code"]) == (409, "voice_not_usable")
    assert voice_of(alice) == before


def test_the_old_voice_is_kept_by_withdrawing_the_clone(
    clinician: Client, alice: Member, clone: Callable[..., CloneJob]
):
    before, job = voice_of(alice), clone(alice)
    assert clinician.delete(reverse("console:clone-status", args=[job.pk])).json()["status"] == "withdrawing"
    assert voice_of(alice) == before
    assert 'data-job=""' in clinician.get(page_of(alice)).content.decode()
