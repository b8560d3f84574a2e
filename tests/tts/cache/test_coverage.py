"""The figures of the coverage tables, and the coverage page."""

import asyncio
import re
from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.db.models import F, Sum
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from tests.conftest import OTHER_VOICE, Member
from tts.cache import coverage, missing
from tts.cache.coverage import Cached, LanguageCoverage, coverage_by_language, languages_without_greeting
from tts.cache.missing import load_needs
from tts.cache.planning import active_patients, create_phrase_cache, load_audiences, required_clips
from tts.models import Clip, Phrase
from voicecare.patients.models import DefaultVoices, Patient, Voice

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.filterwarnings("ignore:No directory at:UserWarning"),
]

PAGE = "/admin/tts/phrase/coverage/"
MODEL = "eleven_flash_v2_5"


@pytest.fixture(autouse=True)
def folder(settings, tmp_path: Path) -> None:
    settings.PHRASE_STORE = "file"
    files = {"BACKEND": "tts.cache.stores.AtomicFileStorage", "OPTIONS": {"location": tmp_path}}
    settings.STORAGES = {**settings.STORAGES, "phrases": files}


@pytest.fixture
def phrases(alice: Member, bob: Member) -> list[Phrase]:
    """Phrases for Alice, who uses another voice, and Bob, who uses the default voice."""
    return [
        Phrase.objects.create(kind="greeting", text="Hello {patient_name}, this is {ai_name}."),
        Phrase.objects.create(kind="holding", text="One moment, please."),
        Phrase.objects.create(text="I see."),
        Phrase.objects.create(language="de", text="Ich verstehe."),
    ]


@pytest.fixture
def admin(db: None) -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("admin"))
    return client


def fill_cache() -> None:
    """Stores all clips that active patients need."""
    cache = create_phrase_cache()

    async def put_all(specs) -> None:
        for spec in specs:
            await cache.store(spec.speech_settings, spec.text, b"sound", spec.patient_id)

    asyncio.run(put_all(required_clips(load_audiences(active_patients()), list(Phrase.objects.all()), MODEL)))


def states(rows: Iterable[tuple[object, Cached]]) -> dict[str, str]:
    return {str(row): cached.state for row, cached in rows}


def by_language() -> list[LanguageCoverage]:
    return coverage_by_language(load_needs(create_phrase_cache()), DefaultVoices())


def english() -> LanguageCoverage:
    return by_language()[1]


def test_each_language_has_the_voices_of_its_patients_and_the_default_voice(phrases):
    german, found = by_language()
    assert [(german.language, german.is_spoken), (found.language, found.is_spoken)] == [("de", False), ("en", True)]
    assert [voice.provider_id for voice, _ in found.voices] == [Voice.objects.default().provider_id, OTHER_VOICE]
    assert states(german.voices) == {str(Voice.objects.default()): "unneeded"}
    assert states(german.phrases) == {"Ich verstehe.": "unneeded"}


def test_a_needed_clip_counts_as_missing_until_it_is_cached(phrases):
    assert set(states(english().voices).values()) | set(states(english().phrases).values()) == {"none"}
    fill_cache()
    assert set(states(english().voices).values()) | set(states(english().phrases).values()) == {"full"}
    assert (english().total.needed, english().total.missing) == (6, 0)


def test_a_greeting_is_needed_per_patient_and_a_phrase_per_format(phrases, alice: Member, bob: Member, member):
    fill_cache()
    member("Carol")
    type(bob.device).objects.filter(pk=bob.device.pk).update(format="pcm_16000")
    found = english()
    assert {phrase.text: (row.needed, row.cached, row.state) for phrase, row in found.phrases} == {
        "Hello {patient_name}, this is {ai_name}.": (3, 1, "part"),
        "One moment, please.": (3, 2, "part"),
        "I see.": (3, 2, "part"),
    }
    assert [(row.needed, row.cached) for _, row in found.voices] == [(6, 2), (3, 3)]


def test_an_expired_clip_counts_as_missing_and_keeps_its_saved_characters(phrases):
    fill_cache()
    Clip.objects.update(hits=3, expires_at=timezone.now() - timedelta(minutes=1))
    found = english()
    assert set(states(found.voices).values()) == {"none"}
    assert [row.hits for _, row in found.phrases] == [6] * 3
    assert found.total.expires_at is None


def test_a_row_shows_the_earliest_expiry(phrases, member: Callable[..., Member]):
    member("Carol")
    fill_cache()
    now = timezone.now()
    greetings = Clip.objects.filter(patient__isnull=False, voice=Voice.objects.default())
    for days, clip in enumerate(greetings, start=1):
        Clip.objects.filter(pk=clip.pk).update(expires_at=now + timedelta(days=days))
    found = english()
    assert found.voices[0][1].expires_at == found.total.expires_at == now + timedelta(days=1)
    (greeting,) = [row for phrase, row in found.phrases if phrase.kind == "greeting"]
    assert greeting.expires_at == now + timedelta(days=1)


def test_hits_and_saved_characters_are_the_sums_of_the_rows(phrases):
    fill_cache()
    for number, clip in enumerate(Clip.objects.order_by("pk")):
        Clip.objects.filter(pk=clip.pk).update(hits=number)
    found = english()
    saved = {"played": Sum("hits"), "saved": Sum(F("hits") * F("characters"))}
    expected = {voice: figures for voice, *figures in Clip.objects.order_by().values_list("voice").annotate(**saved)}
    assert {voice.pk: [row.hits, row.saved] for voice, row in found.voices} == expected
    assert (
        sum(row.saved for _, row in found.phrases) == found.total.saved == sum(saved for _, saved in expected.values())
    )
    assert [row.cached for _, row in found.voices] == [3, 3]


def test_a_clip_of_an_earlier_voice_revision_counts_as_missing(phrases):
    fill_cache()
    Voice.objects.filter(provider_id=OTHER_VOICE).update(revision=2)
    assert list(states(english().voices).values()) == ["full", "none"]


def test_the_voices_with_most_missing_clips_follow_the_default_voice_and_the_rest_is_summed(
    phrases, member: Callable[..., Member], monkeypatch, admin
):
    fill_cache()
    for number in range(4):
        voice = Voice.objects.create(name=f"Voice {number}", provider_id=f"voice-{number}")
        member(f"Patient {number}", voice=voice.provider_id)
    member("Patient 4", voice="voice-2", speech_rate="0.9")
    monkeypatch.setattr(coverage, "MAX_VOICES", 3)
    monkeypatch.setattr(missing, "MAX_GROUPS", 1)
    found = english()
    assert [voice.provider_id for voice, _ in found.voices][1:] == ["voice-2", "voice-0"]
    assert (found.other_voices, found.others.needed, found.others.cached) == (3, 9, 3)
    assert found.total.needed == 21
    page = " ".join(re.sub(r"<[^>]+>", " ", admin.get(PAGE).content.decode()).split())
    assert "3 other voices 3 of 9 cached" in page
    assert "Other reasons and voices 3 more rows 9" in page


# Languages without a greeting


def test_languages_of_active_patients_without_a_greeting_are_listed(phrases, member: Callable[..., Member]):
    """German has a common phrase only. `nb` and `no-NO` are one language, and so is what is not in the list."""
    for number, language in enumerate(["de-AT", "fr", "fr-CA", "fr", "nb", "no-NO", "tlh"]):
        member(f"Patient {number}", language=language)
    Patient.objects.filter(name="Patient 3").update(archived_at=timezone.now())
    gaps = languages_without_greeting(active_patients())
    assert [(gap.language, gap.name, gap.patients, gap.missing) for gap in gaps] == [
        ("fr", "French (fr)", 2, "no phrases"),
        ("no", "Norwegian (no)", 2, "no phrases"),
        ("de", "German (de)", 1, "no greeting"),
        ("tlh", "tlh", 1, "no phrases"),
    ]


# The page


def test_the_page_lists_languages_without_a_greeting_with_a_link_to_add_one(phrases, admin, member):
    member("Hugo", language="fr-CA"), member("Zoé", language="fr"), member("Kahless", language="tlh")
    page = admin.get(PAGE).content.decode()
    assert "French (fr): 2 patients, no phrases" in page
    assert "tlh: 1 patient, no phrases" in page
    links = re.findall(r'href="(/admin/tts/phrase/add/\?[^"]+)"', page)
    assert links == ["/admin/tts/phrase/add/?language=fr&amp;kind=greeting"]
    form = admin.get(links[0].replace("&amp;", "&")).content.decode()
    assert '<option value="fr" selected>French (fr)</option>' in form
    assert '<option value="greeting" selected>' in form


def test_tables_of_languages_that_no_patient_speaks_are_folded(phrases, admin, member):
    summary = "Phrases in 1 language that no patient speaks"
    spoken, _, folded = admin.get(PAGE).content.decode().partition(summary)
    assert ('id="coverage-en"' in spoken, 'id="coverage-de"' in folded) == (True, True)
    member("Ingrid", language="de")
    page = admin.get(PAGE).content.decode()
    assert 'id="coverage-de"' in page
    assert "that no patient speaks" not in page
    Patient.objects.update(archived_at=timezone.now())
    assert '<details class="coverage-unspoken" open>' in admin.get(PAGE).content.decode()


def test_the_phrase_list_links_to_the_coverage_page(phrases, admin):
    fill_cache()
    Clip.objects.filter(characters=len("I see.")).update(hits=2)
    assert f'href="{PAGE}"' in admin.get("/admin/tts/phrase/").content.decode()
    page = admin.get(PAGE).content.decode()
    page = page.partition('class="coverage"')[2]  # the page also contains tables of Django
    captions = re.findall(r"<caption[^>]*>([^<]+)<", page)
    assert captions == ["Voices in English", "Phrases in English", "Voices in German", "Phrases in German"]
    assert page.count('scope="col"') == 4 * 5
    assert page.count('scope="row"') == (2 + 1 + 3) + (1 + 1 + 1)
    words = " ".join(re.sub(r"<[^>]+>", " ", page).split())
    assert "I see. 2 of 2 cached in 6 days, 23 hours 4 24" in words
    assert "not needed" in words


def test_markup_in_a_voice_name_is_escaped(phrases, admin):
    Voice.objects.filter(provider_id=OTHER_VOICE).update(name="<b>Sarah</b>")
    assert "<b>Sarah" not in admin.get(PAGE).content.decode()


def test_the_page_without_phrases_says_that_there_are_none(admin, db):
    assert "There are no phrases yet" in admin.get(PAGE).content.decode()


def test_the_page_needs_the_permission_to_view_phrases(phrases):
    for permission, status in ((None, 403), ("view_phrase", 200)):
        user = User.objects.create_user(f"user-{permission}", is_staff=True)
        if permission:
            user.user_permissions.add(Permission.objects.get(codename=permission))
        client = Client()
        client.force_login(user)
        assert client.get(PAGE).status_code == status
        if permission:
            assert f'href="{PAGE}"' in client.get("/admin/tts/phrase/").content.decode()
    assert Client().get(PAGE).status_code == 302


def test_the_number_of_queries_does_not_grow_with_the_data(phrases, admin, member):
    admin.get(PAGE)
    with CaptureQueriesContext(connection) as little:
        admin.get(PAGE)
    for number in range(5):
        member(f"Patient {number}", voice=f"voice-{number}", language="en" if number % 2 else "de")
        Phrase.objects.create(text=f"Phrase {number}.")
    Patient.objects.update(speech_rate="0.9")
    fill_cache()
    with CaptureQueriesContext(connection) as much:
        admin.get(PAGE)
    assert len(much) == len(little)
