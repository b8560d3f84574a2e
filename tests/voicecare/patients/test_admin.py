"""The admin pages of every model: they open, they show the right content, and they refuse forbidden changes."""

import queue
import re
import uuid
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from typing import Any

import pytest
from celery.signals import before_task_publish
from django.contrib import admin
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.db.models import Model
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from cloning.models import CloneJob
from tests.conftest import Member
from tts.models import Clip, Conversation, Phrase, Utterance
from usage.models import DailyUsage, Incident, ProviderState, Reconciliation, UsageEvent
from voicecare.core import task_queue
from voicecare.patients.authentication import authenticate_device
from voicecare.patients.models import Device, Patient, Voice

# Without DEBUG, whitenoise expects the output of `collectstatic`. A fresh checkout has none.
pytestmark = pytest.mark.filterwarnings("ignore:No directory at:UserWarning")

BANNER = "Sandbox voice provider: no account is used and nothing is billed"
SECRET_TEXT = "My left knee hurts again."
READ_ONLY_MODELS = (Conversation, Utterance, Clip, UsageEvent, DailyUsage, Reconciliation, ProviderState, Incident)
UNDELETABLE_MODELS = (Patient, Device, Voice)
OUR_MODELS = (*READ_ONLY_MODELS, *UNDELETABLE_MODELS, Phrase)


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
    """Run an admin action on these rows and return the HTML of the next page."""
    data = {"action": action, "_selected_action": [str(row.pk) for row in rows]}
    response = client.post(list_url(type(rows[0])), data, follow=True)
    assert response.status_code == 200
    return response.content.decode()


# Pages


def test_all_our_models_are_registered():
    ours = {model for model in admin.site._registry if model._meta.app_label in ("patients", "tts", "usage", "cloning")}
    assert ours == {*OUR_MODELS, CloneJob}  # tests/cloning/test_admin.py tests CloneJob


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
    assert get_text(boss, link).count(">say-") == 1


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
        "monthly_character_budget": "",
        "devices-TOTAL_FORMS": 0,
        "devices-INITIAL_FORMS": 0,
        **changes,
    }


def voices_offered(client: Client, patient: Patient) -> set[str]:
    page = get_text(client, admin_url(Patient, "change", patient.pk))
    (select,) = re.findall(r'<select name="voice".*?</select>', page, re.DOTALL)
    return set(re.findall(r'<option value="([^"]+)"', select))


def test_the_form_offers_usable_stock_voices_and_the_patients_own_clones(boss, alice, bob):
    stock = Voice.objects.create(name="Stock", provider_id="s")
    own = Voice.objects.create(name="Own", provider_id="o", source="cloned", patient=alice.patient)
    Voice.objects.create(name="Bob's", provider_id="b", source="cloned", patient=bob.patient)
    Voice.objects.create(name="Gone", provider_id="g", state="gone")
    default = Voice.objects.default()
    expected = {stock, own, default, alice.patient.voice}
    assert voices_offered(boss, alice.patient) == {str(voice.pk) for voice in expected}


def test_the_clone_of_another_patient_is_refused(boss, alice, bob):
    foreign = Voice.objects.create(name="Bob's", provider_id="b", source="cloned", patient=bob.patient)
    response = boss.post(admin_url(Patient, "change", alice.patient.pk), form_data(alice.patient, voice=foreign.pk))
    assert response.status_code == 200
    alice.patient.refresh_from_db()
    assert alice.patient.voice != foreign


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


def test_devices_of_an_archived_patient_are_refused_until_it_is_unarchived(boss, alice):
    assert "1 patient archived." in run_action(boss, "archive", alice.patient)
    assert authenticate_device(alice.token) is None
    assert "1 patient unarchived." in run_action(boss, "unarchive", alice.patient)
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
    token = shown_token(run_action(boss, "renew_tokens", alice.device))
    assert token is not None
    assert authenticate_device(token) == alice.device
    assert authenticate_device(alice.token) is None
    assert Device.objects.get().epoch > epoch
    assert shown_token(get_text(boss, list_url(Device))) is None


def test_a_revoked_device_gets_no_new_token(boss, alice):
    run_action(boss, "revoke", alice.device)
    page = run_action(boss, "renew_tokens", alice.device)
    assert shown_token(page) is None
    assert "is revoked" in page


# Voices


def test_a_stock_voice_is_added_by_its_id(boss, db):
    assert boss.post(admin_url(Voice, "add"), {"name": "Lily", "provider_id": "lily-id"}).status_code == 302
    voice = Voice.objects.get()
    assert (voice.source, voice.state, voice.patient) == ("stock", "usable", None)


def test_the_provider_id_of_a_voice_cannot_be_changed(boss, db):
    voice = Voice.objects.default()
    boss.post(admin_url(Voice, "change", voice.pk), {"name": "Rachel", "provider_id": "other", "state": "gone"})
    changed = Voice.objects.get()
    assert (changed.name, changed.provider_id, changed.state) == ("Rachel", voice.provider_id, "usable")


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


@pytest.mark.parametrize("kind", ["greeting", "common"])
def test_a_second_greeting_or_a_duplicate_phrase_is_a_form_error(kind, boss):
    Phrase.objects.create(kind=kind, language="en", text="Hello.")
    response = boss.post(admin_url(Phrase, "add"), {"kind": kind, "language": "en", "text": "Hello."})
    assert "errornote" in response.content.decode()


def test_a_phrase_is_edited_and_deleted(boss):
    phrase = Phrase.objects.create(text="I see")
    boss.post(admin_url(Phrase, "change", phrase.pk), {"kind": "common", "language": "en", "text": "I see."})
    assert Phrase.objects.get().text == "I see."
    boss.post(admin_url(Phrase, "delete", phrase.pk), {"post": "yes"})
    assert not Phrase.objects.exists()


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
