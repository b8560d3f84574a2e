"""The admin of voices: list, filters, "Sync now", samples, details, and a voice that is added by its id."""

import re
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import Settings

from tests.cloning import at_provider
from tests.cloning.admin.test_clones import page, staff_client
from tests.conftest import OTHER_VOICE, Member
from tests.sandbox import SandboxProcess
from voicecare.audit.models import AuditEntry
from voicecare.patients.models import DefaultVoice, Patient, Voice

pytestmark = pytest.mark.django_db
LIST = "/admin/patients/voice/"
SYNC, ADD = f"{LIST}sync/", f"{LIST}add/"
HAZEL = {
    "provider_id": "hazel-id",
    "name": "Hazel",
    "category": "professional",
    "languages": "en de",
    "gender": "female",
    "age": "middle_aged",
    "accent": "irish",
    "description": "A warm voice.",
}


@pytest.fixture
def boss(admin_client: Client) -> Client:
    return admin_client


@pytest.fixture(autouse=True)
def choosable_default(settings: Settings) -> None:
    settings.DEFAULT_VOICE_ID = ""


@pytest.fixture
def hazel(db: None) -> Voice:
    return Voice.objects.create(**HAZEL)


def row_of(text: str, voice: Voice) -> str:
    """The words of the row of this voice in the list, without tags."""
    (row,) = [row for row in re.findall(r"<tr>.*?</tr>", text, re.DOTALL) if str(voice.pk) in row]
    return " ".join(re.sub(r"<[^>]+>", " ", row).split())


def shown(client: Client, **query: str) -> set[str]:
    """The names of the voices in the list."""
    text = client.get(LIST, query).content.decode()
    return set(re.findall(r'<th class="field-name">\s*<a [^>]*>\s*([^<]+?)\s*<', text))


# List


def test_a_row_says_everything_in_words(boss: Client, hazel: Voice, alice: Member, bob: Member):
    DefaultVoice.objects.create(voice=hazel)
    row = row_of(page(boss, LIST), hazel)
    assert row == "Hazel Default English, German Female, middle-aged, Irish Stock voice 1"
    Patient.objects.update(voice=hazel)
    assert row_of(page(boss, LIST), hazel).endswith("Stock voice 2")
    assert "hazel-id" not in page(boss, LIST)


def test_badges_say_the_default_languages_the_end_and_that_a_voice_is_gone(boss: Client, hazel: Voice):
    other = Voice.objects.create(provider_id="other", name="Other")
    DefaultVoice.objects.create(voice=other)
    DefaultVoice.objects.create(voice=hazel, language="de")
    assert "Hazel Default for German" in row_of(page(boss, LIST), hazel)
    Voice.objects.filter(pk=hazel.pk).update(ends_at=datetime(2126, 12, 31, 12, tzinfo=UTC))
    assert "Hazel Default for German Ends on 2126-12-31" in row_of(page(boss, LIST), hazel)
    Voice.objects.filter(pk=hazel.pk).update(state="gone")
    assert row_of(page(boss, LIST), hazel).startswith("Hazel Gone English")
    Voice.objects.filter(pk=other.pk).update(refusal="refused")
    assert row_of(page(boss, LIST), other).startswith("Other Default Refused -")  # there is no better one


def test_a_clone_names_its_patient(boss: Client, alice: Member):
    clone = Voice.objects.create(provider_id="c", name="Anna", source="cloned", patient=alice.patient)
    assert "Clone for Alice Archer" in row_of(page(boss, LIST), clone)


def test_the_filters_find_voices_in_plain_words(boss: Client, hazel: Voice, alice: Member):
    Patient.objects.update(voice=None)
    Voice.objects.exclude(pk=hazel.pk).delete()
    Voice.objects.create(provider_id="g", name="Gone", state="gone", languages="fr", gender="male")
    Voice.objects.create(provider_id="e", name="Ending", ends_at=datetime(2126, 1, 1, tzinfo=UTC), accent="scottish")
    Voice.objects.create(provider_id="r", name="Refused", refusal="refused", languages="fr en it", age="old")
    Voice.objects.create(provider_id="c", name="Anna", source="cloned", patient=alice.patient, state="withdrawn")
    assert shown(boss) == {"Hazel", "Gone", "Ending", "Refused", "Anna"}
    assert shown(boss, status="usable") == {"Hazel", "Ending"}
    assert shown(boss, status="ends") == {"Ending"}
    assert shown(boss, status="refused") == {"Refused"}
    assert shown(boss, status="gone") == {"Gone"}
    assert shown(boss, status="withdrawn") == {"Anna"}
    assert shown(boss, source="cloned") == {"Anna"}
    assert shown(boss, language="en") == {"Hazel", "Refused"}
    assert shown(boss, language="fr") == {"Gone", "Refused"}
    assert shown(boss, gender="male") == {"Gone"}
    assert shown(boss, age="old") == {"Refused"}
    assert shown(boss, accent="scottish") == {"Ending"}
    assert shown(boss, q="haz") == {"Hazel"}
    assert "Middle aged" in page(boss, LIST)


def test_lost_voices_can_be_marked_by_hand(boss: Client, hazel: Voice):
    withdrawn = Voice.objects.create(provider_id="w", name="w", state="withdrawn")
    assert "1 voice marked as gone." in act(boss, "mark_gone", hazel, withdrawn)
    assert set(Voice.objects.values_list("name", "state")) == {("Hazel", "gone"), ("w", "withdrawn")}


def test_refused_voices_are_used_again_after_the_action(boss: Client, hazel: Voice):
    Voice.objects.update(refusal="refused")
    assert "1 voice is used again." in act(boss, "clear_refusal", hazel)
    assert not Voice.objects.exclude(refusal="").exists()


def act(client: Client, action: str, *voices: Voice) -> str:
    data = {"action": action, "_selected_action": [str(voice.pk) for voice in voices]}
    text: str = client.post(LIST, data, follow=True).content.decode()
    return text


# Sync now


def sync(client: Client) -> str:
    text: str = client.post(SYNC, follow=True).content.decode()
    return text


def test_sync_now_says_what_has_changed(boss: Client, provider: SandboxProcess):
    assert f'action="{SYNC}"' in page(boss, LIST)
    assert re.search(r"from the provider: \d+ voices added\.", sync(boss))
    assert "from the provider: nothing has changed." in sync(boss)
    provider.add_voice("Greta")
    provider.retire_voice(OTHER_VOICE)
    assert "from the provider: 1 voice added, 1 voice gone." in sync(boss)
    assert Voice.objects.get(provider_id=OTHER_VOICE).state == "gone"


def test_sync_now_says_errors_in_words(boss: Client, provider: SandboxProcess, settings: Settings):
    provider.settings(api_key="another key")
    assert "could not be read. The speech provider refuses the API key. Check ELEVENLABS_API_KEY." in sync(boss)
    settings.ELEVENLABS_BASE_URL = "http://127.0.0.1:1"
    assert "could not be read. The speech provider could not be reached. Try again later." in sync(boss)
    assert not Voice.objects.exists()


def test_sync_now_warns_of_the_key_of_another_workspace(boss: Client, provider: SandboxProcess):
    for number in range(3):
        Voice.objects.create(provider_id=f"elsewhere-{number}", name=f"Voice {number}")
    provider.settings(premade_voices=False)
    assert "The API key may belong to another workspace." in sync(boss)
    assert Voice.objects.filter(state="usable").count() == 3


def test_sync_now_needs_a_post_with_a_token_and_the_permission(provider: SandboxProcess, boss: Client):
    assert boss.get(SYNC).status_code == 405
    strict = Client(enforce_csrf_checks=True)
    strict.cookies = boss.cookies
    assert strict.post(SYNC).status_code == 403
    viewer = staff_client("view_voice")
    assert viewer.post(SYNC).status_code == 403
    assert "Sync now" not in page(viewer, LIST)
    assert not Voice.objects.exists()


# Added by its id


def add(client: Client, provider_id: str, **more: str) -> Any:
    return client.post(ADD, {"provider_id": provider_id, "_save": "Check and add", **more}, follow=True)


def test_a_voice_is_checked_and_added_by_its_id(boss: Client, provider: SandboxProcess):
    text = add(boss, f" {OTHER_VOICE} ").content.decode()
    assert "was added successfully" in text
    voice = Voice.objects.get()
    assert (voice.name, voice.source, voice.state, voice.gender) == ("Sarah", "stock", "usable", "female")
    entry = AuditEntry.objects.get()
    assert (entry.action, entry.object_type, entry.object_id) == ("add", "patients.voice", str(voice.pk))


def test_the_message_of_a_refused_id_is_beside_the_field(boss: Client, provider: SandboxProcess, alice: Member):
    before = Voice.objects.count()
    assert "no voice with this id" in add(boss, "totally-wrong").content.decode()
    assert "clone of a person" in add(boss, at_provider.add(provider, "Elsewhere")).content.decode()
    assert "This field is required" in add(boss, " ").content.decode()
    assert Voice.objects.count() == before
    assert not AuditEntry.objects.exists()


def test_a_voice_added_in_a_popup_is_chosen_in_the_form_behind_it(boss: Client, provider: SandboxProcess):
    assert 'name="_popup"' in page(boss, f"{ADD}?_popup=1")
    response = add(boss, OTHER_VOICE, _popup="1")
    assert str(Voice.objects.get().pk) in response.content.decode()
    assert "popup_response" in response.content.decode()


def test_adding_needs_the_permission(provider: SandboxProcess):
    viewer = staff_client("view_voice")
    assert viewer.get(ADD).status_code == 403
    assert add(viewer, OTHER_VOICE).status_code == 403
    assert not Voice.objects.exists()


# Details


def test_internals_are_collapsed_and_the_name_of_a_stock_voice_is_the_providers(
    boss: Client, hazel: Voice, alice: Member
):
    text = page(boss, f"{LIST}{hazel.pk}/change/")
    before, internals = text.split("Internals", 1)
    assert "hazel-id" in internals
    assert "hazel-id" not in before
    assert "A warm voice." in before
    assert 'name="name"' not in text
    clone = Voice.objects.create(provider_id="c", name="Anna", source="cloned", patient=alice.patient)
    url = f"{LIST}{clone.pk}/change/"
    assert 'name="name"' in page(boss, url)
    boss.post(url, {"name": "Anna, her daughter", "provider_id": "other", "state": "gone", "successor": ""})
    clone.refresh_from_db()
    assert (clone.name, clone.provider_id, clone.state) == ("Anna, her daughter", "c", "usable")


def test_a_voice_that_the_provider_may_not_have_cannot_be_chosen_as_a_successor(boss: Client, hazel: Voice):
    """A wrong DEFAULT_VOICE_ID has a row that was never read."""
    read = Voice.objects.create(provider_id="r", name="Rose", read_at=timezone.now())
    Voice.objects.create(provider_id="typo", name="Default")
    text = page(boss, f"{LIST}{hazel.pk}/change/")
    (select,) = re.findall(r'<select name="successor".*?</select>', text, re.DOTALL)
    assert re.findall(r'<option value="([^"]+)"', select) == [str(read.pk)]


# Samples


class _SampleHost(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(404 if self.path == "/missing.mp3" else 200)
        self.send_header("Content-Type", "audio/mpeg")
        self.end_headers()
        self.wfile.write(b"ID3 a sample")

    def log_message(self, format: str, *args: object) -> None:
        """Prints nothing."""


@pytest.fixture
def sample_host(settings: Settings) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _SampleHost) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        settings.ELEVENLABS_BASE_URL = f"http://127.0.0.1:{server.server_port}"
        yield settings.ELEVENLABS_BASE_URL
        server.shutdown()
        thread.join()


def sample_url(voice: Voice) -> str:
    return reverse("admin:patients_voice_sample", args=[voice.pk])


def preview_url(voice: Voice) -> str:
    return reverse("admin-voice-preview", args=[voice.pk])


def test_the_providers_sample_is_played_through_this_server(boss: Client, hazel: Voice, sample_host: str):
    Voice.objects.update(preview_url=f"{sample_host}/hazel.mp3")
    text = page(boss, LIST)
    assert f'preload="none" src="{sample_url(hazel)}"' in text
    assert sample_host not in text
    response = boss.get(sample_url(hazel))
    assert (response.content, response["Content-Type"]) == (b"ID3 a sample", "audio/mpeg")
    assert response["Cache-Control"].startswith("private")
    part = boss.get(sample_url(hazel), headers={"Range": "bytes=4-"})
    assert (part.status_code, part.content) == (206, b"a sample")
    entries = AuditEntry.objects.filter(action="play_preview").values_list("object_type", "object_id")
    assert list(entries) == [("patients.voice", str(hazel.pk))] * 2


def test_without_a_sample_this_server_speaks(boss: Client, hazel: Voice, sample_host: str):
    assert f'src="{preview_url(hazel)}"' in page(boss, LIST)
    assert boss.get(sample_url(hazel)).status_code == 404
    Voice.objects.update(preview_url=f"{sample_host}/missing.mp3")
    response = boss.get(sample_url(hazel))
    assert (response.status_code, response["Location"]) == (302, preview_url(hazel))


@pytest.mark.parametrize("address", ["http://127.0.0.1:6379/a.mp3", "https://evil.test/a.mp3", "file:///etc/passwd"])
def test_no_other_host_is_asked_for_a_sample(boss: Client, hazel: Voice, sample_host: str, address: str):
    Voice.objects.update(preview_url=address)
    assert boss.get(sample_url(hazel)).status_code == 404


def test_samples_need_the_permission(hazel: Voice, sample_host: str):
    Voice.objects.update(preview_url=f"{sample_host}/hazel.mp3")
    assert staff_client("view_voice").get(sample_url(hazel)).status_code == 200
    assert staff_client("view_patient").get(sample_url(hazel)).status_code == 403
    assert Client().get(sample_url(hazel)).status_code == 302  # to the login page


def test_a_voice_that_cannot_be_used_has_no_player(boss: Client, hazel: Voice):
    Voice.objects.update(state="gone")
    assert "<audio" not in page(boss, LIST)
