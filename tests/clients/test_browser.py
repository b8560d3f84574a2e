"""examples/browser in Chromium, against a real server."""

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import chromium  # noqa: F401 - a fixture
from tests.browser.network import Network
from tests.conftest import Member
from tests.server import ROOT, ServerProcess
from tests.waiting import until
from tts.models import Utterance
from tts.outbox import store

# Keeps the loudest sample of all audio that was played to its end.
TAP = """
window.loudest = 0;
const start = AudioBufferSourceNode.prototype.start;
AudioBufferSourceNode.prototype.start = function (...at) {
    const samples = this.buffer.getChannelData(0);
    this.addEventListener("ended", () => {
        window.loudest = samples.reduce((loudest, sample) => Math.max(loudest, Math.abs(sample)), window.loudest);
    });
    return start.apply(this, at);
};
"""
LONG = "This is a long text, which needs some time. It is about the weather, the garden, and what there is for lunch. "


# A device that receives the same delivery three times: while it plays the first one, and after it has played.
REPEATED = """async () => {
    const { Device } = await import("./device.js");
    const sent = [], heard = [];
    const device = new Device("", "", { onState() {}, onSpeech: (text) => heard.push(text) });
    await device.context.resume();
    device.socket = { readyState: WebSocket.OPEN, send: (frame) => sent.push(JSON.parse(frame)) };
    const deliver = () => {
        device.onMessage(JSON.stringify({ type: "speech.started", id: "srv-1", format: "pcm_24000" }));
        device.onMessage(new ArrayBuffer(48000));
        device.onMessage(JSON.stringify({ type: "speech.finished", id: "srv-1" }));
    };
    deliver();
    deliver();
    while (!heard.length) await new Promise((resolve) => setTimeout(resolve, 50));
    deliver();
    await new Promise((resolve) => setTimeout(resolve, 2000));
    clearTimeout(device.timer);
    return [sent, heard];
}"""


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def address() -> Iterator[str]:
    """The address of the page, which is not one of the server."""
    handler = partial(QuietHandler, directory=str(ROOT / "examples/browser"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as files:
        threading.Thread(target=files.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{files.server_port}/"
        files.shutdown()


@pytest.fixture
def page(chromium: Browser, address: str) -> Iterator[Page]:  # noqa: F811
    problems: list[str] = []
    page = chromium.new_page()
    page.add_init_script(TAP)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(address)
    yield page
    page.close()
    assert problems == []


def connect(page: Page, url: str, token: str) -> None:
    page.get_by_label("Address").fill(url)
    page.get_by_label("Device token").fill(token)
    page.get_by_role("button", name="Connect").click()


def speak(page: Page, text: str) -> None:
    page.get_by_label("Text").fill(text)
    page.get_by_role("button", name="Speak").click()


@pytest.mark.django_db(transaction=True)
def test_a_text_is_heard_and_a_delivery_is_acknowledged(page: Page, server: ServerProcess, alice: Member):
    connect(page, server.ws, alice.token)
    expect(page.get_by_role("status")).to_contain_text("is here, in the voice", timeout=60_000)
    speak(page, "Good morning.")
    expect(page.locator("#log li").first).to_contain_text("Heard: ", timeout=60_000)
    assert page.evaluate("window.loudest") > 0.02
    row = store.submit(alice.patient.pk, "Your daughter comes.", expires_in_s=900, author=None)
    until(lambda: Utterance.objects.get(pk=row.pk).heard_at is not None, 60)


def test_a_delivery_that_comes_again_is_heard_once(page: Page):
    page.get_by_role("heading").first.click()  # a browser plays sound only after a click
    sent, heard = page.evaluate(REPEATED)
    assert heard == ["Heard: 1.0 s"]
    assert sent == [{"type": "ack", "id": "srv-1"}] * 2


@pytest.mark.django_db(transaction=True)
def test_a_loss_in_the_middle_of_a_speech(page: Page, server: ServerProcess, alice: Member):
    with Network(server.port) as network:
        connect(page, network.url.replace("http:", "ws:") + "/ws/device/", alice.token)
        expect(page.get_by_role("status")).to_contain_text("is here", timeout=60_000)
        speak(page, LONG * 3)
        page.wait_for_function("window.loudest > 0.02", timeout=60_000)
        network.cut()
        expect(page.get_by_role("status")).to_contain_text("Trying again", timeout=60_000)
        network.restore()
        expect(page.get_by_role("status")).to_contain_text("is here", timeout=60_000)
        speak(page, "I am back.")
        page.get_by_role("button", name="Interrupt").click()


@pytest.mark.django_db(transaction=True)
def test_a_refused_token_is_shown_with_its_reason(page: Page, server: ServerProcess, alice: Member):
    connect(page, server.ws, "wrong")
    expect(page.get_by_role("status")).to_contain_text("A person has to look at this device. unknown_token: ")
