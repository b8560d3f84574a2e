"""The pages of voices in the admin: everything is on the screen, and "Sync now" works with the keyboard."""

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import BrowserSession
from tests.conftest import Member
from tests.sandbox import SandboxProcess
from voicecare.patients.models import Voice

pytestmark = pytest.mark.django_db(transaction=True)

LogIn = Callable[..., BrowserSession]
LIST = "/admin/patients/voice/"
PHONE = {"viewport": {"width": 390, "height": 844}}
FITS = "() => document.documentElement.scrollWidth <= window.innerWidth"


@pytest.fixture
def voices(alice: Member) -> list[Voice]:
    """Voices with everything that a row can have."""
    Voice.objects.update(languages="en de fr", gender="female", age="middle_aged", accent="american")
    named = {"gender": "female", "age": "middle_aged", "accent": "transatlantic", "languages": "en de fr"}
    Voice.objects.create(provider_id="long", name="A voice whose owner has given it a long name", **named)
    Voice.objects.create(provider_id="clone", name="Anna", source="cloned", patient=alice.patient)
    Voice.objects.create(provider_id="gone", name="Gone", state="gone")
    return list(Voice.objects.all())


@pytest.mark.parametrize("options", [{}, PHONE], ids=["desk", "phone"])
def test_all_columns_of_the_list_are_on_the_screen(log_in: LogIn, voices: list[Voice], options: dict[str, Any]):
    session = log_in(**options)
    page = session.open(LIST)
    expect(page.get_by_role("heading", name="Voices", exact=True)).to_be_visible()
    page.wait_for_function(FITS)
    width = page.viewport_size["width"]
    cells = [cell.bounding_box() for cell in page.locator("#result_list tbody td, #result_list tbody th").all()]
    assert len(cells) == 7 * len(voices)
    assert all(box["x"] >= 0 and box["x"] + box["width"] <= width for box in cells)
    players = page.locator("#result_list audio")
    assert players.count() == len(voices) - 1
    assert all(player.bounding_box()["width"] >= 100 for player in players.all())
    assert session.problems == []


@pytest.mark.parametrize("path", ["add/", "{}/change/"])
def test_the_other_pages_fit_on_a_phone(log_in: LogIn, voices: list[Voice], path: str):
    session = log_in(**PHONE)
    page = session.open(LIST + path.format(voices[0].pk))
    page.wait_for_function(FITS)
    assert session.problems == []


def test_sync_now_works_with_the_keyboard(log_in: LogIn, sandbox: SandboxProcess):
    page = log_in().open(LIST)
    button = page.get_by_role("button", name="Sync now")
    button.focus()
    page.keyboard.press("Enter")
    expect(page.locator(".messagelist")).to_contain_text("The voices were read from the provider")
    expect(page.get_by_role("link", name="Sarah")).to_be_visible()


def test_a_player_plays_a_voice(log_in: LogIn, sandbox: SandboxProcess):
    session = log_in()
    page = session.open(LIST)
    page.get_by_role("button", name="Sync now").click()
    expect(page.get_by_role("link", name="Sarah")).to_be_visible()
    page.get_by_label("A sample of Sarah").evaluate("player => { player.muted = true; return player.play(); }")
    assert page.get_by_label("A sample of Sarah").evaluate("player => player.readyState") >= 2
    assert session.problems == []


def test_an_unknown_id_is_explained_beside_the_field(log_in: LogIn, sandbox: SandboxProcess):
    page = log_in(**PHONE).open(f"{LIST}add/")
    page.get_by_label("Voice id").fill("totally-wrong")
    page.keyboard.press("Enter")
    expect(page.locator(".errorlist")).to_contain_text("no voice with this id")
    expect(page.get_by_label("Voice id")).to_have_value("totally-wrong")
    page.wait_for_function(FITS)


@pytest.mark.parametrize("options", [{}, PHONE], ids=["desk", "phone"])
def test_a_backup_voice_is_heard_before_it_is_chosen(
    log_in: LogIn, sandbox: SandboxProcess, alice: Member, options: dict[str, Any]
):
    session = log_in(**options)
    stock = Voice.objects.default()
    page = session.open(f"/admin/patients/patient/{alice.patient.pk}/change/")
    player = page.locator("audio[data-voice=backup_voice]")
    expect(player).to_be_hidden()
    page.locator("select[name=language]").select_option("de")
    page.locator("select[name=backup_voice]").select_option(str(stock.pk))
    expect(player).to_be_visible()
    with page.expect_response(lambda response: "/preview/" in response.url) as answer:
        player.evaluate("player => { player.muted = true; player.play(); }")
    assert answer.value.status in (200, 206)
    assert answer.value.url.endswith(f"/admin/voices/{stock.pk}/preview/?language=de")
    expect(page.locator("audio[data-voice=voice]")).to_be_visible()
    page.wait_for_function(FITS)
    assert session.problems == []
