"""What is missing in the phrase cache and why, and the button that has it generated."""

import html
import queue
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from celery.signals import before_task_publish
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from tests.conftest import OTHER_VOICE, Member
from tests.roles import give_permissions
from tests.sandbox import SandboxProcess
from tts import tasks
from tts.cache import missing
from tts.cache.missing import MissingReport, load_needs, report_missing
from tts.cache.planning import create_phrase_cache
from tts.models import Clip, Phrase
from usage.models import ProviderState, UsageEvent
from usage.provider_state import circuit
from voicecare.patients.models import Device, Voice

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.filterwarnings("ignore:No directory at:UserWarning"),
]

PAGE = "/admin/tts/phrase/coverage/"
GREETING = "Hello Alice Archer, this is Clara."


@pytest.fixture(autouse=True)
def provider(settings: Any, sandbox: SandboxProcess, tmp_path: Path) -> None:
    settings.ELEVENLABS_BASE_URL = sandbox.url
    settings.PHRASE_STORE = "file"
    files = {"BACKEND": "tts.cache.stores.AtomicFileStorage", "OPTIONS": {"location": tmp_path}}
    settings.STORAGES = {**settings.STORAGES, "phrases": files}
    sandbox.settings(first_byte_ms=0)


@pytest.fixture
def phrases() -> list[Phrase]:
    return [
        Phrase.objects.create(kind="greeting", text="Hello {patient_name}, this is {ai_name}."),
        Phrase.objects.create(kind="holding", text="One moment, please."),
        Phrase.objects.create(text="I see."),
    ]


@pytest.fixture
def published() -> Iterator[queue.Queue[str]]:
    """The names of the tasks that are published."""
    names: queue.Queue[str] = queue.Queue()

    def receive(sender: str, **_kwargs: object) -> None:
        names.put(sender)

    before_task_publish.connect(receive, weak=False)
    yield names
    before_task_publish.disconnect(receive)


def report() -> MissingReport:
    return report_missing(load_needs(create_phrase_cache()), circuit.read_status())


def reasons() -> dict[str, int]:
    found: dict[str, int] = {}
    for group in report().groups:
        found[group.reason] = found.get(group.reason, 0) + group.clips
    return found


def requested(sandbox: SandboxProcess) -> list[str]:
    return [request["text"] for request in sandbox.requests()]


def page_of(client: Client, path: str = PAGE) -> str:
    response = client.get(path)
    assert response.status_code == 200
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", response.content.decode())).split())


# Reasons


def test_without_clips_all_are_missing_and_then_none(alice: Member, phrases):
    assert (report().needed, report().cached, report().percent) == (3, 0, 0)
    assert reasons() == {missing.NEW: 3}
    tasks.warm_missing()
    assert (report().needed, report().cached, report().percent, report().groups) == (3, 3, 100, [])


def test_each_missing_clip_has_one_reason(alice: Member, phrases):
    Phrase.objects.create(text="Tell me more.")
    tasks.warm_missing()
    now = timezone.now()
    changes = [
        (missing.EXPIRED, {"expires_at": now - timedelta(minutes=1)}),
        (missing.FAILED, {"expires_at": now - timedelta(minutes=1), "size": 0}),
        (missing.IN_PROGRESS, {"expires_at": now + timedelta(minutes=4), "size": 0}),
        (missing.REFUSED_TEXT, {"expires_at": now + timedelta(days=2, hours=1), "size": 0}),
    ]
    for clip, (_, change) in zip(Clip.objects.order_by("characters"), changes, strict=True):
        Clip.objects.filter(pk=clip.pk).update(**change)
    assert reasons() == {reason: 1 for reason, _ in changes}
    assert len(report().requestable) == 2


def test_the_clips_of_a_refused_voice_are_not_requested(alice: Member, bob: Member, phrases, sandbox):
    Voice.objects.filter(provider_id=OTHER_VOICE).update(refusal=Voice.Refusal.REFUSED)
    assert reasons() == {missing.REFUSED_VOICE: 3, missing.NEW: 3}
    tasks.warm_missing()
    assert reasons() == {missing.REFUSED_VOICE: 3}
    assert OTHER_VOICE not in {request["voice_id"] for request in sandbox.requests()}


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"quota": "spent"}, "The credits of the provider account are used up."),
        ({"circuit": "open"}, "The provider does not answer."),
        ({"access": "key"}, "The provider refuses the API key"),
    ],
)
def test_what_blocks_all_requests_is_said_and_nothing_is_requested(
    state: dict[str, str], words: str, alice: Member, phrases, sandbox, admin_client: Client
):
    assert "Make now" in page_of(admin_client)
    ProviderState.objects.update_or_create(pk=1, defaults=state)
    assert words in page_of(admin_client)
    assert "Make now" not in page_of(admin_client)
    tasks.warm_missing()
    assert requested(sandbox) == []


# Make now


def test_make_now_requests_exactly_the_missing_clips(alice: Member, bob: Member, phrases, sandbox):
    tasks.warm_patient(str(alice.patient.pk))
    expiring = Clip.objects.exclude(characters=len(GREETING))
    expiring.update(expires_at=timezone.now() + timedelta(hours=12))  # cached, so it is not due for this button
    Clip.objects.filter(characters=len(GREETING)).update(expires_at=timezone.now() - timedelta(minutes=1))
    before = len(requested(sandbox))
    tasks.warm_missing()
    made = requested(sandbox)[before:]
    assert sorted(made) == sorted([GREETING, "Hello Bob Baker, this is Clara.", "One moment, please.", "I see."])
    assert set(UsageEvent.objects.values_list("kind", flat=True)) == {"warm"}
    tasks.warm_missing()
    assert len(requested(sandbox)) == before + len(made)


def test_the_button_enqueues_the_task_and_the_progress_is_shown(
    alice: Member, phrases, admin_client: Client, published: queue.Queue[str]
):
    assert "0 of 3 clips cached (0 %), 3 missing" in page_of(admin_client)
    assert 'data-poll="/admin/tts/phrase/coverage/progress/"' in admin_client.get(PAGE).content.decode()
    response = admin_client.post(f"{PAGE}make/", follow=True)
    assert response.redirect_chain == [(PAGE, 302)]
    assert published.get(timeout=10) == "tts.warm_missing"
    tasks.warm_missing()
    progress = admin_client.get(f"{PAGE}progress/").content.decode()
    assert '<progress max="3" value="3"' in progress
    assert "<html" not in progress
    page = page_of(admin_client)
    assert "3 of 3 clips cached (100 %)" in page
    assert "Nothing is missing." in page
    assert "Make now" not in page


def test_the_page_groups_what_is_missing_by_reason_and_voice(
    member: Callable[..., Member], alice: Member, phrases, admin_client: Client
):
    carol = member("Carol")
    clone = Voice.objects.create(name="Anna", provider_id="c1", source="cloned", patient=carol.patient)
    type(carol.patient).objects.filter(pk=carol.patient.pk).update(voice=clone)
    page = page_of(admin_client)
    assert f"{missing.NEW} Anna for Carol 3 Hello {{patient_name}}, this is {{ai_name}}." in page
    assert f"{missing.NEW} {alice.patient.voice} 3 " in page


def test_the_button_needs_the_permission_to_change_phrases(client: Client, alice: Member, phrases):
    viewer = User.objects.create_user("viewer", is_staff=True)
    client.force_login(give_permissions(viewer, "tts.view_phrase"))
    assert "Make now" not in page_of(client)
    assert client.post(f"{PAGE}make/").status_code == 403
    client.force_login(User.objects.create_user("nobody", is_staff=True))
    assert client.get(f"{PAGE}progress/").status_code == 403
    client.force_login(User.objects.create_superuser("boss"))
    assert client.get(f"{PAGE}make/").status_code == 405


def test_the_number_of_queries_does_not_grow_with_the_data(
    member: Callable[..., Member], alice: Member, phrases, admin_client: Client
):
    def add_patient_with_clone(number: int) -> None:
        carol = member(f"Carol {number}")
        clone = Voice.objects.create(name="Anna", provider_id=f"c{number}", source="cloned", patient=carol.patient)
        type(carol.patient).objects.filter(pk=carol.patient.pk).update(voice=clone)
        Device.objects.filter(pk=carol.device.pk).update(format="pcm_16000")

    add_patient_with_clone(0)
    page_of(admin_client, f"{PAGE}progress/")
    with CaptureQueriesContext(connection) as few:
        page_of(admin_client, f"{PAGE}progress/")
    for number in range(1, 5):
        add_patient_with_clone(number)
    with CaptureQueriesContext(connection) as many:
        page_of(admin_client, f"{PAGE}progress/")
    assert len(many) == len(few)
