"""The pages that suggest repeated texts as phrases, and the list of phrases with what they save."""

import re
import uuid
from collections.abc import Callable
from datetime import date
from decimal import Decimal

import pytest
from django.conf import settings as configured
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from tests.conftest import Member
from tests.roles import give_permissions, role
from tts.conversations import retention
from tts.models import Conversation, Phrase, Utterance
from tts.text.digest import text_digest
from usage.ledger.events import Attempt, record_attempts
from usage.models import Price, UsageEvent
from voicecare.audit.models import AuditEntry
from voicecare.patients.models import Patient

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.filterwarnings("ignore:No directory at:UserWarning"),  # whitenoise in a fresh checkout
]

LIST = reverse("admin:tts_phrase_suggestions")
TEXT = "It is time for your tablets, and for a glass of water."
ENGLISH = ("tts.view_phrase", "usage.view_usageevent")

Say = Callable[..., None]


@pytest.fixture
def say() -> Say:
    """Return a function that records that a text was spoken to a patient some times, as the recorder does."""

    def record(member: Member, times: int = 1, text: str = TEXT, kind: str = "live") -> None:
        conversation = Conversation.objects.create(
            patient=member.patient, voice=member.patient.voice, voice_source="default", format="mp3_44100_128"
        )
        for number in range(times):
            message = Utterance.objects.create(
                patient=member.patient,
                conversation=conversation,
                client_speech_id=f"{kind} {number}",
                origin="device",
                text=text,
                state="spoken",
            )
            attempt = Attempt(message.pk, 0, 1, kind, len(text), conversation.pk, member.patient.pk)
            attempt.text_digest = text_digest(text, "en", configured.PHRASE_SECRET)
            if kind == "cache":
                attempt.outcome, attempt.saved_characters = "completed", len(text)
            else:
                attempt.mark_answered("request", len(text))
            record_attempts([attempt])

    return record


def staff(*permissions: str) -> Client:
    user = User.objects.create_user(f"user-{uuid.uuid4().hex[:6]}", is_staff=True)
    client = Client()
    client.force_login(give_permissions(user, "patients.view_all_patients", *permissions))
    return client


def page(client: Client, url: str = LIST, status: int = 200) -> str:
    response = client.get(url)
    assert response.status_code == status, response
    return re.sub(r"\s+", " ", response.content.decode())


def url_of(text: str = TEXT) -> str:
    """The address of the page that shows this text. It contains the id of an event, no text and no digest."""
    digest = text_digest(text, "en", configured.PHRASE_SECRET)
    event = UsageEvent.objects.filter(text_digest=digest).order_by("pk").first()
    assert event is not None
    return reverse("admin:tts_phrase_suggestion", args=[event.pk])


def test_a_repeated_text_is_suggested_by_its_figures_without_the_text(
    admin_client: Client, alice: Member, bob: Member, say: Say
):
    Price.objects.create(model="", valid_from=date(2020, 1, 1), per_1000_credits=Decimal("0.5"))
    say(alice, 140)
    say(bob, 3)
    shown = page(admin_client)
    assert "143 times" in shown
    spent = 143 * len(TEXT)
    # Alice and Bob have a voice each, and a clip is generated again every six of 31 days.
    saved = spent - round(2 * len(TEXT) * 31 / 6)
    assert f"<td>2</td> <td>{len(TEXT)}</td> <td>{spent:,}, {spent * 0.0005:.2f} USD</td>" in shown
    assert f"<td>{saved:,}, {saved * 0.0005:.2f} USD</td>" in shown
    digest = text_digest(TEXT, "en", configured.PHRASE_SECRET)
    assert "tablets" not in shown
    assert digest not in shown
    assert AuditEntry.objects.filter(action="read_text").count() == 0


def test_texts_are_sorted_by_what_caching_would_save(admin_client: Client, alice: Member, say: Say):
    say(alice, 20, "This sentence is rather short, and it is said often.")
    say(alice, 15, "This sentence is longer than the other one, and it is not said as often as that, but costs more.")
    suggestions = admin_client.get(LIST).context["suggestions"]
    assert [one.text.times for one, _ in suggestions] == [15, 20]


def test_what_would_not_save_anything_is_not_suggested(
    admin_client: Client, alice: Member, member: Callable[..., Member], say: Say
):
    for number in range(5):
        member(f"Patient {number}", speech_rate=Decimal(f"0.{95 - number}"))
    say(alice, 20)  # seven clips, five times a month, cost more than 20 requests
    assert "Nothing to suggest" in page(admin_client)


def test_phrases_are_not_suggested(admin_client: Client, alice: Member, say: Say):
    say(alice, 20)
    Phrase.objects.create(text=TEXT)
    assert "Nothing to suggest" in page(admin_client)


def test_the_text_is_shown_on_request_and_that_is_recorded(admin_client: Client, alice: Member, bob: Member, say: Say):
    say(alice, 20)
    say(bob, 20)
    assert url_of() in page(admin_client)
    shown = page(admin_client, url_of())
    assert TEXT in shown
    assert "contains a name" not in shown
    assert "one patient only" not in shown
    (entry,) = AuditEntry.objects.filter(action="read_text")
    assert entry.patient_id in (alice.patient.pk, bob.patient.pk)
    assert Utterance.objects.get(pk=entry.object_id).text == TEXT


def test_one_click_makes_it_a_phrase(admin_client: Client, alice: Member, bob: Member, say: Say):
    say(alice, 20)
    say(bob, 20)
    assert admin_client.post(url_of()).url == LIST
    phrase = Phrase.objects.get()
    assert (phrase.text, phrase.language, phrase.kind) == (TEXT, "en", "common")
    assert [entry.action for entry in AuditEntry.objects.all()] == ["add"]
    assert "Nothing to suggest" in page(admin_client)
    assert admin_client.post(url_of()).url == LIST  # somebody else was faster
    assert Phrase.objects.count() == 1


@pytest.mark.parametrize(
    ("text", "both", "warning"),
    [
        ("Shall we call Robert now, so that he can visit you?", True, "It contains a name."),
        ("Your stomach will be better when you have eaten.", False, "It was said to one patient only."),
    ],
)
def test_what_may_be_about_a_patient_is_not_made_a_phrase_silently(
    text: str, both: bool, warning: str, admin_client: Client, alice: Member, member: Callable[..., Member], say: Say
):
    robert = member("Robert Reed")
    say(alice, 20, text)
    if both:
        say(robert, 20, text)
    assert warning in page(admin_client, url_of(text))
    response = admin_client.post(url_of(text))
    assert response.status_code == 200
    assert warning in response.content.decode()
    assert not Phrase.objects.exists()
    admin_client.post(url_of(text), {"confirmed": "on"})
    assert Phrase.objects.get().text == text


def test_a_text_of_which_no_message_is_kept_is_not_shown(admin_client: Client, alice: Member, say: Say):
    say(alice, 20)
    Utterance.objects.update(text="")
    response = admin_client.get(url_of(), follow=True)
    assert "No message with this text is kept" in response.content.decode()
    assert not AuditEntry.objects.filter(action="read_text").exists()
    admin_client.post(url_of())
    assert not Phrase.objects.exists()


def test_a_sentence_of_a_longer_message_is_found(admin_client: Client, alice: Member, bob: Member, say: Say):
    say(alice, 20)
    say(bob, 20)
    Utterance.objects.update(text=f"Good morning, I hope that you have slept very well. {TEXT} Is that all right?")
    assert f"<blockquote>{TEXT}</blockquote>" in page(admin_client, url_of())


def test_the_figures_the_text_and_the_button_need_permissions(alice: Member, bob: Member, say: Say):
    say(alice, 20)
    say(bob, 20)
    page(staff("tts.view_phrase"), status=403)
    figures = staff(*ENGLISH)
    assert url_of() not in page(figures)
    page(figures, url_of(), status=403)
    reader = staff(*ENGLISH, "tts.view_utterance")
    assert "<form method=" not in page(reader, url_of()).split("<blockquote>")[1]
    assert reader.post(url_of()).status_code == 403
    assert not Phrase.objects.exists()
    assert staff(*ENGLISH, "tts.view_utterance", "tts.add_phrase").post(url_of()).status_code == 302
    assert Phrase.objects.exists()


def test_members_of_a_team_get_the_suggestions_of_their_patients(alice: Member, bob: Member, say: Say):
    say(alice, 20)
    say(bob, 30)
    nurse = User.objects.create_user("nora", is_staff=True)
    nurse.groups.add(role("Administrator"))
    nurse.groups.get().permissions.remove(*role("Administrator").permissions.filter(codename="view_all_patients"))
    alice.patient.team.add(nurse)
    client = Client()
    client.force_login(nurse)
    assert "20 times" in page(client)
    of_bob = UsageEvent.objects.filter(patient=bob.patient.pk).first()
    assert of_bob is not None
    page(client, reverse("admin:tts_phrase_suggestion", args=[of_bob.pk]), status=404)


def test_an_erased_patient_contributes_nothing(admin_client: Client, alice: Member, bob: Member, say: Say):
    say(alice, 20)
    say(bob, 4)
    Patient.objects.filter(pk=alice.patient.pk).update(erases_at=timezone.now(), erased_at=timezone.now())
    retention.erase_patients()
    assert set(UsageEvent.objects.exclude(text_digest="").values_list("patient", flat=True)) == {bob.patient.pk}
    assert "Nothing to suggest" in page(admin_client)


def test_the_list_of_phrases_shows_the_hit_rate_and_what_was_saved(
    admin_client: Client, alice: Member, say: Say, django_assert_max_num_queries
):
    Price.objects.create(model="", valid_from=date(2020, 1, 1), per_1000_credits=Decimal("100"))
    Phrase.objects.create(text=TEXT)
    Phrase.objects.create(text="I see.")
    say(alice, 5)
    say(alice, 15, kind="cache")
    shown = page(admin_client, reverse("admin:tts_phrase_changelist"))
    saved = 15 * len(TEXT)
    assert '<td class="field-from_cache">15 of 20 (75%)</td>' in shown
    assert f'<td class="field-saved">{saved} characters, {saved / 10:.2f} USD</td>' in shown
    assert LIST in shown
    for number in range(50):
        Phrase.objects.create(text=f"Phrase {number}")
    with django_assert_max_num_queries(14):
        page(admin_client, reverse("admin:tts_phrase_changelist"))
    without = page(staff("tts.view_phrase"), reverse("admin:tts_phrase_changelist"))
    assert "field-saved" not in without
    assert LIST not in without
