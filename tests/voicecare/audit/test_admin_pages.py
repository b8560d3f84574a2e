"""Every form, action and button of the admin leaves exactly one entry. A new one needs an example here."""

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.contrib import admin
from django.contrib.auth.models import Group, User
from django.core.files.base import ContentFile
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db.models import Model
from django.forms import MultiWidget
from django.test import Client, RequestFactory
from django.urls import URLPattern, reverse
from django.utils import timezone
from django_otp.plugins.otp_totp.models import TOTPDevice
from pytest_django import Settings

from cloning.models import CloneJob, sample_storage
from tests.cloning.samples import recordings
from tests.conftest import OTHER_VOICE, Member
from tests.sandbox import SandboxProcess
from tests.voicecare.admin.test_two_factor import set_up
from tts.models import LexiconEntry, Phrase, Utterance
from tts.text.digest import text_digest
from usage.ledger.events import Attempt, record_attempts
from usage.models import Incident, NotificationChannel, Price, UsageEvent
from voicecare.accounts import tokens
from voicecare.accounts.models import ApiToken, ProviderIdentity, SecondFactor
from voicecare.audit.models import AuditEntry
from voicecare.infrastructure.storages import private_file_storage
from voicecare.patients.models import Clinic, DefaultVoice, Device, Patient, Voice
from voicecare.webhooks.events import emit_test
from voicecare.webhooks.models import WebhookDelivery, WebhookEndpoint

pytestmark = pytest.mark.django_db
PASSWORD = "correct horse battery"
GENERIC = {"changelist", "add", "history", "delete", "change"}


@pytest.fixture(autouse=True)
def surroundings(settings: Settings, sandbox: SandboxProcess, tmp_path: Path) -> None:
    settings.ELEVENLABS_BASE_URL = sandbox.url
    settings.STORAGES = {**settings.STORAGES, "samples": private_file_storage(tmp_path)}
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture
def boss() -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("boss", password=PASSWORD))
    return client


# Rows


def clone_of(member: Member) -> CloneJob:
    return CloneJob.objects.create(
        patient=member.patient,
        name="Anna",
        sample=sample_storage().save("anna", ContentFile(b"ID3 a recording")),
        sample_digest="x",
        content_type="audio/mpeg",
        consent_by="Anna Archer",
        consent_wording="2026-11",
        status=CloneJob.Status.FAILED,
        error_code="rejected",
        ended_at=timezone.now(),
    )


def stock_voice(member: Member) -> Voice:
    voice = member.patient.voice
    assert voice is not None
    return voice


def second_factor(member: Member) -> SecondFactor:
    TOTPDevice.objects.create(user=User.objects.create_user("carol"), key="00" * 20)
    return SecondFactor.objects.get()


def api_token(member: Member) -> ApiToken:
    token = ApiToken(name="Ward screens", owner=User.objects.create_user("carol"))
    tokens.issue(token)
    return token


def endpoint(member: Member) -> WebhookEndpoint:
    return WebhookEndpoint.objects.create(url="https://records.example.org/", secret=WebhookEndpoint().new_secret())


def failed_delivery(member: Member) -> WebhookDelivery:
    delivery = emit_test(endpoint(member))
    delivery.status = WebhookDelivery.Status.FAILED
    delivery.save()
    return delivery


ROWS: dict[type[Model], Callable[[Member], Model]] = {
    ApiToken: api_token,
    Clinic: lambda member: Clinic.objects.create(name="Ward 3"),
    CloneJob: clone_of,
    DefaultVoice: lambda member: DefaultVoice.objects.create(
        language="de", voice=stock_voice(member), chosen_by="administrator", chosen_at=timezone.now()
    ),
    Device: lambda member: member.device,
    Group: lambda member: Group.objects.create(name="Night shift"),
    LexiconEntry: lambda member: LexiconEntry.objects.create(written="Metformin", spoken="met for min"),
    Incident: lambda member: Incident.objects.create(kind="request"),
    NotificationChannel: lambda member: NotificationChannel.objects.create(name="On call", url="json://127.0.0.1:1"),
    Patient: lambda member: member.patient,
    Phrase: lambda member: Phrase.objects.create(kind="common", language="en", text="I see."),
    ProviderIdentity: lambda member: ProviderIdentity.objects.create(
        user=User.objects.create_user("carol"), issuer="https://login.example.org", subject="1"
    ),
    Price: lambda member: Price.objects.create(valid_from="2026-11-01", per_1000_credits="0.1"),
    SecondFactor: second_factor,
    User: lambda member: User.objects.create_user("carol"),
    Voice: stock_voice,
    WebhookDelivery: failed_delivery,
    WebhookEndpoint: endpoint,
}

# Forms and actions


def allowed(permission: str) -> list[type[Model]]:
    request = RequestFactory().get("/")
    request.user = User(is_superuser=True, is_active=True, is_staff=True)
    found = [
        model for model, page in admin.site._registry.items() if getattr(page, f"has_{permission}_permission")(request)
    ]
    return sorted(found, key=lambda model: model.__name__)


def actions() -> Iterator[tuple[type[Model], str]]:
    deletable = allowed("delete")
    for model, page in admin.site._registry.items():
        for name in [*(page.actions or ()), *(["delete_selected"] if model in deletable else [])]:
            yield model, str(name)


def url_of(model: type[Model], page: str, *ids: object) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{page}", args=ids)


def sent_again(page: Any) -> dict[str, Any]:
    """Return the values of the forms of a page, as a browser sends them."""
    forms = [page.context["adminform"].form]
    for inline in page.context["inline_admin_formsets"]:
        forms += [inline.formset.management_form, *inline.formset.forms]
    data: dict[str, Any] = {}
    for form in forms:
        for bound in form:
            value, widget = bound.value(), bound.field.widget
            if isinstance(widget, MultiWidget):
                data |= {f"{bound.html_name}_{place}": part for place, part in enumerate(widget.decompress(value))}
            else:
                data[bound.html_name] = value
    return {name: value for name, value in data.items() if value is not None}


ADDED: dict[type[Model], dict[str, str]] = {
    ApiToken: {"name": "Ward screens"},
    Clinic: {"name": "Ward 3"},
    DefaultVoice: {"language": "de"},
    Device: {"name": "Tablet"},
    Group: {"name": "Day shift"},
    LexiconEntry: {"written": "Metoprolol", "spoken": "meto pro lol"},
    NotificationChannel: {"name": "Second on call", "url": "json://127.0.0.1:1"},
    Patient: {"name": "Zoe Zimmer", "companion_name": "Clara"},
    Phrase: {"kind": "common", "language": "en", "text": "Tell me more."},
    Price: {"valid_from": "2026-11-01", "per_1000_credits": "0.2"},
    WebhookEndpoint: {"url": "https://records.example.org/"},
    User: {"username": "dora", "password1": PASSWORD, "password2": PASSWORD},
}
WITH_OWN_ADD_PAGE = {CloneJob, Voice}  # see `PAGES`


@pytest.mark.parametrize("model", [model for model in allowed("add") if model not in WITH_OWN_ADD_PAGE])
def test_a_form_that_adds(model: type[Model], boss: Client, alice: Member):
    url = url_of(model, "add")
    page = boss.get(url)
    ids = {"patient": alice.patient.pk, "voice": stock_voice(alice).pk, "owner": User.objects.get(username="boss").pk}
    needed = page.context["adminform"].form.fields.keys() & ids.keys() if model is not Patient else ()
    form = {**sent_again(page), **{name: str(ids[name]) for name in needed}, **ADDED[model]}
    assert boss.post(url, form).status_code in (200, 302)
    assert_one_entry("add", model)


@pytest.mark.parametrize("model", allowed("change"))
def test_a_form_that_changes(model: type[Model], boss: Client, alice: Member):
    row = ROWS[model](alice)
    url = url_of(model, "change", row.pk)
    assert boss.post(url, sent_again(boss.get(url))).status_code == 302
    assert_one_entry("change", model, row)


@pytest.mark.parametrize("model", allowed("delete"))
def test_a_form_that_deletes(model: type[Model], boss: Client, alice: Member):
    row = ROWS[model](alice)
    key = row.pk
    assert boss.post(url_of(model, "delete", key), {"post": "yes"}).status_code == 302
    row.pk = key
    assert_one_entry("delete", model, row)


def replaces_the_voice(job: CloneJob) -> None:
    job.voice = Voice.objects.create(name="Anna", provider_id="anna", source="cloned", patient=job.patient)
    job.save()
    Patient.objects.filter(pk=job.patient_id).update(voice=job.voice)


PREPARED: dict[str, Callable[[Any], object]] = {  # what has to be true of a row, so that the action changes something
    "clear_refusal": lambda voice: Voice.objects.filter(pk=voice.pk).update(refusal="refused"),
    "restore": lambda patient: Patient.objects.filter(pk=patient.pk).update(archived_at=timezone.now()),
    "revert": replaces_the_voice,
}


@pytest.mark.parametrize(("model", "action"), sorted(actions(), key=str))
def test_an_action(model: type[Model], action: str, boss: Client, alice: Member):
    row = ROWS[model](alice)
    PREPARED.get(action, lambda row: None)(row)
    sent = {"action": action, "_selected_action": str(row.pk), "post": "yes", "confirmed": "yes"}
    boss.post(url_of(model, "changelist"), sent)
    assert_one_entry("delete" if action == "delete_selected" else action, model, row)


@pytest.mark.parametrize(
    ("model", "action"), [(Incident, "resolve"), (Patient, "restore"), (CloneJob, "revert"), (Voice, "clear_refusal")]
)
def test_an_action_that_leaves_a_row_alone_leaves_no_entry(
    model: type[Model], action: str, boss: Client, alice: Member
):
    row = Incident.objects.create(kind="budget", key=str(alice.patient.pk)) if model is Incident else ROWS[model](alice)
    boss.post(url_of(model, "changelist"), {"action": action, "_selected_action": str(row.pk)})
    assert not AuditEntry.objects.exists()


def assert_one_entry(action: str, model: type[Model] | None = None, row: Model | None = None) -> None:
    entry = AuditEntry.objects.get()
    assert (entry.action, entry.source, entry.user_name) == (action, "admin", "boss")
    if model is not None:
        assert entry.object_type == model._meta.label_lower
    if row is not None and not isinstance(row.pk, str):
        assert entry.object_id == str(row.pk)
    if isinstance(row, Patient | Device | CloneJob):
        assert entry.patient_id == (row.pk if isinstance(row, Patient) else row.patient_id)


# Pages of their own


def test_every_page_of_its_own_is_known():
    """A new page that writes needs an example in `PAGES`, and one that only shows something a place in `SHOWING`."""
    patterns = [pattern for page in admin.site._registry.values() for pattern in page.get_urls()]
    names = {
        pattern.name
        for pattern in [*patterns, *admin.site.get_urls()]
        if isinstance(pattern, URLPattern) and pattern.name
    }
    generic = {name for name in names if name.rpartition("_")[2] in GENERIC and "password" not in name}
    assert names - generic == {*PAGES, *SHOWING, *TESTED_ELSEWHERE}


def erase(boss: Client, alice: Member) -> Any:
    return boss.post(reverse("admin:patient-erase", args=[alice.patient.pk]), {"name": alice.patient.name})


def undo_erasure(boss: Client, alice: Member) -> Any:
    Patient.objects.update(erases_at=timezone.now() + timezone.timedelta(days=1))
    return boss.post(reverse("admin:patient-undo-erasure", args=[alice.patient.pk]))


def change_password(boss: Client, alice: Member) -> Any:
    new = "battery horse correct"
    form = {"old_password": PASSWORD, "new_password1": new, "new_password2": new}
    return boss.post(reverse("admin:password_change"), form)


def play(boss: Client, alice: Member) -> Any:
    return boss.get(reverse("admin:cloning_clonejob_sample", args=[clone_of(alice).pk]))


def log_in(boss: Client, alice: Member) -> Any:
    return Client().post(reverse("admin:login"), {"username": "boss", "password": PASSWORD})


def turn_on_two_factor(boss: Client, alice: Member) -> Any:
    set_up(boss)
    return boss.get("/admin/")


def upload(boss: Client, alice: Member) -> Any:
    sample = SimpleUploadedFile("anna.mp3", recordings.encoded(recordings.speech(62), "libmp3lame"))
    form = {"patient": alice.patient.pk, "name": "Anna", "consent_by": "Anna Archer", "consent": "on", "sample": sample}
    return boss.post("/admin/cloning/clonejob/add/", form)


def add_voice(boss: Client, alice: Member) -> Any:
    Patient.objects.update(voice=None)
    Voice.objects.filter(provider_id=OTHER_VOICE).delete()
    return boss.post("/admin/patients/voice/add/", {"provider_id": OTHER_VOICE})


def respond_to_incident(boss: Client, alice: Member) -> Any:
    incident = Incident.objects.create(kind="quota")
    return boss.post(reverse("admin:usage_incident_respond", args=[incident.pk]), {"action": "acknowledge"})


def say(boss: Client, alice: Member) -> Any:
    form = {"text": "Lunch is ready.", "expires_in_s": "900", "key": str(uuid.uuid4())}
    return boss.post(reverse("admin:patient-say", args=[alice.patient.pk]), form)


def archive(boss: Client, alice: Member) -> Any:
    return boss.post(reverse("admin:patient-archive", args=[alice.patient.pk]))


def restore(boss: Client, alice: Member) -> Any:
    Patient.objects.update(archived_at=timezone.now())
    return boss.post(reverse("admin:patient-restore", args=[alice.patient.pk]))


def renew_token(boss: Client, alice: Member) -> Any:
    return boss.post(reverse("admin:device-renew-token", args=[alice.device.pk]))


def revoke(boss: Client, alice: Member) -> Any:
    return boss.post(reverse("admin:device-revoke", args=[alice.device.pk]))


def make_missing(boss: Client, alice: Member) -> Any:
    return boss.post(reverse("admin:tts_phrase_coverage_make"))


def accept_suggestion(boss: Client, alice: Member) -> Any:
    text = "It is time for your tablets, and for a glass of water."
    for number in range(20):
        message = Utterance.objects.create(patient=alice.patient, origin="server", text=text, state="heard")
        attempt = Attempt(message.pk, 0, 1, "live", len(text), patient_id=alice.patient.pk)
        attempt.text_digest = text_digest(text, "en", settings.PHRASE_SECRET)
        attempt.mark_answered(f"request {number}", len(text))
        record_attempts([attempt])
    page = reverse("admin:tts_phrase_suggestion", args=[UsageEvent.objects.earliest("started_at").pk])
    return boss.post(page, {"confirmed": "on"})


PAGES: dict[str, tuple[str, Callable[[Client, Member], Any]]] = {
    "patient-erase": ("erase", erase),
    "patient-undo-erasure": ("undo_erasure", undo_erasure),
    "patient-say": ("speak", say),
    "patient-archive": ("archive", archive),
    "patient-restore": ("restore", restore),
    "device-renew-token": ("renew_token", renew_token),
    "device-revoke": ("revoke", revoke),
    "tts_phrase_coverage_make": ("make_missing", make_missing),
    "tts_phrase_suggestion": ("add", accept_suggestion),
    "patients_voice_sync": ("sync", lambda boss, alice: boss.post(reverse("admin:patients_voice_sync"))),
    "cloning_clonejob_sample": ("play_recording", play),
    "usage_notificationchannel_test": (
        "send_test_alert",
        lambda boss, alice: boss.post(reverse("admin:usage_notificationchannel_test")),
    ),
    "webhook-renew-secret": (
        "renew_secret",
        lambda boss, alice: boss.post(reverse("admin:webhook-renew-secret", args=[endpoint(alice).pk])),
    ),
    "webhook-test": (
        "send_test_event",
        lambda boss, alice: boss.post(reverse("admin:webhook-test", args=[endpoint(alice).pk])),
    ),
    "usage_incident_respond": ("acknowledge", respond_to_incident),
    "password_change": ("change", change_password),
    "login": ("log_in", log_in),
    "logout": ("log_out", lambda boss, alice: boss.post(reverse("admin:logout"))),
    "two-factor": ("turn_on_two_factor", turn_on_two_factor),
}
OWN_ADD_PAGES = {"clone": ("add", upload), "voice": ("add", add_voice)}
SHOWING = {
    *("index", "password_change_done", "autocomplete", "jsi18n", "app_list"),
    *("system-health", "models", "live", "statement", "statement-csv", "usage-csv"),
    *("patient-usage", "patient-live", "patient-usage-csv", "tts_phrase_coverage", "tts_phrase_coverage_progress"),
    "tts_phrase_suggestions",
    *("password-reset", "password-reset-done", "password-reset-complete", "oidc", "oidc-code"),
}
TESTED_ELSEWHERE = {
    "audit-csv",
    "tts_lexiconentry_listen",
    "auth_user_password_change",
    "password-reset-confirm",
    "oidc-callback",
    "patients_voice_sample",
    "models-trial",
}


@pytest.mark.parametrize(("action", "work"), [*PAGES.values(), *OWN_ADD_PAGES.values()], ids=[*PAGES, *OWN_ADD_PAGES])
def test_a_page_of_its_own(action: str, work: Callable[[Client, Member], Any], boss: Client, alice: Member):
    assert work(boss, alice).status_code in (200, 302)
    assert_one_entry(action)


def test_the_password_of_another_user(boss: Client):
    user = User.objects.create_user("carol", password=PASSWORD)
    form = {"password1": "battery horse correct", "password2": "battery horse correct", "usable_password": "true"}
    assert boss.post(reverse("admin:auth_user_password_change", args=[user.pk]), form).status_code == 302
    assert_one_entry("change", User, user)
