"""The admin pages of every model: they open, they show the right content, and they refuse forbidden changes."""

import queue
import re
import threading
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from celery.signals import before_task_publish
from django.contrib import admin
from django.contrib.auth.models import Permission, User
from django.db import connection, connections, transaction
from django.db.models import Model
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from cloning.models import CloneJob
from tests.conftest import Member
from tests.waiting import until
from tts.models import Clip, Conversation, LexiconEntry, Phrase, Utterance
from usage.models import (
    DailyUsage,
    HistoryDeletion,
    Incident,
    NotificationChannel,
    Price,
    ProviderState,
    Reconciliation,
    UsageEvent,
)
from voicecare.core import languages, task_queue
from voicecare.core.languages import LANGUAGES
from voicecare.patients.authentication import authenticate_device
from voicecare.patients.models import Clinic, DefaultVoice, Device, Patient, Voice
from voicecare.patients.models.patient import OWN_VOICE_NEEDED

# Without DEBUG, whitenoise expects the output of `collectstatic`. A fresh checkout has none.
pytestmark = pytest.mark.filterwarnings("ignore:No directory at:UserWarning")

BANNER = "Sandbox voice provider: no account is used and nothing is billed"
SECRET_TEXT = "My left knee hurts again."
READ_ONLY_MODELS = (Conversation, Utterance, Clip, UsageEvent, DailyUsage, Reconciliation, ProviderState, Incident)
UNDELETABLE_MODELS = (Patient, Device, Voice)
OUR_MODELS = (*READ_ONLY_MODELS, *UNDELETABLE_MODELS, Phrase, DefaultVoice)


@pytest.fixture
def boss(db: None) -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("boss"))
    return client


@pytest.fixture
def history(alice: Member) -> Callable[[int], Member]:
    """Return a function that creates `number` rows of every model and returns Alice."""

    def make(number: int) -> Member:
        ProviderState.objects.get_or_create()
        for i in range(number):
            _create_one_of_each(alice, i)
        return alice

    return make


def _create_one_of_each(member: Member, i: int) -> None:
    patient = Patient.objects.create(name=f"Patient {i}", companion_name="Clara", voice=member.patient.voice)
    device, _ = Device.objects.issue(patient, f"Tablet {i}")
    voice = Voice.objects.create(name=f"Clone {i}", provider_id=f"clone-{i}", source="cloned", patient=patient)
    stock = Voice.objects.create(name=f"Default {i}", provider_id=f"default-{i}")
    DefaultVoice.objects.create(voice=stock, language=list(languages.LANGUAGES)[i])
    conversation = Conversation.objects.create(
        patient=patient, device=device, voice=voice, voice_source="cloned", format="pcm_16000"
    )
    utterance = Utterance.objects.create(
        conversation=conversation,
        patient=patient,
        client_speech_id=f"say-{i}",
        origin="device",
        text=SECRET_TEXT,
        state="spoken",
        source="live",
        characters=25,
    )
    UsageEvent.objects.create(
        source=utterance.id,
        segment=0,
        attempt=1,
        conversation=conversation.id,
        patient=patient.id,
        kind="live",
        outcome="completed",
        requested_characters=25,
        characters=25,
        credits=13,
        request_id=f"req-{i}",
    )
    DailyUsage.objects.create(day="2026-11-05", patient=patient.id, kind="live", characters=25, credits=13, events=1)
    Reconciliation.objects.create(day=date(2026, 11, 1) + timedelta(days=i))
    phrase = Phrase.objects.create(text=f"Phrase {i}")
    Clip.objects.create(
        digest=f"{i:064x}",
        voice=voice,
        phrase=phrase,
        language="en",
        speed=1.0,
        format="pcm_16000",
        characters=8,
        size=9000,
        expires_at=timezone.now(),
    )
    Incident.objects.create(kind="voice", key=str(uuid.UUID(int=i)))


def admin_url(model: type[Model], page: str, *args: object) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{page}", args=args)


def list_url(model: type[Model]) -> str:
    return admin_url(model, "changelist")


def get_text(client: Client, url: str, **data: object) -> str:
    response = client.get(url, data)
    assert response.status_code == 200, url
    return response.content.decode()


def run_action(client: Client, action: str, *rows: Model) -> str:
    """Run an admin action on these rows, confirm it, and return the HTML of the next page."""
    data = {"action": action, "_selected_action": [str(row.pk) for row in rows], "confirmed": "yes"}
    response = client.post(list_url(type(rows[0])), data, follow=True)
    assert response.status_code == 200
    return response.content.decode()


# Pages


def test_all_our_models_are_registered():
    ours = {model for model in admin.site._registry if model._meta.app_label in ("patients", "tts", "usage", "cloning")}
    assert ours == {
        *OUR_MODELS,
        Clinic,
        CloneJob,
        HistoryDeletion,
        LexiconEntry,
        NotificationChannel,
        Price,
    }  # see others


@pytest.mark.parametrize("model", OUR_MODELS)
def test_the_list_the_search_and_the_change_page_open(model, boss, history):
    history(2)
    assert BANNER in get_text(boss, list_url(model))
    assert get_text(boss, list_url(model), q=str(uuid.uuid4()))
    assert get_text(boss, list_url(model), q="o'brien \\ %")
    assert BANNER in get_text(boss, admin_url(model, "change", model.objects.first().pk))


@pytest.mark.parametrize("model", OUR_MODELS)
def test_every_filter_opens(model, boss, history):
    history(1)
    filters = re.findall(r'<a href="(\?[^"]+)"', get_text(boss, list_url(model)))
    assert filters or model is ProviderState
    for query in filters:
        assert boss.get(list_url(model) + query.replace("&amp;", "&")).status_code == 200, query


@pytest.mark.parametrize("model", [model for model in OUR_MODELS if model is not ProviderState])
def test_a_list_of_twenty_rows_needs_no_more_queries_than_a_list_of_one(model, boss, history):
    history(1)
    get_text(boss, list_url(model))
    with CaptureQueriesContext(
        connection,
    ) as one:
        get_text(boss, list_url(model))
    for i in range(1, 20):
        _create_one_of_each(history(0), i)
    with CaptureQueriesContext(connection) as many:
        get_text(boss, list_url(model))
    assert len(many) == len(one)


@pytest.mark.parametrize("page", ["/admin/", "/admin/login/", "/admin/password_change/", "/admin/auth/user/"])
def test_other_admin_pages_show_the_sandbox_banner(page, boss, db):
    client = Client() if "login" in page else boss
    page_text = get_text(client, page)
    assert BANNER in page_text
    assert "| voicecare</title>" in page_text


def test_a_popup_shows_the_sandbox_banner(boss, db):
    assert BANNER in get_text(boss, list_url(Patient), _popup=1)


def test_with_a_real_provider_there_is_no_sandbox_banner(boss, settings):
    settings.USE_SANDBOX = False
    assert BANNER not in get_text(boss, "/admin/")


# Read-only models


@pytest.mark.parametrize("model", READ_ONLY_MODELS)
def test_read_only_rows_cannot_be_added_changed_or_deleted(model, boss, history):
    history(1)
    row = model.objects.first()
    before = model.objects.filter(pk=row.pk).values().get()
    assert boss.get(admin_url(model, "add")).status_code == 403
    assert boss.post(admin_url(model, "add"), {}).status_code == 403
    assert boss.post(admin_url(model, "change", row.pk), {"text": "Other.", "characters": 0}).status_code == 403
    assert boss.post(admin_url(model, "delete", row.pk), {"post": "yes"}).status_code == 403
    assert 'value="delete_selected"' not in get_text(boss, list_url(model))
    assert model.objects.filter(pk=row.pk).values().get() == before


@pytest.mark.parametrize("model", UNDELETABLE_MODELS)
def test_patients_devices_and_voices_cannot_be_deleted(model, boss, alice):
    row = model.objects.first()
    assert boss.post(admin_url(model, "delete", row.pk), {"post": "yes"}).status_code == 403
    assert 'value="delete_selected"' not in get_text(boss, list_url(model))
    assert model.objects.filter(pk=row.pk).exists()


def test_the_text_of_an_utterance_appears_only_on_its_own_page(boss, history):
    history(1)
    utterance = Utterance.objects.get()
    pages = [list_url(model) for model in OUR_MODELS]
    pages += [
        admin_url(Conversation, "change", utterance.conversation_id),
        admin_url(UsageEvent, "change", UsageEvent.objects.get().pk),
    ]
    assert not [page for page in pages if SECRET_TEXT in get_text(boss, page)]
    assert SECRET_TEXT in get_text(boss, admin_url(Utterance, "change", utterance.pk))


def test_texts_of_utterances_cannot_be_searched(boss, history):
    history(1)
    assert "0 messages" in get_text(boss, list_url(Utterance), q="knee")
    assert "0 usage events" in get_text(boss, list_url(UsageEvent), q="knee")


@pytest.mark.parametrize(
    ("model", "search_term"),
    [
        (Conversation, lambda row: str(row.pk)),
        (Utterance, lambda row: str(row.conversation_id)),
        (Utterance, lambda row: row.client_speech_id),
        (UsageEvent, lambda row: row.request_id),
        (UsageEvent, lambda row: str(row.patient)),
    ],
)
def test_a_row_is_found_by_its_ids(model, search_term, boss, history):
    history(2)
    row = model.objects.first()
    page = get_text(boss, list_url(model), q=search_term(row))
    assert admin_url(model, "change", row.pk) in page
    assert admin_url(model, "change", model.objects.last().pk) not in page


def test_a_conversation_links_to_its_utterances(boss, history):
    history(2)
    page = get_text(boss, admin_url(Conversation, "change", Conversation.objects.first().pk))
    (link,) = re.findall(r'href="([^"]+)">Messages of this conversation', page)
    assert get_text(boss, link).count('class="field-received') == 1


def test_an_incident_is_acknowledged_once(boss, db):
    incident = Incident.objects.create(kind="access")
    assert "1 incident acknowledged." in run_action(boss, "acknowledge", incident)
    incident.refresh_from_db()
    first = incident.acknowledged_at
    assert first is not None
    assert "0 incidents acknowledged." in run_action(boss, "acknowledge", incident)
    incident.refresh_from_db()
    assert incident.acknowledged_at == first


def test_a_user_with_view_permission_cannot_acknowledge_an_incident(db):
    viewer = User.objects.create_user("viewer", is_staff=True)
    viewer.user_permissions.set(Permission.objects.filter(codename__startswith="view_"))
    client = Client()
    client.force_login(viewer)
    incident = Incident.objects.create(kind="access")
    run_action(client, "acknowledge", incident)
    incident.refresh_from_db()
    assert incident.acknowledged_at is None


# Patients


def form_data(patient: Patient, **changes: object) -> dict[str, object]:
    """Return the form data of an unchanged patient, with `changes` applied."""
    return {
        "name": patient.name,
        "preferred_name": patient.preferred_name,
        "companion_name": patient.companion_name,
        "language": patient.language,
        "speech_rate": str(patient.speech_rate),
        "voice": patient.voice_id or "",
        "backup_voice": patient.backup_voice_id or "",
        "backup_policy": patient.backup_policy,
        "monthly_character_budget": "",
        "devices-TOTAL_FORMS": 0,
        "devices-INITIAL_FORMS": 0,
        **changes,
    }


def voices_offered(client: Client, patient: Patient, field: str = "voice") -> set[str]:
    page = get_text(client, admin_url(Patient, "change", patient.pk))
    (select,) = re.findall(rf'<select name="{field}".*?</select>', page, re.DOTALL)
    return set(re.findall(r'<option value="([^"]+)"', select))


def choose_default(client: Client, voice: Voice, language: str = "") -> str:
    url = admin_url(DefaultVoice, "add")
    return client.post(url, {"voice": voice.pk, "language": language}, follow=True).content.decode()


def test_an_administrator_chooses_a_default_voice_for_each_language(boss, settings):
    settings.DEFAULT_VOICE_ID = ""
    stock, refused = (Voice.objects.create(provider_id=name, name=name) for name in ("stock", "refused"))
    Voice.objects.filter(pk=refused.pk).update(refusal="refused")
    choose_default(boss, stock)
    choose_default(boss, refused, "de")
    assert (Voice.objects.default("en"), Voice.objects.default("de-AT")) == (stock, refused)
    assert "has a default voice already" in choose_default(boss, refused)
    rows = DefaultVoice.objects.values_list("language", "voice__name", "chosen_by")
    assert list(rows) == [("", "stock", "administrator"), ("de", "refused", "administrator")]


@pytest.mark.django_db(transaction=True)
def test_two_administrators_who_choose_at_the_same_time_get_an_error_in_the_form(boss):
    """The form of the second one is valid while the choice of the first one is not committed yet."""
    if connection.vendor != "postgresql":
        pytest.skip("SQLite has one writer at a time")
    voice = Voice.objects.create(provider_id="stock", name="stock")
    pages: list[str] = []

    def choose_in_thread() -> None:
        try:
            pages.append(choose_default(boss, voice, "de"))
        finally:
            connections.close_all()

    with transaction.atomic():
        DefaultVoice.objects.create(voice=voice, language="de")
        other = threading.Thread(target=choose_in_thread)
        other.start()
        until(is_waiting_for_a_lock)
    other.join(20)
    assert "has a default voice already" in pages[0]


def is_waiting_for_a_lock() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
        return bool(cursor.fetchone()[0])


def test_the_clone_of_a_patient_is_refused_as_a_default_voice(boss, alice):
    clone = Voice.objects.create(name="Clone", provider_id="c", source="cloned", patient=alice.patient)
    for voice in (clone, Voice.objects.create(name="Gone", provider_id="g", state="gone")):
        page = choose_default(boss, voice)
        assert "Choose a stock voice that can be used. The clone of a patient speaks to nobody else." in page
    assert not DefaultVoice.objects.exists()


def test_the_choice_of_a_default_voice_says_what_is_known_of_each(boss):
    facts = {"gender": "female", "age": "middle_aged", "accent": "irish", "languages": "en de"}
    voice = Voice.objects.create(name="Hazel", provider_id="h", ends_at=datetime(2126, 12, 31, 12, tzinfo=UTC), **facts)
    Voice.objects.create(name="Unknown", provider_id="u")
    page = get_text(boss, admin_url(DefaultVoice, "add"))
    known = "Hazel (Female, middle-aged, Irish; English, German; ends on 2126-12-31)"
    assert f'<option value="{voice.pk}">{known}</option>' in page
    assert ">Unknown</option>" in page


def test_the_list_of_default_voices_explains_their_order(boss, settings):
    voice = Voice.objects.create(name="Stock", provider_id="s")
    DefaultVoice.objects.create(voice=voice, language="de")
    settings.DEFAULT_VOICE_ID = ""
    page = get_text(boss, list_url(DefaultVoice))
    assert ">German</a>" in page
    assert "then the choice for every language" in page
    assert "DEFAULT_VOICE_ID" not in page
    settings.DEFAULT_VOICE_ID = "another"
    assert "DEFAULT_VOICE_ID is set" in get_text(boss, list_url(DefaultVoice))


def test_the_choice_of_the_server_cannot_be_edited(boss, settings):
    settings.DEFAULT_VOICE_ID = ""
    voice = Voice.objects.create(name="Stock", provider_id="s")
    assert Voice.objects.default() == voice
    (row,) = DefaultVoice.objects.all()
    page = get_text(boss, admin_url(DefaultVoice, "change", row.pk))
    assert 'name="voice"' not in page
    assert boss.post(admin_url(DefaultVoice, "delete", row.pk), {"post": "yes"}).status_code == 403


def languages_offered(client: Client, url: str) -> dict[str, str]:
    page = get_text(client, url)
    (select,) = re.findall(r'<select name="language".*?</select>', page, re.DOTALL)
    return dict(re.findall(r'<option value="([^"]+)"[^>]*>([^<]+)<', select))


def test_the_language_is_a_choice_of_the_list(boss, alice):
    for url in (
        admin_url(Patient, "add"),
        admin_url(Patient, "change", alice.patient.pk),
        admin_url(Phrase, "add"),
    ):
        offered = languages_offered(boss, url)
        assert set(offered) == set(LANGUAGES)
        assert offered["no"] == "Norwegian (no)"
        assert list(offered.values()) == sorted(offered.values())


def test_the_page_of_a_patient_says_that_their_language_has_no_greeting(boss, alice):
    url, add = admin_url(Patient, "change", alice.patient.pk), "/admin/tts/phrase/add/?language=fr&amp;kind=greeting"
    assert "English (en), has no phrases." in get_text(boss, url)
    Patient.objects.update(language="fr-CA")
    Phrase.objects.create(kind="common", language="fr", text="Je comprends.")
    page = get_text(boss, url)
    assert "French (fr), has no greeting." in page
    assert add in page
    Patient.objects.update(archived_at=timezone.now())
    assert "no greeting" not in get_text(boss, url)
    Patient.objects.update(archived_at=None)
    Phrase.objects.update(kind="greeting")
    assert "no greeting" not in get_text(boss, url)
    assert "no greeting" not in get_text(boss, admin_url(Patient, "add"))


@pytest.mark.parametrize(("language", "shown"), [("de-AT", "German (de-AT)"), ("German", "not in the list (German)")])
def test_a_language_from_earlier_times_stays_a_choice(boss, alice, language: str, shown: str):
    Patient.objects.filter(pk=alice.patient.pk).update(language=language)
    url = admin_url(Patient, "change", alice.patient.pk)
    assert languages_offered(boss, url)[language] == shown
    assert boss.post(url, form_data(Patient.objects.get(pk=alice.patient.pk), name="Alicia")).status_code == 302
    assert Patient.objects.values_list("name", "language").get(pk=alice.patient.pk) == ("Alicia", language)


@pytest.mark.parametrize("language", ["German", "xx", "", "en_GB"])
def test_the_admin_refuses_a_language_that_is_not_in_the_list(boss, alice, language: str):
    response = boss.post(admin_url(Patient, "change", alice.patient.pk), form_data(alice.patient, language=language))
    assert response.status_code == 200
    assert Patient.objects.get(pk=alice.patient.pk).language == "en"


def test_the_form_offers_usable_stock_voices_and_the_patients_own_clones(boss, alice, bob):
    stock = Voice.objects.create(name="Stock", provider_id="s")
    own = Voice.objects.create(name="Own", provider_id="o", source="cloned", patient=alice.patient)
    Voice.objects.create(name="Bob's", provider_id="b", source="cloned", patient=bob.patient)
    Voice.objects.create(name="Gone", provider_id="g", state="gone")
    default = Voice.objects.default()
    expected = {stock, own, default, alice.patient.voice}
    assert voices_offered(boss, alice.patient) == {str(voice.pk) for voice in expected}
    assert voices_offered(boss, alice.patient, "backup_voice") == {str(voice.pk) for voice in expected}


def test_the_clone_of_another_patient_is_refused(boss, alice, bob):
    foreign = Voice.objects.create(name="Bob's", provider_id="b", source="cloned", patient=bob.patient)
    response = boss.post(admin_url(Patient, "change", alice.patient.pk), form_data(alice.patient, voice=foreign.pk))
    assert response.status_code == 200
    alice.patient.refresh_from_db()
    assert alice.patient.voice != foreign


def test_each_choice_of_a_voice_has_a_player(boss, alice):
    page = get_text(boss, admin_url(Patient, "change", alice.patient.pk))
    players = re.findall(r"<audio [^>]*data-voice[^>]*>", page)
    assert [re.findall(r'data-voice="([^"]+)"', player) for player in players] == [["voice"], ["backup_voice"]]
    assert f'src="/admin/voices/{alice.patient.voice_id}/preview/"' in players[0]
    assert "hidden" in players[1]
    assert get_text(boss, admin_url(Patient, "add")).count("<audio ") == 2


def test_only_the_own_voice_needs_a_voice(boss, alice):
    url = admin_url(Patient, "change", alice.patient.pk)
    refused = boss.post(url, form_data(alice.patient, voice="", backup_policy="own_voice_only"))
    assert OWN_VOICE_NEEDED in refused.content.decode()
    assert boss.post(url, form_data(alice.patient, backup_policy="own_voice_only")).status_code == 302
    alice.patient.refresh_from_db()
    assert alice.patient.hears_own_voice_only
    assert OWN_VOICE_NEEDED in boss.post(url, form_data(alice.patient, voice="")).content.decode()
    Patient.objects.filter(pk=alice.patient.pk).update(voice=None)  # it was withdrawn
    alice.patient.refresh_from_db()
    assert boss.post(url, form_data(alice.patient, preferred_name="Al")).status_code == 302


def test_another_change_keeps_a_chosen_voice_that_is_gone(boss, alice):
    Voice.objects.filter(pk=alice.patient.voice_id).update(state="gone")
    response = boss.post(admin_url(Patient, "change", alice.patient.pk), form_data(alice.patient, preferred_name="Al"))
    assert response.status_code == 302
    changed = Patient.objects.get(pk=alice.patient.pk)
    assert (changed.preferred_name, changed.voice_id) == ("Al", alice.patient.voice_id)


def test_the_care_team_is_saved(boss, alice):
    carer = User.objects.create_user("carer")
    boss.post(admin_url(Patient, "change", alice.patient.pk), form_data(alice.patient, team=[carer.pk]))
    assert list(alice.patient.team.all()) == [carer]


def test_a_patient_is_added(boss, db):
    new = Patient(name="Carol Clark", companion_name="Max")
    assert boss.post(admin_url(Patient, "add"), form_data(new)).status_code == 302
    assert Patient.objects.get().companion_name == "Max"


def test_a_user_with_view_permission_sees_a_patient(alice):
    viewer = User.objects.create_user("viewer", is_staff=True)
    viewer.user_permissions.set(Permission.objects.filter(codename__startswith="view_"))
    client = Client()
    client.force_login(viewer)
    assert "Alice Archer" in get_text(client, admin_url(Patient, "change", alice.patient.pk))


def test_devices_of_an_archived_patient_are_refused_until_they_are_restored(boss, alice):
    assert "1 patient archived." in run_action(boss, "archive", alice.patient)
    assert authenticate_device(alice.token) is None
    assert "1 patient restored." in run_action(boss, "restore", alice.patient)
    assert authenticate_device(alice.token) == alice.device


# Devices


def shown_token(page: str) -> str | None:
    found = re.search(r"\b[0-9a-f]{8}\.[\w-]{40,}", page)
    return found and found.group()


def test_the_token_of_a_new_device_is_shown_once(boss, alice):
    added = boss.post(admin_url(Device, "add"), {"name": "Kitchen", "patient": alice.patient.pk}, follow=True)
    device = Device.objects.get(name="Kitchen")
    token = shown_token(added.content.decode())
    assert token is not None
    assert authenticate_device(token) == device
    for page in (
        list_url(Device),
        admin_url(Device, "change", device.pk),
        admin_url(Patient, "change", alice.patient.pk),
    ):
        assert shown_token(get_text(boss, page)) is None
        assert device.token_digest not in get_text(boss, page)


def test_renaming_a_device_keeps_its_token_and_its_epoch(boss, alice):
    page = admin_url(Device, "change", alice.device.pk)
    alice.device.register_connection()
    renamed = boss.post(page, {"name": "Window", "patient": alice.patient.pk}, follow=True)
    assert shown_token(renamed.content.decode()) is None
    device = Device.objects.get(pk=alice.device.pk)
    assert (device.name, device.epoch) == ("Window", 1)
    assert authenticate_device(alice.token) == device


def test_the_patient_of_a_device_cannot_be_changed(boss, alice, bob):
    boss.post(admin_url(Device, "change", alice.device.pk), {"name": "Window", "patient": bob.patient.pk})
    assert Device.objects.get(pk=alice.device.pk).patient == alice.patient


def test_a_revoked_device_is_refused_and_stays_listed(boss, alice):
    assert "1 device revoked." in run_action(boss, "revoke", alice.device)
    assert authenticate_device(alice.token) is None
    assert str(alice.device.pk) in get_text(boss, list_url(Device))
    revoked_at = Device.objects.get().revoked_at
    assert "0 devices revoked." in run_action(boss, "revoke", alice.device)
    assert Device.objects.get().revoked_at == revoked_at


def test_a_new_token_is_shown_once_and_replaces_the_old_token_and_its_connections(boss, alice):
    epoch = alice.device.register_connection()
    token = shown_token(run_action(boss, "renew_token", alice.device))
    assert token is not None
    assert authenticate_device(token) == alice.device
    assert authenticate_device(alice.token) is None
    assert Device.objects.get().epoch > epoch
    assert shown_token(get_text(boss, list_url(Device))) is None


def test_a_revoked_device_gets_no_new_token(boss, alice):
    run_action(boss, "revoke", alice.device)
    page = run_action(boss, "renew_token", alice.device)
    assert shown_token(page) is None
    assert "is revoked" in page


# Phrases


@pytest.mark.parametrize(
    ("kind", "text", "accepted"),
    [
        ("greeting", "Hello {patient_name}, this is {ai_name}.", True),
        ("greeting", "Hello.", True),
        ("greeting", "Hello {patient}.", False),
        ("greeting", "Hello {patient_name.", False),
        ("greeting", "Hello patient_name}.", False),
        ("greeting", "Hello {{patient_name}}.", False),
        ("greeting", "Hello {}.", False),
        ("common", "I see.", True),
        ("common", "I see, {patient_name}.", False),
    ],
)
def test_only_greetings_have_placeholders_and_only_known_ones(kind, text, accepted, boss):
    response = boss.post(admin_url(Phrase, "add"), {"kind": kind, "language": "en", "text": text})
    assert response.status_code == (302 if accepted else 200)
    assert Phrase.objects.exists() is accepted


def test_a_phrase_is_found_for_another_region_of_its_language(boss):
    boss.post(admin_url(Phrase, "add"), {"kind": "common", "language": "de-AT", "text": "Servus."})
    assert Phrase.objects.for_language("de-CH").get().text == "Servus."


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        ("greeting", "Hi.", "English has a greeting already: “Hello.” Change that one, or choose another kind."),
        ("holding", "Hi.", "English has a hold message already: “Hello.” Change that one, or choose another kind."),
        ("common", "Hello.", "already exists"),
    ],
)
def test_a_second_greeting_or_a_duplicate_phrase_is_explained(kind, text, message, boss):
    first = Phrase.objects.create(kind=kind, language="en", text="Hello.")
    page = boss.post(admin_url(Phrase, "add"), {"kind": kind, "language": "en", "text": text}).content.decode()
    assert message in page
    assert "Constraint" not in page
    same = {"kind": kind, "language": "en", "text": "Hello again."}
    assert boss.post(admin_url(Phrase, "change", first.pk), same).status_code == 302
    boss.post(admin_url(Phrase, "add"), {"kind": kind, "language": "de", "text": text})
    assert Phrase.objects.count() == 2


def test_the_form_of_a_phrase_explains_kinds_and_placeholders(boss):
    page = get_text(boss, admin_url(Phrase, "add"))
    assert re.search(r'<textarea name="text"[^>]* maxlength="300"', page)
    for words in ("{patient_name}", "{ai_name}", "at the start of a conversation", "wait for the quota"):
        assert words in page, words


def test_line_breaks_in_a_phrase_are_spaces(boss):
    boss.post(admin_url(Phrase, "add"), {"kind": "common", "language": "en", "text": " Tell me\r\nmore. "})
    assert Phrase.objects.get().text == "Tell me more."


def test_a_phrase_is_edited_and_deleted(boss):
    phrase = Phrase.objects.create(text="I see")
    boss.post(admin_url(Phrase, "change", phrase.pk), {"kind": "common", "language": "en", "text": "I see."})
    assert Phrase.objects.get().text == "I see."
    boss.post(admin_url(Phrase, "delete", phrase.pk), {"post": "yes"})
    assert not Phrase.objects.exists()


# Titles


def heading(client: Client, row: Model) -> str:
    page = get_text(client, admin_url(type(row), "change", row.pk))
    (subtitle,) = re.findall(r"<h2>([^<]+)</h2>", page)[:1]
    assert re.search(rf"&rsaquo; {re.escape(subtitle)}\s*</div>", page)
    return subtitle


def test_pages_have_titles_in_words(boss, history):
    history(1)
    conversation, utterance, clip = Conversation.objects.get(), Utterance.objects.get(), Clip.objects.get()
    job = CloneJob.objects.create(patient=conversation.patient, name="Anna", consent_by="Anna Archer")
    assert re.fullmatch(r"Patient 0, \d{4}-.*", heading(boss, conversation))
    assert re.fullmatch(r"To Patient 0, \d{4}-.*", heading(boss, utterance))
    assert heading(boss, clip) == "“Phrase 0” in the voice Clone 0"
    assert heading(boss, job) == "Anna, for Patient 0"
    for model, title in ((Voice, "Voices"), (Incident, "Incidents"), (CloneJob, "Voice clones")):
        assert f"<h1>{title}</h1>" in get_text(boss, list_url(model))
        assert f"<title>{title} | voicecare</title>" in re.sub(r"\s+", " ", get_text(boss, list_url(model)))


# Background tasks that the admin enqueues


@pytest.fixture
def post_and_list_tasks(django_capture_on_commit_callbacks) -> Iterator[Callable[..., list[tuple[str, ...]]]]:
    """Return a function that posts a form and returns the published tasks as (task name, *arguments)."""
    sent: queue.Queue[tuple[str, ...]] = queue.Queue()

    def receive(sender: str, body: Any, **_kwargs: object) -> None:
        sent.put((sender, *body[0]))

    def post(client: Client, url: str, data: dict[str, object]) -> list[tuple[str, ...]]:
        with django_capture_on_commit_callbacks(execute=True):
            assert client.post(url, data).status_code == 302
            task_queue.enqueue_on_commit("the last one")  # tasks are published in order, so this one is the last
        return list(iter(lambda: sent.get(timeout=10), ("the last one",)))

    before_task_publish.connect(receive, weak=False)
    yield post
    before_task_publish.disconnect(receive)


@pytest.mark.parametrize(
    ("change", "changes_audio"),
    [
        ({"name": "Alicia"}, True),
        ({"preferred_name": "Al"}, True),
        ({"companion_name": "Ann"}, True),
        ({"language": "de"}, True),
        ({"speech_rate": "0.90"}, True),
        ({"voice": ""}, True),
        ({"monthly_character_budget": 1000}, False),
        ({}, False),
    ],
)
def test_a_change_that_affects_the_audio_warms_the_patients_phrases(
    change, changes_audio, boss, alice, post_and_list_tasks
):
    done = post_and_list_tasks(boss, admin_url(Patient, "change", alice.patient.pk), form_data(alice.patient, **change))
    assert done == ([("tts.warm_patient", str(alice.patient.pk))] if changes_audio else [])


def test_a_new_patient_has_their_phrases_warmed(boss, alice, post_and_list_tasks):
    form = form_data(alice.patient, name="Dora")
    assert post_and_list_tasks(boss, admin_url(Patient, "add"), form) == [
        ("tts.warm_patient", str(Patient.objects.get(name="Dora").pk))
    ]


def test_a_saved_phrase_is_warmed_and_the_audio_of_a_deleted_one_is_removed(boss, post_and_list_tasks):
    form = {"kind": "common", "language": "en", "text": "I see."}
    assert post_and_list_tasks(boss, admin_url(Phrase, "add"), form)[0] == (
        "tts.warm_phrase",
        str(Phrase.objects.get().pk),
    )
    key = Phrase.objects.get().pk
    changed = post_and_list_tasks(boss, admin_url(Phrase, "change", key), {**form, "text": "I understand."})
    assert changed == [("tts.warm_phrase", str(key)), ("tts.remove_audio",)]
    assert post_and_list_tasks(boss, admin_url(Phrase, "delete", key), {"post": "yes"}) == [("tts.remove_audio",)]
    again = Phrase.objects.create(text="I see.")
    chosen = {"action": "delete_selected", "_selected_action": again.pk, "post": "yes"}
    assert post_and_list_tasks(boss, list_url(Phrase), chosen) == [("tts.remove_audio",)]
