"""What the provider says of a voice, in our rows: labels, price, and when it ends."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import responses as http
from django.utils import timezone
from pytest_django import Settings

from cloning.voices import audit, facts, sync
from tests.conftest import DEFAULT_VOICE, Member
from usage.alerts import lost_voices
from usage.models import Incident
from voicecare.patients.models import Voice
from voicecare.providers.elevenlabs.responses import Voice as ProviderVoice
from voicecare.providers.elevenlabs.voice_facts import PREMADE_VOICES_END

BASE = "https://provider.test"
NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
LATER = NOW + timedelta(days=40)
DESCRIBED = {
    "voice_id": "hazel",
    "name": "Hazel",
    "category": "professional",
    "labels": {"language": "English", "gender": "female", "age": "old", "accent": "irish"},
    "description": "A warm voice.",
    "preview_url": "https://provider.test/hazel.mp3",
    "verified_languages": [
        {"language": "de", "model_id": "m"},
        {"language": "en", "model_id": "m"},
        {"language": "xx"},
    ],
    "sharing": {"rate": 1.5, "notice_period": 30, "disable_at_unix": int(LATER.timestamp()), "status": "copied"},
}


def provider_voice(**fields: Any) -> ProviderVoice:
    return ProviderVoice.from_json({"voice_id": "hazel", "name": "Hazel", **fields})


@pytest.fixture
def provider(settings: Settings) -> Iterator[http.RequestsMock]:
    settings.ELEVENLABS_BASE_URL, settings.DEFAULT_VOICE_ID = BASE, ""
    with http.RequestsMock(assert_all_requests_are_fired=False) as mock:
        yield mock


def lists(provider: http.RequestsMock, *voices: dict[str, Any]) -> None:
    provider.get(f"{BASE}/v2/voices", json={"voices": list(voices), "has_more": False})


@pytest.mark.django_db
def test_the_details_of_a_voice_are_stored_and_updated(provider: http.RequestsMock):
    lists(provider, DESCRIBED)
    audit.audit_voices()
    hazel = Voice.objects.get()
    assert (hazel.source, hazel.category, hazel.languages) == ("stock", "professional", "en de")
    assert (hazel.gender, hazel.age, hazel.accent) == ("female", "old", "irish")
    assert (hazel.description, hazel.preview_url) == ("A warm voice.", "https://provider.test/hazel.mp3")
    assert (hazel.price_rate, hazel.notice_period_days) == (1.5, 30)
    assert (hazel.ends_at, hazel.end_source) == (LATER.replace(microsecond=0), "announced")
    provider.reset()
    lists(provider, {"voice_id": "hazel", "name": "Hazel the second", "category": "professional"})
    assert sync.sync_stock_voices() == sync.SyncResult(added=0, changed=1, gone=0)
    hazel.refresh_from_db()
    assert (hazel.name, hazel.ends_at, hazel.end_source, hazel.gender) == ("Hazel the second", None, "", "")


@pytest.mark.django_db
def test_details_of_a_wrong_type_count_as_missing(provider: http.RequestsMock):
    odd = {"rate": "dear", "notice_period": -1, "disable_at_unix": 10**20, "status": 7}
    lists(provider, {**DESCRIBED, "labels": [], "description": 3, "verified_languages": {}, "sharing": odd})
    audit.audit_voices()
    hazel = Voice.objects.get()
    assert (hazel.languages, hazel.description, hazel.price_rate, hazel.ends_at) == ("", "", None, None)


@pytest.mark.django_db
def test_the_voices_are_read_at_first_and_while_there_is_none(provider: http.RequestsMock):
    lists(provider)
    for _ in range(2):
        sync.read_first_voices()
    assert len(provider.calls) == 4  # the subscription and the list, each time
    provider.reset()
    lists(provider, DESCRIBED)
    sync.read_first_voices()
    assert Voice.objects.default() == Voice.objects.get()
    calls = len(provider.calls)
    sync.read_first_voices()
    assert len(provider.calls) == calls


@pytest.mark.django_db(transaction=True)
def test_new_voices_of_another_workspace_do_not_make_it_ours(provider: http.RequestsMock, alice: Member):
    """Else the clone would count as deleted, and its withdrawal as complete, although it exists in our workspace."""
    Voice.objects.all().delete()
    ours = [Voice(provider_id=f"ours-{number}", name=f"Ours {number}") for number in range(3)]
    clone = Voice(provider_id="clone", name="Clone", source="cloned", patient=alice.patient)
    for voice in Voice.objects.bulk_create([*ours, clone]):
        provider.get(f"{BASE}/v1/voices/{voice.provider_id}", status=404, json={"detail": {"code": "voice_not_found"}})
    lists(provider, *({"voice_id": f"theirs-{number}", "name": f"Theirs {number}"} for number in range(9)))
    for _ in range(2):
        sync.sync_stock_voices()
        audit.audit_voices()
        assert set(Voice.objects.values_list("state", flat=True)) == {"usable"}
        assert lost_voices.is_other_workspace_known()
    default = Voice.objects.default()
    assert default is not None
    assert default.provider_id.startswith("theirs-")


ENDS: dict[str, tuple[dict[str, Any], datetime | None, str]] = {
    "nothing is known": ({"category": "generated"}, None, ""),
    "shared": ({"sharing": {"notice_period": 30, "status": "copied"}}, None, ""),
    "announced": ({"sharing": {"disable_at_unix": int(LATER.timestamp())}}, LATER, "announced"),
    "no longer shared": (
        {"sharing": {"notice_period": 30, "status": "copied_disabled"}},
        NOW + timedelta(days=30),
        "notice",
    ),
    "banned": ({"safety_control": "BAN"}, NOW, "safety"),
    "captcha": ({"safety_control": "CAPTCHA"}, None, ""),
    "premade": ({"category": "premade"}, PREMADE_VOICES_END, "premade"),
    "the earliest": (
        {"category": "premade", "sharing": {"disable_at_unix": int(LATER.timestamp())}},
        PREMADE_VOICES_END,
        "premade",
    ),
}


@pytest.mark.parametrize(("said", "ends_at", "source"), ENDS.values(), ids=ENDS)
def test_when_a_voice_ends(said: dict[str, Any], ends_at: datetime | None, source: str, settings: Settings):
    settings.USE_SANDBOX = False
    voice = provider_voice(**said)
    known = Voice(provider_id="hazel")
    assert facts.end_of(voice, known, NOW) == (ends_at, source)
    known.ends_at, known.end_source = ends_at, source
    assert facts.end_of(voice, known, NOW + timedelta(days=1)) == (ends_at, source)


def test_premade_voices_that_stay_after_the_announced_day_have_no_end(settings: Settings):
    settings.USE_SANDBOX = False
    voice = provider_voice(category="premade")
    assert facts.end_of(voice, Voice(), PREMADE_VOICES_END + timedelta(days=1)) == (None, "")


def test_premade_voices_of_the_sandbox_have_no_end():
    assert facts.end_of(provider_voice(category="premade"), Voice(), NOW) == (None, "")


@pytest.mark.django_db
def test_a_voice_without_changes_is_written_once_a_day():
    voice = Voice.objects.create(provider_id="hazel", name="Hazel")
    found = [(voice, provider_voice())]
    assert facts.update_voices(found) == 0
    first = Voice.objects.get().read_at
    voice.refresh_from_db()
    facts.update_voices(found)
    assert Voice.objects.get().read_at == first
    Voice.objects.update(read_at=timezone.now() - timedelta(days=1))
    voice.refresh_from_db()
    facts.update_voices(found)
    assert Voice.objects.get().read_at > first


@pytest.mark.django_db
def test_an_upgraded_installation_keeps_its_former_default_voice():
    from importlib import import_module

    from django.apps import apps

    migration = import_module("voicecare.patients.migrations.0004_voice_facts_and_default_voices")
    migration.keep_former_default(apps, None)
    former = Voice.objects.create(provider_id=DEFAULT_VOICE, name="Rachel")
    assert not former.default_for.exists()
    migration.keep_former_default(apps, None)
    assert [(row.language, row.chosen_by) for row in former.default_for.all()] == [("", "server")]


RACHEL, SARAH, TINA = ({"voice_id": name.lower(), "name": name} for name in ("Rachel", "Sarah", "Tina"))


def ends_soon() -> dict[str, Any]:
    return {"sharing": {"disable_at_unix": int((timezone.now() + timedelta(minutes=30)).timestamp())}}


def takeovers() -> list[str]:
    return list(Incident.objects.filter(kind="default_voice", resolved_at=None).values_list("detail", flat=True))


@pytest.mark.django_db
@pytest.mark.parametrize("is_banned", [False, True], ids=["ends within the hour", "banned"])
def test_a_default_voice_that_ends_at_once_is_reported_with_its_successor(provider: http.RequestsMock, is_banned: bool):
    lists(provider, RACHEL, SARAH)
    audit.audit_voices()
    assert Voice.objects.default().name == "Rachel"
    assert takeovers() == []
    provider.reset()
    end = {"safety_control": "BAN"} if is_banned else ends_soon()
    lists(provider, {**RACHEL, **end}, SARAH)
    for _ in range(2):
        audit.audit_voices()
        assert takeovers() == [
            "The default voice was Rachel: The provider has ended it, or ends it within an hour. Now it is Sarah."
        ]


@pytest.mark.django_db
@pytest.mark.parametrize("lost", ["rachel", "sarah"])
def test_an_end_and_a_loss_in_one_audit_are_one_takeover(provider: http.RequestsMock, lost: str):
    """Sarah would be the next default voice. She cannot take over, so she was never the default voice."""
    lists(provider, RACHEL, SARAH, TINA)
    audit.audit_voices()
    assert Voice.objects.default().name == "Rachel"
    provider.reset()
    lists(provider, *({**each, **ends_soon()} for each in (RACHEL, SARAH) if each["voice_id"] != lost), TINA)
    provider.get(f"{BASE}/v1/voices/{lost}", status=404, json={"detail": {"status": "voice_not_found"}})
    audit.audit_voices()
    (detail,) = takeovers()
    assert detail.startswith("The default voice was Rachel:")
    assert detail.endswith("Now it is Tina.")
