"""The device console in Chromium: real sound from a real server, which is measured in the page."""

import re
from collections.abc import Callable, Iterator

import pytest
from django.contrib.auth.models import User
from django.urls import reverse
from django.utils import timezone
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import BrowserSession
from tests.browser.network import Network
from tests.browser.test_accessibility import Inspection
from tests.conftest import Member, wait_until_provider_healthy
from tests.sandbox import SandboxProcess
from tests.server import ServerProcess
from tests.waiting import until
from tts.models import Phrase, Utterance
from tts.outbox import store
from voicecare.console.views import KEEP_EVERY_S
from voicecare.patients.models import Device

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(300)]

LONG = "It is half past eight, and the sun is out. " * 12
# Keeps the loudest sample that the page has played, as the page's own analyser has heard it. Runs before its scripts.
# All samples of the analyser are read, because a busy machine renders a second of sound in one go.
TAP = """
window.loudest = 0;
const create = BaseAudioContext.prototype.createAnalyser;
BaseAudioContext.prototype.createAnalyser = function () {
    const analyser = create.call(this);
    const samples = new Float32Array(32768);
    setInterval(() => {
        analyser.getFloatTimeDomainData(samples);
        window.loudest = samples.reduce((loudest, sample) => Math.max(loudest, Math.abs(sample)), window.loudest);
    }, 50);
    return analyser;
};
"""


@pytest.fixture
def clinician(alice: Member) -> User:
    user = User.objects.create_user("clinician")
    user.patients.add(alice.patient)  # type: ignore[attr-defined]
    return user


class Console:
    """The page of a patient's console, and what a test does with it."""

    def __init__(self, session: BrowserSession, member: Member) -> None:
        self.session, self.member = session, member
        self.page: Page = session.page
        self.page.add_init_script(TAP)
        session.open(reverse("console:console", args=[member.patient.pk]))

    def start(self, audio: str = "", *, greeting: bool = False, takes_messages: bool = False) -> None:
        self.page.get_by_label("Audio").select_option(audio)
        self.page.get_by_label("Begin with the greeting").set_checked(greeting)
        self.page.get_by_label("Also play messages").set_checked(takes_messages)
        self.page.get_by_role("button", name="Start").click()
        expect(self.page.locator("#state")).to_have_text("Connected")

    def say(self, text: str) -> None:
        self.page.get_by_label("Text", exact=True).fill(text)
        self.page.get_by_role("button", name="Speak", exact=True).click()

    @property
    def newest(self) -> Locator:
        return self.page.locator("#speeches li").first

    def expect_state(self, state: str) -> None:
        expect(self.newest.locator(".badge").first).to_have_text(state)

    def press(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=True).click()

    def figure(self, name: str) -> int:
        """The milliseconds that the page has measured."""
        shown = self.page.locator(f"#{name}")
        expect(shown).to_have_text(re.compile(r"^\d+ ms$"))
        return int(shown.inner_text().split()[0])

    @property
    def loudest(self) -> float:
        return self.page.evaluate("() => window.loudest")  # type: ignore[no-any-return]

    @property
    def device(self) -> Device:
        return Device.objects.consoles().get()


@pytest.fixture
def console(log_in: Callable[..., BrowserSession], clinician: User, alice: Member, phrases: None) -> Iterator[Console]:
    """The page, which has no console error and asks no other host."""
    session = log_in(clinician)
    yield Console(session, alice)
    assert session.problems == []


@pytest.mark.parametrize("audio", ["", "pcm_24000", "ulaw_8000"])
def test_a_conversation_is_heard(audio: str, console: Console):
    console.start(audio, greeting=True)
    console.expect_state("played")
    assert "from the cache" in console.newest.inner_text() or "live" in console.newest.inner_text()
    console.page.evaluate("() => { window.loudest = 0; }")
    console.say("Good morning. Did you sleep well tonight?")
    console.expect_state("played")
    text = console.newest.inner_text()
    assert "live" in text
    assert "first audio" in text
    assert console.loudest > 0.02
    assert console.figure("first-audio") > 0
    assert console.figure("first-sound") >= 0
    assert console.page.locator("#received").inner_text().split()[0] != "0"


def test_a_text_that_is_written_word_by_word_is_heard(console: Console):
    console.start("pcm_24000")
    console.page.get_by_label("Send it word by word").check()
    console.say("How was your day? I would like to hear all about it.")
    console.expect_state("played")
    assert console.loudest > 0.02
    expect(console.page.locator("#log")).to_contain_text("speak.delta")
    expect(console.newest).not_to_contain_text("first audio")  # it would count the typing


def test_nothing_is_said_before_the_start(console: Console):
    console.page.get_by_label("Text", exact=True).press("Enter")
    expect(console.page.locator("#speeches li")).to_have_count(0)
    console.start()
    console.page.get_by_label("Text", exact=True).press("Enter")
    console.expect_state("played")


def test_a_known_phrase_is_a_button_that_works_with_the_keyboard(console: Console):
    console.start()
    button = console.page.get_by_role("button", name="Tell me more.", exact=True)
    button.focus()
    console.page.keyboard.press("Enter")
    console.expect_state("played")


@pytest.mark.parametrize("audio", ["mp3_44100_128", "pcm_24000"])
def test_an_interruption_is_silent_within_100_ms_of_sound(audio: str, console: Console):
    console.start(audio)
    console.say(LONG)
    console.expect_state("playing")
    console.page.wait_for_function("() => window.loudest > 0.02")
    console.page.keyboard.press("Escape")
    console.expect_state("interrupted")
    assert console.figure("silent-after") <= 100
    console.say("Is that better?")
    console.expect_state("played")


def test_a_fallback_is_heard_with_its_notice(console: Console, sandbox: SandboxProcess, server: ServerProcess):
    console.start("pcm_24000")
    console.press("down")
    expect(console.page.get_by_role("button", name="down", exact=True)).to_have_attribute("aria-pressed", "true")
    console.say("Your tea is on the table.")
    console.expect_state("played")
    expect(console.newest).to_contain_text("offline voice")
    expect(console.page.locator("#notices")).to_contain_text("Temporary voice issue, using backup voice")
    assert console.loudest > 0.02
    console.press("off")
    expect(console.page.get_by_role("button", name="off", exact=True)).to_have_attribute("aria-pressed", "true")
    wait_until_provider_healthy(server)


def test_a_queued_text_is_spoken_later(console: Console, server: ServerProcess):
    console.start("pcm_24000")
    console.press("quota")
    console.say("The doctor comes at three.")
    console.expect_state("queued")
    expect(console.newest).to_contain_text("credits are used up")
    console.press("off")
    console.expect_state("played")
    expect(console.newest).to_contain_text("live")
    wait_until_provider_healthy(server)


def test_a_hold_message_is_named_and_not_acknowledged(console: Console, server: ServerProcess):
    Phrase.objects.create(kind="holding", text="One moment, please.")
    console.start("pcm_24000")
    console.say("One moment, please.")  # puts it into the cache
    console.expect_state("played")
    console.press("quota")
    console.say("The doctor comes at three.")
    expect(console.page.locator("#speeches li", has_text="The hold message")).to_contain_text("played")
    console.press("off")
    expect(console.page.locator("#speeches li", has_text="The doctor comes at three.")).to_contain_text("played")
    assert '"type":"ack"' not in console.page.locator("#log").inner_text().replace(" ", "")
    wait_until_provider_healthy(server)


def test_a_network_loss_in_the_middle_of_a_sentence(
    log_in: Callable[..., BrowserSession], server: ServerProcess, clinician: User, alice: Member
):
    with Network(server.port) as network:
        session = log_in(clinician)
        session.page.add_init_script(TAP)
        console = Console(session, alice)
        session.page.goto(network.url + reverse("console:console", args=[alice.patient.pk]))
        console.start("pcm_24000")
        console.say(LONG)
        console.page.wait_for_function("() => window.loudest > 0.02")
        network.cut()
        expect(console.page.locator("#state")).to_have_text("Connecting again")
        console.expect_state("cut off")
        network.restore()
        expect(console.page.locator("#state")).to_have_text("Connected")
        log = console.page.locator("#log").inner_text()
        assert log.count("conversation.started") == 2
        assert '"resume"' in log
        console.say("Where were we?")
        console.expect_state("played")
        problems = [problem for problem in session.problems if network.url not in problem]
        assert [problem for problem in problems if "net::ERR" not in problem and "WebSocket" not in problem] == []
        console.page.goto("about:blank")


@pytest.mark.parametrize("end", ["revoked_at", "console_until"])
def test_a_token_that_ends_while_the_page_plays(end: str, console: Console):
    console.start()
    console.say(LONG)
    console.expect_state("playing")
    Device.objects.consoles().update(**{end: timezone.now()})
    expect(console.page.locator("#problem")).to_contain_text("Press Start to ask for a new one")
    expect(console.page.locator("#state")).to_have_text("Not connected")
    console.start()
    console.say("Here I am again.")
    console.expect_state("played")


def test_the_token_is_revoked_when_the_page_is_left(console: Console):
    console.start()
    assert console.device.revoked_at is None
    console.page.goto(console.session.server.url + reverse("console:patients"))
    until(lambda: console.device.revoked_at, wanted=lambda revoked_at: revoked_at is not None)


def test_the_token_is_revoked_when_the_conversation_is_ended(console: Console):
    console.start()
    console.press("End the conversation")
    expect(console.page.locator("#state-detail")).to_have_text("The conversation was ended.")
    until(lambda: console.device.revoked_at, wanted=lambda revoked_at: revoked_at is not None)


def test_a_message_to_the_patient_is_acknowledged_after_it_was_played(console: Console, alice: Member):
    console.start("pcm_24000", takes_messages=True)
    row = store.submit(alice.patient.pk, "Your daughter has called.", expires_in_s=300, author=None)
    console.expect_state("played")
    states = Utterance.objects.filter(pk=row.pk).values_list("state", flat=True)
    until(states.get, wanted=lambda state: state == "heard")
    assert console.loudest > 0.02


def test_a_message_that_has_waited_is_played_by_a_page_that_takes_messages(console: Console, alice: Member):
    row = store.submit(alice.patient.pk, "Your daughter has called.", expires_in_s=300, author=None)
    console.start("pcm_16000", takes_messages=True)
    states = Utterance.objects.filter(pk=row.pk).values_list("state", flat=True)
    until(states.get, wanted=lambda state: state == "heard")
    assert console.loudest > 0.02
    console.say("And now something else.")
    console.expect_state("played")


def test_a_message_to_the_patient_does_not_come_to_the_page_unasked(console: Console, alice: Member):
    console.start("pcm_24000")
    row = store.submit(alice.patient.pk, "Your daughter has called.", expires_in_s=300, author=None)
    console.say("This is for the page.")
    console.expect_state("played")
    assert Utterance.objects.get(pk=row.pk).state == "waiting"
    expect(console.page.locator("#speeches li")).to_have_count(1)


def test_the_patient_of_another_team_is_not_found(log_in: Callable[..., BrowserSession], clinician: User, bob: Member):
    session = log_in(clinician)
    response = session.page.goto(session.server.url + reverse("console:console", args=[bob.patient.pk]))
    assert response is not None
    assert response.status == 404


def test_a_browser_that_cannot_play_mp3_says_so_and_plays_pcm(
    log_in: Callable[..., BrowserSession], clinician: User, alice: Member
):
    session = log_in(clinician)
    session.page.add_init_script("delete window.MediaSource; delete window.ManagedMediaSource;")
    console = Console(session, alice)
    expect(console.page.locator("#format-detail")).to_have_text("pcm_24000")
    console.page.get_by_label("Audio").select_option("mp3_44100_128")
    console.press("Start")
    expect(console.page.locator("#problem")).to_contain_text("Choose a PCM format")
    console.start()
    console.say("Now it works.")
    console.expect_state("played")
    assert session.problems == []


def test_a_session_that_has_ended_leads_to_the_log_in(
    log_in: Callable[..., BrowserSession], clinician: User, alice: Member
):
    console = Console(log_in(clinician), alice)
    console.session.context.clear_cookies()
    console.press("Start")
    expect(console.page.locator("#problem")).to_contain_text("logged out")


def test_a_fault_is_not_chosen_after_the_session_has_ended(
    log_in: Callable[..., BrowserSession], clinician: User, alice: Member
):
    console = Console(log_in(clinician), alice)
    console.start()
    console.session.context.clear_cookies()
    console.press("down")
    # Sooner than the next call that keeps the token, which would notice it, too.
    expect(console.page.locator("#problem")).to_contain_text("logged out", timeout=KEEP_EVERY_S * 1000 / 2)
    expect(console.page.get_by_role("button", name="Start")).to_be_enabled()


def test_axe_finds_nothing(console: Console, sandbox: SandboxProcess, server: ServerProcess):
    inspection = Inspection(console.page)
    inspection.look_at("before the start")
    console.start()
    console.press("down")
    console.say("Your tea is on the table.")
    console.expect_state("played")
    inspection.look_at("after a fallback")
    console.press("off")
    Device.objects.consoles().update(revoked_at=timezone.now())
    expect(console.page.locator("#problem")).to_be_visible()
    inspection.look_at("with a problem")
    for name in ("patients", "log-in"):
        console.session.open(reverse(f"console:{name}"))
        inspection.look_at(name)
    assert inspection.found == [], "\n".join(inspection.found)
    wait_until_provider_healthy(server)


def test_the_page_of_a_patient_leads_to_the_console(log_in: Callable[..., BrowserSession], alice: Member):
    boss = log_in()
    boss.open(reverse("admin:patients_patient_change", args=[alice.patient.pk]))
    boss.page.get_by_role("link", name="Try in the browser").click()
    expect(boss.page.locator("h1")).to_have_text(f"Device console: {alice.patient}")
    boss.page.get_by_role("button", name="Log out")
    assert boss.problems == []
