"""The page that makes a voice clone in Chromium: recorded with a microphone that plays a file, or dropped as a file."""

import base64
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from django.contrib.auth.models import User
from django.urls import reverse
from playwright.sync_api import Browser, Page, expect
from pytest_django import Settings

from cloning.jobs import runner
from cloning.models import CloneJob, sample_storage
from cloning.samples.decoding import decode
from tests.browser.chromium import BINARIES, FLAGS, launched
from tests.browser.conftest import BrowserSession
from tests.browser.test_accessibility import Inspection
from tests.cloning.samples.recordings import RATE, encoded, mixed, speech, white
from tests.conftest import Member
from tests.sandbox import SandboxProcess
from tests.server import ServerProcess
from voicecare.infrastructure.storages import private_file_storage
from voicecare.patients.models import Patient, Voice

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(400)]

MICROPHONE = {"permissions": ["microphone"]}
INSPECTED_MS, RECORDED_MS = 60_000, 150_000  # on a busy machine
BAD_REQUEST = "400 (Bad Request)"  # the browser itself writes it to the console
# A real drop has files in its DataTransfer. A script may create one, but may not choose a file of the disk.
DROP = """async ([name, size, base64]) => {
    const bytes = base64 ? Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0)) : new Uint8Array(size);
    const dataTransfer = new DataTransfer();
    dataTransfer.items.add(new File([bytes], name));
    const card = document.getElementById("recording-card");
    for (const type of ["dragenter", "dragover", "drop"]) {
        card.dispatchEvent(new DragEvent(type, { dataTransfer, bubbles: true, cancelable: true }));
    }
}"""
LOUDNESS = """async (id) => {
    const reply = await fetch(document.getElementById(id).src);
    const sound = await new OfflineAudioContext(1, 1, 44100).decodeAudioData(await reply.arrayBuffer());
    const samples = sound.getChannelData(0);
    return Math.sqrt(samples.reduce((sum, sample) => sum + sample * sample, 0) / samples.length);
}"""


@pytest.fixture
def clinician(alice: Member) -> User:
    user = User.objects.create_user("clinician")
    user.patients.add(alice.patient)  # type: ignore[attr-defined]
    return user


@pytest.fixture(scope="module")
def spoken() -> Iterator[Path]:
    """A minute of somebody who reads, in a quiet room. Chromium plays it again and again."""
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        file.write(encoded(speech(61) + 10 ** (-70 / 20) * white(61 * RATE), "pcm_s16le"))
        file.flush()
        yield Path(file.name)


@pytest.fixture(scope="module")
def two_people() -> bytes:
    """Two people who read in turn."""
    first, second = speech(64, variant="f2"), speech(64, variant="m3")
    turns = np.where(np.arange(64 * RATE) // (8 * RATE) % 2 == 0, first, second)
    return encoded(turns, "libmp3lame", bit_rate=96_000)


# The sounds come first: while a browser runs, no other event loop can run in this thread.
@pytest.fixture(scope="module")
def chromium(spoken: Path, two_people: bytes) -> Iterator[Browser]:
    """A browser whose microphone plays the file."""
    with launched("--use-fake-device-for-media-stream", f"--use-file-for-fake-audio-capture={spoken}") as browser:
        yield browser


@pytest.fixture
def shared_samples(server: ServerProcess, sandbox: SandboxProcess, settings: Settings) -> None:
    """The recordings of the server, and the provider, so that this process can make the voice as a worker does."""
    settings.STORAGES = {**settings.STORAGES, "samples": private_file_storage(server.data_dir / "samples")}
    settings.ELEVENLABS_BASE_URL = sandbox.url


class ClonePage:
    """The page of a patient, and what a test does with it."""

    def __init__(self, session: BrowserSession, member: Member) -> None:
        self.session, self.page, self.member = session, session.page, member
        session.open(reverse("console:clone", args=[member.patient.pk]))

    def press(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=True).click()

    def record(self) -> None:
        self.press("Record")
        expect(self.page.locator("#stop")).to_be_enabled()

    def choose(self, audio: bytes, name: str = "anna.mp3") -> None:
        self.page.get_by_label("Or drop a file here").set_input_files(
            {"name": name, "mimeType": "audio/mpeg", "buffer": audio}
        )

    @property
    def findings(self) -> list[str]:
        return self.page.locator("#findings li").all_inner_texts()

    def wait_for_the_check(self) -> None:
        expect(self.page.locator("#check-state")).to_have_text(re.compile("is good|can be used"), timeout=INSPECTED_MS)

    def fill_in(self) -> None:
        self.page.get_by_label("Whose voice it is").fill("Anna Archer")
        self.page.get_by_label("Name of the voice").fill("Anna, her daughter")
        self.page.get_by_label("This person has agreed").check()

    def expect_state(self, state: str) -> None:
        expect(self.page.locator("#state")).to_have_text(state, timeout=INSPECTED_MS)

    def expect_problem(self, text: str, at: str = "recording-problem") -> None:
        expect(self.page.locator(f"#{at}")).to_contain_text(text, timeout=INSPECTED_MS)

    @property
    def voice(self) -> Voice | None:
        return Patient.objects.get(pk=self.member.patient.pk).voice


@pytest.fixture
def clone_page(
    log_in: Callable[..., BrowserSession], clinician: User, alice: Member, phrases: None, shared_samples: None
) -> Iterator[ClonePage]:
    """The page, which has no console error and asks no other host."""
    session = log_in(clinician, **MICROPHONE)
    yield ClonePage(session, alice)
    assert [problem for problem in session.problems if BAD_REQUEST not in problem] == []


@pytest.fixture(scope="module")
def story() -> bytes:
    return encoded(speech(62), "libmp3lame")


def test_a_recorded_voice_is_made_heard_and_used(clone_page: ClonePage, alice: Member):
    page, before = clone_page.page, clone_page.voice
    clone_page.record()
    expect(page.locator("#time")).to_contain_text("s to go")
    page.wait_for_function("() => document.getElementById('level').value > 20")
    expect(page.locator("#time")).to_contain_text("long enough", timeout=RECORDED_MS)
    clone_page.press("Stop")
    clone_page.wait_for_the_check()
    assert clone_page.findings == []
    page.evaluate("() => document.getElementById('playback').play()")
    page.wait_for_function("() => document.getElementById('playback').currentTime > 0.2")
    clone_page.fill_in()
    clone_page.press("Make the voice")
    clone_page.expect_state("Waiting")
    job = CloneJob.objects.get()
    assert (job.patient, job.name, job.consent_by, job.use_when_ready) == (
        alice.patient,
        "Anna, her daughter",
        "Anna Archer",
        False,
    )
    with job.open_sample() as stored:
        sample = decode(stored.read())
    assert (sample.codec, sample.sample_rate_hz, sample.channels) == ("pcm_s16le", 44100, 1)
    assert 60 <= sample.duration_s < 110
    assert sample.clipping_ratio == 0
    runner.run(job.pk)
    clone_page.expect_state("Ready")
    expect(page.locator("#report-list")).to_contain_text("The room was quiet")
    assert clone_page.voice == before
    for player in ("new-voice", "current-voice"):
        assert page.evaluate(LOUDNESS, player) > 0.01
    page.reload()  # the page goes on where it was
    clone_page.expect_state("Ready")
    page.evaluate("() => document.getElementById('new-voice').play()")
    page.wait_for_function("() => document.getElementById('new-voice').currentTime > 0.2")
    clone_page.press("Use the new voice")
    clone_page.expect_state("In use")
    job.refresh_from_db()
    assert clone_page.voice == job.voice
    clone_page.press("Back to the previous voice")
    clone_page.expect_state("Not in use")
    assert clone_page.voice == before


def test_the_old_voice_is_kept_and_the_recording_deleted(clone_page: ClonePage, story: bytes):
    page, before = clone_page.page, clone_page.voice
    clone_page.choose(story)
    clone_page.wait_for_the_check()
    clone_page.fill_in()
    clone_page.press("Make the voice")
    clone_page.expect_state("Waiting")
    job = CloneJob.objects.get()
    runner.run(job.pk)
    clone_page.expect_state("Ready")
    clone_page.press("Keep the current voice …")
    clone_page.press("Cancel")
    clone_page.expect_state("Ready")
    clone_page.press("Keep the current voice …")
    clone_page.press("Delete the new voice")
    clone_page.expect_state("Deleted")
    job.refresh_from_db()
    assert (job.status, clone_page.voice) == ("withdrawing", before)
    clone_page.press("Try again with another recording")
    expect(page.get_by_role("button", name="Record")).to_be_focused()


def test_a_failed_clone_says_why_and_is_retried(clone_page: ClonePage, story: bytes, sandbox: SandboxProcess):
    clone_page.choose(story)
    clone_page.fill_in()
    clone_page.press("Make the voice")
    clone_page.expect_state("Waiting")
    job = CloneJob.objects.get()
    sample_storage().delete(job.sample)
    runner.run(job.pk)
    clone_page.expect_state("Failed")
    expect(clone_page.page.locator("#state-detail")).to_contain_text("ecording")
    clone_page.press("Retry")
    clone_page.expect_state("Waiting")


def test_noise_removal_is_offered_for_a_noisy_recording_only(clone_page: ClonePage, story: bytes):
    page = clone_page.page
    noise = page.get_by_label("Remove the background noise")
    clone_page.choose(story)
    clone_page.wait_for_the_check()
    expect(noise).to_be_hidden()
    clone_page.choose(encoded(mixed(speech(62), white(62 * RATE), 15), "libmp3lame", bit_rate=128_000))
    expect(noise).to_be_visible(timeout=INSPECTED_MS)
    assert any("noise in the background" in text for text in clone_page.findings)
    noise.check()
    clone_page.fill_in()
    clone_page.press("Make the voice")
    clone_page.expect_state("Waiting")
    assert CloneJob.objects.get().remove_background_noise


def test_a_quiet_recording_with_silence_is_repaired_and_the_report_says_so(clone_page: ClonePage):
    quiet = np.concatenate([0.05 * speech(64), np.zeros(20 * RATE)])
    clone_page.choose(encoded(quiet, "libmp3lame", bit_rate=96_000))
    clone_page.wait_for_the_check()
    assert [text.split(":")[0] for text in clone_page.findings] == ["Will be repaired"] * 2
    clone_page.fill_in()
    clone_page.press("Make the voice")
    report = clone_page.page.locator("#report-list")
    expect(report).to_contain_text("Its level was raised", timeout=INSPECTED_MS)
    expect(report).to_contain_text("seconds of silence after the last word were cut off")


def test_a_dropped_file_is_taken(clone_page: ClonePage, story: bytes):
    clone_page.page.evaluate(DROP, ["anna.mp3", 0, base64.b64encode(story).decode()])
    clone_page.wait_for_the_check()
    expect(clone_page.page.locator("#playback")).to_have_attribute("src", re.compile("^blob:"))


def test_a_file_of_200_mb_is_refused_before_it_is_sent(clone_page: ClonePage):
    requests: list[str] = []
    clone_page.page.on("request", lambda request: requests.append(request.method))
    clone_page.page.evaluate(DROP, ["long.wav", 200_000_000, ""])
    clone_page.expect_problem("This file has 200 MB, and at most 10 MB can be sent")
    clone_page.press("Make the voice")
    clone_page.expect_problem("Record the voice, or choose a file, first", "form-problem")
    assert "POST" not in requests


def test_a_recording_of_seconds_is_refused_in_the_page(clone_page: ClonePage):
    clone_page.record()
    clone_page.page.wait_for_function("() => parseInt(document.getElementById('time').textContent) >= 2")
    clone_page.press("Stop")
    clone_page.expect_problem("At least 60 seconds are needed")
    expect(clone_page.page.locator("#playback")).to_be_visible()


def test_a_bad_file_is_refused_with_advice(clone_page: ClonePage):
    clone_page.choose(b"This is a letter to my daughter. " * 100, "letter.mp3")
    clone_page.expect_problem("This is not a recording in a supported format")
    clone_page.choose(encoded(0.001 * white(62 * RATE), "libmp3lame"), "nothing.mp3")
    clone_page.expect_problem("seconds of speech were found")
    assert CloneJob.objects.count() == 0


def test_a_second_person_is_noticed(clone_page: ClonePage, two_people: bytes):
    clone_page.choose(two_people)
    clone_page.expect_problem("More than one person seems to speak")


def test_without_consent_nothing_is_sent(clone_page: ClonePage, story: bytes):
    clone_page.choose(story)
    clone_page.wait_for_the_check()
    for label, words in (
        ("Whose voice it is", "Enter whose voice it is"),
        ("Name of the voice", "Enter a name"),
        ("This person has agreed", "Confirm that the person who speaks has agreed"),
    ):
        clone_page.press("Make the voice")
        clone_page.expect_problem(words, "form-problem")
        field = clone_page.page.get_by_label(label)
        expect(field).to_be_focused()
        if "agreed" not in label:
            field.fill("Anna Archer")
    assert CloneJob.objects.count() == 0


def test_a_session_that_has_ended_leads_to_the_log_in(clone_page: ClonePage, story: bytes):
    clone_page.choose(story)
    clone_page.wait_for_the_check()
    clone_page.fill_in()
    clone_page.session.context.clear_cookies()
    clone_page.press("Make the voice")
    clone_page.expect_problem("You are logged out", "form-problem")
    clone_page.session.problems[:] = [text for text in clone_page.session.problems if "403" not in text]


def test_a_refused_microphone(log_in: Callable[..., BrowserSession], clinician: User, alice: Member):
    clone_page = ClonePage(log_in(clinician, permissions=[]), alice)
    clone_page.press("Record")
    clone_page.expect_problem("The microphone is not allowed for this page")
    expect(clone_page.page.get_by_role("button", name="Record")).to_be_enabled()
    assert clone_page.session.problems == []


def test_no_microphone(log_in: Callable[..., BrowserSession], clinician: User, alice: Member, chromium: Browser):
    """A browser without the device of the other tests, on a machine without a microphone."""
    session = log_in(clinician)
    with chromium.browser_type.launch(
        executable_path=next(filter(None, map(shutil.which, BINARIES))), args=FLAGS
    ) as browser:
        context = browser.new_context(storage_state=session.context.storage_state(), permissions=["microphone"])
        page = context.new_page()
        page.goto(session.server.url + reverse("console:clone", args=[alice.patient.pk]))
        page.get_by_role("button", name="Record").click()
        expect(page.locator("#recording-problem")).to_contain_text("No microphone was found")


def test_a_page_that_is_not_secure(log_in: Callable[..., BrowserSession], clinician: User, alice: Member):
    session = log_in(clinician, **MICROPHONE)
    session.page.add_init_script("Object.defineProperty(window, 'isSecureContext', { value: false });")
    clone_page = ClonePage(session, alice)
    clone_page.press("Record")
    clone_page.expect_problem("Open this page with https")
    assert session.problems == []


def test_the_keyboard_is_enough(clone_page: ClonePage):
    page = clone_page.page
    page.get_by_role("button", name="Record").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Stop")).to_be_focused()
    page.keyboard.press("Space")
    expect(page.get_by_role("button", name="Record")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_label("Or drop a file here")).to_be_focused()


def test_axe_finds_nothing_and_a_phone_needs_no_sideways_scrolling(clone_page: ClonePage, story: bytes):
    page: Page = clone_page.page
    inspection = Inspection(page)
    inspection.look_at("before the recording")
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 390
    clone_page.record()
    inspection.look_at("while recording")
    clone_page.press("Stop")
    clone_page.expect_problem("At least 60 seconds are needed")
    clone_page.press("Make the voice")
    inspection.look_at("with problems")
    clone_page.choose(story)
    clone_page.wait_for_the_check()
    clone_page.fill_in()
    clone_page.press("Make the voice")
    clone_page.expect_state("Waiting")
    runner.run(CloneJob.objects.get().pk)
    clone_page.expect_state("Ready")
    inspection.look_at("ready")
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 390
    clone_page.press("Keep the current voice …")
    inspection.look_at("the question")
    page.keyboard.press("Escape")
    clone_page.press("Use the new voice")
    clone_page.expect_state("In use")
    inspection.look_at("in use")
    clone_page.session.open(reverse("console:clone-patients"))
    inspection.look_at("patients")
    assert inspection.found == [], "\n".join(inspection.found)
