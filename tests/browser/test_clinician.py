"""A clinician's day with the page of a patient, in Chromium, with a real device at the bedside."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.urls import reverse
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import BrowserSession
from tests.browser.test_accessibility import Inspection
from tests.conftest import DEFAULT_VOICE, Member
from tests.e2e.device import Device as BedsideDevice
from tests.server import ServerProcess
from tests.waiting import until
from tts.models import Conversation, Utterance
from usage.alerts import incidents
from usage.budgets import current_month
from usage.models import DailyUsage, Incident, Price
from voicecare.audit.models import AuditEntry
from voicecare.patients.models import Patient, Voice

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(300)]

PHONE = {"width": 390, "height": 844}


@pytest.fixture
def clinician(alice: Member) -> User:
    user = User.objects.create_user("clinician")
    user.patients.add(alice.patient)  # type: ignore[attr-defined]
    return user


@pytest.fixture
def session(log_in: Callable[..., BrowserSession], clinician: User) -> Iterator[BrowserSession]:
    """A clinician who is not staff. The pages have no console error and ask no other host."""
    session = log_in(clinician)
    yield session
    assert session.problems == []


@contextmanager
def at_the_bedside(server: ServerProcess, member: Member) -> Iterator[None]:
    """A device that is connected, and that acknowledges what the server sends."""
    is_over = threading.Event()

    async def play() -> None:
        async with BedsideDevice(server.ws, member.token) as device:
            await device.start(greeting=False)
            receiving = asyncio.create_task(acknowledge(device))
            await asyncio.to_thread(is_over.wait)
            receiving.cancel()

    async def acknowledge(device: BedsideDevice) -> None:
        while True:
            frame = await device.receive()
            if isinstance(frame, dict) and frame["type"] == "speech.finished" and frame["id"].startswith("srv-"):
                await device.send({"type": "ack", "id": frame["id"]})

    thread = threading.Thread(target=lambda: asyncio.run(play()))
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def page_of(member: Member) -> str:
    return reverse("console:patient", args=[member.patient.pk])


def say(page: Page, text: str) -> None:
    page.get_by_label("Text").fill(text)
    page.get_by_role("button", name="Say", exact=True).click()
    page.wait_for_load_state()


def newest(page: Page) -> Locator:
    return page.locator("#messages li").first


def actions() -> list[str]:
    return [*AuditEntry.objects.order_by("pk").values_list("action", flat=True)]


def test_a_day(session: BrowserSession, server: ServerProcess, alice: Member):
    page = session.open(reverse("console:patients"))
    page.get_by_role("link", name=alice.patient.name, exact=True).click()
    expect(page.locator("h1")).to_have_text(alice.patient.name)
    expect(page.locator("#messages")).to_contain_text("No device is connected")

    # Nobody is there: the text waits, and is cancelled.
    say(page, "Breakfast is ready.")
    expect(page.locator(".messagelist")).to_contain_text("The text is spoken as soon as one connects")
    expect(newest(page)).to_contain_text("Waiting")
    page.get_by_role("button", name="Cancel the message").click()
    expect(newest(page)).to_contain_text("Cancelled")
    assert Utterance.objects.get().state == "interrupted"

    # The next text waits until the device is there, and the open page shows what becomes of it.
    say(page, "Lunch is ready.")
    expect(newest(page)).to_contain_text("Waiting")
    with at_the_bedside(server, alice):
        expect(newest(page)).to_contain_text("Heard")
        expect(page.get_by_text("Online", exact=True)).to_be_visible()
        expect(page.locator("[data-poll-news]")).to_contain_text("Heard (latest message)")
        say(page, "Your daughter has called.")
        expect(page.locator(".messagelist")).to_contain_text("The text is spoken now")
        expect(newest(page)).to_contain_text("Heard")
        until(lambda: Utterance.objects.filter(state="heard").count(), wanted=lambda number: number == 2)
    expect(page.get_by_text("Offline", exact=True)).to_be_visible()
    assert actions() == ["speak", "cancel", "speak", "speak"]

    # What was said, which the audit trail notes.
    page.get_by_role("link", name="All conversations").click()
    page.locator(".console-patients a").first.click()
    expect(page.locator("ol.console-patients")).to_contain_text("Your daughter has called.")
    assert actions()[-1:] == ["read_text"]
    conversation = Conversation.objects.latest("started_at")
    assert AuditEntry.objects.latest("pk").object_id == str(conversation.pk)
    assert set(AuditEntry.objects.values_list("source", flat=True)) == {"console"}


def test_another_voice_is_chosen_by_ear(session: BrowserSession, alice: Member):
    stock = Voice.objects.get(provider_id=DEFAULT_VOICE)
    page = session.open(page_of(alice))
    page.get_by_text("Choose other voices").click()
    choice = page.get_by_label("Voice:", exact=True)
    choice.select_option(str(stock.pk))
    player = page.locator("audio[data-voice=voice]")
    expect(player).to_have_attribute("src", reverse("console:preview", args=[stock.pk]))
    page.evaluate("() => document.querySelector('audio[data-voice=voice]').play()")
    page.wait_for_function("() => document.querySelector('audio[data-voice=voice]').currentTime > 0.2")
    page.get_by_role("button", name="Save the voices").click()
    expect(page.locator(".messagelist")).to_contain_text("The voices are saved.")
    expect(page.locator("#voices")).to_contain_text(stock.name)
    assert Patient.objects.get(pk=alice.patient.pk).voice == stock
    assert actions() == ["play_preview", "change"]


def test_a_refusal_is_said_in_words(session: BrowserSession, alice: Member):
    page = session.open(page_of(alice))
    say(page, "[laughs]")
    expect(page.locator(".console-field.errors")).to_contain_text("This field may not be blank.")
    assert not Utterance.objects.exists()


def test_two_clicks_say_a_text_once(session: BrowserSession, alice: Member):
    page = session.open(page_of(alice))
    page.get_by_label("Text").fill("Lunch is ready.")
    page.get_by_role("button", name="Say", exact=True).dblclick()
    expect(newest(page)).to_contain_text("Waiting")
    assert Utterance.objects.count() == 1
    assert actions() == ["speak"]


def test_with_the_keyboard_alone(session: BrowserSession, alice: Member):
    page = session.open(page_of(alice))
    page.get_by_label("Text").focus()
    page.keyboard.type("Lunch is ready.")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(newest(page)).to_contain_text("Waiting")
    cancel = page.get_by_role("button", name="Cancel the message")
    cancel.focus()
    identifier = cancel.get_attribute("id")
    Patient.objects.update(monthly_character_budget=1)
    incidents.open_incident(Incident.Kind.PROVIDER_DOWN)  # so that the live part is replaced
    expect(page.get_by_role("heading", name="Open incidents")).to_be_visible()
    assert page.evaluate("() => document.activeElement.id") == identifier
    page.keyboard.press("Enter")
    expect(newest(page)).to_contain_text("Cancelled")


def test_an_open_page_says_that_the_user_was_logged_out(session: BrowserSession, alice: Member):
    page = session.open(page_of(alice))
    session.context.clear_cookies()
    expect(page.locator("[data-poll-state]")).to_contain_text("You are logged out.")
    session.problems.clear()  # the refused request is logged by the browser


@pytest.fixture
def busy_patient(alice: Member) -> Member:
    """A patient with everything that the page can show."""
    backup = Voice.objects.create(provider_id="b", name="Backup Bella")
    Patient.objects.update(monthly_character_budget=2_000, backup_voice=backup)
    Price.objects.create(model="", valid_from="2020-01-01", per_1000_credits=10)
    ids = {"patient": alice.patient.pk, "kind": "live", "model": "m"}
    DailyUsage.objects.create(day=current_month(), characters=1_800, credits=1_800, **ids)
    incidents.open_incident(Incident.Kind.QUOTA)
    conversation = Conversation.objects.create(
        patient=alice.patient, device=alice.device, voice=alice.patient.voice, voice_source="selected"
    )
    rows = [
        ("server", "heard", "Your daughter has called and comes at three.", {}),
        ("server", "failed", "Lunch is ready.", {"code": "over_budget"}),
        ("server", "waiting", "Dinner is ready.", {"queue_reason": "no_device"}),
        ("device", "spoken", "Did you sleep well?", {"source": "offline", "client_speech_id": "1"}),
        ("device", "queued", "The doctor comes at three.", {"queue_reason": "quota", "client_speech_id": "2"}),
    ]
    for origin, state, text, fields in rows:
        Utterance.objects.create(
            patient=alice.patient, conversation=conversation, origin=origin, state=state, text=text, **fields
        )
    for _ in range(30):
        Conversation.objects.create(patient=alice.patient, device=alice.device, voice_source="default")
    return alice


def test_axe_finds_nothing(session: BrowserSession, busy_patient: Member, tmp_path: Path):
    inspection, page = Inspection(session.page), session.page
    message = Utterance.objects.filter(state="heard").get()
    addresses = [
        page_of(busy_patient),
        *(reverse(f"console:{name}", args=[busy_patient.patient.pk]) for name in ("usage", "conversations")),
        reverse("console:conversation", args=[message.conversation_id]),
        reverse("console:message", args=[message.pk]),
        reverse("console:patients"),
    ]
    for number, address in enumerate(addresses):
        session.open(address)
        if number == 0:
            page.get_by_text("Choose other voices").click()
        inspection.look_at(address)
        assert page.evaluate("() => document.documentElement.scrollWidth") <= PHONE["width"], address
        for scheme, width in (("light", 1280), ("dark", 390)):
            page.emulate_media(color_scheme=scheme)
            page.set_viewport_size({"width": width, "height": 900})
            page.screenshot(path=tmp_path / f"{number}-{scheme}.png", full_page=True)
    session.open(page_of(busy_patient))
    say(page, " ")
    inspection.look_at("a refused text")
    assert inspection.found == [], "\n".join(inspection.found)


def test_the_results_come_before_the_faults_on_a_phone(session: BrowserSession, alice: Member):
    page = session.page
    page.set_viewport_size(PHONE)
    session.open(reverse("console:console", args=[alice.patient.pk]))
    tops = [page.locator(f"#{name}-title").bounding_box()["y"] for name in ("speak", "speeches", "faults")]  # type: ignore[index]
    assert tops == sorted(tops)
    page.set_viewport_size({"width": 1280, "height": 900})
    left, right = (page.locator(f"#{name}-title").bounding_box() for name in ("connection", "sound"))
    assert left is not None
    assert right is not None
    assert left["x"] < right["x"]
    assert left["y"] == right["y"]
